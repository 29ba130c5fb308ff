"""One training step in seven ways: ordinary, ours with and without privacy, and Opacus'.

Every contender has modules and factors of its own on the same frozen weights, takes the same batch
and ends with the same AdamW. Private ones clip to 1, add noise of deviation 1 and divide by the
number of units; ours does so through the privacy core, ledger charge included.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wardround.client.engine import FusedEngine
from wardround.privacy.events import Event
from wardround.privacy.ledger import Charge, Ledger
from wardround.privacy.plan import PrivacyPlan
from wardround.privacy.signing import SigningKey
from wardround.privacy.stream import SecureStream
from wardround.privacy.units import Unit
from wardround.study.bench.shapes import Subject, row_losses

Step = Callable[[], None]

STEPS = 1_000_000  # charged at once, before any clock runs
CLIP_NORM = 1.0
NOISE_MULTIPLIER = 1.0


def stock(subject: Subject, _: Path) -> Step:
    """An ordinary step of PEFT and autograd, without privacy."""
    optimizer = _adamw(subject)

    def step() -> None:
        optimizer.zero_grad()
        subject.losses().mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def fused(subject: Subject, _: Path) -> Step:
    """The fused forward and backward pass with summed gradients, without privacy."""
    optimizer = _adamw(subject)
    engine = FusedEngine(subject.trainable).__enter__()

    def step() -> None:
        total = engine.total(subject.losses)
        for name, parameter in subject.trainable.parameters.items():
            parameter.grad = total[name] / subject.rows
        optimizer.step()

    return step


def private(subject: Subject, folder: Path) -> Step:
    """Our private step, one unit a row."""
    units = subject.rows
    return _private(subject, folder, torch.arange(units), units, subject.losses, Unit.RECORD)


def private_patient(subject: Subject, folder: Path) -> Step:
    """Our private step, about three rows a patient, in mixed order."""
    patients = max(1, subject.rows // 3)
    unit_of_row = torch.arange(subject.rows) % patients
    index = unit_of_row.to(subject.ids.device)

    def losses() -> Tensor:
        rows = subject.losses()
        return rows.new_zeros(patients).index_add(0, index, rows)

    return _private(subject, folder, unit_of_row, patients, losses, Unit.PATIENT)


def _private(
    subject: Subject,
    folder: Path,
    unit_of_row: Tensor,
    units: int,
    losses: Callable[[], Tensor],
    unit: Unit,
) -> Step:
    """Gradients a unit, clip, sum, noise, step."""
    plan = PrivacyPlan(unit, CLIP_NORM, NOISE_MULTIPLIER, 0.1, STEPS, float(units))
    reservation = _ledger(folder).reserve(_charge(plan.event, unit))
    stream = SecureStream.from_os()
    optimizer = _adamw(subject)
    engine = FusedEngine(subject.trainable).__enter__()

    def step() -> None:
        total = plan.clipped_sum(subject.trainable.shapes)
        total.add(engine.gradients(losses, unit_of_row, units), range(units))
        noised = plan.privatise(total.close(), reservation, stream)
        for name, parameter in subject.trainable.parameters.items():
            parameter.grad = noised.value[name].to(parameter)
        optimizer.step()

    return step


def opacus_hooks(subject: Subject, _: Path) -> Step:
    """Opacus' default: hooks with a gradient sampler a layer type."""
    return _opacus(subject, force_functorch=False)


def opacus_functorch(subject: Subject, _: Path) -> Step:
    """Opacus with ``torch.func`` in every layer."""
    return _opacus(subject, force_functorch=True)


def _opacus(subject: Subject, *, force_functorch: bool) -> Step:
    """Opacus' gradients a row, its clipping and its noise."""
    from opacus import GradSampleModule
    from opacus.optimizers import DPOptimizer

    model = GradSampleModule(
        subject.trainable.model, loss_reduction="mean", force_functorch=force_functorch
    )
    optimizer = DPOptimizer(_adamw(subject), **_opacus_noise(subject))

    def step() -> None:
        optimizer.zero_grad()
        subject.losses(model).mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def opacus_ghost(subject: Subject, _: Path) -> Step:
    """Opacus' ghost clipping: norms first, then a second backward pass."""
    from opacus.grad_sample import GradSampleModuleFastGradientClipping
    from opacus.optimizers import DPOptimizerFastGradientClipping
    from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping

    model = GradSampleModuleFastGradientClipping(
        subject.trainable.model,
        loss_reduction="mean",
        max_grad_norm=CLIP_NORM,
        use_ghost_clipping=True,
    )
    optimizer = DPOptimizerFastGradientClipping(_adamw(subject), **_opacus_noise(subject))
    criterion = DPLossFastGradientClipping(model, optimizer, _Criterion(), "mean")

    def step() -> None:
        optimizer.zero_grad()
        logits = model(input_ids=subject.ids, use_cache=False).logits
        criterion(logits, subject.ids).backward()
        optimizer.step()

    return step


class _Criterion:
    """A loss in the form ghost clipping asks for; it sets ``reduction`` to none by itself."""

    reduction = "mean"

    def __call__(self, logits: Tensor, ids: Tensor) -> Tensor:
        rows = row_losses(logits, ids)
        return rows if self.reduction == "none" else rows.mean()


CONTENDERS: dict[str, Callable[[Subject, Path], Step]] = {
    "stock": stock,
    "fused": fused,
    "private": private,
    "private_patient": private_patient,
    "opacus_hooks": opacus_hooks,
    "opacus_functorch": opacus_functorch,
    "opacus_ghost": opacus_ghost,
}


def _adamw(subject: Subject) -> torch.optim.Optimizer:
    """The optimizer all contenders end with; so slow that no weight drifts."""
    return torch.optim.AdamW(subject.trainable.parameters.values(), lr=1e-6)


def _opacus_noise(subject: Subject) -> dict[str, Any]:
    """The same clipping and noise in Opacus' words."""
    return {
        "noise_multiplier": NOISE_MULTIPLIER,
        "max_grad_norm": CLIP_NORM,
        "expected_batch_size": subject.rows,
    }


def _ledger(folder: Path) -> Ledger:
    """A throw-away ledger for made-up data."""
    return Ledger(folder, SigningKey.generate())


def _charge(event: Event, unit: Unit) -> Charge:
    """All steps at once."""
    return Charge("bench", "bench", 1, "0" * 64, "made-up rows", unit, event)
