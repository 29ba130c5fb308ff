"""How much of a hospital's change is noise: known beforehand where steps are linear in gradients.

The coordinator's optimiser divides by squares and has to take the noise out of them; the plan and
the training settings, both public, say how much there is. Adam divides by its own squares, so its
noise follows from the data and is not known. What noise in one step does to later gradients is left
out. Knows nothing of models or data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from wardround.client.optimizers import Optimizer
from wardround.client.schedules import Shape
from wardround.client.training import TrainingConfig
from wardround.privacy.plan import Mechanism, Mode, PrivacyPlan


def change_deviation(
    plan: PrivacyPlan, training: TrainingConfig, moves: Sequence[bool] | None = None
) -> float | None:
    """Standard deviation of the noise in every number of a round's change.

    Args:
        plan: Clip, noise and steps.
        training: How noised gradients become steps.
        moves: For arrays that do not move in every step: whether they move, step by step.

    Returns:
        None when it is not known: Adam at the hospital, a clip norm that follows the data, noise
        of earlier rounds in kept momentum, a learning rate that changes, or a secure sum.
    """
    if plan.mode is Mode.NONE:
        return 0.0
    if plan.mode is Mode.DISTRIBUTED:
        return None  # nobody sees a single change
    sensitivity = plan.clip_norm * plan.adjacency.displacement
    step = plan.effective_multiplier * sensitivity / plan.expected_units
    if plan.mechanism is Mechanism.WHOLE_UPDATE:
        return step
    if (
        plan.mechanism is not Mechanism.DP_SGD
        or plan.adaptive is not None
        or training.optimizer != Optimizer.SGD
        or (training.keep_state and training.momentum > 0)
        or training.schedule.shape is not Shape.CONSTANT
        or training.schedule.warmup > 0
    ):
        return None
    moved = sum(moves) if moves is not None else plan.steps
    return step * math.hypot(*_responses(training, moved))


def _responses(training: TrainingConfig, steps: int) -> list[float]:
    """How far a unit of noise in one step has moved a number after 1, 2, ..., ``steps`` steps.

    The noises of different steps are independent, so their variances add up.
    """
    pull = training.proximal_mu + training.weight_decay
    responses, position, velocity = [], 0.0, 0.0
    for step in range(steps):
        gradient = float(step == 0) + pull * position
        velocity = training.momentum * velocity + gradient
        position -= training.learning_rate * velocity
        responses.append(position)
    return responses
