"""Losses and likelihoods against TRL's own trainer, where that is installed.

TRL is no dependency of ours: ``pip install trl==1.16.0`` beside the project runs these tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from wardround.client.lora import AdapterConfig, attach_lora, save_adapter
from wardround.client.tasks.preference.likelihood import log_likelihoods
from wardround.client.tasks.preference.losses import PAIR_LOSSES, Likelihoods, LossSettings
from wardround.client.tasks.rows import IGNORED

pytest.importorskip("trl", reason="TRL is not installed; it is an oracle, not a dependency")
pytestmark = pytest.mark.filterwarnings("ignore")  # another project's

PAIRS = [
    {"prompt": "I cough.", "chosen": " Honey helps.", "rejected": " No."},
    {"prompt": "My head", "chosen": " Rest in a dark room.", "rejected": " x"},
    {"prompt": "When", "chosen": " Never", "rejected": " On Monday, and then again on Tuesday"},
]
# TRL's name, ours, and what else both are told. TRL's `sigmoid` takes no label smoothing.
LOSSES = (
    ("sigmoid", "dpo", 0.0),
    ("sigmoid_norm", "dpo-normalised", 0.0),
    ("hinge", "hinge", 0.0),
    ("ipo", "ipo-normalised", 0.0),
    ("nca_pair", "nca", 0.0),
    ("sppo_hard", "sppo", 0.0),
    ("apo_zero", "apo-zero", 0.0),
    ("apo_down", "apo-down", 0.0),
    ("robust", "robust", 0.1),
    ("exo_pair", "exo", 0.1),
    ("discopop", "discopop", 0.0),
)


@pytest.fixture
def models(case: Any) -> tuple[Any, Any]:
    """One tiny Llama and another of the same shape, in float64."""
    one, other = case("preference").model(), case("preference").model()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return one.requires_grad_(True), other


@pytest.fixture
def trainer(case: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Makes TRL's trainer for one of its losses."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def make(loss: str, smoothing: float, model: Any, reference: Any, **more: Any) -> Any:
        config = DPOConfig(
            output_dir=str(tmp_path),
            loss_type=[loss],
            label_smoothing=smoothing,
            beta=0.3,
            per_device_train_batch_size=len(PAIRS),
            use_cpu=True,
            bf16=False,
            report_to=[],
            gradient_checkpointing=False,
            dataset_num_proc=None,
        )
        return DPOTrainer(
            model=model,
            ref_model=reference,
            args=config,
            train_dataset=Dataset.from_list(PAIRS),
            processing_class=case("preference").tokenizer,
            **more,
        )

    with torch.random.fork_rng(devices=[]):
        yield make


def batch_of(trainer: Any) -> dict[str, Tensor]:
    """TRL's rows: all chosen, then all rejected."""
    batch: dict[str, Tensor] = next(iter(trainer.get_train_dataloader()))
    return batch


def sums(model: Any, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Our log-likelihoods of TRL's rows."""
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, IGNORED)
    with torch.no_grad():
        return log_likelihoods(model, {**batch, "labels": labels})


@pytest.mark.parametrize(("theirs", "ours", "smoothing"), LOSSES)
def test_losses_equal_trls(
    theirs: str, ours: str, smoothing: float, trainer: Any, models: tuple[Any, Any]
) -> None:
    policy, reference = models
    made = trainer(theirs, smoothing, policy, reference)
    batch = batch_of(made)
    expected = float(made.compute_loss(made.model, dict(batch)).detach())
    (likely, tokens), (said, _) = sums(policy, batch), sums(reference, batch)
    parts = [part.chunk(2) for part in (likely, said, tokens)]
    pairs = Likelihoods(*parts[0], *parts[1], *parts[2])
    loss = PAIR_LOSSES[ours](pairs, LossSettings(beta=0.3, label_smoothing=smoothing))
    # TRL reports the batch's mean; float32 somewhere in its fused head allows 1e-5.
    assert float(loss.mean()) == pytest.approx(expected, rel=1e-5)


def test_going_on_from_an_adapter_has_trls_reference(
    trainer: Any, models: tuple[Any, Any], tmp_path: Path
) -> None:
    """TRL keeps a frozen copy of an adapter that it goes on with; so do we (test_reference)."""
    from peft import PeftModel

    base = models[0].requires_grad_(False)
    config = AdapterConfig(("mlp.down_proj",), rank=2)
    attached = attach_lora(base, config, torch.Generator().manual_seed(1))
    values = {name: value + 0.2 for name, value in attached.read().items()}
    save_adapter(attached, config, values, "tiny", tmp_path / "sft", "A test's.")
    attached.detach()
    policy = PeftModel.from_pretrained(base, tmp_path / "sft", is_trainable=True)
    made = trainer("sigmoid", 0.0, policy, None)
    # Policy and reference are one at the start: ln 2, and not what the bare base would give.
    loss = float(made.compute_loss(made.model, batch_of(made)).detach())
    assert loss == pytest.approx(0.6931472, abs=1e-5)
