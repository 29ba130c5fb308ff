"""Rows of token ids: where the answer starts, what is cut, and that padding changes nothing."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch.nn import functional

from wardround.client.tasks.rows import (
    IGNORED,
    answer_losses,
    ask,
    encode,
    pad,
    pad_token_id,
    predictions,
)

BOS, EOS = 1, 2


class Letters:
    """One token a character; begins and ends every text like some real tokenizers do."""

    pad_token_id = None
    eos_token_id = EOS

    def __init__(self, ends=False):
        self.ends = ends

    def __call__(self, text, add_special_tokens=True):
        ids = [ord(letter) for letter in text]
        return {
            "input_ids": [BOS, *ids, *([EOS] if self.ends else [])] if add_special_tokens else ids
        }


def _ids(text):
    return tuple(ord(letter) for letter in text)


@pytest.mark.parametrize("ends", [False, True])
def test_prompt_blank_answer_and_end_are_one_sequence(ends):
    ids, start = encode(Letters(ends), "ab?", " yes ", max_length=20)
    assert ids == (BOS, *_ids("ab?"), *_ids(" yes"), EOS)
    assert start == 4


def test_end_token_is_left_out_on_request():
    ids, _ = encode(Letters(), "a", "b", max_length=20, eos=False)
    assert ids == (BOS, *_ids("a b"))


def test_long_prompts_keep_their_end_and_long_answers_their_beginning():
    ids, start = encode(Letters(), "abcdefgh", "xy", max_length=8)
    assert (ids, start) == ((*_ids("efgh"), *_ids(" xy"), EOS), 4)
    ids, start = encode(Letters(), "abc", "uvwxyz", max_length=4)
    assert (ids, start) == ((*_ids("c"), *_ids(" uv")), 1)


def test_padding_is_on_the_right_and_masked():
    found = pad([((7, 8, 9), 1), ((5, 6), 1)], 0)
    assert found["input_ids"].tolist() == [[7, 8, 9], [5, 6, 0]]
    assert found["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert found["labels"].tolist() == [[IGNORED, 8, 9], [IGNORED, 6, IGNORED]]


def test_no_rows_are_an_empty_batch():
    assert pad([], 0)["input_ids"].shape[0] == 0


def test_padding_token_falls_back_to_the_end_token():
    assert pad_token_id(Letters()) == EOS


def test_losses_are_means_over_each_rows_own_answer(case):
    model = case("editing").model()
    rows = [((1, 9, 8, 7, 2), 3), ((1, 4, 5), 1), ((1, 30, 31, 32, 33, 34, 35, 2), 2)]
    found = answer_losses(model, pad(rows, 0))
    for value, (ids, start) in zip(found, rows, strict=True):
        # Oracle: one row at a time, no padding, no mask, log-softmax picked by hand.
        logits = model(input_ids=torch.tensor([ids])).logits[0]
        chances = functional.log_softmax(logits, dim=-1)
        wanted = -sum(chances[p - 1, ids[p]] for p in range(start, len(ids))) / (len(ids) - start)
        torch.testing.assert_close(value, wanted, rtol=1e-10, atol=1e-10)


def test_predictions_are_the_first_choices_at_answer_places(case):
    model = case("editing").model()
    rows = [((1, 9, 8, 7, 2), 3), ((1, 4, 5), 1), ((1, 30, 31, 32), 2)]
    found = predictions(model, rows, 0, rows_per_pass=2)
    for said, (ids, start) in zip(found, rows, strict=True):
        best = model(input_ids=torch.tensor([ids])).logits[0].argmax(-1).tolist()
        assert said == best[start - 1 : len(ids) - 1]


def test_what_is_said_comes_with_its_loss_whatever_shares_the_pass(case):
    model = case("editing").model()
    rows = [((1, 9, 8, 7, 2), 3), ((1, 4, 5), 1), ((1, 30, 31, 32), 2)]
    asked = []
    found = ask(model, rows, 0, 2, lambda places: nullcontext(asked.append(list(places))))
    assert asked == [[0, 1], [2]]
    assert [one.tokens for one in found] == predictions(model, rows, 0)
    # Oracle: the training loss, which has a test of its own.
    wanted = answer_losses(model, pad(rows, 0)).tolist()
    assert [one.loss for one in found] == pytest.approx(wanted, rel=1e-9)
