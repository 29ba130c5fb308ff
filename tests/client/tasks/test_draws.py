"""Draws: repeatable, exact, unrelated between purposes."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardround.client.tasks.draws import Draws


def test_first_draw_is_sha256_of_seed_purpose_and_counter():
    # Oracle: hashlib, on the message written out; 2**32 divides 2**64, so nothing is redrawn.
    block = hashlib.sha256(b"7/names/0").digest()
    wanted = int.from_bytes(block[:8], "big") % 2**32
    assert Draws(7, "names").below(2**32) == wanted


def test_same_seed_and_purpose_give_the_same_row():
    one, two = Draws(1, "a"), Draws(1, "a")
    assert [one.below(10) for _ in range(50)] == [two.below(10) for _ in range(50)]


@pytest.mark.parametrize("other", [(2, "a"), (1, "b")])
def test_other_seed_or_purpose_gives_another_row(other):
    first, second = Draws(1, "a"), Draws(*other)
    assert [first.below(10) for _ in range(50)] != [second.below(10) for _ in range(50)]


def test_every_face_of_a_die_is_equally_likely():
    # Chi-square with 5 degrees of freedom exceeds 20.5 once in a thousand; the seed is fixed.
    draws = Draws(3, "die")
    counts = [0] * 6
    for _ in range(6000):
        counts[draws.below(6)] += 1
    assert sum((count - 1000) ** 2 / 1000 for count in counts) < 20.5


@given(seed=st.integers(), size=st.integers(1, 30), data=st.data())
def test_sample_draws_places_without_putting_them_back(seed, size, data):
    count = data.draw(st.integers(0, size))
    drawn = Draws(seed, "sample").sample(range(size), count)
    assert len(drawn) == count == len(set(drawn))
    assert set(drawn) <= set(range(size))


def test_shuffle_keeps_everything():
    assert sorted(Draws(1, "s").shuffled("gafebdc")) == list("abcdefg")


@pytest.mark.parametrize("bound", [0, -3])
def test_bound_below_one_is_refused(bound):
    with pytest.raises(ValueError, match=f"bound is {bound}"):
        Draws(1, "x").below(bound)


def test_more_than_there_is_cannot_be_sampled():
    with pytest.raises(ValueError, match="cannot draw 4 of 3"):
        Draws(1, "x").sample("abc", 4)
