"""Runs a study on this machine from its run folder to adapter and report; also goes on with one.

Ties the rings together: hospitals get custodians and relays, the coordinator gets an agenda, the
engine brings them together. Everything durable is in the run folder, so a killed run is resumed
from it.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from flwr.serverapp import Grid

from wardround.client.change_noise import change_deviation
from wardround.client.custodian import Surroundings
from wardround.client.gradients import Workload
from wardround.client.labels import check_labels
from wardround.client.layers import background
from wardround.client.lora import AdapterConfig
from wardround.client.optimizers import Optimizer
from wardround.client.schedules import Shape
from wardround.client.streams import Streams
from wardround.client.tasks.base import grouping_unit
from wardround.client.tasks.registry import find_task
from wardround.client.training import TrainingConfig
from wardround.client.workbench import Workbench
from wardround.privacy.errors import BadInput
from wardround.privacy.plan import Mode
from wardround.privacy.tables import from_table
from wardround.server.book import RoundRecord, last_reports, read_book, read_history
from wardround.server.coordinator import Agenda, Coordinator, Desk, Observer
from wardround.strategies.base import Model, Strategy
from wardround.strategies.checkpoint import (
    Checkpoint,
    load_checkpoint,
    save_checkpoint,
    saved_rounds,
    write_atomically,
)
from wardround.strategies.parts import Surrounding, read_parts
from wardround.strategies.registry import (
    find_listing,
    list_strategies,
    make_strategy,
)
from wardround.strategies.starting import require_same_start
from wardround.study import secure_sums
from wardround.study.config import Study
from wardround.study.engines.in_process import run_in_process
from wardround.study.run_folder import RunFolder

Metrics = Mapping[str, float]
Engine = Callable[[Callable[[Grid], None], RunFolder, Surroundings], None]


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        folder: The run's folder.
        private: Whether every update was clipped and noised.
        before: Scores of the untouched base on the public probes.
        after: Scores of the final model.
        records: The rounds.
        seconds: Wall time of this command's part of the run.
        memory_bytes: The most memory this process has held.
        notes: What was held out of the data.
    """

    folder: Path
    private: bool
    before: Metrics
    after: Metrics
    records: tuple[RoundRecord, ...]
    seconds: float
    memory_bytes: int = 0
    notes: tuple[str, ...] = ()

    @property
    def stopped(self) -> str:
        """Why the study ended before its last round; empty when it did not."""
        return self.records[-1].stopped

    @property
    def bytes_up(self) -> int:
        """What all hospitals sent, over all rounds."""
        return sum(record.bytes_up for record in self.records)

    @property
    def bytes_down(self) -> int:
        """What was sent to all hospitals, over all rounds."""
        return sum(record.bytes_down for record in self.records)

    @property
    def last_reports(self) -> dict[str, Mapping[str, Any]]:
        """Each hospital's newest privacy report."""
        return last_reports(self.records)


@dataclass
class Stage:
    """What a run shows itself on.

    Attributes:
        observer: Told about rounds.
        on_step: Told about (hospital, step, steps).
        workbench: Puts models together; may be shared by several runs.
        engine: Runs a ServerApp's main function against one relay per hospital.
        clock: Seconds.
    """

    observer: Observer = field(default_factory=Observer)
    on_step: Callable[[str, int, int], None] = lambda hospital, step, steps: None
    workbench: Workbench = field(default_factory=Workbench)
    engine: Engine = run_in_process
    clock: Callable[[], float] = time.monotonic


def check_study(study: Study) -> None:
    """Refuse what cannot run before anything is written: task, strategy, adapter, training."""
    where = str(study.path)
    strategy_of(study)
    check_ranks(study)
    task = find_task(study.study.task)
    task.check(study.task)
    try:
        grouping_unit(task, study.task, study.privacy.unit)
    except BadInput as error:
        raise BadInput(f"{where} {error}") from error
    if study.privacy.labels:
        check_labels(task, study.task, study.privacy_plan(0.0, 1))
    secure_sums.check_secure_sums(study, _training(study))
    section = study.study
    if study.stop and section.evaluate_every >= section.rounds:
        raise BadInput(
            f"{where} [stop]: the probes are looked at every {section.evaluate_every} rounds of "
            f"{section.rounds}; set [study] evaluate_every below rounds, or nothing can stop early"
        )


def strategy_of(study: Study) -> Strategy:
    """The strategy a study names, with its settings."""
    section, where = study.strategy, f"{study.path} [strategy]"
    return make_strategy(section.name, section.settings, where, _surrounding(study))


def _surrounding(study: Study) -> Surrounding:
    """What a study has beside its strategy, as far as the strategy's parts depend on it."""
    training = _training(study)
    private = study.privacy.mode is not Mode.NONE
    plan = study.privacy_plan(1e-9 if private else 0.0, 1)
    schedule, pulls = training.schedule, training.proximal_mu + training.weight_decay
    steady = schedule.shape is Shape.CONSTANT and not schedule.warmup
    plain = training.optimizer is Optimizer.SGD and not training.momentum
    return Surrounding(
        hospitals=study.hospitals.count,
        noise_known=change_deviation(plan, training) is not None
        and not study.privacy.secure_aggregation,
        secure_aggregation=study.privacy.secure_aggregation,
        mixed_ranks=bool(study.hospitals.ranks),
        linear_steps=plain and steady and not pulls,
        losses=study.privacy.losses is not None,
        reach=training.learning_rate * plan.steps,
    )


def _training(study: Study) -> TrainingConfig:
    """The optimizer's settings."""
    return from_table(TrainingConfig, study.training, f"{study.path} [training]")


def check_ranks(study: Study) -> None:
    """Refuse ranks of single hospitals that the strategy or the adapter cannot have.

    Raises:
        BadInput: Naming what can be done instead.
    """
    ranks, where = study.hospitals.ranks, f"{study.path} [hospitals] ranks"
    if "core" in study.adapter:
        raise BadInput(f"{study.path} [adapter] core is for strategies to set; remove it")
    if not ranks:
        return
    listing = find_listing(study.strategy.name)
    if not listing.traits.mixed_ranks:
        able = ", ".join(entry.name for entry in list_strategies() if entry.traits.mixed_ranks)
        raise BadInput(f"{where}: strategy {listing.name!r} needs equal ranks; use one of {able}")
    adapter = AdapterConfig.from_table(study.adapter, f"{study.path} [adapter]")
    if study.privacy.secure_aggregation:
        raise BadInput(f"{where}: a secure sum needs updates of one size; remove ranks")
    if max(ranks) > adapter.rank:
        raise BadInput(f"{where} holds {max(ranks)}; [adapter] rank is {adapter.rank}, the most")
    for rank in ranks:
        try:
            adapter.at_rank(rank)
        except ValueError as error:
            raise BadInput(f"{where}: {error}") from error


def adapter_of(study: Study, rank: int | None) -> Mapping[str, Any]:
    """The ``[adapter]`` table of a hospital of this rank; None is the study's own."""
    if rank is None:
        return study.adapter
    config = AdapterConfig.from_table(study.adapter).at_rank(rank)
    return {**study.adapter, "rank": config.rank, "alpha": config.alpha}


def prepare(study: Study, workbench: Workbench) -> Workload:
    """Model, adapter and engine of a study; refused when the base is not the one it names."""
    return workbench.prepare(
        study.model.base,
        study.model.sha256,
        study.adapter,
        study.study.task,
        study.task,
        loading=study.model.loading,
        seed=study.study.seed,
    )


def execute(folder: RunFolder, stage: Stage) -> Outcome:
    """Run what is left of a run; what it came to is written by ``publish``.

    Raises:
        WardroundError: The run cannot go on; what was reached stays on disk for ``--resume``.
    """
    started = stage.clock()
    study = folder.study
    strategy = strategy_of(study)
    evaluate = _Evaluation(folder, stage.workbench)
    start = _start(folder, strategy, evaluate, stage.workbench)
    final = _run_rounds(folder, strategy, evaluate, stage, start)
    records = tuple(read_book(folder.path / "rounds"))
    return Outcome(
        folder=folder.path,
        private=study.privacy.mode is not Mode.NONE,
        before=evaluate.of(0, strategy.deploy(start.arrays)),
        after=evaluate.of(final.round, strategy.deploy(final.arrays)),
        records=records,
        seconds=stage.clock() - started,
        memory_bytes=peak_memory(),
        notes=folder.facts.notes,
    )


def check_stop(draft: RunFolder, workbench: Workbench) -> None:
    """Refuse a rule for stopping early that the untouched base shows to be useless.

    Raises:
        BadInput: The probes have no such score, or the base has come that far already.
    """
    study = draft.study
    if study.stop is not None:
        prepare(study, workbench)
        strategy = strategy_of(study)
        model = strategy.deploy(strategy.start(workbench.first_values()))
        study.stop.check(_Evaluation(draft, workbench).of(0, model), "study.toml [stop]")


def _start(
    folder: RunFolder, strategy: Strategy, evaluate: _Evaluation, workbench: Workbench
) -> Checkpoint:
    """The newest checkpoint, or the untouched base with a fresh adapter as checkpoint 0."""
    checkpoints = folder.path / "checkpoint"
    # Killed before its first checkpoint, a run has done nothing; with rounds, it has lost it.
    if saved_rounds(checkpoints) or read_book(folder.path / "rounds"):
        found = load_checkpoint(checkpoints)
        evaluate.forget_after(found.round)
        return found
    prepare(folder.study, workbench)
    first = workbench.first_values()
    arrays = strategy.start(first)
    require_same_start(strategy, first, arrays)
    start = Checkpoint(0, arrays, {"run": folder.facts.run})
    evaluate.of(0, strategy.deploy(arrays))
    save_checkpoint(checkpoints, start)
    return start


def _run_rounds(
    folder: RunFolder,
    strategy: Strategy,
    evaluate: _Evaluation,
    stage: Stage,
    start: Checkpoint,
) -> Checkpoint:
    """The rounds, through the engine."""
    study, facts = folder.study, folder.facts
    ranks = dict(zip(facts.hospitals, study.hospitals.ranks, strict=False))
    agenda = Agenda(
        study=study.study.name,
        run=facts.run,
        rounds=study.study.rounds,
        task=study.study.task,
        base=study.model.base,
        base_sha256=study.model.sha256,
        model=asdict(study.model.loading),
        privacy=partial(study.privacy_plan, facts.noise_multiplier),
        adapter=lambda hospital: adapter_of(study, ranks.get(hospital)),
        training=study.training,
        task_config=study.task,
        deviation=partial(change_deviation, training=_training(study)),
        ranks=ranks,
        encoding=study.strategy.encoding,
        secure=partial(secure_sums.plan_secure_sum, study),
        counted=partial(secure_sums.counted_units, study),
    )
    desk = Desk(
        folder=folder.path,
        key=folder.coordinator_key,
        members=folder.facts.members,
        strategy=strategy,
        buffer=read_parts(study.strategy.settings, f"{study.path} [strategy]").buffer,
        gathering=secure_sums.secure_gathering(study, folder.path),
        evaluate=evaluate.in_round,
        stop=study.stop,
        observer=stage.observer,
        clock=stage.clock,
    )
    reached: list[Checkpoint] = []

    def main(grid: Grid) -> None:
        reached.append(Coordinator(agenda, desk).run(grid, start))

    streams = Streams(study.study.seed)
    stage.engine(main, folder, Surroundings(stage.workbench, streams, stage.on_step))
    return reached[0]


class _Evaluation:
    """Scores on the public probes, kept in ``metrics.jsonl`` by round; the file is always whole."""

    def __init__(self, folder: RunFolder, workbench: Workbench) -> None:
        self._path = folder.path / "metrics.jsonl"
        self._study = folder.study
        self._workbench = workbench
        task = find_task(folder.study.study.task)
        self._probes = task.load(folder.path / folder.facts.probes, folder.study.task)

    def in_round(self, number: int, model: Model) -> Metrics:
        """Scores after this round, or nothing when it is not one to look at."""
        section = self._study.study
        due = number % section.evaluate_every == 0 or number == section.rounds
        return self.of(number, model) if due else {}

    def of(self, number: int, model: Model) -> Metrics:
        """Scores after this round, computed once."""
        known = dict(read_history(self._path))
        if number not in known:
            workload = prepare(self._study, self._workbench)  # a hospital may have put in another
            workload.trainable.write(model.arrays)
            adapted = workload.trainable.model
            with background(adapted, model.background):
                known[number] = workload.task.evaluate(
                    adapted, workload.tokenizer, self._probes, self._study.task
                )
            self._keep(known)
        return known[number]

    def forget_after(self, number: int) -> None:
        """Drop scores of rounds that will be done again, perhaps with other hospitals answering."""
        known = read_history(self._path)
        if any(other > number for other in known):
            self._keep({other: scores for other, scores in known.items() if other <= number})

    def _keep(self, history: Mapping[int, Metrics]) -> None:
        """Write all scores, or leave the file as it was."""
        lines = [json.dumps({"round": number, **history[number]}) for number in sorted(history)]
        write_atomically(self._path, "".join(line + "\n" for line in lines).encode())


def peak_memory() -> int:
    """The most memory this process has held so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
