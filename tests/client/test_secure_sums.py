"""A custodian in secure sums: charged once, the same bytes again, one sum opened a round."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import pytest
import torch

from wardround.client.custodian import Custodian
from wardround.client.shares import scale_of
from wardround.privacy.distributed import share_lattice
from wardround.privacy.envelope import open_bytes, parse_document
from wardround.privacy.events import Gaussian, PoissonSampled
from wardround.privacy.plan import Mechanism, Mode, PrivacyPlan, RoundPlan, SecureSum
from wardround.privacy.secagg.lattice import from_words, lattice_for, read_words
from wardround.privacy.secagg.letters import pack, read_letter, unpack
from wardround.privacy.secagg.party import AGREE, MASKED, REVEAL, Party
from wardround.privacy.secagg.requests import write_request
from wardround.privacy.secagg.shares import KEYS, SHARES
from wardround.privacy.secagg.tally import Tally
from wardround.privacy.secagg.terms import Terms
from wardround.privacy.signing import SigningKey
from wardround.privacy.units import Unit
from wardround.strategies.codec import decode

SECURE = SecureSum(hospitals=4, threshold=3)
PLAIN_ONE_STEP = {"optimizer": "sgd", "learning_rate": 0.5}


@dataclass
class Circle:
    """The custodian of north, and three more hospitals in memory whose rows are all ones."""

    setting: Any
    plan: RoundPlan
    attempt: str = "0"
    others: dict[str, SigningKey] = field(
        default_factory=lambda: {n: SigningKey.generate() for n in ("east", "south", "west")}
    )

    def __post_init__(self) -> None:
        key = SigningKey.load_or_create(self.setting.hospital.key)
        keys = self.others | {"north": key}
        self.members = {name: k.public for name, k in keys.items()}
        self.setting.hospital = replace(self.setting.hospital, members=self.members)
        self.begin(self.attempt)

    def begin(self, attempt: str) -> None:
        """A new session for the same round."""
        size = sum(shape.numel() for shape in self.setting.shapes.values())
        plans = dict.fromkeys(self.others, "0" * 64) | {"north": self.plan.sha256}
        self.terms = Terms(
            self.plan.run, self.plan.round, attempt, 3, 32, size, self.members, plans
        )
        seeds = {name: name.encode().ljust(32) for name in self.others}
        self.parties = {n: Party(self.terms, n, k, seeds[n]) for n, k in self.others.items()}
        self.tally = Tally(self.terms)

    @property
    def sealed(self) -> bytes:
        return bytes(self.setting.sealed(**every_field(self.plan)))

    def parts(self, stage: str) -> dict[str, bytes]:
        """What the coordinator asks north in this stage."""
        if stage == SHARES:
            return self.tally.keys
        if stage == MASKED:
            return {"plan": self.sealed, "letters": pack(self.tally.letters_for("north"))}
        if stage == AGREE:
            return dict.fromkeys(self.tally.survivors, b"")
        return self.tally.agreements if stage == REVEAL else {}

    def ask(self, custodian: Custodian, stage: str, **changes: Any) -> bytes:
        """North's letter; a refusal is raised as ``Refused``."""
        parts = changes["parts"] if "parts" in changes else self.parts(stage)
        key = changes.get("key", self.setting.coordinator)
        request = write_request(changes.get("terms", self.terms), stage, parts, key)
        answer = unpack(custodian.secure_sum(request, self.setting.block), "answer")
        if "refusal" in answer:
            payload = open_bytes(answer["refusal"], custodian.public_key, "reply")
            raise Refused(decode(payload, "reply")[0]["reason"])
        return answer["letter"]

    def walk(self, custodian: Custodian, until: str = REVEAL) -> dict[str, bytes]:
        """All stages up to one; north's letters by stage."""
        letters = {}
        ones = np.ones(self.terms.size, np.uint32)
        for stage in (KEYS, SHARES, MASKED, AGREE, REVEAL):
            letters[stage] = letter = self.ask(custodian, stage)
            if stage == KEYS:
                self.tally.take_keys("north", letter)
                for name, party in self.parties.items():
                    self.tally.take_keys(name, party.advertise())
            elif stage == SHARES:
                self.tally.take_shares("north", letter)
                for name, party in self.parties.items():
                    self.tally.take_shares(name, party.share(self.tally.keys))
            elif stage == MASKED:
                self.tally.take_masked("north", self.row(letter)[1])
                for name, party in self.parties.items():
                    masked = party.mask(self.tally.letters_for(name), ones)
                    self.tally.take_masked(name, masked)
            elif stage == AGREE:
                self.tally.take_agreement("north", letter)
                for name, party in self.parties.items():
                    self.tally.take_agreement(name, party.agree(self.tally.survivors))
            else:
                self.tally.take_reveal("north", letter)
                for name, party in self.parties.items():
                    self.tally.take_reveal(name, party.reveal(self.tally.agreements))
            if stage == until:
                break
        return letters

    def row(self, letter: bytes) -> tuple[dict[str, Any], Any]:
        """What north told, and its masked row."""
        told, attached = read_letter(letter, self.terms, MASKED, "north")
        return told, read_words(attached, self.terms.size, 32)

    def words(self) -> Any:
        """North's own words, out of the finished sum: what is left without three rows of ones."""
        return self.tally.total() - np.uint32(3)


class Refused(Exception):
    """North said no."""


def every_field(plan: RoundPlan) -> dict[str, Any]:
    """A plan's fields by name."""
    return {entry.name: getattr(plan, entry.name) for entry in fields(plan)}


def local(plan: RoundPlan) -> RoundPlan:
    return replace(plan, secure=SECURE)


def distributed(plan: RoundPlan, **changes: Any) -> RoundPlan:
    chosen = {
        "unit": Unit.RECORD, "clip_norm": 1.0, "noise_multiplier": 2.0, "sampling_rate": 0.1,
        "steps": 1, "expected_units": 6.0, "mode": Mode.DISTRIBUTED, "shares": 3,
        "honest_hospitals": 2,
    }  # fmt: skip
    return replace(
        plan, secure=SECURE, training=PLAIN_ONE_STEP, privacy=PrivacyPlan(**chosen | changes)
    )


@pytest.fixture
def circle(setting: Any) -> Circle:
    setting.policy(lambda tables: tables["allow"].update(honest_hospitals=2))
    return Circle(setting, local(setting.plan))


@pytest.fixture
def custodian(setting: Any, circle: Circle) -> Iterator[Custodian]:
    opened = setting.open()
    yield opened
    opened.close()


def test_the_sum_holds_north_s_update_and_is_charged_once(
    setting: Any, circle: Circle, custodian: Custodian
) -> None:
    letters = circle.walk(custodian)
    told, row = circle.row(letters[MASKED])
    lattice = lattice_for(8.0, 32, 4)
    assert scale_of(circle.plan, circle.terms.size) == lattice.step
    assert told["plan_sha256"] == circle.plan.sha256
    assert told["report"]["secure_aggregation"]["threshold"] == 3
    words = circle.words()
    change = lattice.scale(from_words(words, setting.shapes, 32))
    # Adam with learning rate 0.02 moves a number by about 0.02 a step, here 2 steps.
    for array in change.values():
        assert 0 < float(array.abs().max()) < 0.1
    assert not np.array_equal(row, words)
    assert [e["kind"] for e in custodian._ledger.entries] == ["open", "reserve", "commit"]


@pytest.mark.fault
def test_a_restart_before_every_stage_changes_nothing(setting: Any, circle: Circle) -> None:
    """Each stage is asked twice, by a custodian opened anew; a killed one would look the same."""

    class Reopening:
        public_key = SigningKey.load_or_create(setting.hospital.key).public
        twice = True

        def secure_sum(self, request: bytes, block: bytes) -> bytes:
            answers = []
            for _ in range(2):
                opened = setting.open()
                answers.append(opened.secure_sum(request, block))
                self.entries = [e["kind"] for e in opened._ledger.entries]
                opened.close()
            assert answers[0] == answers[1]
            return answers[0]

    reopening = Reopening()
    circle.walk(reopening)  # type: ignore[arg-type]
    assert circle.words().any()
    assert reopening.entries == ["open", "reserve", "commit"]


def test_another_attempt_masks_the_same_words_anew(circle: Circle, custodian: Custodian) -> None:
    """The first attempt broke off before shares were shown; the second goes through."""
    first = circle.walk(custodian, until=AGREE)
    circle.begin("1")
    second = circle.walk(custodian)
    assert circle.row(second[MASKED])[0] == read_told(first[MASKED])
    assert second[MASKED][-circle.terms.size * 4 :] != first[MASKED][-circle.terms.size * 4 :]
    assert [e["kind"] for e in custodian._ledger.entries] == ["open", "reserve", "commit"]


def read_told(letter: bytes) -> dict[str, Any]:
    """What a letter tells beside its words, whatever its session."""
    told = parse_document(letter[64:].partition(b"\n")[0], "letter")
    return {name: value for name, value in told.items() if name not in ("session", "hospital")}


def test_of_each_round_one_sum_is_opened(circle: Circle, custodian: Custodian) -> None:
    letters = circle.walk(custodian)
    assert circle.ask(custodian, REVEAL) == letters[REVEAL]
    circle.begin("1")
    with pytest.raises(Refused, match="is over; of each round one sum is opened"):
        circle.walk(custodian)


def test_seeds_of_earlier_rounds_are_forgotten(
    setting: Any, circle: Circle, custodian: Custodian
) -> None:
    circle.walk(custodian)
    circle.plan = replace(circle.plan, round=3)
    circle.begin("0")
    circle.walk(custodian, until=KEYS)
    kept = {path.name: path.read_bytes() for path in setting.hospital.secure_sums.glob("*/*")}
    assert set(kept) == {"1", "3"}
    assert b"seed" not in kept["1"]
    circle.plan = replace(circle.plan, round=1)
    circle.begin("0")
    with pytest.raises(Refused, match=r"round 1 .* is over"):
        circle.walk(custodian)


def test_a_plan_for_a_secure_sum_is_not_answered_in_the_open(
    setting: Any, circle: Circle, custodian: Custodian
) -> None:
    circle.walk(custodian)
    for plan in (circle.plan, replace(circle.plan, round=2)):
        header, arrays = setting.ask(custodian, **every_field(plan))
        assert header["kind"] == "refusal"
        assert "goes into a secure sum" in header["reason"]
        assert not arrays


def test_a_plan_without_a_secure_sum_is_not_masked(circle: Circle, custodian: Custodian) -> None:
    circle.plan = replace(circle.plan, secure=None)
    circle.begin("0")
    with pytest.raises(Refused, match="the plan has no secure sum"):
        circle.walk(custodian)


@pytest.mark.parametrize(
    "changes",
    [{"secure": replace(SECURE, threshold=4)}, {"secure": replace(SECURE, bits=64)},
     {"secure": SecureSum(hospitals=5, threshold=4)}, {"run": "other"}, {"round": 2}],
)  # fmt: skip
def test_a_plan_goes_into_its_own_sum_only(
    circle: Circle, custodian: Custodian, changes: dict[str, Any]
) -> None:
    other = replace(circle.plan, **changes)
    circle.terms = replace(circle.terms, plans={**circle.terms.plans, "north": other.sha256})
    circle.parties = {n: Party(circle.terms, n, k, b"s" * 32) for n, k in circle.others.items()}
    circle.tally = Tally(circle.terms)
    circle.plan = other
    with pytest.raises(Refused, match="not the one the plan speaks of"):
        circle.walk(custodian)
    assert [e["kind"] for e in custodian._ledger.entries] == ["open"]


def test_only_listed_hospitals_are_summed_with(setting: Any, circle: Circle) -> None:
    """A coordinator cannot make up the company: neither other hospitals nor other keys."""
    setting.hospital = replace(setting.hospital, members={**circle.members, "west": "0" * 64})
    opened = setting.open()
    with pytest.raises(Refused, match=r"'west' with key .* is not on this hospital's list"):
        circle.ask(opened, KEYS)
    opened.close()
    setting.hospital = replace(setting.hospital, members={})
    opened = setting.open()
    with pytest.raises(Refused, match="is not on this hospital's list"):
        circle.ask(opened, KEYS)
    opened.close()


def test_requests_by_anybody_else_or_out_of_turn(circle: Circle, custodian: Custodian) -> None:
    with pytest.raises(Refused, match="does not verify"):
        circle.ask(custodian, KEYS, key=SigningKey.generate())
    with pytest.raises(Refused, match="no stage is called 'open'"):
        circle.ask(custodian, "open", parts={})
    for stage in (SHARES, AGREE, REVEAL):
        with pytest.raises(Refused, match="has not begun"):
            circle.ask(custodian, stage, parts={})
    circle.ask(custodian, KEYS)
    with pytest.raises(Refused, match="plan or letters are missing"):
        circle.ask(custodian, MASKED, parts={})
    with pytest.raises(Refused, match="shares before keys"):
        circle.ask(custodian, MASKED, parts={"plan": b"", "letters": pack({})})
    with pytest.raises(Refused, match="dealt no shares"):
        circle.ask(custodian, AGREE, parts={"north": b""})
    with pytest.raises(Refused, match="has signed for"):
        circle.ask(custodian, REVEAL, parts={})


def test_terms_that_cannot_be_are_refused(circle: Circle, custodian: Custodian) -> None:
    weak = replace(circle.terms)
    object.__setattr__(weak, "threshold", 2)
    with pytest.raises(Refused, match="threshold is 2; it must be at least 3"):
        circle.ask(custodian, KEYS, terms=weak)


@pytest.mark.statistical
def test_a_share_of_noise_is_all_there_is(setting: Any, circle: Circle) -> None:
    """Distributed, one step: the words are whole steps with the share's variance.

    The gradient is at most 60 records long, that is 60 steps of clip_norm over all coordinates;
    noise of a million steps a coordinate drowns it. 5 standard deviations of a mean of squares:
    false alarm below 1e-6.
    """
    circle.plan = distributed(setting.plan)
    circle.begin("0")
    opened = setting.open()
    letters = circle.walk(opened)
    told, _ = circle.row(letters[MASKED])
    size = circle.terms.size
    lattice = share_lattice(circle.plan.privacy, size, 4, 32)
    assert scale_of(circle.plan, size) == pytest.approx(-0.5 / 6.0 * lattice.step)
    steps = from_words(circle.words(), {"a": torch.Size([size])}, 32)["a"].double()
    # 60 units of clip_norm, squared, spread over the coordinates: the most data can add.
    data = (60 / (2.0 / np.sqrt(3))) ** 2 / size
    ratio = float((steps / lattice.sigma).square().mean())
    slack = 5 * np.sqrt(2 / size)
    assert 1 - slack < ratio < 1 + data + slack + 2 * np.sqrt(data) * 5 / np.sqrt(size)
    (charged,) = (e for e in opened._ledger.entries if e["kind"] == "reserve")
    assert charged["event"]["event"]["event"]["noise_multiplier"] == pytest.approx(
        2.0 * np.sqrt(2 / 3)
    )
    assert opened._ledger.spent("notes", Unit.RECORD) == PoissonSampled(
        0.1, Gaussian(circle.plan.privacy.effective_multiplier)
    )
    rows = told["report"]["guarantees"]
    assert [(row["relies_on"], row["charged"]) for row in rows] == [
        (1, False),
        (2, True),
        (3, False),
    ]
    opened.close()


def test_a_whole_update_goes_in_as_a_share(setting: Any, circle: Circle) -> None:
    setting.policy(lambda tables: tables["budget"].update(unit="site", epsilon=100.0))
    circle.plan = replace(
        distributed(
            setting.plan,
            unit=Unit.SITE,
            mechanism=Mechanism.WHOLE_UPDATE,
            steps=2,
            expected_units=1.0,
            sampling_rate=1.0,
        ),
        training={"optimizer": "adam", "learning_rate": 0.02},
    )
    circle.begin("0")
    opened = setting.open()
    circle.walk(opened)
    size = circle.terms.size
    assert scale_of(circle.plan, size) == share_lattice(circle.plan.privacy, size, 4, 32).step
    assert circle.words().any()
    opened.close()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"training": {"learning_rate": 0.1}}, "optimizer is 'adam'"),
        ({"training": {**PLAIN_ONE_STEP, "weight_decay": 0.1}}, "weight_decay 0.1"),
        ({"training": {**PLAIN_ONE_STEP, "keep_state": True}}, "keep_state is on"),
        ({"turns": True}, "move in turn"),
    ],
)
def test_updates_that_would_not_add_up_are_refused_before_the_charge(
    setting: Any, circle: Circle, changes: dict[str, Any], says: str
) -> None:
    names = tuple(setting.shapes)
    if changes.pop("turns", False):
        changes |= {"trains": names, "turns": ((names[0],), names[1:])}
    circle.plan = replace(distributed(setting.plan), **changes)
    circle.begin("0")
    opened = setting.open()
    with pytest.raises(Refused, match=says):
        circle.walk(opened)
    assert [e["kind"] for e in opened._ledger.entries] == ["open"]
    opened.close()


def test_noise_that_does_not_fit_is_refused_before_the_charge(setting: Any, circle: Circle) -> None:
    circle.plan = distributed(setting.plan, expected_units=1e9)
    circle.begin("0")
    opened = setting.open()
    with pytest.raises(Refused, match="use 64 bits"):
        circle.walk(opened)
    assert [e["kind"] for e in opened._ledger.entries] == ["open"]
    opened.close()
