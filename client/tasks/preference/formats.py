"""Preferences from JSON lines: TRL's layouts, hh-rlhf's transcripts, rankings and ratings.

Every refusal names file, line and field, and never repeats what the file says: it may be about a
patient. A conversation is rendered as hh-rlhf's plain text, because a hospital's file should not
depend on one model's chat template. Formats: TRL's "dataset formats" (preference, with explicit or
implicit prompt, plain or conversational; unpaired preference); Bai et al. (2022) for hh-rlhf.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from wardround.client.tasks.base import Record
from wardround.client.tasks.lines import json_lines
from wardround.client.tasks.preference.records import Judged
from wardround.privacy import Unit
from wardround.privacy.errors import BadInput
from wardround.privacy.tables import nearest

HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
_SPEAKERS = {"user": HUMAN, "assistant": ASSISTANT, "system": ""}
_OWNERS = {"patient": Unit.PATIENT, "clinician": Unit.CLINICIAN}
LAYOUTS: Mapping[str, frozenset[str]] = {
    "pair": frozenset({"prompt", "chosen", "rejected"}),
    "pair with implicit prompt": frozenset({"chosen", "rejected"}),
    "one judged reply": frozenset({"prompt", "completion", "label"}),
    "ranking": frozenset({"prompt", "replies", "ranking"}),
    "ratings": frozenset({"prompt", "replies", "ratings"}),
}
# What the export of a collective choice adds to a pair, and published files carry along.
_IGNORED = frozenset(
    {"margin", "margin_deviation", "stability", "rule", "agenda", "sites", "score_chosen",
     "score_rejected", "source"}
)  # fmt: skip
# How likely the reference finds each reply, in nats: of a pair as TRL calls it, or of a list.
PAIR_REFERENCE, LIST_REFERENCE = ("ref_chosen_logps", "ref_rejected_logps"), "reference_logps"
_REFERENCES = frozenset({*PAIR_REFERENCE, LIST_REFERENCE})
_KNOWN = sorted({"id", *_OWNERS, *_IGNORED, *_REFERENCES}.union(*LAYOUTS.values()))


def read_judged(path: Path) -> list[Record]:
    """The preferences of a file, in its order.

    A record is its own privacy unit, and a patient's or clinician's too where every line names one.

    Raises:
        BadInput: The file is missing, empty, not JSON lines in UTF-8, or a line cannot be used.
    """
    records: list[Record] = []
    seen: dict[str, int] = {}
    for line, item in json_lines(path):
        where = f"{path}:{line}"
        try:
            record = _record(item, f"{path.stem}-{line:06d}")
        except ValueError as error:
            raise BadInput(f"{where}: {error}") from error
        if record.id in seen:
            raise BadInput(f"{where}: id occurs before, on line {seen[record.id]}")
        if records and record.owners.keys() != records[0].owners.keys():
            raise BadInput(f"{where}: patient and clinician must be given on all lines or on none")
        seen[record.id] = line
        records.append(record)
    if not records:
        raise BadInput(f"{path}: holds no preferences")
    return records


def write_judged(records: Sequence[Record], path: Path) -> None:
    """Write preferences as JSON lines that ``read_judged`` reads back as equal records."""
    lines = []
    for record in records:
        judged: Judged = record.content
        item: dict[str, Any] = {"id": record.id}
        item |= {str(unit): owner for unit, owner in record.owners.items() if unit != Unit.RECORD}
        item |= {"prompt": judged.prompt, "replies": judged.replies, "ratings": judged.scores}
        if judged.reference:
            item[LIST_REFERENCE] = judged.reference
        lines.append(json.dumps(item, ensure_ascii=False) + "\n")
    path.write_text("".join(lines), encoding="utf-8")


def _record(item: object, default_id: str) -> Record:
    """One line's record; ``ValueError`` says what is wrong with it."""
    if not isinstance(item, dict):
        raise ValueError("not a JSON object")
    for name in item:
        if name not in _KNOWN:
            raise ValueError(f"unknown field{nearest(str(name), _KNOWN)}")
    fields = item.keys() - {"id", *_OWNERS, *_IGNORED, *_REFERENCES}
    identifier = item.get("id", default_id)
    if not isinstance(identifier, str) or not identifier:
        raise ValueError("id must be a text")
    owners = {Unit.RECORD: identifier}
    for name, unit in _OWNERS.items():
        if name in item:
            if not isinstance(item[name], str) or not item[name]:
                raise ValueError(f"{name} must be a text")
            owners[unit] = item[name]
    for layout, wanted in LAYOUTS.items():
        if fields == wanted:
            judged = replace(_READERS[layout](item), reference=_reference(item))
            return Record(identifier, owners, judged)
    known = "; ".join(f"{', '.join(sorted(wanted))} ({name})" for name, wanted in LAYOUTS.items())
    raise ValueError(f"fields fit no known layout: {known}")


def _reference(item: Mapping[str, Any]) -> tuple[float, ...]:
    """How likely the reference finds each reply, where the line says."""
    named = [name for name in PAIR_REFERENCE if name in item]
    if named and (len(named) == 1 or "chosen" not in item):
        raise ValueError(f"{' and '.join(PAIR_REFERENCE)} go together, with chosen and rejected")
    found = [item[name] for name in named] or item.get(LIST_REFERENCE, [])
    if not isinstance(found, list) or not all(
        isinstance(value, int | float) and not isinstance(value, bool) and value <= 0
        for value in found
    ):
        raise ValueError("likelihoods of the reference must be numbers of 0 or less")
    return tuple(map(float, found))


def _pair(item: Mapping[str, Any]) -> Judged:
    """Prompt, chosen and rejected, plain or as conversations."""
    replies = tuple(_reply(item, name) for name in ("chosen", "rejected"))
    return Judged(_prompt(item), replies, (1.0, 0.0))


def _implicit(item: Mapping[str, Any]) -> Judged:
    """Chosen and rejected that begin with the same prompt."""
    chosen, rejected = (_conversation(item[name], name) for name in ("chosen", "rejected"))
    cut = chosen.rfind(ASSISTANT)
    if cut < 0:
        raise ValueError("chosen has no prompt: give one, or a transcript with Human and Assistant")
    cut += len(ASSISTANT)
    if rejected.rfind(ASSISTANT) + len(ASSISTANT) != cut or chosen[:cut] != rejected[:cut]:
        raise ValueError("chosen and rejected do not begin with the same conversation")
    return Judged(chosen[:cut], (chosen[cut:].strip(), rejected[cut:].strip()), (1.0, 0.0))


def _one(item: Mapping[str, Any]) -> Judged:
    """One reply that was found good or bad."""
    if not isinstance(item["label"], bool):
        raise ValueError("label must be true or false")
    return Judged(_prompt(item), (_reply(item, "completion"),), (float(item["label"]),))


def _ranking(item: Mapping[str, Any]) -> Judged:
    """Replies and their positions, best first."""
    replies, order = _replies(item), item["ranking"]
    if not isinstance(order, list) or sorted(map(repr, order)) != sorted(
        map(repr, range(len(replies)))
    ):
        raise ValueError(f"ranking must name each of 0..{len(replies) - 1} once")
    scores = [0.0] * len(replies)
    for place, reply in enumerate(order):
        scores[reply] = float(len(replies) - 1 - place)
    return Judged(_prompt(item), replies, tuple(scores))


def _ratings(item: Mapping[str, Any]) -> Judged:
    """Replies and a number for each."""
    replies, ratings = _replies(item), item["ratings"]
    if not isinstance(ratings, list) or not all(
        isinstance(rating, int | float) and not isinstance(rating, bool) for rating in ratings
    ):
        raise ValueError("ratings must be a list of numbers")
    return Judged(_prompt(item), replies, tuple(map(float, ratings)))


_READERS = {
    "pair": _pair,
    "pair with implicit prompt": _implicit,
    "one judged reply": _one,
    "ranking": _ranking,
    "ratings": _ratings,
}


def _replies(item: Mapping[str, Any]) -> tuple[str, ...]:
    """The list of replies."""
    replies = item["replies"]
    if not isinstance(replies, list) or not all(
        isinstance(reply, str) and reply.strip() for reply in replies
    ):
        raise ValueError("replies must be a list of texts")
    return tuple(replies)


def _prompt(item: Mapping[str, Any]) -> str:
    """The prompt as one text; a conversation ends where the assistant is to speak."""
    if isinstance(item["prompt"], str):
        return item["prompt"]
    return _conversation(item["prompt"], "prompt") + ASSISTANT


def _reply(item: Mapping[str, Any], name: str) -> str:
    """A reply: a text, or a conversation of one message."""
    value = item[name]
    if isinstance(value, list):
        if len(value) != 1:
            raise ValueError(f"{name} has {len(value)} messages; with a prompt it must have 1")
        value = value[0].get("content") if isinstance(value[0], dict) else None
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} must be a text")
    return value.strip()


def _conversation(value: object, name: str) -> str:
    """A transcript as it stands, or messages rendered as one."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise ValueError(f"{name} must be a text or a list of messages")
    parts = []
    for message in value:
        if not isinstance(message, dict) or message.keys() != {"role", "content"}:
            raise ValueError(f"{name}: a message must have role and content")
        if message["role"] not in _SPEAKERS or not isinstance(message["content"], str):
            raise ValueError(f"{name}: role must be one of {', '.join(_SPEAKERS)}")
        parts.append(f"{_SPEAKERS[message['role']]} {message['content'].strip()}")
    return "".join(parts)
