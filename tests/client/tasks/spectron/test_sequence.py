"""What predicts what: alignment, padding, both ways of running, and parts of the loss."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from wardround.client.tasks.spectron.generation import Limits, answer
from wardround.client.tasks.spectron.model import encode_speech
from wardround.client.tasks.spectron.sequence import Weights, row_losses, run


def test_a_frame_depends_on_no_frame_at_its_place_or_later(model, rows_of, records) -> None:
    rows = rows_of(records[2:3])
    fed = rows["answer"].clone().requires_grad_(True)
    found = run(model, rows | {"heard": fed})
    step = model.config.frames_per_step
    for place in range(int(rows["steps"][0])):
        said = found.frames[0, place * step : (place + 1) * step].sum()
        (gradient,) = torch.autograd.grad(said, fed, retain_graph=True)
        by_step = gradient[0].reshape(-1, step * gradient.shape[2]).abs().sum(1)
        assert not by_step[place:].any()
        assert place == 0 or bool((by_step[:place] > 0).all())


def test_the_question_reaches_every_token(model, rows_of, records) -> None:
    rows = rows_of(records[2:3])
    question = rows["question"].clone().requires_grad_(True)
    found = run(model, rows | {"question": question})
    for place in range(found.logits.shape[1]):
        (gradient,) = torch.autograd.grad(
            found.logits[0, place].square().sum(), question, retain_graph=True
        )
        assert bool((gradient.abs().sum(-1)[0] > 0).any())


@pytest.mark.parametrize("frames", [*range(17, 34), 57])
def test_what_is_heard_does_not_depend_on_padding(model, frames) -> None:
    """An odd number of frames once let the encoder see what stood behind them."""
    generator = torch.Generator().manual_seed(frames)
    mel = torch.randn(1, frames, 16, generator=generator, dtype=torch.float64)
    padded = torch.cat([mel, torch.full((1, 60 - frames, 16), -1.5, dtype=torch.float64)], 1)
    count = torch.tensor([frames])
    alone, length = encode_speech(model, mel, count)
    beside, same = encode_speech(model, padded, count)
    assert int(length) == int(same)
    torch.testing.assert_close(beside[:, : int(length)], alone[:, : int(length)])


def test_rows_of_unlike_lengths_are_what_they_are_alone(model, rows_of, records) -> None:
    together = row_losses(model, rows_of(records), Weights())
    alone = torch.cat([row_losses(model, rows_of([record]), Weights()) for record in records])
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-10)


def test_parts_of_the_loss_come_apart(model, rows_of, records) -> None:
    rows = rows_of(records[:1])
    text = row_losses(model, rows, Weights(speech=0.0, stop=0.0))
    logits = run(model, rows).logits[0]
    wanted = functional.cross_entropy(logits, rows["ids"][0, 1:])
    torch.testing.assert_close(text[0], wanted)
    speech = row_losses(model, rows, Weights(text=0.0, speech=1.0, stop=0.0))
    both = row_losses(model, rows, Weights(speech=1.0, stop=0.0))
    torch.testing.assert_close(both, text + speech)
    changed = {**rows, "ids": rows["ids"].flip(1)}
    other = row_losses(model, changed, Weights(text=0.0, speech=0.0, stop=1.0))
    assert not torch.equal(other, row_losses(model, rows, Weights(text=0.0, speech=0.0, stop=1.0)))


def test_generation_fed_with_the_truth_is_the_teacher_forced_pass(
    model, rows_of, records, tokenizer
) -> None:
    """With a cache, one place at a time, against the whole sequence at once: 1e-5 is asked for."""
    rows = rows_of(records[2:3])
    forced = run(model, rows)
    steps, step = int(rows["steps"][0]), model.config.frames_per_step
    frames = rows["answer"][0].reshape(steps, step, -1)
    said = answer(
        model, rows["question"][0], tokenizer, Limits(200, steps), (rows["ids"][0, 1:], frames)
    )
    assert list(said.ids) == rows["ids"][0, 1:-1].tolist()
    torch.testing.assert_close(said.frames, forced.frames[0], rtol=1e-9, atol=1e-9)


def test_generation_ends_where_it_is_told(model, rows_of, records, tokenizer) -> None:
    question = rows_of(records[:1])["question"][0]
    said = answer(model, question, tokenizer, Limits(3, 2))
    assert len(said.ids) <= 3
    assert len(said.frames) <= 2 * model.config.frames_per_step
    again = answer(model, question, tokenizer, Limits(3, 2))
    assert torch.equal(said.frames, again.frames)


@pytest.mark.parametrize(
    ("fields", "message"), [({"speech": -1.0}, "speech is -1.0"), ({"lags": 0}, "lags is 0")]
)
def test_weights_that_cannot_be_used(fields, message) -> None:
    with pytest.raises(ValueError, match=message):
        Weights(**fields)
