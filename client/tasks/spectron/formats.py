"""Spoken exchanges as JSON lines beside their waves, or with the waves inside.

``{"speaker", "question_audio", "answer_audio", "question", "answer"}`` for questions, ``{"speaker",
"audio", "split_s", "prompt_text", "continuation_text"}`` for speech to be continued; in place of an
``_audio`` path there may be ``_data``, a WAV in base64. Paths are relative to the file and stay in
its folder. Refusals name file, line and field and never repeat what a line says.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from wardround.client.tasks.base import Record
from wardround.client.tasks.lines import json_lines
from wardround.client.tasks.spectron.audio import SAMPLE_RATE, Sound, encode, in_file, in_memory
from wardround.client.tasks.spectron.records import Exchange, exchange_record
from wardround.privacy import Unit
from wardround.privacy.errors import BadInput
from wardround.privacy.tables import nearest

_COMMON = ("id", "speaker", "patient")
_QUESTION = ("question_audio", "question_data", "answer_audio", "answer_data", "question", "answer")
_CONTINUED = ("audio", "data", "split_s", "prompt_text", "continuation_text")
DEFAULT_SPLIT_S = 3.0


def read_exchanges(path: Path) -> list[Record]:
    """The exchanges of a file, in its order.

    Raises:
        BadInput: Naming file, line and field.
    """
    records: list[Record] = []
    seen: dict[str, int] = {}
    for number, item in json_lines(path):
        try:
            record = _record(item, path, number)
        except ValueError as error:
            raise BadInput(f"{path}:{number}: {error}") from error
        if record.id in seen:
            raise BadInput(f"{path}:{number}: id occurs before, on line {seen[record.id]}")
        seen[record.id] = number
        records.append(record)
    if not records:
        raise BadInput(f"{path}: holds no exchanges")
    return records


def write_exchanges(records: Sequence[Record], path: Path) -> None:
    """Write exchanges with their waves inside; ``read_exchanges`` reads the same sounds back."""
    with path.open("w", encoding="utf-8") as file:
        for record in records:
            exchange: Exchange = record.content
            item = {"id": record.id, "speaker": record.owners[Unit.SPEAKER]}
            if Unit.PATIENT in record.owners:
                item["patient"] = record.owners[Unit.PATIENT]
            item |= {"question": exchange.question_text, "answer": exchange.answer_text}
            item |= {"question_data": _base64(exchange.question)}
            item |= {"answer_data": _base64(exchange.answer)}
            file.write(json.dumps(item, ensure_ascii=False) + "\n")


def _base64(sound: Sound) -> str:
    whole = sound.data if sound.data and not sound.start_s and sound.end_s is None else b""
    return base64.b64encode(whole or encode(sound.samples())).decode("ascii")


def _record(item: object, path: Path, number: int) -> Record:
    """One line's record; ``ValueError`` says what is wrong with it."""
    if not isinstance(item, dict):
        raise ValueError("not a JSON object")
    known = (*_COMMON, *(_CONTINUED if "prompt_text" in item else _QUESTION))
    for name in item:
        if name not in known:
            raise ValueError(f"unknown field{nearest(str(name), list(known))}")
    fields: Mapping[str, Any] = {"id": f"{path.stem}-{number:06d}", **item}
    for name, value in fields.items():
        if name != "split_s" and (not isinstance(value, str) or not value.strip()):
            raise ValueError(f"{name} must be a text")
    if "speaker" not in fields:
        raise ValueError("speaker is missing")
    continued = "prompt_text" in fields
    exchange = _continued(fields, path) if continued else _asked(fields, path)
    return exchange_record(fields["id"], exchange, fields["speaker"], fields.get("patient", ""))


def _asked(fields: Mapping[str, Any], path: Path) -> Exchange:
    """A question and an answer, each a wave of its own."""
    for name in ("question", "answer"):
        if name not in fields:
            raise ValueError(f"{name} is missing")
    question, answer = (
        _sound(fields, path, f"{name}_audio", f"{name}_data") for name in ("question", "answer")
    )
    return Exchange(question, answer, fields["question"].strip(), fields["answer"].strip())


def _continued(fields: Mapping[str, Any], path: Path) -> Exchange:
    """One wave, cut where the continuation begins."""
    if "continuation_text" not in fields:
        raise ValueError("continuation_text is missing")
    split_s = fields.get("split_s") or DEFAULT_SPLIT_S
    if isinstance(split_s, bool) or not isinstance(split_s, int | float):
        raise ValueError("split_s must be a number of seconds")
    whole = _sound(fields, path, "audio", "data")
    length_s = len(whole.samples()) / SAMPLE_RATE
    if not 0 < split_s < length_s:
        raise ValueError("split_s must lie inside the wave")
    return Exchange(
        replace(whole, end_s=float(split_s)),
        replace(whole, start_s=float(split_s)),
        fields["prompt_text"].strip(),
        fields["continuation_text"].strip(),
    )


def _sound(fields: Mapping[str, Any], path: Path, file: str, data: str) -> Sound:
    """A wave from its file or from the line."""
    if (file in fields) == (data in fields):
        raise ValueError(f"either {file} or {data} must be given")
    if data in fields:
        try:
            raw = base64.b64decode(fields[data], validate=True)
        except binascii.Error as error:
            raise ValueError(f"{data} is not base64") from error
        return _named(data, lambda: in_memory(raw))
    home = path.parent.resolve()
    found = (home / fields[file]).resolve()
    if not found.is_relative_to(home):
        raise ValueError(f"{file} leads out of the file's folder")
    return _named(file, lambda: in_file(found))


def _named(field: str, read: Any) -> Sound:
    try:
        sound: Sound = read()
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from error
    return sound
