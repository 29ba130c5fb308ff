"""Word errors and answers by hand; a voice is most like itself."""

from __future__ import annotations

import pytest

from wardround.client.tasks.draws import Draws
from wardround.client.tasks.spectron.mel import log_mel
from wardround.client.tasks.spectron.metrics import answers_match, voice_likeness, word_error_rate
from wardround.client.tasks.spectron.voices import Voice, chords


@pytest.mark.parametrize(
    ("wanted", "found", "rate"),
    [
        ("what is a fever", "what a fever now", 2 / 4),
        ("what is a fever", "What is a fever?", 0.0),
        ("two lungs", "", 1.0),
        ("yes", "yes it is", 2.0),
    ],
)
def test_word_errors(wanted, found, rate) -> None:
    assert word_error_rate([wanted], [found]) == pytest.approx(rate)


def test_errors_are_counted_over_all_words() -> None:
    assert word_error_rate(["a b c", "d"], ["a b c", "x"]) == pytest.approx(1 / 4)


@pytest.mark.parametrize(
    ("wanted", "found", "right"),
    [
        ("two lungs", "We have two lungs.", True),
        ("two lungs", "two strong lungs", False),
        ("Paris", "paris!", True),
        ("", "anything", False),
        ("art", "the heart", False),
    ],
)
def test_answers_occur_as_words(wanted, found, right) -> None:
    assert answers_match(wanted, found) is right


def test_a_voice_is_more_like_itself_than_like_another() -> None:
    low, high = Voice(95, 0.93, 1.1, 0.003), Voice(250, 1.08, 0.9, 0.008)
    asked = log_mel(chords("what is a fever", low), 40)
    same = voice_likeness(asked, log_mel(chords("how many lungs", low), 40))
    other = voice_likeness(asked, log_mel(chords("how many lungs", high), 40))
    assert voice_likeness(asked, asked) == pytest.approx(1.0)
    assert same > other


def test_draws_make_the_same_voice() -> None:
    from wardround.client.tasks.spectron.voices import draw_voice

    assert draw_voice(Draws(3, "x")) == draw_voice(Draws(3, "x"))
