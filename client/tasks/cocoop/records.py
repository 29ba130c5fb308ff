"""What one record of the task is: a picture, and what is on it.

Knows nothing of files' formats, models or hospitals.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wardround.privacy.errors import BadInput


@dataclass(frozen=True)
class Picture:
    """An encoded picture and its name.

    Attributes:
        name: What is on it, as the study spells it.
        sha256: Of the encoded picture; two records of the same bytes share what is computed.
        data: The encoded picture; empty where it stays in a file.
        path: The file it stays in.
        view: 0 for the whole picture, another number for one of its crops.
    """

    name: str
    sha256: str
    data: bytes = b""
    path: Path | None = None
    view: int = 0

    def __post_init__(self) -> None:
        if bool(self.data) == (self.path is not None):
            raise ValueError("a picture is either in a record or in a file")

    def read(self) -> bytes:
        """The encoded picture.

        Raises:
            BadInput: Its file is gone.
        """
        if self.path is None:
            return self.data
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise BadInput(f"{self.path}: cannot be read ({error})") from error
