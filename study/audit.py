"""The one-run audit of a study: canaries go the whole real way, and somebody guesses which.

One simulated hospital holds made-up records. Which canaries are among them a fair secret coin
decides; everything else is the study's own: task, model, adapter, engine, sampler, clip, noise,
ledger, signatures. The guesser is the strongest the claim speaks of: it knows every record that
could be there and sees every noised step, so rounds are one step of plain SGD, which is only
post-processing and costs no privacy. Run with privacy, the bound must stay below the claim; run
without, it shows what the same guesser finds when nothing protects.

Never looks at a real hospital's data. Source: Steinke, Nasr and Jagielski (2023), see
``privacy.audit`` and ``privacy.canaries``.
"""

from __future__ import annotations

import logging
import math
import secrets
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import tomli_w
import torch
from flwr.app import Context, RecordDict
from flwr.serverapp import Grid
from rich.console import Console
from rich.table import Table
from torch import Tensor

from wardround.client.custodian import Custodian, Surroundings
from wardround.client.gradients import Workload
from wardround.client.hospital import Hospital
from wardround.client.record_room import RecordRoom
from wardround.client.relay import make_relay
from wardround.client.workbench import Workbench
from wardround.privacy.audit import (
    CONFIDENCE,
    Guessing,
    area_under_curve,
    clopper_pearson,
    one_run_epsilon,
)
from wardround.privacy.canaries import evidence, seen_deviation
from wardround.privacy.errors import BadInput
from wardround.privacy.plan import Mechanism, Mode, PrivacyPlan, RoundPlan
from wardround.privacy.policy import Policy, Provenance
from wardround.privacy.tables import read_toml
from wardround.server.app import make_server_app
from wardround.server.coordinator import RoundFailed
from wardround.strategies.codec import decode
from wardround.strategies.registry import find_listing
from wardround.study.canaries import Planted, Unit, plant, unit_gradients
from wardround.study.config import Study
from wardround.study.engines.in_process import InProcessGrid
from wardround.study.local import begin
from wardround.study.run_folder import RunFolder
from wardround.study.runner import Stage, execute, prepare

log = logging.getLogger("wardround.audit")

Exchanges = list[tuple[bytes, bytes]]

SCOPE = "made-up records only; no hospital's own data was read"
_LEARNING_RATE = 1e-3  # of plain SGD; so low that canaries stay as distinct as when chosen
_MOST_STEPS = 60
_SIGNATURE_BYTES = 64


@dataclass(frozen=True)
class AuditSetup:
    """How an audit is set up; all of it is fixed before the coins are thrown.

    Attributes:
        canaries: How many coins.
        ordinary: Records that are always there.
        steps: Noised steps the guesser sees; without, enough that nine canaries in ten that are
            there are sampled, or 60.
        seed: Which records are dealt and how the coins fall; coins are secret without one.
    """

    canaries: int = 200
    ordinary: int = 40
    steps: int | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("canaries", 8), ("ordinary", 1), ("steps", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise BadInput(f"{name} is {value}; it must be {least} or more")

    def steps_at(self, sampling_rate: float) -> int:
        """How many steps, when each canary is sampled at this rate."""
        if self.steps is not None:
            return self.steps
        if sampling_rate > 0.9:
            return 2
        return min(_MOST_STEPS, math.ceil(math.log(0.1) / math.log1p(-sampling_rate)))

    @property
    def guessing(self) -> Guessing:
        """A third of the canaries is guessed to be there, and nothing is said about the others.

        With few steps many canaries are never sampled, so a low score means little.
        """
        return Guessing(self.canaries, self.canaries // 3, 0)


@dataclass(frozen=True)
class Findings:
    """One audited run.

    Attributes:
        claimed: Epsilon in the hospital's last signed report; None when it claims none.
        at_least: What the guesses prove.
        right: Right guesses.
        guesses: All guesses.
        area: Area under the curve of the canaries' scores.
    """

    claimed: float | None
    at_least: float
    right: int
    guesses: int
    area: float

    @property
    def holds(self) -> bool:
        """Whether the claim survives."""
        return self.claimed is None or self.at_least <= self.claimed

    def to_json(self) -> dict[str, Any]:
        """As part of the audit's document."""
        low, high = clopper_pearson(self.right, self.guesses)
        return {
            "epsilon_claimed": self.claimed,
            "epsilon_at_least": self.at_least,
            "right": self.right,
            "right_share_interval": [low, high],
            "area_under_curve": self.area,
            "holds": self.holds,
        }


class PlantedRoom(RecordRoom):
    """The planted records instead of the file's."""

    def __init__(self, hospital: Hospital, planted: Planted) -> None:
        super().__init__(hospital)
        self._planted = planted

    def units(self, plan: RoundPlan) -> Sequence[Unit]:
        """Those that the coins put in."""
        return self._planted.present


class AuditedCustodian(Custodian):
    """A custodian whose records are the planted ones; keeps what went in and what came out."""

    def __init__(
        self, hospital: Hospital, around: Surroundings, planted: Planted, exchanges: Exchanges
    ) -> None:
        """``exchanges`` receives the arrays and the reply of every round."""
        super().__init__(hospital, around, PlantedRoom(hospital, planted))
        self._exchanges = exchanges

    def train(self, sealed_plan: bytes, arrays_block: bytes) -> bytes:
        """As any custodian, with a note of the arrays and of the reply."""
        reply = super().train(sealed_plan, arrays_block)
        self._exchanges.append((arrays_block, reply))
        return reply


def audit_study(path: Path, setup: AuditSetup) -> dict[str, Any]:
    """Audit the study in ``path`` with privacy and without; one JSON document.

    Raises:
        BadInput: The study cannot be used, or its task cannot make up enough different records.
    """
    started = time.monotonic()
    study = Study.read(path)
    if study.privacy.mechanism is not Mechanism.DP_SGD:
        raise BadInput(
            f"{path} [privacy] mechanism is {study.privacy.mechanism.value!r}; the audit watches "
            "steps of 'dp-sgd'"
        )
    _require_plain(study)
    seed = secrets.randbits(48) if setup.seed is None else setup.seed
    generator = torch.Generator().manual_seed(seed)
    protected = None
    with Workbench() as workbench:
        planted = plant(study, setup.canaries, setup.ordinary, workbench, generator)
        if study.privacy.mode is not Mode.NONE:
            protected = audit_run(stepwise(study, setup), setup, planted, workbench)
        bare = audit_run(stepwise(study.with_mode_none(), setup), setup, planted, workbench)
    return {
        "study": study.study.name,
        "task": study.study.task,
        "unit": study.privacy.unit.value,
        "scope": SCOPE,
        "canaries": setup.canaries,
        "guesses": setup.guessing.guesses,
        "steps": setup.steps_at(study.privacy.sampling_rate),
        "steps_of_study": study.study.rounds * study.privacy.steps_per_round,
        "delta": study.privacy.delta,
        "confidence": CONFIDENCE,
        "seed": setup.seed,
        "with_privacy": None if protected is None else protected.to_json(),
        "without_privacy": bare.to_json(),
        "holds": protected is None or protected.holds,
        "seconds": round(time.monotonic() - started, 2),
    }


def audit_run(study: Study, setup: AuditSetup, planted: Planted, workbench: Workbench) -> Findings:
    """Run the study with one hospital in a throw-away folder, score, guess, compare."""
    exchanges: Exchanges = []
    with tempfile.TemporaryDirectory(prefix="wardround-audit-") as scratch:
        folder = begin(study, Path(scratch), None, workbench, _accept)
        engine = partial(_engine, planted=planted, exchanges=exchanges)
        _execute_patiently(folder, Stage(workbench=workbench, engine=engine))
        audited = folder.hospital(folder.facts.hospitals[0])
        units = Policy.read(audited.policy).data.declared_units
    plan = study.privacy_plan(folder.facts.noise_multiplier, units)
    workload = prepare(study, workbench)
    scores = torch.zeros(setup.canaries, dtype=torch.float64)
    claimed = None
    for block, reply in exchanges:
        _, start = decode(block, "arrays")
        header, change = decode(reply[_SIGNATURE_BYTES:], "reply")
        if header["kind"] != "update":
            continue
        claimed = header["report"]["epsilon_study"]
        workload.trainable.write(start)
        # One step of plain SGD is the noised mean times the rate; nothing is lost on the way.
        total = -_flat(change) * (plan.expected_units / _LEARNING_RATE)
        with workload.only(tuple(change)) as moving:
            scores += score_step(moving, planted, plan, total)
    right = setup.guessing.count_right(scores, planted.coins)
    return Findings(
        claimed=claimed,
        at_least=one_run_epsilon(setup.guessing, right, study.privacy.delta),
        right=right,
        guesses=setup.guessing.guesses,
        area=area_under_curve(scores[planted.coins], scores[~planted.coins]),
    )


def _require_plain(study: Study) -> None:
    """Refuse a strategy under which a hospital's model is more than the adapter it is sent.

    Raises:
        BadInput: Naming what can be audited instead; the mechanism is the same.
    """
    traits = find_listing(study.strategy.name).traits
    if traits.personal or traits.needs_single_updates or traits.reshapes:
        raise BadInput(
            f"{study.path} [strategy] name is {study.strategy.name!r}; the audit knows hospitals "
            "whose model is the adapter they are sent: audit the study with 'fedavg' or 'rolora'"
        )


def _engine(
    main: Callable[[Grid], None],
    folder: RunFolder,
    around: Surroundings,
    planted: Planted,
    exchanges: Exchanges,
) -> None:
    """As the in-process engine, but only the audited hospital takes part."""
    name, node = folder.facts.hospitals[0], 100
    with closing(AuditedCustodian(folder.hospital(name), around, planted, exchanges)) as custodian:
        grid = InProcessGrid(make_relay(lambda _: custodian), {node: name})
        context = Context(1, 0, node_config={}, state=RecordDict(), run_config={})
        make_server_app(main)(grid, context)


def _execute_patiently(folder: RunFolder, stage: Stage) -> None:
    """Run to the end, asking again when a round failed, at most once a step on average.

    Without noise an empty sample moves nothing, and a custodian refuses to send nothing; asked
    again it draws another sample.
    """
    for _ in range(folder.study.study.rounds):
        try:
            execute(folder, stage)
        except RoundFailed as failure:
            log.info("asking again reason=%(reason)s", {"reason": str(failure)})
        else:
            return
    execute(folder, stage)


def score_step(workload: Workload, planted: Planted, plan: PrivacyPlan, total: Tensor) -> Tensor:
    """What one noised sum says about each canary, shape ``(canaries,)``."""
    bound = math.inf if plan.mode is Mode.NONE else plan.clip_norm
    slopes = unit_gradients(workload, planted.possible, bound)
    noise = seen_deviation(total, slopes)
    return evidence(total, slopes, len(planted.canaries), plan.sampling_rate, noise)


def show_audit(console: Console, document: Mapping[str, Any]) -> None:
    """The audit as a table, and what it means."""
    table = Table("run", "ε claimed", "ε at least", "right guesses", "area under curve")
    for name, key in (("with privacy", "with_privacy"), ("NOT PRIVATE", "without_privacy")):
        found = document[key]
        if found is not None:
            claimed = found["epsilon_claimed"]
            low, high = found["right_share_interval"]
            table.add_row(
                name,
                "none" if claimed is None else f"{claimed:.3f}",
                f"{found['epsilon_at_least']:.3f}",
                f"{found['right']} of {document['guesses']} ({low:.0%} to {high:.0%})",
                f"{found['area_under_curve']:.3f}",
            )
    console.print(table)
    verdict = "The claim holds." if document["holds"] else "THE CLAIM IS WRONG: ε is larger."
    console.print(
        f"{verdict} {document['canaries']} canaries, {document['steps']} of the study's "
        f"{document['steps_of_study']} steps, δ {document['delta']:g}, confidence "
        f"{document['confidence']:.0%}; {document['scope']}. A bound below the claim does not "
        "prove the claim: a stronger guesser may find more.",
        highlight=False,
    )


def stepwise(study: Study, setup: AuditSetup) -> Study:
    """The study with every step in view, and with the noise of the whole."""
    noise = study.noise_multiplier()
    steps = setup.steps_at(study.privacy.sampling_rate)
    section = replace(study.study, rounds=steps, evaluate_every=steps)
    privacy = replace(study.privacy, steps_per_round=1)
    if privacy.mode is not Mode.NONE:
        privacy = replace(privacy, epsilon=None, noise_multiplier=noise)
    training = {"optimizer": "sgd", "learning_rate": _LEARNING_RATE}
    return replace(study, study=section, privacy=privacy, training=training, stop=None)


def _accept(draft: RunFolder) -> None:
    """The throw-away hospital takes part whatever the study's policy says; its data is made up."""
    for name in draft.facts.hospitals:
        path = draft.hospital(name).policy
        tables = read_toml(path)
        privacy = draft.study.privacy
        tables["budget"] |= {"epsilon": 1e6, "delta": privacy.delta, "unit": privacy.unit.value}
        tables["allow"] |= {"min_noise_multiplier": 1e-9, "max_rounds": 10**6, "min_units": 1}
        tables["data"]["provenance"] = Provenance.GENERATED.value
        path.write_text(tomli_w.dumps(tables), encoding="utf-8")


def _flat(arrays: Mapping[str, Tensor]) -> Tensor:
    """All arrays as one vector, in the order of their names."""
    return torch.cat([arrays[name].flatten() for name in sorted(arrays)])
