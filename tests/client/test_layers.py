"""Backgrounds and cores of LoRA layers: exact, switched off with the adapter, gone afterwards."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from wardround.client.gradients import Workload
from wardround.client.layers import background
from wardround.client.lora import AdapterConfig
from wardround.client.workbench import Workbench
from wardround.privacy.errors import BadMessage
from wardround.strategies.factors import CORE, A, B, layers

ADAPTER = {"rank": 2, "alpha": 4, "targets": ["layers.6.mlp.down_proj", "layers.7.mlp.down_proj"]}


@pytest.fixture
def workbench() -> Iterator[Workbench]:
    with Workbench() as bench:
        yield bench


def prepared(workbench: Workbench, **adapter: Any) -> Workload:
    """The embedded base with factors that all matter."""
    from wardround.client.models import embedded_bases

    table = {**ADAPTER, **adapter}
    workload = workbench.prepare("drugs", embedded_bases()["drugs"], table, "editing", {})
    generator = torch.Generator().manual_seed(4)
    arrays = {
        name: 0.3 * torch.randn(shape, generator=generator)
        for name, shape in workload.trainable.shapes.items()
    }
    workload.trainable.write(arrays)
    return workload


def logits(workload: Workload) -> Tensor:
    """What the model says to a few tokens."""
    with torch.no_grad():
        said: Tensor = workload.trainable.model(input_ids=torch.arange(3, 13)[None]).logits
    return said


def behind(workload: Workload, rank: int = 3) -> dict[str, Tensor]:
    """A background of both layers."""
    generator = torch.Generator().manual_seed(6)
    arrays = {}
    for layer in layers(workload.trainable.shapes):  # type: ignore[arg-type]
        (m, _), (_, n) = (workload.trainable.shapes[layer + ending] for ending in (B, A))
        arrays[f"{layer}.background_B.weight"] = 0.2 * torch.randn(m, rank, generator=generator)
        arrays[f"{layer}.background_A.weight"] = 0.2 * torch.randn(rank, n, generator=generator)
    return arrays


def test_a_background_is_a_wider_adapter(workbench: Workbench) -> None:
    """The oracle is PEFT itself, with both products stacked into one adapter of rank 5."""
    workload = prepared(workbench)
    bare, arrays = logits(workload), behind(workload)
    own = workload.trainable.read()
    with background(workload.trainable.model, arrays):
        found = logits(workload)
    assert torch.equal(logits(workload), bare)
    wide = prepared(workbench, rank=5, alpha=10)
    stacked = {}
    for layer in layers(own):
        a, b = arrays[f"{layer}.background_A.weight"], arrays[f"{layer}.background_B.weight"]
        stacked[layer + A] = torch.cat([own[layer + A], a], 0)
        stacked[layer + B] = torch.cat([own[layer + B], b], 1)
    wide.trainable.write(stacked)
    # float32: sums of 344 products in another order
    torch.testing.assert_close(found, logits(wide), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, bare, atol=0.01)


def test_a_background_is_switched_off_with_the_adapter(workbench: Workbench) -> None:
    workload = prepared(workbench)
    model: Any = workload.trainable.model
    with model.disable_adapter():
        base = logits(workload)
    with background(model, behind(workload)), model.disable_adapter():
        assert torch.equal(logits(workload), base)


def gradients(workload: Workload, names: tuple[str, ...]) -> dict[str, Tensor]:
    """Per-unit gradients of made-up units through the engine."""
    batch = _batch(workload)
    losses = partial(workload.task.losses, workload.trainable.model, batch)
    with workload.only(names) as part, part.engine:
        return part.engine.gradients(losses, batch.unit_of_row, batch.units)


def _batch(workload: Workload) -> Any:
    """Four generated records, each its own unit."""
    with tempfile.TemporaryDirectory() as folder:
        dealt = workload.task.deal(None, Path(folder) / "d", 1, 3, GENERATED)
        records = list(workload.task.load(dealt.records[0], GENERATED))[:4]
    return workload.task.collate([[r] for r in records], workload.tokenizer, GENERATED)


GENERATED = {
    "generated": {
        "records_per_hospital": 60,
        "corroborated": 1,
        "corroborated_support": 8,
        "weak": 0,
        "single": 1,
        "filler_facts": 40,
        "random_probes": 1,
    }
}


@pytest.mark.parametrize("core", [False, True])
def test_gradients_with_background_and_core_are_autograd_s(
    workbench: Workbench, core: bool
) -> None:
    """The engine's per-unit gradients against autograd, one unit after the other."""
    workload = prepared(workbench, core=core)
    model, trainable = workload.trainable.model, workload.trainable
    names = tuple(n for n in trainable.shapes if n.endswith(CORE if core else B))
    assert len(names) == 2
    with background(model, {} if core else behind(workload)):
        found = gradients(workload, names)
        assert set(found) == set(names)
        batch = _batch(workload)
        losses = workload.task.losses(model, batch)
        for unit, loss in enumerate(losses):
            alone = torch.autograd.grad(
                loss, [trainable.parameters[n] for n in names], retain_graph=True
            )
            for name, wanted in zip(names, alone, strict=True):
                torch.testing.assert_close(found[name][unit], wanted, rtol=1e-4, atol=1e-5)


def test_a_core_of_ones_is_the_plain_adapter(workbench: Workbench) -> None:
    workload = prepared(workbench)
    own, plain = workload.trainable.read(), logits(workload)
    cored = prepared(workbench, core=True)
    arrays = {**own, **{layer + CORE: torch.eye(2) for layer in layers(own)}}
    cored.trainable.write(arrays)
    torch.testing.assert_close(logits(cored), plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda a: a.pop(next(iter(a))), "is no factor"),
        (lambda a: a.update({"x.background_A.weight": torch.ones(1, 1)}), "is no factor"),
        (lambda a: a.update(dict.fromkeys(a, torch.ones(3, 3))), "shapes"),
        (lambda a: a[next(iter(a))].fill_(float("nan")), "not finite"),
    ],
)
def test_a_background_that_does_not_fit_changes_nothing(
    workbench: Workbench, change: Any, says: str
) -> None:
    workload = prepared(workbench)
    arrays, before = behind(workload), logits(workload)
    change(arrays)
    with pytest.raises(BadMessage, match=says), background(workload.trainable.model, arrays):
        pass
    assert torch.equal(logits(workload), before)


def test_another_rank_is_scaled_alike() -> None:
    """PEFT multiplies by alpha / rank, or by alpha / sqrt(rank)."""
    config = AdapterConfig(("x",), rank=16, alpha=32.0)
    assert config.at_rank(4).alpha / 4 == config.alpha / 16
    rooted = AdapterConfig(("x",), rank=16, alpha=32.0, use_rslora=True)
    assert rooted.at_rank(4).alpha / 2 == rooted.alpha / 4
    with pytest.raises(ValueError, match="rank_pattern"):
        AdapterConfig(("x",), rank_pattern={"x": 2}).at_rank(4)
