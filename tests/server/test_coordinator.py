"""The coordinator's loop against hospitals that misbehave in every way a relay can carry."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from safetensors.torch import save

from wardround.privacy.chain import LedgerHead
from wardround.privacy.envelope import open_bytes, parse_document, seal_bytes
from wardround.privacy.errors import BadMessage, UntrustedPeer
from wardround.privacy.plan import PrivacyPlan, RoundPlan, plan_from_json
from wardround.privacy.report import Standing, hospital_report, sign_report
from wardround.privacy.signing import SigningKey
from wardround.privacy.stream import SecureStream
from wardround.privacy.units import Unit
from wardround.server.book import (
    HospitalAnswer,
    ReportBook,
    RoundRecord,
    failure_files,
    read_book,
    read_failures,
)
from wardround.server.coordinator import Agenda, Coordinator, Desk, Observer, RoundFailed
from wardround.server.gathering import SILENT
from wardround.server.stopping import StopRule
from wardround.strategies.base import Model, Strategy
from wardround.strategies.checkpoint import Checkpoint, load_checkpoint
from wardround.strategies.codec import decode, encode
from wardround.strategies.composed import Composed
from wardround.strategies.encoding import Encoding
from wardround.strategies.fedavg import FedAvg
from wardround.strategies.parts import Surrounding
from wardround.strategies.registry import make_strategy
from wardround.strategies.robust.base import TooFewAnswers
from wardround.strategies.scaffold import Scaffold
from wardround.strategies.wire import read_request, reply_content
from wardround.study.engines.in_process import InProcessGrid

START = {"a": torch.zeros(2, 3), "b": torch.zeros(4)}
Answer = Callable[["Fake", RoundPlan], bytes]


@dataclass
class Fake:
    """A hospital made of its answers: it adds ``step`` to every array."""

    name: str
    step: float
    coordinator: str = ""
    key: SigningKey = field(default_factory=SigningKey.generate)
    answer: Answer | None = None
    asked: list[RoundPlan] = field(default_factory=list)
    sent: dict[str, torch.Tensor] = field(default_factory=dict)

    def seal(
        self, header: dict[str, Any], arrays: dict[str, torch.Tensor], encoding: str = "fp32"
    ) -> bytes:
        """A reply as a custodian signs it."""
        whole = {"hospital": self.name, "key": self.key.public, **header}
        block = encode(whole, arrays, Encoding(encoding), SecureStream(bytes(32)))
        return seal_bytes(block, self.key, "reply")

    def update(self, plan: RoundPlan, **changes: Any) -> bytes:
        """An honest update, with some header fields changed."""
        header = {
            "kind": "update",
            "run": plan.run,
            "round": plan.round,
            "plan_sha256": plan.sha256,
            "report": self.report(plan),
            **changes,
        }
        arrays = {name: torch.full_like(array, self.step) for name, array in START.items()}
        return self.seal(header, arrays, plan.encoding)

    def report(self, plan: RoundPlan, seq: int = 3) -> dict[str, Any]:
        """An honest, signed report of one round."""
        event = plan.privacy.event
        head = LedgerHead(seq, "a" * 64)
        standing = Standing(self.name, "d", "private", 50, 8.0, 1e-5, event, event, head)
        return sign_report(hospital_report(plan, standing), self.key)

    def declare(self) -> bytes:
        """A declaration of 50 units."""
        return self.seal({"kind": "declaration", "declared_units": 50}, {})

    def train(self, sealed: bytes, block: bytes) -> bytes:
        """Verify the plan, then answer as told."""
        payload = open_bytes(sealed, self.coordinator, "plan")
        plan = plan_from_json(parse_document(payload, "plan"))
        self.sent |= decode(block, "arrays")[1]
        self.asked.append(plan)
        return self.answer(self, plan) if self.answer else self.update(plan)


class Seen(Observer):
    """Remembers the answers."""

    def __init__(self) -> None:
        self.answers: list[HospitalAnswer] = []

    def on_answer(self, round_number: int, answer: HospitalAnswer) -> None:
        self.answers.append(answer)


def relay(fakes: dict[str, Fake]) -> ClientApp:
    """A ClientApp for these hospitals."""
    app = ClientApp()

    @app.query("declare")
    def declare(message: Message, context: Context) -> Message:
        fake = fakes[str(context.node_config["hospital"])]
        return Message(reply_content(fake.declare()), reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        fake = fakes[str(context.node_config["hospital"])]
        return Message(reply_content(fake.train(*read_request(message.content))), reply_to=message)

    return app


@dataclass
class Consortium:
    """Three hospitals that add 1, 2 and 6, and a coordinator."""

    folder: Path
    rounds: int = 1
    encoding: Encoding = Encoding.FP32
    key: SigningKey = field(default_factory=SigningKey.generate)
    seen: Seen = field(default_factory=Seen)
    strategy: Strategy = field(default_factory=FedAvg)

    def __post_init__(self) -> None:
        steps = {"east": 1.0, "north": 2.0, "west": 6.0}
        self.fakes = {n: Fake(n, s, self.key.public) for n, s in steps.items()}
        self.members = {name: fake.key.public for name, fake in self.fakes.items()}

    def run(self, start: Checkpoint | None = None, **desk: Any) -> Checkpoint:
        """Run the rounds over an in-process grid."""
        agenda = Agenda(
            study="s",
            run="run",
            rounds=self.rounds,
            task="t",
            base="b",
            base_sha256="0" * 64,
            privacy=lambda units: PrivacyPlan(Unit.RECORD, 1.0, 1.0, 0.1, 2, 0.1 * units),
            adapter=lambda hospital: {},
            training={},
            task_config={},
            encoding=self.encoding,
        )
        table = Desk(self.folder, self.key, self.members, self.strategy, observer=self.seen, **desk)
        grid = InProcessGrid(relay(self.fakes), dict(enumerate(self.fakes, 100)))
        return Coordinator(agenda, table).run(grid, start or Checkpoint(0, START, {}))


@pytest.fixture
def consortium(tmp_path: Path) -> Consortium:
    return Consortium(tmp_path)


def test_the_mean_of_all_and_what_is_kept(consortium: Consortium) -> None:
    consortium.rounds = 2
    final = consortium.run(evaluate=lambda number, model: {"sum": float(model.arrays["b"].sum())})
    assert torch.equal(final.arrays["a"], torch.full((2, 3), 6.0))  # 2 rounds of (1 + 2 + 6) / 3
    assert torch.equal(
        load_checkpoint(consortium.folder / "checkpoint").arrays["b"], final.arrays["b"]
    )
    records = read_book(consortium.folder / "rounds")
    assert [record.round for record in records] == [1, 2]
    assert records[1].metrics == {"sum": 24.0}
    assert records[0].bytes_up > 0
    plans = consortium.fakes["east"].asked
    assert [plan.round for plan in plans] == [1, 2]
    assert plans[0].privacy.expected_units == 5.0
    assert plans[0].arrays_sha256 != plans[1].arrays_sha256


def test_the_same_request_makes_the_same_plan(consortium: Consortium) -> None:
    """So that a hospital that trained already answers from its store after a restart."""
    consortium.run()
    consortium.run()
    first, second = consortium.fakes["east"].asked
    assert first.sha256 == second.sha256


def test_goes_on_from_a_checkpoint(consortium: Consortium) -> None:
    consortium.rounds = 3
    start = Checkpoint(2, {n: a + 10 for n, a in START.items()}, {})
    final = consortium.run(start)
    assert [plan.round for plan in consortium.fakes["east"].asked] == [3]
    assert torch.equal(final.arrays["b"], torch.full((4,), 13.0))


def evaluated(number: int, model: Model) -> dict[str, float]:
    """A score that grows by 3 a round: the mean of what the three add."""
    return {"b": float(model.arrays["b"][0])}


def test_a_study_stops_when_its_rule_is_met_and_says_why(consortium: Consortium) -> None:
    consortium.rounds = 5
    final = consortium.run(evaluate=evaluated, stop=StopRule("b", at_least=6.0))
    assert final.round == 2
    assert {len(fake.asked) for fake in consortium.fakes.values()} == {2}
    first, second = read_book(consortium.folder / "rounds")
    assert (first.stopped, second.stopped) == ("", "b is 6; the study stops at 6 or more")
    kept = load_checkpoint(consortium.folder / "checkpoint")
    assert kept.state["stopped"] == second.stopped


def test_a_stopped_study_does_not_go_on(consortium: Consortium) -> None:
    """Whatever is asked of it later: the decision is in the checkpoint and is not made again."""
    consortium.rounds = 5
    rule = StopRule("b", at_least=6.0)
    consortium.run(evaluate=evaluated, stop=rule)
    stopped = load_checkpoint(consortium.folder / "checkpoint")
    assert consortium.run(stopped, evaluate=evaluated, stop=rule).round == 2
    assert {len(fake.asked) for fake in consortium.fakes.values()} == {2}
    # The broken twin, which keeps the reason in memory only, asks every hospital for more.
    forgetful = replace(stopped, state={k: v for k, v in stopped.state.items() if k != "stopped"})
    assert consortium.run(forgetful, evaluate=evaluated, stop=rule).round == 3
    assert {len(fake.asked) for fake in consortium.fakes.values()} == {3}


def test_the_last_round_is_the_last_and_not_a_stop(consortium: Consortium) -> None:
    consortium.rounds = 2
    consortium.run(evaluate=evaluated, stop=StopRule("b", at_least=6.0))
    assert [record.stopped for record in read_book(consortium.folder / "rounds")] == ["", ""]


def test_rounds_that_are_not_looked_at_stop_nothing(consortium: Consortium) -> None:
    consortium.rounds = 5

    def every_second(number: int, model: Model) -> dict[str, float]:
        return evaluated(number, model) if number % 2 == 0 else {}

    final = consortium.run(evaluate=every_second, stop=StopRule("b", at_least=3.0))
    assert final.round == 2


def test_each_plan_carries_the_ledger_head_last_seen(consortium: Consortium) -> None:
    consortium.fakes["west"].answer = refusal
    consortium.rounds = 2
    consortium.run()
    start = load_checkpoint(consortium.folder / "checkpoint")
    consortium.rounds = 3
    consortium.run(start)
    heads = [plan.ledger_head for plan in consortium.fakes["east"].asked]
    assert heads == [None, LedgerHead(3, "a" * 64), LedgerHead(3, "a" * 64)]
    assert consortium.fakes["west"].asked[-1].ledger_head is None


def bad_shape(fake: Fake, plan: RoundPlan) -> bytes:
    header = {"kind": "update", "plan_sha256": plan.sha256, "report": fake.report(plan)}
    return fake.seal(header, {"a": torch.ones(3, 3), "b": torch.ones(4)})


def not_finite(fake: Fake, plan: RoundPlan) -> bytes:
    header = {"kind": "update", "plan_sha256": plan.sha256, "report": fake.report(plan)}
    return fake.seal(header, {"a": torch.ones(2, 3), "b": torch.full((4,), float("nan"))})


def missing_array(fake: Fake, plan: RoundPlan) -> bytes:
    header = {"kind": "update", "plan_sha256": plan.sha256, "report": fake.report(plan)}
    return fake.seal(header, {"a": torch.ones(2, 3)})


def other_plan(fake: Fake, plan: RoundPlan) -> bytes:
    return fake.update(replace(plan, round=plan.round, run="other"))


def other_encoding(fake: Fake, plan: RoundPlan) -> bytes:
    asked = {"plan_sha256": plan.sha256, "report": fake.report(plan)}
    return fake.update(replace(plan, encoding="bf16"), **asked)


def refusal(fake: Fake, plan: RoundPlan) -> bytes:
    return fake.seal({"kind": "refusal", "error": "BudgetExceeded", "reason": "no more"}, {})


def foreign_key(fake: Fake, plan: RoundPlan) -> bytes:
    return Fake(fake.name, fake.step).update(plan)


def stranger(fake: Fake, plan: RoundPlan) -> bytes:
    return Fake("south", fake.step).update(plan)


def garbage(fake: Fake, plan: RoundPlan) -> bytes:
    return b"\x00" * 300


def too_short(fake: Fake, plan: RoundPlan) -> bytes:
    return b"x"


def raises(fake: Fake, plan: RoundPlan) -> bytes:
    raise RuntimeError("the custodian is gone")


def changed_report(fake: Fake, plan: RoundPlan) -> bytes:
    return fake.update(plan, report={**fake.report(plan), "epsilon_study": 0.1})


def old_report(fake: Fake, plan: RoundPlan) -> bytes:
    return fake.update(plan, report=fake.report(replace(plan, run="earlier")))


def no_report(fake: Fake, plan: RoundPlan) -> bytes:
    return fake.update(plan, report=None)


@pytest.mark.fault
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (bad_shape, r"'a' has shape \(3, 3\)"),
        (not_finite, "not finite"),
        (missing_array, "'b' is missing"),
        (other_plan, "another plan"),
        (other_encoding, "written in bf16; the plan asks for fp32"),
        (refusal, "BudgetExceeded: no more"),
        (foreign_key, "no valid answer"),
        (stranger, "no valid answer"),
        (garbage, "no valid answer"),
        (too_short, "no valid answer"),
        (raises, "no valid answer"),
        (no_report, "sent no report"),
        (changed_report, "does not verify"),
        (old_report, "reports on another plan"),
    ],
)
def test_one_bad_answer_does_not_stop_the_others(
    consortium: Consortium, answer: Answer, reason: str
) -> None:
    consortium.fakes["west"].answer = answer
    final = consortium.run()
    assert torch.equal(final.arrays["b"], torch.full((4,), 1.5))  # the mean of 1 and 2
    (record,) = read_book(consortium.folder / "rounds")
    (west,) = (a for a in record.answers if a.hospital == "west")
    assert west.report is None
    assert re.search(reason, west.reason), west.reason


@pytest.mark.parametrize("encoding", [*Encoding])
def test_updates_come_in_the_studys_encoding(consortium: Consortium, encoding: Encoding) -> None:
    """The mean of 1, 2 and 6 is 3; each may be off by less than one step of its own scale."""
    consortium.encoding = encoding
    final = consortium.run()
    assert [fake.asked[0].encoding for fake in consortium.fakes.values()] == [encoding.value] * 3
    step = (1 + 2 + 6) / 3 * (1 + 2**-7) / encoding.levels if encoding.levels else 0.0
    assert float((final.arrays["a"] - 3.0).abs().max()) <= step


def test_values_that_cannot_be_read_are_a_fault(consortium: Consortium) -> None:
    def bad_scale(fake: Fake, plan: RoundPlan) -> bytes:
        header = {"kind": "update", "plan_sha256": plan.sha256, "report": fake.report(plan)}
        header |= {"hospital": fake.name, "key": fake.key.public}
        metadata = {"wardround-2": json.dumps({"encoding": "int8", "header": header})}
        arrays = {name: torch.ones(array.shape, dtype=torch.int8) for name, array in START.items()}
        scales = torch.tensor([1.0, -1.0], dtype=torch.bfloat16)
        return seal_bytes(save(arrays | {"__scales__": scales}, metadata), fake.key, "reply")

    consortium.encoding = Encoding.INT8
    consortium.fakes["west"].answer = bad_scale
    consortium.run()
    (record,) = read_book(consortium.folder / "rounds")
    assert "a scale below 0" in record.answers[2].reason


def test_a_checkpoint_says_who_answered_and_what_was_spent(consortium: Consortium) -> None:
    consortium.fakes["west"].answer = refusal
    consortium.rounds = 2
    consortium.run()
    state = load_checkpoint(consortium.folder / "checkpoint").state
    assert state["answered"] == ["east", "north"]
    assert state["spent"].keys() == {"east", "north"}
    reports = [a.report for a in read_book(consortium.folder / "rounds")[1].answers if a.report]
    assert [r["epsilon_study"] for r in reports] == [
        state["spent"][name]["epsilon_study"] for name in ("east", "north")
    ]
    consortium.rounds = 3
    consortium.fakes["east"].answer = refusal
    consortium.run(load_checkpoint(consortium.folder / "checkpoint"))
    later = load_checkpoint(consortium.folder / "checkpoint").state
    assert later["answered"] == ["north"]
    assert later["spent"]["east"] == state["spent"]["east"]


def test_no_usable_update_fails_the_round(consortium: Consortium) -> None:
    for fake in consortium.fakes.values():
        fake.answer = refusal
    with pytest.raises(RoundFailed, match=r"round 1: no usable update \(.*east: BudgetExceeded"):
        consortium.run()
    assert not (consortium.folder / "checkpoint").exists()


def test_a_failed_round_leaves_a_signed_record_of_who_gave_which_reason(
    consortium: Consortium,
) -> None:
    """Each try has a file; none of them counts as a round, also after the round went well."""
    honest = {name: fake.answer for name, fake in consortium.fakes.items()}
    for fake in consortium.fakes.values():
        fake.answer = refusal
    rounds = consortium.folder / "rounds"
    for tried in (1, 2):
        with pytest.raises(RoundFailed):
            consortium.run()
        assert len(read_failures(rounds)) == tried
    assert read_book(rounds) == []
    record = read_failures(rounds)[1]
    assert (record.round, record.rounds) == (1, consortium.rounds)
    assert record.failed.startswith("round 1: no usable update (")
    assert [answer.hospital for answer in record.answers] == ["east", "north", "west"]
    assert {(a.report, a.reason) for a in record.answers} == {(None, "BudgetExceeded: no more")}
    for name, fake in consortium.fakes.items():
        fake.answer = honest[name]
    consortium.run()
    assert [r.round for r in read_book(rounds)] == list(range(1, consortium.rounds + 1))
    assert [path.name for path in failure_files(rounds)] == [
        "failed-0001-0001.json",
        "failed-0001-0002.json",
    ]
    path = failure_files(rounds)[0]
    path.write_bytes(path.read_bytes().replace(b"BudgetExceeded", b"PolicyRefused!"))
    with pytest.raises(UntrustedPeer):
        read_failures(rounds)
    failure_files(rounds)[1].rename(rounds / "0002.json")
    with pytest.raises(BadMessage, match="exchanged"):
        read_book(rounds)


def test_a_hospital_that_answers_for_another_is_not_counted_twice(consortium: Consortium) -> None:
    west, north = consortium.fakes["west"], consortium.fakes["north"]
    replayed: list[bytes] = []

    def keep(fake: Fake, plan: RoundPlan) -> bytes:
        replayed.append(fake.update(plan))
        return replayed[0]

    north.answer = keep
    west.answer = lambda fake, plan: replayed[0]
    final = consortium.run()
    assert torch.equal(final.arrays["b"], torch.full((4,), 1.5))


@pytest.mark.parametrize("units", [0, -1, "50", None])
def test_a_broken_declaration_leaves_its_hospital_out(
    consortium: Consortium, monkeypatch: pytest.MonkeyPatch, units: object
) -> None:
    west = consortium.fakes["west"]
    header = {"kind": "declaration", "declared_units": units}
    monkeypatch.setattr(west, "declare", lambda: west.seal(header, {}))
    final = consortium.run()
    assert torch.equal(final.arrays["b"], torch.full((4,), 1.5))
    assert not west.asked


def test_nobody_enrolled_means_no_study(consortium: Consortium) -> None:
    consortium.members = {}
    with pytest.raises(RoundFailed, match="no enrolled hospital"):
        consortium.run()
    (record,) = read_failures(consortium.folder / "rounds")
    assert (record.round, record.failed) == (
        1, "no enrolled hospital answered; the study did not start"
    )  # fmt: skip


def test_a_study_that_nobody_joins_says_who_was_silent_and_who_refused(
    consortium: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    east = consortium.fakes["east"]
    header = {"kind": "refusal", "error": "BadInput", "reason": "[data] declared_units"}
    monkeypatch.setattr(east, "declare", lambda: east.seal(header, {}))
    for name in ("north", "west"):
        monkeypatch.setattr(consortium.fakes[name], "declare", lambda: b"nothing signed")
    with pytest.raises(RoundFailed, match="no enrolled hospital"):
        consortium.run()
    (record,) = read_failures(consortium.folder / "rounds")
    assert {answer.hospital: answer.reason for answer in record.answers} == {
        "east": "BadInput: [data] declared_units",
        "north": SILENT,
        "west": SILENT,
    }


def test_a_slow_hospital_is_left_behind(consortium: Consortium) -> None:
    class Slow(InProcessGrid):
        """Never delivers what is meant for the hospital at node 102."""

        def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
            train = {
                i
                for i, m in self._queue.items()
                if m.metadata.dst_node_id == 102 and m.metadata.message_type == "train"
            }
            return super().pull_messages([i for i in message_ids if i not in train])

    clock = iter(float(i) for i in range(10_000))
    waited: list[float] = []
    grid = Slow(relay(consortium.fakes), dict(enumerate(consortium.fakes, 100)))
    agenda = Agenda(
        "s", "run", 1, "t", "b", "0" * 64,
        lambda units: PrivacyPlan(Unit.RECORD, 1.0, 1.0, 0.1, 2, 5.0), lambda hospital: {}, {}, {},
    )  # fmt: skip
    desk = Desk(
        consortium.folder,
        consortium.key,
        consortium.members,
        FedAvg(),
        timeout_s=50.0,
        clock=lambda: next(clock),
        sleep=waited.append,
    )
    final = Coordinator(agenda, desk).run(grid, Checkpoint(0, START, {}))
    assert torch.equal(final.arrays["b"], torch.full((4,), 1.5))
    assert waited


def test_a_full_buffer_ends_the_round_and_late_answers_count_later(
    consortium: Consortium,
) -> None:
    """Buffer of 2 of three hospitals that add 1, 2 and 6; answers come in the order of asking.

    Round 1 takes east and north: (1 + 2) / 2. Round 2 takes west, one round late, and east:
    (6 / sqrt(2) + 1) / 2. Round 3 takes north, one round late, and east: (2 / sqrt(2) + 1) / 2.
    """
    consortium.rounds = 3
    consortium.strategy = Composed(FedAvg())
    final = consortium.run(buffer=2)
    total = 1.5 + (6 / 2**0.5 + 1) / 2 + (2 / 2**0.5 + 1) / 2
    assert torch.allclose(final.arrays["b"], torch.full((4,), total))
    asked = {name: [p.round for p in fake.asked] for name, fake in consortium.fakes.items()}
    # A hospital still at work is not asked again, and nobody trains the same round twice: what a
    # ledger is charged is one round for each plan, as without a buffer.
    assert asked == {"east": [1, 2, 3], "north": [1, 2], "west": [1]}
    first, second, _ = read_book(consortium.folder / "rounds")
    (west,) = (answer for answer in first.answers if answer.hospital == "west")
    assert west.reason == "still at work on round 1"
    assert west.report is None
    assert {a.hospital for a in second.answers if a.report is not None} == {"west", "east"}


def test_who_does_not_answer_in_time_is_asked_anew(consortium: Consortium) -> None:
    """A buffer must not leave a hospital out for ever because one message was lost."""
    clock = iter(float(i) for i in range(10_000))
    consortium.rounds = 8
    consortium.strategy = Composed(FedAvg())
    consortium.fakes["west"].answer = raises
    consortium.run(buffer=2, timeout_s=30.0, clock=lambda: next(clock))
    assert len(consortium.fakes["west"].asked) > 1


def test_refusals_do_not_fill_a_buffer(consortium: Consortium) -> None:
    consortium.fakes["east"].answer = refusal
    consortium.strategy = Composed(FedAvg())
    final = consortium.run(buffer=2)
    assert torch.equal(final.arrays["b"], torch.full((4,), 4.0))  # the mean of 2 and 6


@pytest.mark.fault
def test_an_old_answer_sent_on_by_another_does_not_shut_its_hospital_out(
    consortium: Consortium,
) -> None:
    west, north = consortium.fakes["west"], consortium.fakes["north"]
    replayed: list[bytes] = []

    def keep(fake: Fake, plan: RoundPlan) -> bytes:
        replayed.append(fake.update(plan))
        return replayed[-1]

    def first_of_north(fake: Fake, plan: RoundPlan) -> bytes:
        return replayed[0] if replayed else fake.update(plan)

    consortium.rounds = 2
    north.answer, consortium.fakes["east"].answer = keep, first_of_north
    final = consortium.run()
    # Round 1: east answers before there is anything to replay. Round 2: north and west only.
    assert torch.equal(final.arrays["b"], torch.full((4,), 3.0 + 4.0))
    assert len(west.asked) == 2


@pytest.mark.fault
def test_one_of_eight_cannot_turn_the_model_round(tmp_path: Path) -> None:
    """Seven hospitals send changes around 1, one sends -10: the mean is negative, the rule holds.

    The bound with honest changes of ten numbers within 0.3 of 1 each: within 0.3 sqrt(10) of all
    ones, times (1 - 1/8) / sqrt(1 - 2/8). A mean is (7 - 10) / 8.
    """
    consortium = Consortium(tmp_path)
    steps = [0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, -10.0]
    consortium.fakes = {
        f"h{i}": Fake(f"h{i}", step, consortium.key.public) for i, step in enumerate(steps)
    }
    consortium.members = {name: fake.key.public for name, fake in consortium.fakes.items()}
    plain = consortium.run()
    assert torch.allclose(plain.arrays["b"], torch.full((4,), -3 / 8))
    around = Surrounding(hospitals=8)
    consortium.strategy = make_strategy("fedavg", {"robust": "geometric-median"}, around=around)
    held = consortium.run()
    assert float((held.arrays["b"] - 1).norm()) <= 7 / 8 / 0.75**0.5 * 0.3 * 10**0.5
    assert float((held.arrays["b"] - 1).abs().max()) < 0.3


def test_too_few_answers_for_a_rule_stop_the_run(consortium: Consortium) -> None:
    around = Surrounding(hospitals=3)
    consortium.strategy = make_strategy("fedavg", {"robust": "median"}, around=around)
    consortium.fakes["west"].answer = refusal
    with pytest.raises(TooFewAnswers, match="needs 3 answers to hold its bound; 2 came"):
        consortium.run()
    assert not (consortium.folder / "checkpoint").exists()


def test_corrections_go_to_their_own_hospital(consortium: Consortium) -> None:
    """SCAFFOLD with reach 1: controls are minus the changes; each gets the mean less its own."""
    got: dict[str, dict[str, torch.Tensor]] = {}
    for name, fake in consortium.fakes.items():
        fake.sent = got.setdefault(name, {})
    consortium.rounds = 2
    consortium.strategy = Composed(FedAvg(), scaffold=Scaffold(3, 1.0))
    final = consortium.run()
    for name, step in {"east": 1.0, "north": 2.0, "west": 6.0}.items():
        assert torch.equal(got[name]["control/b"], torch.full((4,), -3.0 + step))
    # This round's control is -change - correction: the fakes send the same change all the same.
    assert float(final.arrays["server/control/west/b"][0]) == -6.0 - 3.0


def test_a_changed_round_record_is_noticed(tmp_path: Path) -> None:
    book = ReportBook(tmp_path, SigningKey.generate())
    book.write(RoundRecord("s", "r", 1, 1, (HospitalAnswer("east", reason="x"),)))
    path = tmp_path / "0001.json"
    assert read_book(tmp_path)[0].answers[0].reason == "x"
    path.write_text(path.read_text(encoding="utf-8").replace('"x"', '"y"'), encoding="utf-8")
    with pytest.raises(UntrustedPeer, match=r"0001\.json"):
        read_book(tmp_path)
