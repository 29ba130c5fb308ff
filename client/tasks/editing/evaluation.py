"""Did the corrections arrive, in words never trained too, and was everything else left alone?

Runs a model over all prompts of a list of edits and summarises with ``metrics``. Knows nothing of
records' owners or of how the model was trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import nn

from wardround.client.tasks.editing.metrics import (
    exact_match,
    likelihood,
    locality,
    mean,
    published_average,
    token_accuracy,
)
from wardround.client.tasks.editing.records import PUBLISHED_LOCALITY, Edit
from wardround.client.tasks.rows import Row, Said, ask, encode, pad_token_id

Question = tuple[str, str]  # a prompt and the answer whose places are looked at


def score_edits(
    model: nn.Module,
    tokenizer: Any,
    edits: Sequence[Edit],
    max_length: int,
    before: Callable[[nn.Module], AbstractContextManager[None]],
    during: Callable[[Sequence[str]], AbstractContextManager[None]] = lambda prompts: nullcontext(),
) -> list[dict[str, list[float]]]:
    """What was found for each edit, by the name of the score it goes into.

    Args:
        model: The edited model.
        tokenizer: Its tokenizer.
        edits: What to ask.
        max_length: Longest row.
        before: Switches the edits off for as long as it is entered.
        during: Entered around a forward pass of the edited model with its rows' prompts.
    """
    wanted = [(wording, e.target_new) for e in edits for wording in e.wordings]
    kept = [(p.prompt, p.answer) for e in edits for probes in e.locality.values() for p in probes]
    rows = {
        (prompt, answer): encode(tokenizer, prompt, answer, max_length, eos=False)
        for prompt, answer in (*wanted, *kept)
    }
    filler = pad_token_id(tokenizer)
    said = _ask(model, wanted, rows, filler, during)
    now = _ask(model, kept, rows, filler, during)
    with before(model):
        then = _ask(model, kept, rows, filler, lambda prompts: nullcontext())

    return [_scores_of(edit, rows, said, now, then) for edit in edits]


def by_relation(
    edits: Sequence[Edit], scores: Sequence[Mapping[str, Sequence[float]]]
) -> dict[str, dict[str, float]]:
    """The scores again for each relation alone, and how many edits it has (``edits``)."""
    groups: dict[str, list[Mapping[str, Sequence[float]]]] = {}
    for edit, found in zip(edits, scores, strict=True):
        groups.setdefault(edit.relation, []).append(found)
    return {
        relation: {"edits": float(len(group)), **summary(group)}
        for relation, group in sorted(groups.items())
    }


def summary(scores: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, float]:
    """Means over edits of what was found for each, in [0, 1]; what rests on nothing is left out.

    Returns:
        ``exact.seen``, ``token.seen`` (efficacy), ``exact.unseen``, ``token.unseen`` (generality),
        ``likelihood.seen`` (e to the minus mean loss on the answer, what a study can stop at), the
        same five under each support label (``exact.seen.single``), ``locality.<kind>``,
        ``locality`` (mean over the benchmark's kinds) and ``average`` (the benchmark's summary).
        End tokens are trained but not scored, as in the benchmark.
    """
    joined: dict[str, list[float]] = {}
    for one in scores:
        for name, values in one.items():
            joined.setdefault(name, []).extend(values)
    return _with_summary({name: mean(values) for name, values in joined.items()})


def _scores_of(
    edit: Edit,
    rows: Mapping[Question, Row],
    said: Mapping[Question, Said],
    now: Mapping[Question, Said],
    then: Mapping[Question, Said],
) -> dict[str, list[float]]:
    """Every value found for one edit, by the name of the score it goes into."""
    scores: dict[str, list[float]] = {}
    for place, prompts in (("seen", edit.prompts), ("unseen", edit.rephrase_prompts)):
        for prompt in prompts:
            answer, wanted = said[prompt, edit.target_new], _answer(rows[prompt, edit.target_new])
            found = {
                "exact": exact_match(answer.tokens, wanted),
                "token": token_accuracy(answer.tokens, wanted),
            }
            if place == "seen":
                found["likelihood"] = likelihood(answer.loss)
            for name, value in found.items():
                scores.setdefault(f"{name}.{place}", []).append(value)
                if edit.support:
                    scores.setdefault(f"{name}.{place}.{edit.support}", []).append(value)
    for kind, probes in edit.locality.items():
        for probe in probes:
            question = (probe.prompt, probe.answer)
            scores.setdefault(f"locality.{kind}", []).append(
                locality(then[question].tokens, now[question].tokens)
            )
    return scores


def _ask(
    model: nn.Module,
    questions: Iterable[Question],
    rows: dict[Question, Row],
    filler: int,
    during: Callable[[Sequence[str]], AbstractContextManager[None]],
) -> dict[Question, Said]:
    """What the model says at each question's answer places; equal questions are asked once."""
    once = list(dict.fromkeys(questions))
    answers = ask(
        model,
        [rows[question] for question in once],
        filler,
        around=lambda places: during([once[place][0] for place in places]),
    )
    return dict(zip(once, answers, strict=True))


def _answer(row: Row) -> tuple[int, ...]:
    """The answer's tokens."""
    ids, start = row
    return ids[start:]


def _with_summary(scores: dict[str, float]) -> dict[str, float]:
    """The scores with the benchmark's two summaries, where its kinds were asked."""
    localities = {
        kind: scores[f"locality.{kind}"]
        for kind in PUBLISHED_LOCALITY
        if f"locality.{kind}" in scores
    }
    if localities:
        scores["locality"] = mean(list(localities.values()))
        scores["average"] = published_average(
            scores["token.seen"], scores.get("token.unseen"), localities
        )
    return scores
