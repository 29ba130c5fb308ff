"""Corrections from files: MedCF, MedFE and EasyEdit's requests, as one JSON list or as JSON lines.

Every refusal names file, line, item and field, and never repeats what the file says: it may be
about a patient. Knows nothing of training. Formats: Xu et al. (2024), released data; EasyEdit's
request dictionaries (Wang et al., 2023), whose ``locality`` maps a kind to prompts and answers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from wardround.client.tasks.base import Record
from wardround.client.tasks.editing.records import Edit, Probe, edit_record
from wardround.client.tasks.lines import TOO_MUCH
from wardround.privacy import Unit
from wardround.privacy.errors import BadInput
from wardround.privacy.tables import nearest

MEDCF_LOCALITY: Mapping[str, str] = {
    "locality_target": "target_distribution",
    "locality_mapping": "entity_mapping",
    "locality_struc": "structural",
    "locality_tokenSem": "textual",
    "locality_topic": "consistent_topic",
}
OWN_FIELDS = (
    "id", "patient", "clinician", "prompt", "subject", "target_new", "ground_truth", "paraphrases",
    "rephrase_prompt", "rephrase_prompts", "locality", "support",
)  # fmt: skip
# Fields of the published files that say nothing an edit needs.
IGNORED_FIELDS = ("case_id", "subject_type", "topic_type", "relation_id", "portability")
KNOWN_FIELDS = (
    *OWN_FIELDS,
    *IGNORED_FIELDS,
    *(f"{field}_{end}" for field in MEDCF_LOCALITY for end in ("prompt", "ground_truth")),
)


class _Wrong(ValueError):
    """A field that cannot be used; the caller adds where it stands."""


def read_edits(path: Path) -> list[Record]:
    """The corrections of a file, in its order.

    A record is its own privacy unit, and a patient's or clinician's too where every item names one.

    Raises:
        BadInput: The file is missing, empty, not JSON or not UTF-8, or an item cannot be used.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise BadInput(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read ({error})") from error
    records: list[Record] = []
    lines: dict[str, int] = {}
    for index, (line, item) in enumerate(_items(text, path)):
        where = f"{path}:{line}: item {index}"
        try:
            record = _record(item, default_id=f"{path.stem}-{index:06d}")
        except ValueError as error:
            raise BadInput(f"{where}: {error}") from error
        if record.id in lines:
            raise BadInput(f"{where}: id occurs before, on line {lines[record.id]}")
        if records and record.owners.keys() != records[0].owners.keys():
            raise BadInput(
                f"{where}: patient and clinician must be given for all items or for none"
            )
        lines[record.id] = line
        records.append(record)
    if not records:
        raise BadInput(f"{path}: holds no corrections")
    return records


def write_edits(records: Sequence[Record], path: Path) -> None:
    """Write corrections as JSON lines that ``read_edits`` reads back as equal records."""
    lines = []
    for record in records:
        edit: Edit = record.content
        item: dict[str, Any] = {"id": record.id}
        item |= {str(unit): owner for unit, owner in record.owners.items() if unit != Unit.RECORD}
        for name in ("prompt", "subject", "target_new", "ground_truth", "paraphrases",
                     "rephrase_prompts", "support"):  # fmt: skip
            if value := getattr(edit, name):
                item[name] = value
        if edit.locality:
            item["locality"] = {
                kind: {
                    "prompt": [probe.prompt for probe in probes],
                    "ground_truth": [probe.answer for probe in probes],
                }
                for kind, probes in edit.locality.items()
            }
        lines.append(json.dumps(item, ensure_ascii=False) + "\n")
    path.write_text("".join(lines), encoding="utf-8")


def _items(text: str, path: Path) -> Iterator[tuple[int, object]]:
    """Each item of a JSON list, or of JSON lines, with the line it begins on."""
    decoder = json.JSONDecoder()
    is_list = text.lstrip().startswith("[")
    place = text.index("[") + 1 if is_list else 0
    line, counted = 1, 0
    first = True
    while True:
        place = _skip(text, place)
        line, counted = line + text.count("\n", counted, place), place
        if is_list and text[place : place + 1] == "]":
            if _skip(text, place + 1) < len(text):
                raise BadInput(f"{path}:{line}: text after the end of the list")
            return
        if not is_list and place == len(text):
            return
        if is_list and not first:
            if text[place : place + 1] != ",":
                raise BadInput(f"{path}:{line}: not valid JSON: expected ',' or ']'")
            place = _skip(text, place + 1)
            line, counted = line + text.count("\n", counted, place), place
        try:
            item, end = decoder.raw_decode(text, place)
        except json.JSONDecodeError as error:
            raise BadInput(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from error
        except (RecursionError, ValueError) as error:
            raise BadInput(f"{path}:{line}: not usable JSON: {TOO_MUCH}") from error
        if not is_list and "\n" in text[place:end]:
            raise BadInput(f"{path}:{line}: one JSON object a line, please, or one JSON list")
        yield line, item
        place, first = end, False


def _skip(text: str, place: int) -> int:
    """The next place that is not white space."""
    while place < len(text) and text[place].isspace():
        place += 1
    return place


def _record(item: object, default_id: str) -> Record:
    """One item as a record; ``ValueError`` names the field."""
    if not isinstance(item, dict):
        raise _Wrong(f"expected an object, found {type(item).__name__}")
    for name in item:
        if name not in KNOWN_FIELDS:
            raise _Wrong(f"unknown field{nearest(name, KNOWN_FIELDS)}")
    for name in ("prompt", "subject", "target_new"):
        if name not in item:
            raise _Wrong(f"field {name!r} is missing")
    edit = Edit(
        prompt=_text(item, "prompt"),
        subject=_text(item, "subject"),
        target_new=_text(item, "target_new"),
        ground_truth=_text(item, "ground_truth"),
        paraphrases=_texts(item.get("paraphrases", []), "paraphrases"),
        rephrase_prompts=(
            *_texts(item.get("rephrase_prompt", []), "rephrase_prompt"),
            *_texts(item.get("rephrase_prompts", []), "rephrase_prompts"),
        ),
        locality=_locality(item),
        support=_text(item, "support"),
    )
    return edit_record(
        _text(item, "id") or default_id, edit, _text(item, "patient"), _text(item, "clinician")
    )


def _locality(item: Mapping[str, Any]) -> dict[str, tuple[Probe, ...]]:
    """Probes by kind, from MedCF's flat fields and from EasyEdit's nested ones."""
    probes: dict[str, tuple[Probe, ...]] = {}
    for field, kind in MEDCF_LOCALITY.items():
        prompt, answer = f"{field}_prompt", f"{field}_ground_truth"
        if (prompt in item) != (answer in item):
            raise _Wrong(f"field {answer if prompt in item else prompt!r} is missing")
        if prompt in item:
            probes[kind] = (_probe(_text(item, prompt), _text(item, answer), prompt),)
    nested = item.get("locality", {})
    if not isinstance(nested, dict):
        raise _Wrong(f"field 'locality' is a {type(nested).__name__}; expected an object")
    for place, (kind, pairs) in enumerate(nested.items()):
        field = f"locality[{place}]"
        if not isinstance(pairs, dict) or pairs.keys() != {"prompt", "ground_truth"}:
            raise _Wrong(f"field {field!r}: expected an object with prompt and ground_truth")
        prompts = _texts(pairs["prompt"], f"{field}.prompt")
        answers = _texts(pairs["ground_truth"], f"{field}.ground_truth")
        if len(prompts) != len(answers):
            raise _Wrong(f"field {field!r}: {len(prompts)} prompts, {len(answers)} answers")
        found = tuple(_probe(p, a, field) for p, a in zip(prompts, answers, strict=True))
        probes[kind] = probes.get(kind, ()) + found
    return probes


def _probe(prompt: str, answer: str, field: str) -> Probe:
    """A probe; an empty half is refused under the field's name."""
    try:
        return Probe(prompt, answer)
    except ValueError as error:
        raise _Wrong(f"field {field!r}: {error}") from error


def _text(item: Mapping[str, Any], field: str) -> str:
    """A text field without surrounding blanks; empty when it is not there."""
    value = item.get(field, "")
    if not isinstance(value, str):
        raise _Wrong(f"field {field!r} is a {type(value).__name__}; expected text")
    return value.strip()


def _texts(value: object, field: str) -> tuple[str, ...]:
    """One text or a list of them."""
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(text, str) for text in values):
        raise _Wrong(f"field {field!r}: expected text or a list of texts")
    return tuple(text.strip() for text in values)
