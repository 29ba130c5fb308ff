"""A study's secure sums: what must hold before one starts, and what the coordinator is given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from wardround.client.optimizers import Optimizer
from wardround.client.shares import scale_of
from wardround.client.training import TrainingConfig
from wardround.privacy.errors import BadInput
from wardround.privacy.plan import Mechanism, Mode, SecureSum
from wardround.server.gathering import Gathering, RoundFailed
from wardround.server.secure_gathering import SecureGathering
from wardround.strategies.encoding import Encoding
from wardround.strategies.registry import find_listing, require_secure_aggregation
from wardround.study.config import Study


def check_secure_sums(study: Study, training: TrainingConfig) -> None:
    """Refuse a study whose updates cannot be summed unseen.

    Raises:
        BadInput: Naming table, field and reason.
    """
    privacy, where = study.privacy, str(study.path)
    if not privacy.secure_aggregation:
        return
    strategy = study.strategy
    require_secure_aggregation(strategy.name, f"{where} [strategy]")
    if strategy.encoding is not Encoding.FP32:
        raise BadInput(
            f"{where} [strategy] encoding is {strategy.encoding.value!r}; a secure sum has words "
            "of its own, see [privacy] word_bits"
        )
    try:
        privacy.secure_sum(study.hospitals.count)
    except ValueError as error:
        raise BadInput(f"{where} [privacy] {error}") from error
    shared = privacy.mode is Mode.DISTRIBUTED
    if shared and find_listing(strategy.name).traits.alternates == "steps":
        raise BadInput(
            f"{where} [strategy] name is {strategy.name!r}, which moves arrays in turn within a "
            "round; shares of noise go on all of them at once"
        )
    if shared and training.keep_state:
        raise BadInput(f"{where} [training] keep_state is on; with shares of noise nothing is kept")
    plain = training.optimizer is Optimizer.SGD and not training.weight_decay
    if shared and privacy.mechanism is Mechanism.DP_SGD and not plain:
        raise BadInput(
            f"{where} [training] optimizer is {training.optimizer.value!r}, weight_decay "
            f"{training.weight_decay:g}; with shares of noise on gradients it must be 'sgd' "
            "without weight_decay, because only then do the hospitals' noises add up"
        )


def plan_secure_sum(study: Study, hospitals: int) -> SecureSum | None:
    """What plans say of the secure sum when this many hospitals take part; None without one.

    Raises:
        RoundFailed: Too few take part for the study's threshold, or too many.
    """
    try:
        return study.privacy.secure_sum(hospitals)
    except ValueError as error:
        raise RoundFailed(f"{hospitals} hospitals answered; [privacy] {error}") from error


def counted_units(study: Study, declared: Mapping[str, int]) -> Mapping[str, int]:
    """The units each hospital's plan counts on: its own, or the mean where noise is shared.

    Shares of noise add up only under one denominator; the mean counts every unit of every hospital
    the same.
    """
    if study.privacy.mode is not Mode.DISTRIBUTED:
        return declared
    mean = -(-sum(declared.values()) // len(declared))
    return dict.fromkeys(declared, mean)


def secure_gathering(study: Study, run: Path) -> Gathering | None:
    """How the coordinator gathers updates; None for each by itself."""
    if not study.privacy.secure_aggregation:
        return None
    return SecureGathering(run / "secure-sums", scale_of)
