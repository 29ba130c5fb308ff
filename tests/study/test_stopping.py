"""A study that stops early: decided from public probes, once, and said everywhere."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wardround.client.tasks.registry import find_task
from wardround.client.workbench import Workbench
from wardround.privacy.accountant import epsilon
from wardround.privacy.chain import read_chain
from wardround.privacy.events import Gaussian, PoissonSampled, Repeated
from wardround.privacy.journal import LEDGER_FILE
from wardround.server import coordinator
from wardround.server.book import read_book, read_history
from wardround.strategies.checkpoint import Checkpoint, load_checkpoint
from wardround.study.run_folder import RunFolder
from wardround.study.runner import _Evaluation, strategy_of

Command = Callable[..., Any]
ROUNDS, STOPPED_AT = 4, 2
SCORE = "likelihood.seen.corroborated"


def changed(study: Path, *changes: tuple[str, str]) -> Path:
    """The small study looked at after each of four rounds, with other changes."""
    text = study.read_text(encoding="utf-8")
    looked_at = ("[hospitals]", "evaluate_every = 1\n\n[hospitals]")
    for old, new in (("rounds = 2", f"rounds = {ROUNDS}"), looked_at, *changes):
        assert old in text, old
        text = text.replace(old, new, 1)
    study.write_text(text, encoding="utf-8")
    return study


def with_rule(study: Path, rule: str) -> Path:
    """The study with a ``[stop]`` table."""
    study.write_text(study.read_text(encoding="utf-8") + f"\n[stop]\n{rule}\n", encoding="utf-8")
    return study


@pytest.fixture
def bare_study(small_study: Path) -> Path:
    """Without noise, so that it can be repeated bit for bit."""
    noise = re.search(r"noise_multiplier = 1.0[^\n]*", small_study.read_text(encoding="utf-8"))
    assert noise is not None
    return changed(small_study, (noise.group(), 'mode = "none"'))


@pytest.fixture
def whole(wardround: Command, bare_study: Path, tmp_path: Path) -> Path:
    """The folder of a run of all rounds."""
    ended = wardround("run", bare_study, "--json", "--runs", tmp_path / "whole")
    return Path(ended.document()["run_dir"])


def rule_met_in_round_two(whole: Path) -> str:
    """A bound that the first round misses and the second meets, by what the whole run scored."""
    history = read_history(whole / "metrics.jsonl")
    best = max(history[number][SCORE] for number in range(STOPPED_AT))
    assert history[STOPPED_AT][SCORE] > best
    return f'score = "{SCORE}"\nat_least = {(best + history[STOPPED_AT][SCORE]) / 2}'


class Killed(Exception):
    """The process is gone."""


@pytest.fixture
def kill(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Lets the run end around the checkpoint of the round it stops after."""

    def arm(before: bool) -> None:
        def save(folder: Path, checkpoint: Checkpoint) -> None:
            due = checkpoint.round == STOPPED_AT
            if due and before:
                raise Killed
            real(folder, checkpoint)
            if due:
                raise Killed

        real = coordinator.save_checkpoint
        monkeypatch.setattr(coordinator, "save_checkpoint", save)

    return arm


def test_it_stops_in_the_round_that_meets_the_rule_and_says_so(
    wardround: Command, bare_study: Path, whole: Path, tmp_path: Path
) -> None:
    with_rule(bare_study, rule_met_in_round_two(whole))
    document = wardround("run", bare_study, "--json", "--runs", tmp_path / "runs").document()
    run = Path(document["run_dir"])
    assert document["rounds"] == STOPPED_AT
    assert document["stopped"].startswith(SCORE)
    records = read_book(run / "rounds")
    assert [record.stopped for record in records] == ["", document["stopped"]]
    # Up to there it is the whole run: the rule has changed nothing but the end.
    assert [r.metrics for r in records] == [r.metrics for r in read_book(whole / "rounds")[:2]]
    assert f"Stopped early: {document['stopped']}" in (run / "report.html").read_text("utf-8")
    again = wardround("report", run)
    assert again.code == 0, again.err
    assert f"stopped early: {SCORE}" in again.out


@pytest.mark.fault
@pytest.mark.parametrize("before", [True, False])
def test_a_run_killed_while_it_stops_comes_to_the_same(
    wardround: Command, bare_study: Path, whole: Path, tmp_path: Path,
    kill: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch, before: bool,
) -> None:  # fmt: skip
    with_rule(bare_study, rule_met_in_round_two(whole))
    kill(before)
    with pytest.raises(Killed):
        wardround("run", bare_study, "--runs", tmp_path / "runs")
    monkeypatch.undo()
    (run,) = (p for p in (tmp_path / "runs").iterdir() if (p / "run.json").exists())
    ended = wardround("run", bare_study, "--resume", run, "--json").document()
    assert ended["rounds"] == STOPPED_AT
    assert ended["stopped"]
    assert load_checkpoint(run / "checkpoint").round == STOPPED_AT
    for home in (run / "hospitals").iterdir():
        entries = [entry.fields for entry in read_chain(home / "ledger" / LEDGER_FILE).entries]
        charged = [entry["round"] for entry in entries if entry["kind"] == "reserve"]
        assert charged == [1, STOPPED_AT]


class AtHome(_Evaluation):
    """The broken twin: it looks at a hospital's own records, which a coordinator may not."""

    def __init__(self, folder: RunFolder, workbench: Workbench) -> None:
        super().__init__(folder, workbench)
        records = folder.hospital("hospital-1").records
        self._probes = find_task(folder.study.study.task).load(records, folder.study.task)


def test_the_decision_follows_from_public_things_only(whole: Path) -> None:
    """One model, one set of probes: other records at the hospitals may not change a score."""
    folder = RunFolder.open(whole)
    model = strategy_of(folder.study).deploy(load_checkpoint(whole / "checkpoint").arrays)

    def scores(kind: type[_Evaluation]) -> dict[str, float]:
        (whole / "metrics.jsonl").unlink(missing_ok=True)
        with Workbench() as workbench:
            return dict(kind(folder, workbench).of(ROUNDS, model))

    public, private = scores(_Evaluation), scores(AtHome)
    records = folder.hospital("hospital-1").records
    lines = [json.loads(line) for line in records.read_text(encoding="utf-8").splitlines()]
    # The same questions, to which another answer would be right: a neighbouring data set and more.
    text = "".join(json.dumps({**line, "target_new": "nothing"}) + "\n" for line in lines)
    records.write_text(text, encoding="utf-8")
    assert scores(_Evaluation) == public
    assert scores(AtHome) != private


def test_a_stopped_study_claims_the_epsilon_of_all_its_rounds(
    wardround: Command, small_study: Path, tmp_path: Path
) -> None:
    """Which round was the last follows from what was released; the promise may not depend on it."""
    wild = ("learning_rate = 0.02", "learning_rate = 5.0")
    study = with_rule(changed(small_study, wild), 'score = "locality"\nat_most = 0.99')
    document = wardround("run", study, "--json", "--runs", tmp_path / "runs").document()
    assert document["rounds"] == 1
    # Oracle: dp-accounting on two steps of the round that ran, and on eight of all four.
    step = PoissonSampled(0.1, Gaussian(1.0))
    spent, planned = (epsilon(Repeated(step, 2 * n), 1e-5) for n in (1, ROUNDS))
    assert [h["epsilon"] for h in document["hospitals"]] == [spent, spent]
    assert spent < planned
    card = (Path(document["run_dir"]) / "adapter" / "README.md").read_text(encoding="utf-8")
    assert f"epsilon at most {planned:.3f}" in card
    assert "stopped after 1 of 4 rounds" in card


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ('score = "exact.sen"\nat_least = 0.5', r"'exact\.sen'.*did you mean 'exact\.seen'"),
        ('score = "locality"\nat_least = 0.9', r"locality is 1; .* untouched base has come so far"),
        ('score = "locality"', r"\[stop\].*either at_least or at_most"),
        ('score = "locality"\natleast = 1', r"\[stop\].*'atleast'.*'at_least'"),
    ],
)
def test_rules_that_cannot_work_are_refused_before_anything_is_written(
    wardround: Command, small_study: Path, tmp_path: Path, rule: str, says: str
) -> None:
    study = with_rule(changed(small_study), rule)
    ended = wardround("run", study, "--runs", tmp_path / "runs")
    assert ended.code == 2
    assert re.search(says, ended.err), ended.err
    assert not (tmp_path / "runs").exists()


def test_a_rule_that_nobody_looks_at_is_refused(
    wardround: Command, small_study: Path, tmp_path: Path
) -> None:
    study = with_rule(small_study, 'score = "exact.seen"\nat_least = 0.5')
    ended = wardround("run", study, "--runs", tmp_path / "runs")
    assert ended.code == 2
    assert "looked at every 5 rounds of 2" in ended.err
