"""A hospital's part of a secure sum: the change of a round as whole steps of a common lattice.

With local noise the change is made as ever and rounded, which is post-processing. With distributed
noise what leaves is linear in the data and the noise, a clipped sum plus one share; whatever makes
it a change (learning rate, public denominator) is a factor that all hospitals have in common.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from wardround.client.gradients import clipped_sum
from wardround.client.optimizers import Descent, Moments, Optimizer
from wardround.client.training import Round, TrainingConfig, train_round, whole_change
from wardround.privacy.distributed import add_share, share_lattice
from wardround.privacy.errors import PolicyRefused
from wardround.privacy.noise import Noised
from wardround.privacy.plan import Mechanism, Mode, RoundPlan, SecureSum
from wardround.privacy.secagg.lattice import lattice_for
from wardround.privacy.tables import from_table

Arrays = Mapping[str, Tensor]


@dataclass(frozen=True)
class Part:
    """What one hospital adds to a secure sum.

    Attributes:
        steps: The change in whole steps, int64 by wire name, noised.
        moments: What the optimizer would go on with, where it keeps any; stays.
    """

    steps: Noised
    moments: Moments | None


def check_secure(plan: RoundPlan, training: TrainingConfig, corrections: Arrays) -> None:
    """Refuse, before anything is charged, an update that would not add up in a secure sum.

    Raises:
        PolicyRefused: Saying what does not fit; depends on public things alone.
    """
    if plan.secure is None or plan.privacy.mode is not Mode.DISTRIBUTED:
        return
    if training.keep_state:
        raise PolicyRefused("keep_state is on; with distributed noise a hospital has no moments")
    if plan.privacy.mechanism is not Mechanism.DP_SGD:
        return
    if training.optimizer is not Optimizer.SGD or training.weight_decay:
        raise PolicyRefused(
            f"optimizer is {training.optimizer.value!r}, weight_decay {training.weight_decay:g}; "
            "shares of noise on gradients add up under 'sgd' without weight_decay only"
        )
    if plan.turns or corrections:
        raise PolicyRefused(
            "arrays move in turn or are corrected; shares of noise are added to bare gradients of "
            "all of them"
        )


def make_part(round_: Round, arrays: Arrays, secure: SecureSum) -> Part:
    """One round's change as this hospital's part of the sum.

    Privacy: costs the plan's event, under what ``add_share`` says where noise is distributed.
    """
    plan, workload = round_.plan, round_.workload
    if plan.mode is not Mode.DISTRIBUTED:
        lattice = lattice_for(secure.largest, secure.bits, secure.hospitals)
        trained = train_round(round_, arrays)
        return Part(trained.change.then(lattice.round), trained.moments)
    size = sum(array.numel() for array in arrays.values())
    shares = share_lattice(plan, size, secure.hospitals, secure.bits)
    workload.trainable.write(arrays)
    if plan.mechanism is Mechanism.WHOLE_UPDATE:
        descent = Descent(round_.training, workload.trainable.parameters)
        clipped, _ = whole_change(round_, arrays, descent)
    else:
        with workload.engine:
            clipped = clipped_sum(workload, round_.draw(1), plan, round_.micro_batch)
        round_.on_step(1, 1)
    noised = add_share(clipped, plan, shares, round_.reservation, round_.stream)
    return Part(noised, None)


def scale_of(plan: RoundPlan, size: int) -> float:
    """What one step is worth in the change; follows from the plan, so both ends know it.

    Args:
        plan: A plan with a secure sum.
        size: Numbers in an update.

    Raises:
        BadInput: The training settings cannot be used.
        PolicyRefused: The noise does not fit into the words.
    """
    secure, privacy = plan.secure, plan.privacy
    if secure is None:
        raise ValueError("the plan has no secure sum")
    if privacy.mode is not Mode.DISTRIBUTED:
        return lattice_for(secure.largest, secure.bits, secure.hospitals).step
    step = share_lattice(privacy, size, secure.hospitals, secure.bits).step
    if privacy.mechanism is Mechanism.WHOLE_UPDATE:
        return step
    training = from_table(TrainingConfig, plan.training, "plan training")
    factor = training.schedule.factor(plan.round, plan.rounds, 1, privacy.steps)
    return -step * training.learning_rate * factor / privacy.expected_units


def fit_lattice(plan: RoundPlan, size: int) -> None:
    """Refuse, before anything is charged, noise that does not fit into the words of the sum."""
    if plan.secure is not None and plan.privacy.mode is Mode.DISTRIBUTED:
        share_lattice(plan.privacy, size, plan.secure.hospitals, plan.secure.bits)
