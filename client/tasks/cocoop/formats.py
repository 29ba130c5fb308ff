"""Pictures from files: JSON lines, folders of images, and CoOp's splits.

A folder holds one folder a name. A split is CoOp's ``split_zhou_*.json``: train, val and test, each
a list of path, label and name. JSON lines hold a name and a picture each, in the line or in a file.
Underscores in names are read as blanks. No refusal repeats what a line says. Source: Zhou et al.
(2022), "Learning to prompt for vision-language models", released code (``datasets/``).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from wardround.client.tasks.base import Record
from wardround.client.tasks.cocoop.images import check_picture
from wardround.client.tasks.cocoop.records import Picture
from wardround.client.tasks.lines import json_lines
from wardround.privacy import Unit
from wardround.privacy.errors import BadInput
from wardround.privacy.tables import nearest

TRAIN, VAL, TEST = "train", "val", "test"
_FIELDS = ("id", "name", "data", "image", "patient")
_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")


def read_pictures(path: Path, names: Sequence[str], split: str = TRAIN) -> list[Record]:
    """The pictures of a file or folder, in its order.

    Args:
        path: JSON lines, a folder with a folder a name, or a split (``.json``).
        names: What may be on a picture.
        split: The part of a split file; of no meaning elsewhere.

    Raises:
        BadInput: The file is missing, empty or not as it should be; naming file, line and field.
    """
    if path.is_dir():
        records = list(_folder(path))
    elif path.suffix == ".json":
        records = list(_split(path, split))
    else:
        records = list(_lines(path, names))
    if not records:
        raise BadInput(f"{path}: holds no pictures")
    known = set(names)
    for record in records:
        if record.content.name not in known:
            raise BadInput(f"{record.content.path or path}: its name is none of [task] names")
    return records


def split_names(path: Path) -> list[str]:
    """The names of a public folder or split, in the order of their labels.

    Raises:
        BadInput: It is neither, or labels and names do not agree.
    """
    if path.is_dir():
        return [_spelt(folder.name) for folder in _class_folders(path)]
    named: dict[int, str] = {}
    for part in (TRAIN, VAL, TEST):
        for place, (_, label, name) in _entries(path, part):
            if named.setdefault(label, name) != name:
                raise BadInput(f"{path}: {part}[{place}]: its label has another name before")
    return [named[label] for label in sorted(named)]


def write_pictures(records: Sequence[Record], path: Path) -> None:
    """Write pictures as JSON lines that hold all of them and that ``read_pictures`` reads back."""
    with path.open("w", encoding="utf-8") as file:
        for record in records:
            item = {"id": record.id, "name": record.content.name}
            if Unit.PATIENT in record.owners:
                item["patient"] = record.owners[Unit.PATIENT]
            item["data"] = base64.b64encode(record.content.read()).decode("ascii")
            file.write(json.dumps(item, ensure_ascii=False) + "\n")


def picture_record(name: str, picture: Picture, patient: str = "") -> Record:
    """A record that belongs to itself and, where it is known, to a patient."""
    owners = {Unit.RECORD: name}
    if patient:
        owners[Unit.PATIENT] = patient
    return Record(name, owners, picture)


def in_memory(name: str, data: bytes) -> Picture:
    """A picture that is held in its record."""
    return Picture(name, hashlib.sha256(data).hexdigest(), data)


def in_file(name: str, path: Path) -> Picture:
    """A picture that stays in its file.

    Raises:
        ValueError: It cannot be read, or is no picture.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"the picture cannot be read ({error.strerror})") from error
    check_picture(data)
    return Picture(name, hashlib.sha256(data).hexdigest(), path=path)


def _lines(path: Path, names: Sequence[str]) -> Iterator[Record]:
    """The records of JSON lines."""
    seen: dict[str, int] = {}
    patients: bool | None = None
    for line, item in json_lines(path):
        where = f"{path}:{line}"
        try:
            record = _record(item, path, line)
        except ValueError as error:
            raise BadInput(f"{where}: {error}") from error
        if record.content.name not in names:
            raise BadInput(f"{where}: name is none of [task] names")
        if record.id in seen:
            raise BadInput(f"{where}: id occurs before, on line {seen[record.id]}")
        has_patient = Unit.PATIENT in record.owners
        if patients is not None and has_patient != patients:
            raise BadInput(f"{where}: patient must be given on all lines or on none")
        seen[record.id], patients = line, has_patient
        yield record


def _record(item: object, path: Path, line: int) -> Record:
    """One line's record; ``ValueError`` says what is wrong with it."""
    if not isinstance(item, dict):
        raise ValueError("not a JSON object")
    for field in item:
        if field not in _FIELDS:
            raise ValueError(f"unknown field{nearest(str(field), _FIELDS)}")
    texts: Mapping[str, Any] = {"id": f"{path.stem}-{line:06d}", **item}
    for field, value in texts.items():
        if not isinstance(value, str) or not value:
            raise ValueError(f"{field} must be a text")
    if "name" not in texts or ("data" in texts) == ("image" in texts):
        raise ValueError("a name, and either data or image, must be given")
    name = _spelt(texts["name"])
    if "image" in texts:
        picture = in_file(name, path.parent / texts["image"])
    else:
        try:
            data = base64.b64decode(texts["data"], validate=True)
        except binascii.Error as error:
            raise ValueError("data is not base64") from error
        check_picture(data)
        picture = in_memory(name, data)
    return picture_record(texts["id"], picture, texts.get("patient", ""))


def _folder(path: Path) -> Iterator[Record]:
    """The records of a folder with a folder a name."""
    for folder in _class_folders(path):
        for file in sorted(folder.rglob("*")):
            if file.suffix.lower() in _SUFFIXES:
                yield _of_file(_spelt(folder.name), file, path)


def _split(path: Path, split: str) -> Iterator[Record]:
    """The records of one part of a split; pictures are beside the file or in ``images/`` there."""
    for place, (image, _, name) in _entries(path, split):
        candidates = (path.parent / image, path.parent / "images" / image)
        found = next((file for file in candidates if file.is_file()), None)
        if found is None:
            raise BadInput(f"{path}: {split}[{place}]: its picture is not at {candidates[0]}")
        yield _of_file(name, found, path.parent)


def _of_file(name: str, file: Path, root: Path) -> Record:
    """A picture of a public set, called by where it is."""
    try:
        return picture_record(file.relative_to(root).as_posix(), in_file(name, file))
    except ValueError as error:
        raise BadInput(f"{file}: {error}") from error


def _class_folders(path: Path) -> list[Path]:
    """The folders of names, sorted as CoOp sorts them."""
    return sorted(folder for folder in path.iterdir() if folder.is_dir())


def _entries(path: Path, split: str) -> Iterator[tuple[int, tuple[str, int, str]]]:
    """Place, and path, label and name, of each entry of one part of a split file."""
    try:
        parts = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadInput(f"{path}: no such file") from error
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path}: not a split in JSON") from error
    if not isinstance(parts, dict) or not isinstance(parts.get(split, []), list):
        raise BadInput(f"{path}: expected an object with lists {TRAIN}, {VAL} and {TEST}")
    for place, entry in enumerate(parts.get(split, [])):
        if not (isinstance(entry, list) and list(map(type, entry)) == [str, int, str]):
            raise BadInput(f"{path}: {split}[{place}]: expected a path, a label and a name")
        yield place, (entry[0], entry[1], _spelt(entry[2]))


def _spelt(name: str) -> str:
    """A name as prompts spell it."""
    return name.replace("_", " ")
