"""What a hospital learns for itself alone: arrays kept between rounds, in its own folder.

Written whole or not at all, and before the answer of the round they belong to, so that a round that
was answered has its part here; a round that is done again starts from the round before. Knows
nothing of training.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from wardround.privacy.signing import canonical, sha256
from wardround.strategies.base import Arrays
from wardround.strategies.checkpoint import write_atomically
from wardround.strategies.codec import decode, encode

_KEPT = 2  # a round may be asked for again until the next one is answered


class Personal:
    """The folder of one hospital's own arrays."""

    def __init__(self, folder: Path) -> None:
        """Use ``folder``; made when something is first kept."""
        self._folder = folder

    def load(self, run: str, round_number: int) -> dict[str, Tensor]:
        """What was kept last before this round; nothing at first.

        Raises:
            BadMessage: The file is damaged.
        """
        earlier = [path for path in self._files(run) if int(path.stem[-6:]) < round_number]
        if not earlier:
            return {}
        _, arrays = decode(earlier[-1].read_bytes(), str(earlier[-1]))
        return arrays

    def save(self, run: str, round_number: int, arrays: Arrays) -> None:
        """Keep these; all but the last two rounds are dropped."""
        folder = self._of(run)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / f"round-{round_number:06d}.safetensors"
        write_atomically(path, encode({"run": run, "round": round_number}, arrays))
        for old in self._files(run)[:-_KEPT]:
            old.unlink()

    def _files(self, run: str) -> list[Path]:
        return sorted(self._of(run).glob("round-*.safetensors"))

    def _of(self, run: str) -> Path:
        """A folder for a run, whatever characters its identifier has."""
        return self._folder / sha256(canonical({"run": run}))[:32]
