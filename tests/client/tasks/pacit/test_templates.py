"""Prompts and targets to the character, which exemplars they show, and what is said of them.

The golden texts were written out by hand from the released ``ni_collator.py`` of Xue et al. (2024).
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest

from wardround.client.tasks.draws import Draws
from wardround.client.tasks.pacit.choosing import ExemplarSettings, Verdicts, choose, say
from wardround.client.tasks.pacit.records import Exemplar, Instance, Instructions
from wardround.client.tasks.pacit.templates import (
    Shown,
    Style,
    answer_of,
    closed,
    head,
    prompt,
    query,
    verdict,
)

RIGHT = Exemplar("Give Bato 5 mg", "Bato")
WRONG = Exemplar("Is it raining?", "5 mg!")
DEFINITION = "Write the drug "
HEAD = "Definition: Write the drug.\n\n"
QUERY = "Now complete the following example -\nInput: Give Sofa.\nOutput: "
GOOD_FIRST = (Shown(RIGHT, True, True), Shown(WRONG, False, False))
BOTH = "I would avoid these wrong examples, and learn from these correct examples. The output: "


def text(style: Style, *shown: Shown) -> str:
    return prompt(style, DEFINITION, shown, " Give Sofa. ")


def test_zero_shot_prompt():
    assert text(Style.ZERO_SHOT, *GOOD_FIRST) == HEAD + QUERY


def test_icit_prompt():
    wanted = (
        " Positive Example 1 -\n Input: Give Bato 5 mg.\n Output: Bato.\n\n"
        " Negative Example 1 -\n Input: Is it raining?\n Output: 5 mg!\n\n"
    )
    assert text(Style.ICIT, *GOOD_FIRST) == HEAD + wanted + QUERY
    assert text(Style.ICIT, *reversed(GOOD_FIRST)) == HEAD + wanted + QUERY  # right ones first


def test_icit_prompt_with_swapped_labels():
    swapped = [replace(one, said=not one.said) for one in GOOD_FIRST]
    assert text(Style.ICIT, *swapped) == (
        HEAD + " Negative Example 1 -\n Input: Give Bato 5 mg.\n Output: Bato.\n\n"
        " Positive Example 1 -\n Input: Is it raining?\n Output: 5 mg!\n\n" + QUERY
    )


def test_pacit_prompt_in_both_orders():
    good = " Example {} -\n Input: Give Bato 5 mg.\n Output: Bato.\n\n"
    bad = " Example {} -\n Input: Is it raining?\n Output: 5 mg!\n\n"
    assert text(Style.PACIT, *GOOD_FIRST) == HEAD + good.format(1) + bad.format(2) + QUERY
    assert text(Style.PACIT, *GOOD_FIRST[::-1]) == HEAD + bad.format(1) + good.format(2) + QUERY


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ([], ""),
        ([False, True], " Example 1 is wrong, and example 2 is correct. " + BOTH),
        ([True, False], " Example 1 is correct, and example 2 is wrong. " + BOTH),
        # The comma before the intent is the published code's, for a single example.
        ([True], " Example 1 is correct, I would learn from these correct examples. The output: "),
        ([False], " Example 1 is wrong, I would avoid these wrong examples. The output: "),
        (
            [True, True],
            " Example 1 is correct, and example 2 is correct. "
            "I would learn from these correct examples. The output: ",
        ),
        (
            [False, True, False],
            " Example 1 is wrong, example 2 is correct, and example 3 is wrong. " + BOTH,
        ),
    ],
)
def test_verdict(said, wanted):
    assert verdict(said) == wanted


@pytest.mark.parametrize(
    ("given", "wanted"), [("a", "a."), ("a?", "a?"), ("a)", "a)"), ("5 %", "5 %"), ("", ".")]
)
def test_texts_end_in_punctuation(given, wanted):
    assert closed(given) == wanted


@pytest.mark.parametrize(
    ("reply", "wanted"),
    [
        (verdict([True]) + "Sofa.", "Sofa."),
        ("The output: a The output: b", "b"),
        ("no marker", "no marker"),
        ("The output:", "The output:"),
    ],
)
def test_what_counts_is_after_the_last_marker(reply, wanted):
    assert answer_of(reply) == wanted


POOL = Instructions(
    "drug",
    DEFINITION,
    tuple(Exemplar(f"good {n}", "x") for n in range(5)),
    tuple(Exemplar(f"bad {n}", "y") for n in range(5)),
)
ROW = Instance(POOL, "Give Sofa", ("Sofa",))


def chosen(name: str, settings: ExemplarSettings | None = None, tokens: int = 10**6):
    return choose(name, ROW, settings or ExemplarSettings(), tokens, len)


def test_a_row_s_choice_depends_on_its_name_and_the_seed_alone():
    assert chosen("a") == chosen("a")
    assert len({chosen(str(n)) for n in range(40)}) > 10
    assert chosen("a") != chosen("a", ExemplarSettings(seed=43))


@pytest.mark.statistical
def test_order_is_uniform_and_verdicts_follow_it():
    """2,000 fair coins stray from half by 5 standard deviations with probability 6e-7."""
    rows = [chosen(str(n)) for n in range(2000)]
    assert all(sorted(one.right for one in row) == [False, True] for row in rows)
    first = sum(row[0].right for row in rows)
    assert abs(first - 1000) < 5 * math.sqrt(500)
    for row in rows[:20]:
        begins = " Example 1 is correct" if row[0].right else " Example 1 is wrong"
        assert verdict([one.said for one in row]).startswith(begins)
    shown = Counter(one.exemplar for row in rows for one in row)
    assert len(shown) == 10
    assert all(abs(count - 400) < 5 * math.sqrt(2000 * 0.16) for count in shown.values())


@pytest.mark.statistical
def test_verdicts_true_flipped_and_random():
    """4,000 fair coins stray from half by 5 standard deviations with probability 6e-7."""
    draws, right = Draws(0, "test"), [True, False] * 2000
    assert say(right, Verdicts.TRUE, draws) == right
    assert say(right, Verdicts.FLIPPED, draws) == [not one for one in right]
    words = say(right, Verdicts.RANDOM, draws)
    agreeing = sum(word is one for word, one in zip(words, right, strict=True))
    assert abs(agreeing - 2000) < 5 * math.sqrt(1000)
    both = Counter(zip(words[::2], words[1::2], strict=True))
    assert all(abs(count - 500) < 5 * math.sqrt(2000 * 3 / 16) for count in both.values())


def test_what_is_too_long_goes_wrong_ones_first_and_whole():
    settings = ExemplarSettings(positives=2, negatives=2)
    whole = len(prompt(Style.ICIT, DEFINITION, chosen("a", settings), ROW.input))
    bare = len(head(DEFINITION) + query(ROW.input))
    kept = []
    for tokens in range(bare - 1, whole + 1):
        shown = chosen("a", settings, tokens)
        length = len(prompt(Style.ICIT, DEFINITION, shown, ROW.input))
        assert length <= max(tokens, bare)  # nothing can be left out of definition and query
        assert all(one.exemplar in (*POOL.positives, *POOL.negatives) for one in shown)
        kept.append((sum(one.right for one in shown), sum(not one.right for one in shown)))
    # A wrong exemplar is shorter here by a letter, so it fits where the next right one does not.
    assert kept[0] == (0, 0)
    assert kept[-1] == (2, 2)
    assert all(good == 2 or bad <= 1 for good, bad in kept)
    totals = [good + bad for good, bad in kept]
    assert totals == sorted(totals)
    assert (2, 1) in kept
    assert (2, 0) in kept


def test_negative_numbers_of_exemplars_are_refused():
    with pytest.raises(ValueError, match="negatives is -1; it must be 0 or more"):
        ExemplarSettings(negatives=-1)
