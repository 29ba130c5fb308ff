"""The run's state on the coordinator's disk: written whole or not at all, once a round.

A checkpoint is one block (``codec``) in a file that appears by rename; the one before it stays
until the new one is durable. It is the commit point of a round: what else a round writes is written
before, and written again when the round is done again. Knows nothing of studies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from wardround.privacy.disk import Disk
from wardround.privacy.errors import BadInput, BadMessage
from wardround.strategies.codec import decode, encode

_KEPT = 2  # the newest and the one before it, should the newest turn out damaged


@dataclass(frozen=True)
class Checkpoint:
    """The model and the bookkeeping after ``round``.

    Attributes:
        round: How many rounds have ended.
        arrays: The strategy's whole state.
        state: Whatever JSON the coordinator keeps beside it.
    """

    round: int
    arrays: Mapping[str, Tensor]
    state: Mapping[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write ``checkpoint`` atomically and drop all but the last two."""
    folder.mkdir(parents=True, exist_ok=True)
    header = {"round": checkpoint.round, "state": dict(checkpoint.state)}
    path = folder / f"round-{checkpoint.round:04d}.safetensors"
    write_atomically(path, encode(header, checkpoint.arrays))
    for old in saved_rounds(folder)[:-_KEPT]:
        old.unlink()


def load_checkpoint(folder: Path) -> Checkpoint:
    """The newest checkpoint that is whole.

    Raises:
        BadInput: There is none, or none can be read.
    """
    damaged: BadMessage | None = None
    for path in reversed(saved_rounds(folder)):
        try:
            header, arrays = decode(path.read_bytes(), str(path))
            if header["round"] != _round(path) or not isinstance(header["state"], dict):
                raise BadMessage("not the checkpoint of the round it is named after")
            return Checkpoint(header["round"], arrays, header["state"])
        except (BadMessage, KeyError) as error:
            damaged = BadMessage(f"{path}: {error}")
    if damaged is not None:
        raise BadInput(f"no readable checkpoint: {damaged}") from damaged
    raise BadInput(f"{folder}: holds no checkpoint to resume from")


def saved_rounds(folder: Path) -> list[Path]:
    """The checkpoints in ``folder``, oldest first, whether or not they can be read."""
    return sorted(folder.glob("round-[0-9]*.safetensors"), key=_round)


def write_atomically(path: Path, content: bytes, disk: Disk | None = None) -> None:
    """Let ``path`` hold ``content``, durably, or what it held before.

    Raises:
        OSError: The disk refused; ``path`` holds what it held before.
    """
    (disk or Disk()).write_file(path, content, mode=0o644)


def _round(path: Path) -> int:
    """The round in a checkpoint's name; -1 where somebody put another file."""
    number = path.stem.removeprefix("round-")
    return int(number) if number.isdecimal() else -1
