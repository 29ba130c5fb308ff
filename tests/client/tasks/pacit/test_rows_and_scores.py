"""What is learnt of a row and how much it counts; what an answer is worth."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround.client.models import load_base
from wardround.client.tasks.pacit.rows import (
    ANSWER,
    TEMPLATE,
    VERDICT,
    Weights,
    encode_row,
    pad_rows,
    prefix_ids,
    row_losses,
    token_losses,
)
from wardround.client.tasks.pacit.scores import (
    best,
    exact_match,
    rouge_l,
    verdict_accuracy,
)
from wardround.client.tasks.pacit.templates import verdict
from wardround.client.tasks.rows import IGNORED

PROMPT = "Definition: Write the drug.\n\nNow complete the following example -\nInput: x.\nOutput: "
SAID = verdict([False, True])


@pytest.fixture(scope="module")
def base():
    return load_base("advice")


@pytest.mark.parametrize(("said", "answer"), [(SAID, "Bato 5 mg."), ("", "Bato."), (SAID, "is")])
def test_a_row_spells_the_template_and_masks_the_prompt(base, said, answer):
    row = encode_row(base.tokenizer, PROMPT, said, answer, 512)
    whole = base.tokenizer.decode(row.ids, skip_special_tokens=True)
    assert whole == PROMPT + said + answer
    assert row.ids[-1] == base.tokenizer.eos_token_id
    learnt = base.tokenizer.decode(row.ids[row.start :], skip_special_tokens=True)
    assert learnt == f" {said}{answer}"  # the prompt's last blank belongs to the next word
    inputs = pad_rows([row, encode_row(base.tokenizer, "x " * 150, "", "y", 512)], 0, Weights())
    labels = inputs["labels"][0]
    assert bool((labels[: row.start] == IGNORED).all())
    assert labels[row.start : len(row.ids)].tolist() == list(row.ids[row.start :])
    assert bool((labels[len(row.ids) :] == IGNORED).all())
    assert bool(((inputs["weights"][0] > 0) == (labels != IGNORED)).all())


def test_verdict_words_and_answers_are_told_apart(base):
    row = encode_row(base.tokenizer, PROMPT, SAID, "wrong.", 512)
    spoken = {
        kind: base.tokenizer.decode(
            [i for i, k in zip(row.ids[row.start :], row.kinds, strict=True) if k == kind],
            skip_special_tokens=True,
        )
        for kind in (TEMPLATE, VERDICT, ANSWER)
    }
    assert spoken[VERDICT].split() == ["wrong", "correct"]
    assert spoken[ANSWER] == " wrong."
    assert spoken[TEMPLATE].startswith("  Example 1 is, and example 2 is.")
    assert spoken[TEMPLATE].count("wrong") == 1  # of the intent


def test_a_forced_verdict_is_spelt_as_it_was_learnt(base):
    row = encode_row(base.tokenizer, PROMPT, SAID, "Bato.", 512)
    forced = prefix_ids(base.tokenizer, PROMPT, SAID, 512)
    assert row.ids[: len(forced)] == forced
    assert row.kinds[len(forced) - row.start :] == (ANSWER,) * (len(row.ids) - len(forced))
    assert prefix_ids(base.tokenizer, PROMPT, "", 512) == row.ids[: row.start]


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=40), st.text(min_size=1, max_size=40), st.integers(2, 40))
def test_long_rows_keep_the_end_of_the_prompt_and_the_start_of_the_target(prompt, answer, most):
    tokenizer = load_base("advice").tokenizer
    whole = encode_row(tokenizer, prompt, SAID, answer, 10**6)
    row = encode_row(tokenizer, prompt, SAID, answer, most)
    assert len(row.ids) == min(most, len(whole.ids))
    assert row.start >= 1
    assert len(row.kinds) == len(row.ids) - row.start
    target = whole.ids[whole.start :]
    assert row.ids[row.start :] == target[: most - 1]
    assert whole.ids[: whole.start][-row.start :] == row.ids[: row.start]


def test_weights_divide_by_a_row_s_own_weight(base):
    said = [encode_row(base.tokenizer, PROMPT, SAID, answer, 512) for answer in ("Bato.", "a b c")]
    heavy = pad_rows(said, 0, Weights(verdict=2.0, template=0.5, answer=3.0))
    losses = token_losses(base.model, heavy).double().detach()
    kinds, found = heavy["kinds"][:, 1:], row_losses(base.model, heavy).detach()
    for number in range(2):
        parts = [losses[number][kinds[number] == kind] for kind in (TEMPLATE, VERDICT, ANSWER)]
        above = sum(w * float(p.sum()) for w, p in zip((0.5, 2.0, 3.0), parts, strict=True))
        below = sum(w * len(p) for w, p in zip((0.5, 2.0, 3.0), parts, strict=True))
        assert float(found[number]) == pytest.approx(above / below, rel=1e-5)  # float32 sums
    alone = row_losses(base.model, pad_rows(said[:1], 0, Weights()))
    plain = row_losses(base.model, pad_rows(said, 0, Weights()))
    torch.testing.assert_close(alone, plain[:1])


@pytest.mark.parametrize(
    ("values", "message"),
    [({"verdict": -1.0}, "verdict is -1.0; it must be 0"), ({"answer": 0.0}, "answer is 0; it")],
)
def test_weights_are_checked(values, message):
    with pytest.raises(ValueError, match=message):
        Weights(**values)


@pytest.mark.parametrize(
    ("said", "wanted", "score"),
    [
        # Lin (2004): P 3/4, R 1, F = 2 * .75 / 1.75.
        ("a b c d", "a c d", 6 / 7),
        ("Ward A, daily.", "ward a daily", 1.0),
        ("a b", "c d", 0.0),
        ("", "a", 0.0),
        # Lin (2004), section 3.1, example: "police kill the gunman" shares two words in order.
        ("police kill the gunman", "police killed the gunman", 3 / 4),
        ("the gunman kill police", "police killed the gunman", 2 / 4),
    ],
)
def test_rouge_l(said, wanted, score):
    assert rouge_l(said, wanted) == pytest.approx(score, abs=1e-12)


def test_exact_match_and_the_best_of_several():
    assert exact_match(" Ward A,  daily. ", "ward a daily")
    assert not exact_match("ward a", "ward b")
    assert best(rouge_l, "a b c d", ["x", "a c d"]) == pytest.approx(6 / 7)


@pytest.mark.parametrize(
    ("reply", "right", "share"),
    [
        (verdict([False, True]), [False, True], 1.0),
        (verdict([False, True]), [True, True], 0.5),
        ("Bato.", [False, True], 0.0),
        ("Example 2 is correct", [False, True], 0.5),
    ],
)
def test_verdict_accuracy(reply, right, share):
    assert verdict_accuracy(reply, right) == share
