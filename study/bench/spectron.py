"""Spoken answers: what a hundred seconds of training teach, and a federated study of speakers.

The first part trains the base's recipe within a budget of processor time, on espeak-ng's voices
where that program is installed and on chord speech where not, and asks voices nobody trained on; a
control hears other questions. The second runs the example with and without privacy. Made-up speech
says nothing about quality. Source: Nachmani et al. (2024), arXiv 2305.15255.
"""

from __future__ import annotations

import base64
import html
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, cast

import torch

from wardround.client.bases.build_speech import (
    VOCABULARY,
    SpeechRecipe,
    new_speech_model,
    public_scale,
    train,
)
from wardround.client.bases.making import byte_level_tokenizer
from wardround.client.tasks.base import Record
from wardround.client.tasks.draws import Draws
from wardround.client.tasks.spectron.audio import Samples, encode, in_memory
from wardround.client.tasks.spectron.config import SpectronTaskConfig
from wardround.client.tasks.spectron.evaluation import Heard, listen, score
from wardround.client.tasks.spectron.generated import LOCAL, PUBLIC
from wardround.client.tasks.spectron.mel import to_wave
from wardround.client.tasks.spectron.model import Parts
from wardround.client.tasks.spectron.records import Exchange, exchange_record
from wardround.client.tasks.spectron.voices import chords, draw_voice, espeak, espeak_installed
from wardround.client.workbench import Workbench
from wardround.study.bench.study_rows import (
    Row,
    collect_rows,
    cost,
    run_study,
    summary,
    with_privacy,
)
from wardround.study.config import Study

SAID = {**PUBLIC, **LOCAL}
EPSILONS: tuple[float | None, ...] = (None, 8.0)
SCORES = ("wer", "answers", "spoken", "voice_likeness", "log_perplexity")
_TRAINED = ("m1", "m2", "m3", "m4", "m5", "m6", "f1", "f2", "f3", "f4", "klatt", "klatt2", "klatt3")
_HELD_OUT = ("f5", "m7", "steph")
_ACCENTS = ("en-us", "en-gb")
_PACES = (140, 165)
_CHORD_VOICES = (52, 12)


@dataclass(frozen=True)
class Corpus:
    """Exchanges to train on, exchanges in other voices, and who speaks."""

    trained: tuple[Record, ...]
    held_out: tuple[Record, ...]
    speech: str


def make_corpus(use_espeak: bool) -> Corpus:
    """Every question in every voice, some voices kept apart."""
    if use_espeak:
        parts = [
            [
                _spoken(f"{voice}-{pace}", partial(espeak, voice=voice, words_per_minute=pace))
                for voice, pace in product(_named(names), _PACES)
            ]
            for names in (_TRAINED, _HELD_OUT)
        ]
    else:
        draws = Draws(0, "spectron/bench")
        voices = [[draw_voice(draws) for _ in range(count)] for count in _CHORD_VOICES]
        parts = [
            [
                _spoken(f"chords-{side}-{n}", partial(chords, voice=voice))
                for n, voice in enumerate(them)
            ]
            for side, them in enumerate(voices)
        ]
    trained, held_out = ([record for one in part for record in one] for part in parts)
    name = "espeak-ng" if use_espeak else "chords"
    return Corpus(tuple(trained), tuple(held_out), name)


def hundred_seconds(
    budget_s: float = 100.0,
    page: Path | None = None,
    use_espeak: bool | None = None,
    recipe: SpeechRecipe | None = None,
    say: Callable[[str], object] = lambda line: None,
) -> dict[str, Any]:
    """Train the recipe within a budget of processor time and ask voices that were held out.

    Args:
        budget_s: Processor seconds of training; making the speech is not counted.
        page: Where to write a page with answers to listen to, or nowhere.
        use_espeak: Whose voices; None takes espeak-ng where it is installed.
        recipe: Sizes and rates.
        say: Told the loss now and then.

    Returns:
        ``held_out`` scores, ``shuffled`` ones, for which every answer is compared with that of
        another question's audio, chance, steps and seconds.
    """
    corpus = make_corpus(espeak_installed() if use_espeak is None else use_espeak)
    recipe = replace(recipe or SpeechRecipe(steps=10**9), most_processor_s=budget_s)
    generator = torch.Generator().manual_seed(recipe.seed)
    tokenizer = byte_level_tokenizer([], VOCABULARY)
    scale = public_scale(corpus.trained, recipe.bins)
    model = new_speech_model(recipe, tokenizer, scale, generator)
    began = time.process_time()
    steps, _ = train(recipe, model, tokenizer, corpus.trained, generator, say)
    spent = time.process_time() - began
    parts, settings = cast("Parts", model), SpectronTaskConfig()
    heard = listen(parts, tokenizer, corpus.held_out, settings)
    mixed = _with_other_audio(corpus.held_out)
    shuffled = score(parts, tokenizer, listen(parts, tokenizer, mixed, settings), settings)
    if page is not None:
        page.write_text(listening_page(heard[: len(SAID)]), encoding="utf-8")
    return {
        "speech": corpus.speech,
        "voices_trained_on": len(corpus.trained) // len(SAID),
        "voices_held_out": len(corpus.held_out) // len(SAID),
        "held_out": _rounded(score(parts, tokenizer, heard, settings)),
        "shuffled": _rounded(shuffled),
        "chance": round(1 / len(SAID), 4),
        "steps": steps,
        "training_processor_s": round(spent, 1),
    }


@dataclass(frozen=True)
class Arm:
    """What trains; the example has one way."""

    name: str = "LoRA and nets"


def spectron_study(
    seeds: Sequence[int] = (0, 1, 2),
    out: Path | None = None,
    epsilons: Sequence[float | None] = EPSILONS,
    shrink: Callable[[Study], Study] = lambda study: study,
    say: Callable[[str], object] = lambda line: None,
) -> dict[str, Any]:
    """The example study with and without privacy, as docs/spectron.md shows it.

    Args:
        seeds: Public seeds; each draws voices, probes and first values of its own.
        out: Rows are appended here as JSON lines when they are known; those in it are not run.
        epsilons: Of every speaker of every hospital; None without privacy.
        shrink: Changes the example, for tests.
        say: Told each row.

    Returns:
        ``rows``, scores after and, called ``before_…``, of the base; ``summary`` over seeds.
    """
    with Workbench() as workbench:

        def run(arm: Arm, epsilon: float | None, seed: int) -> Row:
            def change(study: Study) -> Study:
                return with_privacy(shrink(study), epsilon, seed)

            outcome = run_study("spectron", change, workbench)
            before = {f"before_{name}": v for name, v in _rounded(outcome.before).items()}
            return {**_rounded(outcome.after), **before, **cost(outcome)}

        rows = collect_rows((Arm(),), epsilons, seeds, run, out, say)
    scores = [*SCORES, *(f"before_{name}" for name in SCORES)]
    return {"rows": rows, "summary": summary(rows, scores)}


def listening_page(heard: Sequence[Heard]) -> str:
    """A self-contained page with what was asked, understood and answered, to listen to."""
    items = []
    for one in heard:
        exchange: Exchange = one.record.content
        sounds = (encode(exchange.question.samples()), encode(to_wave(one.frames)))
        players = "".join(
            f'<audio controls src="data:audio/wav;base64,{base64.b64encode(s).decode()}"></audio>'
            for s in sounds
        )
        words = (exchange.question_text, one.transcript, one.answer)
        cells = "".join(f"<td>{html.escape(word)}</td>" for word in words)
        items.append(f"<tr>{cells}<td>{players}</td></tr>")
    head = "".join(f"<th>{t}</th>" for t in ("asked", "understood", "answered", "question, answer"))
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Spoken answers</title>'
        "<h1>Spoken answers</h1><p>Made-up speech: it shows that the machinery works, and nothing "
        f"about how well anybody would speak.</p><table><tr>{head}</tr>{''.join(items)}</table>"
    )


def _named(names: Sequence[str]) -> list[str]:
    """espeak-ng's voices of these variants, in every accent."""
    return [f"{accent}+{name}" for accent, name in product(_ACCENTS, names)]


def _spoken(voice: str, speak: Callable[[str], Samples]) -> list[Record]:
    """Every question in one voice."""
    records = []
    for place, (asked, told) in enumerate(SAID.items()):
        question, answer = (in_memory(encode(speak(text))) for text in (asked, told))
        exchange = Exchange(question, answer, asked, told)
        records.append(exchange_record(f"{voice}-{place}", exchange, voice))
    return records


def _with_other_audio(records: Sequence[Record]) -> list[Record]:
    """The same records, each with the audio of the next question of its speaker."""
    found = []
    for start in range(0, len(records), len(SAID)):
        own = records[start : start + len(SAID)]
        for one, other in zip(own, (*own[1:], own[0]), strict=True):
            exchange = replace(one.content, question=other.content.question)
            found.append(Record(one.id, one.owners, exchange))
    return found


def _rounded(scores: Mapping[str, float]) -> dict[str, float]:
    return {name: round(scores[name], 4) for name in SCORES}
