"""What tuning is compared with: the base, an adapter tuning starts from, or what was recorded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from wardround.client.engine import choose_engine
from wardround.client.layers import background
from wardround.client.lora import AdapterConfig, attach_lora, save_adapter
from wardround.client.tasks.base import Precomputes, Record
from wardround.client.tasks.preference.formats import read_judged
from wardround.client.tasks.preference.records import Judged
from wardround.client.tasks.preference.reference import ReferenceSettings, as_reference
from wardround.client.tasks.preference.task import PreferenceTask
from wardround.client.trainable import Trainable
from wardround.privacy import Unit
from wardround.privacy.errors import BadInput, BadMessage

ADAPTER: dict[str, Any] = {
    "targets": ["mlp.down_proj", "self_attn.q_proj"],
    "rank": 2,
    "alpha": 4.0,
}
IDS = torch.tensor([[5, 9, 11, 30, 2]])


@pytest.fixture
def base(case: Any) -> nn.Module:
    """The contract suite's two layers in float64, bare."""
    model: nn.Module = case("preference").model()
    return model


@pytest.fixture
def tokenizer(case: Any) -> Any:
    return case("preference").tokenizer


def seeded(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def shaken(trainable: Trainable, seed: int) -> dict[str, torch.Tensor]:
    """Values as some training might have left them."""
    generator = seeded(seed)
    return {
        name: value + 0.3 * torch.randn(value.shape, generator=generator)
        for name, value in trainable.read().items()
    }


@contextmanager
def tuned_before(base: nn.Module, folder: Path, alpha: float = 4.0) -> Iterator[dict[str, Any]]:
    """An adapter on disk in PEFT's format, and the table that names it."""
    config = AdapterConfig.from_table({**ADAPTER, "alpha": alpha})
    trainable = attach_lora(base, config, seeded(1))
    save_adapter(trainable, config, shaken(trainable, 2), "tiny", folder / "sft", "A test's.")
    trainable.detach()
    path = folder / "sft" / "adapter_model.safetensors"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    yield {"adapter": str(folder / "sft"), "sha256": digest}


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS).logits
    return found


def units() -> list[list[Record]]:
    pairs = (("I cough.", "Honey helps.", "No."), ("My head", "Rest.", "x"), ("x", "Yes.", "Wait"))
    return [
        [Record(f"r{i}", {Unit.RECORD: f"r{i}"}, Judged(p, (good, bad), (1.0, 0.0)))]
        for i, (p, good, bad) in enumerate(pairs)
    ]


def losses(trainable: Trainable, tokenizer: Any, config: dict[str, Any]) -> torch.Tensor:
    task = PreferenceTask()
    return task.losses(trainable.model, task.collate(units(), tokenizer, config)).detach()


def test_the_switched_off_adapter_is_the_bare_base_to_the_last_bit(base: nn.Module) -> None:
    bare = logits(base)
    trainable = attach_lora(base, AdapterConfig.from_table(ADAPTER), seeded(0))
    trainable.write(shaken(trainable, 3))
    assert not torch.equal(logits(trainable.model), bare)
    with as_reference(trainable.model, ReferenceSettings()):
        assert torch.equal(logits(trainable.model), bare)


def test_tuning_goes_on_from_an_adapter_and_is_compared_with_it(
    base: nn.Module, tokenizer: Any, tmp_path: Path
) -> None:
    from peft import PeftModel

    bare = logits(base)
    with tuned_before(base, tmp_path) as named:
        config = {"reference": named, "loss": {"beta": 0.5}}
        trainable = PreferenceTask().adapt(base, None, ADAPTER, config, seeded(7))
        start = logits(trainable.model)
        # At the start every margin is nought: ln 2, whatever the adapter was taught before.
        ln2 = torch.full((3,), 2.0, dtype=torch.float64).log()
        assert torch.allclose(losses(trainable, tokenizer, config), ln2, atol=1e-12)
        # The broken twin takes the base, from which the policy has strayed already.
        twin = losses(trainable, tokenizer, {"loss": {"beta": 0.5}})
        assert float((twin - ln2).abs().max()) > 1e-2
        trainable.write(shaken(trainable, 4))
        with as_reference(trainable.model, ReferenceSettings(**named)):
            assert torch.equal(logits(trainable.model), start)
        trainable.detach()
        # PEFT's own loader is the oracle of what the reference says.
        loaded = PeftModel.from_pretrained(base, named["adapter"])
        assert torch.allclose(logits(loaded), start, atol=1e-9)
        loaded.unload()
    assert torch.equal(logits(base), bare)


def test_gradients_of_single_pairs_beside_a_frozen_adapter(
    base: nn.Module, tokenizer: Any, tmp_path: Path
) -> None:
    with tuned_before(base, tmp_path) as named:
        config = {"reference": named, "loss": {"beta": 0.5}}
        task = PreferenceTask()
        trainable = task.adapt(base, None, ADAPTER, config, seeded(7))
        trainable.write(shaken(trainable, 4))
        batch = task.collate(units(), tokenizer, config)
        with choose_engine(trainable) as engine:
            found = engine.gradients(
                lambda: task.losses(trainable.model, batch), batch.unit_of_row, batch.units
            )
        for place, unit in enumerate(units()):
            alone = task.losses(trainable.model, task.collate([unit], tokenizer, config))
            expected = torch.autograd.grad(alone.sum(), list(trainable.parameters.values()))
            for name, gradient in zip(trainable.parameters, expected, strict=True):
                assert torch.allclose(found[name][place].double(), gradient.double(), atol=1e-6)
        trainable.detach()


def test_a_background_does_not_reach_the_reference(
    base: nn.Module, tokenizer: Any, tmp_path: Path
) -> None:
    with tuned_before(base, tmp_path) as named:
        trainable = PreferenceTask().adapt(base, None, ADAPTER, {"reference": named}, seeded(7))
        start, model = logits(trainable.model), trainable.model
        path = next(name for name in trainable.parameters if "lora_A" in name)
        layer = path.removesuffix(".lora_A.weight")
        shapes = trainable.shapes
        behind = {
            f"{layer}.background_A.weight": torch.ones(1, shapes[path][1]),
            f"{layer}.background_B.weight": torch.ones(shapes[f"{layer}.lora_B.weight"][0], 1),
        }
        with background(model, behind):
            assert not torch.allclose(logits(model), start)
            with as_reference(model, ReferenceSettings(**named)):
                assert torch.equal(logits(model), start)
            assert not torch.allclose(logits(model), start)
        trainable.detach()


def test_recorded_likelihoods_are_what_the_reference_says(
    base: nn.Module, tokenizer: Any, tmp_path: Path
) -> None:
    task = PreferenceTask()
    assert isinstance(task, Precomputes)
    lines = [
        {"prompt": "I cough.", "chosen": "Honey helps.", "rejected": "No."},
        {"prompt": "My head", "replies": ["Rest.", "x", "Wait"], "ranking": [1, 0, 2]},
    ]
    raw = tmp_path / "raw.jsonl"
    raw.write_text("".join(json.dumps(line) + "\n" for line in lines))
    asked: dict[str, Any] = {"loss": {"beta": 0.5}}
    recorded = {**asked, "reference": {"recorded": True}}
    trainable = task.adapt(base, None, ADAPTER, asked, seeded(7))
    trainable.write(shaken(trainable, 4))
    assert task.precompute(trainable.model, tokenizer, raw, recorded, tmp_path / "with.jsonl") == 2
    with pytest.raises(BadInput, match="has no reference_logps"):
        task.load(raw, recorded)
    found = []
    for path, config in ((raw, asked), (tmp_path / "with.jsonl", recorded)):
        batch = task.collate([[record] for record in task.load(path, config)], tokenizer, config)
        found.append(task.losses(trainable.model, batch))
    # The file keeps float64 in full; sums of at most 64 float64 terms.
    assert torch.allclose(*found, atol=1e-12)
    trainable.detach()


def test_trls_names_of_recorded_likelihoods_are_read(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    line = {"prompt": "Q", "chosen": "a", "rejected": "b"}
    whole = {**line, "ref_chosen_logps": -1.5, "ref_rejected_logps": -2.0}
    path.write_text(json.dumps(whole) + "\n")
    assert read_judged(path)[0].content.reference == (-1.5, -2.0)
    for broken in (
        {**line, "ref_chosen_logps": -1.5},
        {**whole, "ref_chosen_logps": 0.5},
        {**line, "reference_logps": [-1.0, "x"]},
        {"prompt": "Q", "replies": ["a", "b"], "ratings": [1, 0], "reference_logps": [-1.0]},
    ):
        path.write_text(json.dumps(broken) + "\n")
        with pytest.raises(BadInput, match=r"pairs\.jsonl:1"):
            read_judged(path)


def test_an_adapter_that_does_not_fit_is_refused_and_leaves_the_base_bare(
    base: nn.Module, tmp_path: Path
) -> None:
    task, other = PreferenceTask(), "0" * 64
    with tuned_before(base, tmp_path) as named:
        gone = {"adapter": str(tmp_path / "nowhere"), "sha256": named["sha256"]}
        for table, adapter, what in (
            (named, {**ADAPTER, "rank": 3}, "has shape"),
            (named, {**ADAPTER, "alpha": 8.0}, r"is scaled by 2; \[adapter\] says 4"),
            (named, {**ADAPTER, "targets": ["mlp.down_proj"]}, "is unknown"),
            ({**named, "sha256": other}, ADAPTER, "holds no arrays with sha256 000000000000"),
            (gone, ADAPTER, "holds no arrays with sha256"),
        ):
            with pytest.raises(BadInput, match=what):
                task.adapt(base, None, adapter, {"reference": table}, seeded(0))
            assert not hasattr(base, "peft_config")
        wider = {**ADAPTER, "targets": [*ADAPTER["targets"], "self_attn.o_proj"]}
        half = attach_lora(base, AdapterConfig.from_table(wider), seeded(0))
        with (
            pytest.raises(BadMessage, match="leave a layer without"),
            as_reference(half.model, ReferenceSettings(**named)),
        ):
            pass
        half.detach()


@pytest.mark.parametrize(
    ("table", "what"),
    [
        ({"reference": {"adapter": "sft"}}, "go together"),
        ({"reference": {"adapter": "sft", "sha256": "12"}}, "64 hexadecimal"),
        (
            {
                "reference": {"recorded": True},
                "sampling": {"share": 0.5},
                "reward": {"per_word": 1.0},
            },
            "replies yet to be written have none",
        ),
    ],
)
def test_references_that_cannot_be_used_are_named(table: dict[str, Any], what: str) -> None:
    with pytest.raises(BadInput, match=what):
        PreferenceTask().check(table)
