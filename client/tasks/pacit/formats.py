"""SuperNI task JSON: a task as a whole file, or a task a line; exemplars say whose they are.

Every refusal names file, line and field, and never repeats what the file says. Besides SuperNI's
own fields a task may have ``Task`` (its name) and ``Exemplar Source``, an exemplar ``source``, an
instance ``patient``. An exemplar without a source counts as private: a hospital that says nothing
is protected. Schema: Wang et al. (2022), "Super-NaturalInstructions".
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from wardround.client.tasks.base import Record
from wardround.client.tasks.lines import TOO_MUCH, json_lines, numbered_lines
from wardround.client.tasks.pacit.records import Exemplar, Instance, Instructions, Source
from wardround.privacy import Unit
from wardround.privacy.errors import BadInput
from wardround.privacy.tables import nearest

_NEEDED = ("Definition", "Positive Examples", "Negative Examples", "Instances")
_CARRIED = (
    "Contributors", "Source", "URL", "Categories", "Reasoning", "Domains", "Input_language",
    "Output_language", "Instruction_language", "Instance License",
)  # fmt: skip
_OURS = ("Task", "Exemplar Source")
_KNOWN = [*_NEEDED, *_CARRIED, *_OURS]


def read_tasks(path: Path) -> list[Record]:
    """The instances of a file's tasks, in order; a folder's ``.json`` files by name.

    Each is a unit of its task; where its task's exemplars are public or synthetic it is a record
    of its own too, and its patient's where every instance names one. A private exemplar stands in
    the prompts of other rows, so no row of its task can be protected by itself.

    Raises:
        BadInput: Nothing to read, not JSON in UTF-8, or a task that cannot be used.
    """
    records: list[Record] = []
    seen: dict[str, str] = {}
    for file in sorted(path.glob("*.json")) if path.is_dir() else [path]:
        for where, item in _documents(file):
            try:
                found = _records(item, file.stem)
            except ValueError as error:
                raise BadInput(f"{where}: {error}") from error
            for record in found:
                if record.id in seen:
                    raise BadInput(f"{where}: an id occurs before, at {seen[record.id]}")
                seen[record.id] = where
            records += found
    if not records:
        raise BadInput(f"{path}: holds no instances")
    named = {Unit.PATIENT in record.owners for record in _protectable(records)}
    if len(named) > 1:
        raise BadInput(f"{path}: patient must be given for all instances or for none")
    return records


def write_tasks(records: Sequence[Record], path: Path) -> None:
    """Write instances as a task a line, which ``read_tasks`` reads back as equal records."""
    by_task: dict[Instructions, list[Record]] = {}
    for record in records:
        by_task.setdefault(record.content.task, []).append(record)
    lines = [json.dumps(_table(task, own), ensure_ascii=False) for task, own in by_task.items()]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def _protectable(records: Sequence[Record]) -> Iterator[Record]:
    """Records that can be protected by themselves."""
    return (record for record in records if Unit.RECORD in record.owners)


def _documents(path: Path) -> Iterator[tuple[str, Any]]:
    """Where each task of a file stands, and its JSON."""
    lines = numbered_lines(path)
    first = next(lines, None)
    if first is None:
        raise BadInput(f"{path}: holds no tasks")
    try:
        json.loads(first[1])
    except (ValueError, RecursionError):
        text = "\n".join([first[1], *(line for _, line in lines)])
        yield f"{path}:{first[0]}", _whole(text, path)
        return
    yield from ((f"{path}:{number}", item) for number, item in json_lines(path))


def _whole(text: str, path: Path) -> Any:
    """A file that is one JSON document."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise BadInput(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from error
    except (RecursionError, ValueError) as error:
        raise BadInput(f"{path}:1: not usable JSON: {TOO_MUCH}") from error


def _records(item: object, stem: str) -> list[Record]:
    """A task's instances; ``ValueError`` says what is wrong."""
    if not isinstance(item, dict):
        raise ValueError("not a JSON object")
    for name in item:
        if name not in _KNOWN:
            raise ValueError(f"unknown field{nearest(str(name), _KNOWN)}")
    for name in _NEEDED:
        if name not in item:
            raise ValueError(f"{name} is missing")
    task = _task(item, stem)
    instances = item["Instances"]
    if not isinstance(instances, list) or not instances:
        raise ValueError("Instances must be a list that is not empty")
    return [_record(one, task, place) for place, one in enumerate(instances)]


def _task(item: Mapping[str, Any], stem: str) -> Instructions:
    """Everything but the instances."""
    definition = item["Definition"]
    if isinstance(definition, list):
        definition = definition[0] if definition else None
    categories = item.get("Categories", [])
    if not isinstance(categories, list) or not all(isinstance(one, str) for one in categories):
        raise ValueError("Categories must be a list of texts")
    default = _source(item.get("Exemplar Source", Source.PRIVATE), "Exemplar Source")
    return Instructions(
        name=_text(item.get("Task", stem), "Task"),
        definition=_text(definition, "Definition"),
        positives=_exemplars(item, "Positive Examples", default),
        negatives=_exemplars(item, "Negative Examples", default),
        category=categories[0] if categories else "",
    )


def _exemplars(item: Mapping[str, Any], name: str, default: Source) -> tuple[Exemplar, ...]:
    """Right or wrong exemplars; their explanations are not used, as published."""
    given = item[name]
    if not isinstance(given, list):
        raise ValueError(f"{name} must be a list")
    found = []
    for place, one in enumerate(given):
        where = f"{name}[{place}]"
        _only(one, {"input", "output", "explanation", "source"}, where)
        found.append(
            Exemplar(
                _text(one.get("input"), f"{where}.input"),
                _text(one.get("output"), f"{where}.output"),
                _source(one.get("source", default), f"{where}.source"),
            )
        )
    return tuple(found)


def _record(one: object, task: Instructions, place: int) -> Record:
    """One instance."""
    where = f"Instances[{place}]"
    fields = _only(one, {"id", "input", "output", "patient"}, where)
    outputs = fields.get("output")
    outputs = [outputs] if isinstance(outputs, str) else outputs
    if not isinstance(outputs, list) or not outputs:
        raise ValueError(f"{where}.output must be a text, or a list of texts that is not empty")
    content = Instance(
        task,
        _text(fields.get("input"), f"{where}.input"),
        tuple(_text(output, f"{where}.output") for output in outputs),
    )
    identifier = _text(fields.get("id", f"{task.name}-{place:06d}"), f"{where}.id")
    owners = {Unit.TASK: task.name}
    if task.most_delicate is not Source.PRIVATE:
        owners[Unit.RECORD] = identifier
        if "patient" in fields:
            owners[Unit.PATIENT] = _text(fields["patient"], f"{where}.patient")
    return Record(identifier, owners, content)


def _table(task: Instructions, records: Sequence[Record]) -> dict[str, Any]:
    """A task with its instances as SuperNI's JSON."""
    return {
        "Task": task.name,
        "Definition": [task.definition],
        **({"Categories": [task.category]} if task.category else {}),
        "Positive Examples": [_exemplar_table(one) for one in task.positives],
        "Negative Examples": [_exemplar_table(one) for one in task.negatives],
        "Instances": [
            {"id": record.id, "input": record.content.input, "output": record.content.outputs}
            | ({"patient": record.owners[Unit.PATIENT]} if Unit.PATIENT in record.owners else {})
            for record in records
        ],
    }


def _exemplar_table(one: Exemplar) -> dict[str, str]:
    """An exemplar as JSON."""
    return {"input": one.input, "output": one.output, "source": one.source.value}


def _only(value: object, known: set[str], where: str) -> Mapping[str, Any]:
    """The object's fields, if it has no others than these."""
    if not isinstance(value, dict):
        raise ValueError(f"{where} must be an object")
    for name in value:
        if name not in known:
            raise ValueError(f"{where}: unknown field{nearest(str(name), sorted(known))}")
    return value


def _text(value: object, name: str) -> str:
    """A text that is not blank."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} must be a text that is not blank")
    return value


def _source(value: object, name: str) -> Source:
    """Whose data exemplars are."""
    try:
        return Source(str(value))
    except ValueError as error:
        raise ValueError(f"{name} must be one of {', '.join(Source)}") from error
