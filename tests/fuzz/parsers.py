"""What a row of the table of parsers is; rows are in ``messages``, ``files`` and ``records``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from wardround.privacy.signing import SigningKey

Kind: Any = sys.modules["fuzz_mutations"].Kind


@dataclass(frozen=True)
class Parser:
    """Something that reads bytes of unknown origin.

    Attributes:
        name: For the test's name.
        kind: How its documents are written, which says how they are damaged.
        make: Valid documents; the folder is empty and theirs.
        read: Reads one, given an empty folder; a document that was signed is signed again here, so
            that damage gets past the signature.
        task: The registered task whose records these are.
        private: Whether a refusal must not repeat what the document says.
    """

    name: str
    kind: Any
    make: Callable[[Path], Sequence[bytes]]
    read: Callable[[bytes, Path], object]
    task: str = ""
    private: bool = False

    @cached_property
    def label(self) -> str:
        """A file name for the document."""
        return self.name.replace(" ", "-")


def key_of(number: int) -> SigningKey:
    """A signing key that is the same in every run, so that the same case fails again."""
    return SigningKey(Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32))


def in_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes, Path], object]:
    """``read`` of a file that holds the bytes."""

    def from_bytes(data: bytes, folder: Path) -> object:
        path = folder / name
        path.write_bytes(data)
        return read(path)

    return from_bytes
