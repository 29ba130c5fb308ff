"""What a hospital's optimizer remembers from one round of a run to the next, in one file a run.

The moments are made of noised gradients alone, and every one of those was charged: they are
post-processing, so keeping them costs nothing and a stolen file tells no more than the updates that
were sent. Two things could spoil that and are ruled out here. A round that is done anew after a
crash must not start from what its own first attempt left, because then two draws of noise would
speak about one charge; a file is therefore written after its round was committed, and read only by
later rounds. And moments of bare gradients, as in a whole update, are never kept.
"""

from __future__ import annotations

from pathlib import Path

from wardround.client.optimizers import Moments
from wardround.privacy.disk import Disk
from wardround.privacy.errors import BadMessage
from wardround.privacy.signing import sha256
from wardround.strategies.codec import decode, encode


class OptimizerMemory:
    """Moments by run; the newest round's only."""

    def __init__(self, folder: Path, disk: Disk | None = None) -> None:
        """``folder`` is made when something is first kept."""
        self._folder = folder
        self._disk = disk or Disk()

    def recall(self, run: str, round_number: int, settings: bytes) -> Moments | None:
        """The moments to start this round with, or None to start afresh.

        Args:
            run: Identifier of the run.
            round_number: The round about to be trained.
            settings: What the moments depend on; others' are not used.

        Raises:
            BadMessage: There is a file and it cannot be read.
        """
        path = self._path(run)
        if not path.exists():
            return None
        try:
            header, arrays = decode(path.read_bytes(), str(path))
            kept = (str(header["run"]), str(header["settings"]))
            steps = {name: int(count) for name, count in header["steps"].items()}
            variance = {name: float(v) for name, v in header["noise_variance"].items()}
            earlier = int(header["round"]) < round_number
        except (AttributeError, BadMessage, KeyError, TypeError, ValueError) as error:
            raise BadMessage(f"{path.name} is damaged; delete it to start afresh") from error
        if kept != (run, sha256(settings)) or not earlier:
            return None
        return Moments(arrays, steps, variance)

    def keep(self, run: str, round_number: int, settings: bytes, moments: Moments) -> None:
        """Replace what the run had; call it once the round is committed."""
        header = {
            "run": run,
            "round": round_number,
            "settings": sha256(settings),
            "steps": dict(moments.steps),
            "noise_variance": dict(moments.noise_variance),
        }
        self._folder.mkdir(parents=True, exist_ok=True)
        self._disk.write_file(self._path(run), encode(header, moments.arrays))

    def forget(self, run: str) -> None:
        """Remove what the run had, if anything."""
        self._path(run).unlink(missing_ok=True)

    def _path(self, run: str) -> Path:
        """A run's name comes from outside and is hashed before it names a file."""
        return self._folder / f"{sha256(run.encode())[:32]}.safetensors"
