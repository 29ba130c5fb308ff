"""The run's state on the coordinator's disk: written whole or not at all, once a round.

A checkpoint is one block (``codec``) in a file that appears by rename; the one before it stays
until the new one is durable. Knows nothing of studies: the state is whatever JSON the caller wants
back.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from wardround.privacy.errors import BadInput, BadMessage
from wardround.strategies.codec import decode, encode


@dataclass(frozen=True)
class Checkpoint:
    """The model and the bookkeeping after ``round``."""

    round: int
    arrays: Mapping[str, Tensor]
    state: Mapping[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write ``checkpoint`` atomically and drop all but the last two."""
    folder.mkdir(parents=True, exist_ok=True)
    header = {"round": checkpoint.round, "state": dict(checkpoint.state)}
    write_atomically(_path(folder, checkpoint.round), encode(header, checkpoint.arrays))
    for old in sorted(folder.glob("round-*.safetensors"))[:-2]:
        old.unlink()


def load_checkpoint(folder: Path) -> Checkpoint:
    """The newest checkpoint that is whole.

    Raises:
        BadInput: There is none, or none can be read.
    """
    damaged: BadMessage | None = None
    for path in sorted(folder.glob("round-*.safetensors"), reverse=True):
        try:
            header, arrays = decode(path.read_bytes(), str(path))
            return Checkpoint(int(header["round"]), arrays, header["state"])
        except (BadMessage, KeyError, ValueError) as error:
            damaged = BadMessage(f"{path}: {error}")
    if damaged is not None:
        raise BadInput(f"no readable checkpoint: {damaged}") from damaged
    raise BadInput(f"{folder}: holds no checkpoint to resume from")


def write_atomically(path: Path, content: bytes) -> None:
    """Let ``path`` hold ``content``, durably, or what it held before."""
    temporary = path.with_name(f".{path.name}.partial")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _path(folder: Path, round_number: int) -> Path:
    return folder / f"round-{round_number:04d}.safetensors"
