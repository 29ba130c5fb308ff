"""Tables from TOML files and messages into frozen dataclasses, with errors a person can act on.

Unknown keys are errors that name the nearest known one; a missing or mistyped value names file,
field and what was expected. Knows nothing of what they mean: each dataclass checks its own bounds.
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from wardround.privacy.errors import BadInput

T = TypeVar("T")


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file; ``BadInput`` when it is missing or malformed."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadInput(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read ({error})") from error
    except (ValueError, RecursionError) as error:  # also numbers too long to be read
        raise BadInput(f"{path}: not valid TOML: {error}") from error


def from_table(cls: type[T], table: object, where: str) -> T:
    """An instance of the dataclass ``cls`` from a table.

    Args:
        cls: A dataclass; its field types say what each key may hold.
        table: The parsed table.
        where: File and table, for messages: ``study.toml [privacy]``.

    Raises:
        BadInput: An unknown, missing or mistyped key, or a value the dataclass refuses.
    """
    if not isinstance(table, Mapping):
        raise BadInput(f"{where}: expected a table, found {type(table).__name__}")
    fields = _fields(cls)  # type: ignore[arg-type]  # classes are hashable
    refuse_unknown(table, fields, where)
    values: dict[str, Any] = {}
    for name, (hint, needed) in fields.items():
        if name in table:
            value = table[name]
            # Most values are what they should be, which their type says without looking further.
            if type(value) is not hint:
                value = _convert(hint, value, f"{where} {name}")
            values[name] = value
        elif needed:
            raise BadInput(f"{where} {name}: missing")
    try:
        return cls(**values)
    except ValueError as error:
        raise BadInput(f"{where} {error}") from error


def as_table(value: Any) -> dict[str, Any]:
    """A dataclass as a JSON object that ``from_table`` reads; what its fields hold is not copied.

    ``dataclasses.asdict`` copies every mapping inside, which takes longer than to encode it.
    """
    found = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return {
        name: as_table(part) if dataclasses.is_dataclass(part) else part
        for name, part in found.items()
    }


@lru_cache(maxsize=256)
def _fields(cls: type) -> Mapping[str, tuple[Any, bool]]:
    """Type of each field a table may hold, and whether it must; slower to find than to use."""
    hints = typing.get_type_hints(cls)
    return {
        field.name: (
            hints[field.name],
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING,
        )
        for field in dataclasses.fields(cls)
        if field.init
    }


def refuse_unknown(table: Mapping[str, Any], known: typing.Collection[str], where: str) -> None:
    """Raise ``BadInput`` for the first key not in ``known``, suggesting the nearest."""
    for key in table:
        if key not in known:
            raise BadInput(f"{where}: unknown key {key!r}{nearest(key, list(known))}")


def nearest(word: str, known: Sequence[str]) -> str:
    """A hint such as ``; did you mean 'epsilon'?``, or the known words when none is near."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(sorted(known))}" if known else ""


def _is_literal(hint: Any) -> bool:
    """Whether a type hint spells the very values it allows."""
    return typing.get_origin(hint) is typing.Literal


def _convert(hint: Any, value: object, where: str) -> Any:
    """``value`` as the field type ``hint``, or ``BadInput``."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        words = [w for a in arguments for w in typing.get_args(a) if _is_literal(a)]
        if value in words:
            return value
        plain = next(a for a in arguments if a is not type(None) and not _is_literal(a))
        if words and not isinstance(value, plain):
            raise BadInput(f"{where} is {value!r}; expected {plain.__name__} or {words[0]!r}")
        return _convert(plain, value, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise BadInput(f"{where} is {value!r}; expected a list")
        return tuple(_convert(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise BadInput(f"{where} is {value!r}; expected a table")
        return dict(value)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return from_table(hint, value, where)
    if isinstance(hint, type) and issubclass(hint, Enum):
        choices = [member.value for member in hint]
        if value not in choices:
            hint_text = nearest(str(value), choices)
            raise BadInput(f"{where} is {value!r}; expected one of {', '.join(choices)}{hint_text}")
        return hint(value)
    if hint is Any:
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError as error:
            raise BadInput(f"{where} is too large a number") from error
    if hint is Path and isinstance(value, str):
        if "\0" in value:
            raise BadInput(f"{where} is {value!r}; no path holds that character")
        return Path(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise BadInput(f"{where} is {value!r}; expected {hint.__name__}")
    return value
