"""The study file: what a coordinator writes, checked before anything starts.

One frozen dataclass a table of ``study.toml``. Unknown keys are errors that suggest the nearest
known one; every error names file, field, value and bound.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from wardround.client.models import Loading
from wardround.privacy.adaptive import AdaptiveClip
from wardround.privacy.clipping import ClipRule
from wardround.privacy.errors import BadInput
from wardround.privacy.labels import keep_probability
from wardround.privacy.loss_report import LossReport
from wardround.privacy.mechanisms import LABEL_CLASSES
from wardround.privacy.plan import Mechanism, Mode, PrivacyPlan, SecureSum
from wardround.privacy.tables import from_table, read_toml, refuse_unknown
from wardround.privacy.units import Adjacency, Unit
from wardround.server.stopping import StopRule
from wardround.study.strategy_section import StrategySection

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


@dataclass(frozen=True)
class StudySection:
    """``[study]``: what is run and for how long.

    Attributes:
        name: Lower-case letters, digits and hyphens.
        task: Registered task name.
        rounds: How many rounds.
        seed: Public randomness only: initial adapter values and made-up data.
        evaluate_every: Rounds between two looks at the public probes; the last is always looked at.
    """

    name: str
    task: str
    rounds: int
    seed: int = 0
    evaluate_every: int = 5

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"name is {self.name!r}; expected lower-case letters, digits, hyphens")
        _check("rounds", self.rounds, self.rounds >= 1, "1 or more")
        _check("seed", self.seed, self.seed >= 0, "0 or more")
        _check("evaluate_every", self.evaluate_every, self.evaluate_every >= 1, "1 or more")


@dataclass(frozen=True)
class HospitalsSection:
    """``[hospitals]``: who takes part when the study runs on one machine.

    Attributes:
        count: How many hospitals.
        policy: Policy file of all of them, relative to the study file.
        ranks: Each hospital's adapter rank, up to the one in ``[adapter]``; all have that one when
            empty.
    """

    count: int
    policy: Path
    ranks: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _check("count", self.count, 1 <= self.count <= 10_000, "between 1 and 10000")
        fits = not self.ranks or len(self.ranks) == self.count
        _check("ranks", list(self.ranks), fits, f"one rank for each of {self.count} hospitals")
        positive = all(rank >= 1 for rank in self.ranks)
        _check("ranks", list(self.ranks), positive, "made of ranks of 1 or more")


@dataclass(frozen=True)
class ModelSection:
    """``[model]``: the frozen base.

    Attributes:
        base: An embedded base's name, a folder or a hub name.
        sha256: Hash its weights must have.
        revision: Of a hub model.
        dtype: ``float32``, ``bfloat16`` or ``float16``; what trains is float32 in any case.
        quantise: ``4bit`` or ``8bit``; needs the extra ``large``.
        device_map: ``auto`` for a base larger than one GPU.
    """

    base: str
    sha256: str
    revision: str = ""
    dtype: str = "float32"
    quantise: str = ""
    device_map: str = ""

    @property
    def loading(self) -> Loading:
        """How the base is put into memory."""
        return Loading(self.revision, self.dtype, self.quantise, self.device_map)

    def __post_init__(self) -> None:
        self.loading  # noqa: B018 - refuses what cannot be loaded
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ValueError(f"sha256 is {self.sha256!r}; expected 64 hexadecimal digits")


@dataclass(frozen=True)
class PrivacySection:
    """``[privacy]``: what one unit may cost, and how.

    Attributes:
        clip_norm: Longest joint L2 norm one unit may contribute to a step.
        sampling_rate: Probability with which each unit joins a step.
        steps_per_round: Optimizer steps in a round.
        delta: Of (epsilon, delta).
        unit: Who is protected.
        mode: ``local`` (each hospital adds all of its noise), ``distributed`` (each a share of it)
            or ``none`` (public data, for comparison).
        epsilon: Target over the whole study; the noise is calibrated to it. Or give
        noise_multiplier: and epsilon is reported.
        mechanism: What a round does to the data. ``label-response`` protects labels alone, by
            randomised response drawn once; it goes with the unit ``label`` and an epsilon, and
            clips nothing.
        clip_rule: How a contribution is brought to its bound.
        adaptive: How the clip norm follows the data; ``[privacy.adaptive]``.
        losses: How losses are released beside gradients; ``[privacy.losses]``.
        max_records: Most records of one unit that enter a step.
        groups: For the reconstruction, how many factors are clipped apart.
        secure_aggregation: Whether the coordinator gets sums of updates only.
        threshold: Fewest hospitals whose sum may be opened; with distributed noise, also the number
            of shares that carry all of it. At least two thirds of the hospitals, and 3.
        honest_hospitals: With distributed noise, of how many hospitals epsilon relies on that they
            add their share and keep it to themselves, the one that is charged included.
        largest_change: Larger numbers in an update are cut to this, so that sums do not wrap.
        word_bits: Secure sums are modulo 2 to this power: 32 or 64.
    """

    clip_norm: float
    sampling_rate: float
    steps_per_round: int
    delta: float = 1e-5
    unit: Unit = Unit.RECORD
    mode: Mode = Mode.LOCAL
    epsilon: float | None = None
    noise_multiplier: float | None = None
    mechanism: Mechanism = Mechanism.DP_SGD
    clip_rule: ClipRule = ClipRule.FLAT
    adaptive: AdaptiveClip | None = None
    losses: LossReport | None = None
    max_records: int | None = None
    groups: int = 2
    secure_aggregation: bool = False
    threshold: int | None = None
    honest_hospitals: int | None = None
    largest_change: float = 8.0
    word_bits: int = 32

    def __post_init__(self) -> None:
        rate = self.sampling_rate
        _check("sampling_rate", rate, 0 < rate <= 1, "greater than 0 and at most 1")
        _check("steps_per_round", self.steps_per_round, self.steps_per_round >= 1, "1 or more")
        _check("delta", self.delta, 0 < self.delta < 1, "between 0 and 1")
        for name in ("epsilon", "noise_multiplier"):
            value = getattr(self, name)
            _check(name, value, value is None or 0 < value < math.inf, "greater than 0")
        given = (self.epsilon is not None) + (self.noise_multiplier is not None)
        if self.mode is Mode.NONE and given:
            raise ValueError("mode is 'none'; remove epsilon and noise_multiplier")
        if self.mode is not Mode.NONE and given != 1:
            raise ValueError("give either epsilon or noise_multiplier, not both and not neither")
        if self.labels and (self.epsilon is None or self.secure_aggregation):
            raise ValueError("label-response takes an epsilon, and no secure_aggregation")
        self._check_secure()
        # The plan knows what goes with what; noise this small never clashes with adaptive clipping.
        self.plan(0.0 if self.mode is Mode.NONE else 1e-9, 1)

    @property
    def labels(self) -> bool:
        """Whether labels are protected alone, by randomised response."""
        return self.mechanism is Mechanism.LABELS

    def _check_secure(self) -> None:
        """Refuse settings of secure sums that do not go together."""
        if self.secure_aggregation != (self.threshold is not None):
            raise ValueError("secure_aggregation and threshold go together; give both or neither")
        if self.mode is Mode.DISTRIBUTED:
            if self.threshold is None:
                raise ValueError("mode is 'distributed', which needs secure_aggregation = true")
            if self.honest_hospitals is None:
                raise ValueError(
                    "mode is 'distributed'; say with honest_hospitals of how many hospitals "
                    "epsilon relies on: 1 on nobody else, threshold on all that are summed"
                )
        elif self.honest_hospitals is not None:
            raise ValueError("honest_hospitals goes with mode = 'distributed'")
        if self.threshold is not None:
            self.secure_sum(self.threshold)

    def secure_sum(self, hospitals: int) -> SecureSum | None:
        """What plans say of the secure sum of so many hospitals; None without one.

        Raises:
            ValueError: The threshold is below two thirds of them, or above them all.
        """
        if self.threshold is None:
            return None
        return SecureSum(hospitals, self.threshold, self.word_bits, self.largest_change)

    def plan(self, noise_multiplier: float, declared_units: int) -> PrivacyPlan:
        """One round's plan for a hospital that declares this many units."""
        shared = self.mode is Mode.DISTRIBUTED
        counted = self.mechanism in (Mechanism.DP_SGD, Mechanism.ONE_SHOT)
        return PrivacyPlan(
            unit=self.unit,
            clip_norm=self.clip_norm,
            noise_multiplier=0.0 if self.labels else noise_multiplier,
            sampling_rate=self.sampling_rate,
            steps=self.steps_per_round,
            expected_units=self.sampling_rate * declared_units if counted else 1.0,
            mode=self.mode,
            adjacency=Adjacency.REPLACE_ONE if self.labels else Adjacency.ADD_REMOVE,
            mechanism=self.mechanism,
            clip_rule=self.clip_rule,
            adaptive=self.adaptive,
            losses=self.losses,
            max_records=self.max_records,
            groups=self.groups,
            shares=(self.threshold or 1) if shared else 1,
            honest_hospitals=(self.honest_hospitals or 1) if shared else 1,
            keep_probability=(
                keep_probability(self.epsilon, LABEL_CLASSES)
                if self.labels and self.epsilon is not None
                else None
            ),
        )


@dataclass(frozen=True)
class Study:
    """A whole study file.

    Attributes:
        path: Where it was read from.
        study: What is run.
        hospitals: Who takes part on one machine.
        model: The frozen base.
        privacy: What a unit may cost.
        adapter: What trains; the task reads it.
        training: Optimizer settings; the trainer reads them.
        strategy: How updates are combined.
        task: The task's own settings.
        stop: What ends the study before its last round.
    """

    path: Path
    study: StudySection
    hospitals: HospitalsSection
    model: ModelSection
    privacy: PrivacySection
    adapter: Mapping[str, Any]
    training: Mapping[str, Any]
    strategy: StrategySection
    task: Mapping[str, Any] = field(default_factory=dict)
    stop: StopRule | None = None

    @classmethod
    def read(cls, path: Path) -> Study:
        """The study in ``path``; ``BadInput`` names the first thing that cannot be used."""
        tables = read_toml(path)
        sections = {
            "study": StudySection,
            "hospitals": HospitalsSection,
            "model": ModelSection,
            "privacy": PrivacySection,
        }
        free = ("adapter", "training", "task")
        refuse_unknown(tables, (*sections, "strategy", "stop", *free), str(path))
        parts: dict[str, Any] = {
            name: from_table(kind, tables.get(name, {}), f"{path} [{name}]")
            for name, kind in sections.items()
        }
        parts["strategy"] = StrategySection.from_table(
            tables.get("strategy", {}), f"{path} [strategy]", parts["privacy"].mode
        )
        for name in free:
            if name != "task" and name not in tables:
                raise BadInput(f"{path} [{name}]: missing")
            parts[name] = tables.get(name, {})
        if "stop" in tables:
            parts["stop"] = from_table(StopRule, tables["stop"], f"{path} [stop]")
        return cls(path=path, **parts)

    def to_tables(self) -> dict[str, Any]:
        """The tables ``read`` makes the same study of, with the policy file beside them."""
        tables = {
            name: {key: value for key, value in asdict(part).items() if value is not None}
            for name, part in (
                ("study", self.study),
                ("hospitals", replace(self.hospitals, policy=Path("policy.toml"))),
                ("model", self.model),
                ("privacy", self.privacy),
                *((("stop", self.stop),) if self.stop else ()),
            )
        }
        tables["strategy"] = self.strategy.to_table()
        tables["hospitals"]["policy"] = str(tables["hospitals"]["policy"])
        free = {"adapter": self.adapter, "training": self.training, "task": self.task}
        return tables | {name: dict(table) for name, table in free.items()}

    @property
    def policy(self) -> Path:
        """The policy file, resolved beside the study file."""
        return self.path.parent / self.hospitals.policy

    def with_mode_none(self) -> Study:
        """The same study without clipping and noise, for comparison on public or made-up data."""
        bare = replace(
            self.privacy,
            mode=Mode.NONE,
            epsilon=None,
            noise_multiplier=None,
            adaptive=None,
            losses=None,
            honest_hospitals=None,
        )
        return replace(self, privacy=bare)

    def noise_multiplier(self) -> float:
        """As given, or calibrated so that the whole study stays within ``epsilon``.

        Raises:
            BadInput: The target is out of reach, or its noise does not fit the other settings.
        """
        from wardround.privacy.accountant import calibrate

        privacy, rounds = self.privacy, self.study.rounds
        if privacy.mode is Mode.NONE or privacy.labels:
            return 0.0
        if privacy.noise_multiplier is not None:
            return privacy.noise_multiplier
        assert privacy.epsilon is not None
        # Costs the same, and bounds no multiplier.
        fixed = replace(privacy, adaptive=None, losses=None)
        try:
            return calibrate(
                lambda noise: fixed.plan(noise, 1).over(rounds),
                privacy.epsilon,
                privacy.delta,
            )
        except ValueError as error:
            raise BadInput(f"{self.path} [privacy] {error}") from error

    def privacy_plan(self, noise_multiplier: float, declared_units: int) -> PrivacyPlan:
        """One round's privacy plan for a hospital that declares this many units.

        Raises:
            BadInput: This noise does not fit the other settings.
        """
        try:
            return self.privacy.plan(noise_multiplier, declared_units)
        except ValueError as error:
            raise BadInput(f"{self.path} [privacy] {error}") from error


def _check(name: str, value: object, holds: bool, bound: str) -> None:
    """Raise ``ValueError`` naming field, value and bound unless it holds."""
    if not holds:
        raise ValueError(f"{name} is {value}; it must be {bound}")
