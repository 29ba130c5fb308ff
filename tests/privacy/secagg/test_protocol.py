"""The whole protocol: every way to drop out, what can be opened, and what single rows look like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from wardround.privacy.errors import BadMessage
from wardround.privacy.secagg.lattice import Words
from wardround.privacy.secagg.masks import remove_mask
from wardround.privacy.secagg.party import Party
from wardround.privacy.secagg.tally import Tally
from wardround.privacy.secagg.terms import check_threshold, least_threshold

MakeSession = Callable[..., Any]
RowsOf = Callable[[Any], dict[str, Words]]
NAMES = [f"h{i}" for i in range(6)]


def plain_sum(rows: dict[str, Words], names: object) -> Words:
    """What adding without masks gives."""
    return sum((rows[name] for name in names), np.zeros_like(rows["h0"]))  # type: ignore[attr-defined]


def test_every_drop_out_set_of_six_hospitals(make_session: MakeSession, rows_of: RowsOf) -> None:
    """All 64 sets that fall silent once shares are dealt; threshold 4, so 22 of them are sums."""
    opened = make_session(6, 4)
    opened.open()
    rows, sums = rows_of(opened), 0
    # A masked row does not depend on who survives, so each is made once.
    masked = {
        n: party.mask(opened.tally.letters_for(n), rows[n]) for n, party in opened.parties.items()
    }
    for count in range(7):
        for alive in combinations(NAMES, count):
            session = opened.fork()
            for name in alive:
                session.tally.take_masked(name, masked[name])
            if count >= 4:
                assert np.array_equal(session.settle(), plain_sum(rows, alive))
                sums += 1
            else:
                for name in alive:
                    with pytest.raises(BadMessage, match=r"hospitals survived; the threshold is 4"):
                        session.parties[name].agree(session.tally.survivors)
                with pytest.raises(BadMessage, match="threshold is 4"):
                    session.tally.total()
    assert sums == 15 + 6 + 1


@settings(max_examples=10, deadline=None)
@given(st.lists(st.sampled_from(["share", "mask", "reveal", ""]), min_size=6, max_size=6))
def test_drop_outs_at_any_stage(make_session: MakeSession, fates: list[str]) -> None:
    """A hospital may fall silent before dealing shares, before its row, or before revealing."""
    session = make_session(6, 4, size=7)
    lost = {stage: {n for n, fate in zip(NAMES, fates, strict=True) if fate == stage}
            for stage in ("share", "mask", "reveal")}  # fmt: skip
    session.open(silent=lost["share"])
    dealt = [n for n in NAMES if n not in lost["share"]]
    alive = [n for n in dealt if n not in lost["mask"]]
    rows = {n: np.full(7, i + 1, np.uint32) for i, n in enumerate(NAMES)}
    chosen = {name: rows[name] for name in alive}
    if len(set(alive) - lost["reveal"]) < 4:
        with pytest.raises(BadMessage, match="threshold is 4"):
            session.mask(chosen) or session.settle(silent=lost["reveal"])
    else:
        session.mask(chosen)
        assert np.array_equal(session.settle(silent=lost["reveal"]), plain_sum(rows, alive))


def bytes_look_uniform(words: Words) -> bool:
    """Chi-square over byte values; a sound row fails with probability 1e-6."""
    counts = np.bincount(np.frombuffer(words.tobytes(), np.uint8), minlength=256)
    return bool(chisquare(counts).pvalue > 1e-6)


@pytest.mark.statistical
@pytest.mark.parametrize("bits", [32, 64])
def test_a_single_masked_row_is_uniform(make_session: MakeSession, bits: int) -> None:
    """12 rows of zeros, 80 kB each; false alarms 1e-6 each, 1.2e-5 together. Seeds are fixed."""
    session = make_session(6, 4, size=80_000 // (bits // 8), bits=bits)
    session.open()
    zeros = np.zeros(session.terms.size, f"<u{bits // 8}")
    for name, party in session.parties.items():
        row = party.mask(session.tally.letters_for(name), zeros)
        assert bytes_look_uniform(row)
    assert not bytes_look_uniform(zeros)  # the twin without a mask


@pytest.mark.statistical
def test_rows_of_two_rounds_are_independent(make_session: MakeSession) -> None:
    """Their difference is uniform, even from the same seed; false alarm 1e-6.

    The broken twin masks twice in one session: the difference of the rows is that of the values.
    """
    size = 20_000
    first, second = make_session(6, 4, size=size), make_session(6, 4, size=size, round=2)
    rows = []
    for session, fill in ((first, 5), (second, 9)):
        session.open()
        letters = session.tally.letters_for("h0")
        rows.append(session.parties["h0"].mask(letters, np.full(size, fill, np.uint32)))
    assert bytes_look_uniform(rows[1] - rows[0])
    reused = first.parties["h0"].mask(first.tally.letters_for("h0"), np.full(size, 9, np.uint32))
    assert not bytes_look_uniform(reused - rows[0])
    assert (reused - rows[0] == 4).all()


@pytest.mark.statistical
def test_even_all_but_two_seeds_open_nothing(make_session: MakeSession) -> None:
    """Whoever knows h2..h5's own secrets still sees a uniform row of h0; false alarm 1e-6.

    The masks that the four have in common with h0 are taken off; h0's own and that with h1 stay.
    """
    session = make_session(6, 4, size=20_000)
    session.open()
    zeros = np.zeros(20_000, np.uint32)
    row = session.parties["h0"].mask(session.tally.letters_for("h0"), zeros)
    for name in ("h2", "h3", "h4", "h5"):
        twin = session.parties[name]
        twin.accept(session.tally.letters_for(name))
        remove_mask(row, twin._pairing_key("h0"))
    assert bytes_look_uniform(row)


def test_a_party_says_the_same_after_a_restart(make_session: MakeSession, rows_of: RowsOf) -> None:
    session = make_session()
    session.open()
    rows = rows_of(session)
    again = session.again()
    again.open()
    assert again.tally.keys == session.tally.keys
    for name in NAMES:
        letters = session.tally.letters_for(name)
        assert again.tally.letters_for(name) == letters
        assert np.array_equal(
            session.parties[name].mask(letters, rows[name]),
            again.parties[name].mask(letters, rows[name]),
        )


def test_a_coordinator_goes_on_after_a_restart(make_session: MakeSession, rows_of: RowsOf) -> None:
    session, rows = make_session(), rows_of(make_session())
    session.open()
    session.mask({name: rows[name] for name in NAMES[1:]})
    session.tally = Tally.from_bytes(session.terms, session.tally.to_bytes())
    assert session.tally.survivors == tuple(NAMES[1:])
    assert session.tally.dealers == tuple(NAMES)
    assert np.array_equal(session.settle(), plain_sum(rows, NAMES[1:]))


def test_another_attempt_has_other_keys(make_session: MakeSession) -> None:
    one, other = make_session(), make_session(attempt="1")
    assert one.terms.session != other.terms.session
    assert one.parties["h0"].advertise() != other.parties["h0"].advertise()


@pytest.mark.parametrize(("hospitals", "least"), [(3, 3), (4, 3), (5, 4), (6, 4), (9, 6), (64, 43)])
def test_thresholds(hospitals: int, least: int) -> None:
    """Two thirds rounded up, and 3; two lists then need 2t - K > K/3 double signers, minus one."""
    assert least_threshold(hospitals) == least
    check_threshold(hospitals, hospitals)
    for bad in (least - 1, hospitals + 1):
        with pytest.raises(ValueError, match=f"threshold is {bad}; it must be at least {least}"):
            check_threshold(hospitals, bad)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"bits": 16}, "bits is 16"),
        ({"size": 0}, "size is 0"),
        ({"round": 0}, "round is 0"),
        ({"plans": {}}, "different hospitals"),
        ({"plans": dict.fromkeys(NAMES, "x")}, "64 hexadecimal"),
    ],
)
def test_terms_that_cannot_be_are_refused(
    make_session: MakeSession, changes: dict[str, object], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        replace(make_session().terms, **changes)  # type: ignore[arg-type]


def test_only_the_named_key_takes_part(make_session: MakeSession) -> None:
    session = make_session()
    with pytest.raises(BadMessage, match="with its own key"):
        Party(session.terms, "h0", session.keys["h1"], b"s" * 32)
