"""Waves in and out: WAV files as 16 kHz mono samples between -1 and 1.

Refusals never repeat what a file holds. Knows nothing of spectrograms.
"""

from __future__ import annotations

import hashlib
import io
import math
import wave
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wardround.privacy.errors import BadInput

SAMPLE_RATE = 16_000
MOST_SECONDS = 600
Samples = NDArray[np.float32]
_WIDTHS = {1: (np.uint8, 128.0), 2: (np.int16, 32768.0), 4: (np.int32, 2147483648.0)}


@dataclass(frozen=True)
class Sound:
    """An encoded wave.

    Attributes:
        sha256: Of the encoded wave; two records of the same bytes share what is computed.
        data: The encoded wave; empty where it stays in a file.
        path: The file it stays in.
        start_s: Where it begins, in seconds of the wave.
        end_s: Where it ends; None at its end.
    """

    sha256: str
    data: bytes = b""
    path: Path | None = None
    start_s: float = 0.0
    end_s: float | None = None

    def __post_init__(self) -> None:
        if bool(self.data) == (self.path is not None):
            raise ValueError("a sound is either in a record or in a file")
        if not 0 <= self.start_s < (math.inf if self.end_s is None else self.end_s):
            raise ValueError("a sound must begin before it ends")

    def samples(self) -> Samples:
        """The part of the wave it stands for, at 16 kHz.

        Raises:
            BadInput: Its file is gone or was changed.
        """
        if self.path is None:
            whole = decode(self.data)
        else:
            try:
                data = self.path.read_bytes()
            except OSError as error:
                raise BadInput(f"{self.path}: cannot be read ({error})") from error
            if hashlib.sha256(data).hexdigest() != self.sha256:
                raise BadInput(f"{self.path}: has changed since it was first read")
            whole = decode(data)
        end = None if self.end_s is None else round(self.end_s * SAMPLE_RATE)
        return whole[round(self.start_s * SAMPLE_RATE) : end]


def in_memory(data: bytes) -> Sound:
    """A wave that is held in its record; ``ValueError`` when it is none."""
    decode(data)
    return Sound(hashlib.sha256(data).hexdigest(), data)


def in_file(path: Path) -> Sound:
    """A wave that stays in its file.

    Raises:
        ValueError: It cannot be read, or is no wave.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"the wave cannot be read ({error.strerror})") from error
    decode(data)
    return Sound(hashlib.sha256(data).hexdigest(), path=path)


@lru_cache(maxsize=64)
def decode(data: bytes) -> Samples:
    """Samples of a WAV file, mono, at 16 kHz.

    Raises:
        ValueError: It is no WAV of whole-number samples, is empty, or is longer than ten minutes.
    """
    try:
        with wave.open(io.BytesIO(data)) as file:
            rate, channels, width = file.getframerate(), file.getnchannels(), file.getsampwidth()
            frames = file.getnframes()
            if not 4000 <= rate <= 192_000 or width not in _WIDTHS or channels < 1:
                raise ValueError(f"a wave of {rate} Hz with {8 * width} bits is not read")
            if not 0 < frames <= MOST_SECONDS * rate:
                raise ValueError(f"a wave must have samples, of {MOST_SECONDS} s at most")
            raw = file.readframes(frames)
    except (wave.Error, EOFError, RuntimeError) as error:  # it seeks beyond its chunks so
        raise ValueError(f"not a WAV file ({error})") from error
    kind, scale = _WIDTHS[width]
    whole = np.frombuffer(raw[: len(raw) // (width * channels) * width * channels], dtype=kind)
    if not whole.size:
        raise ValueError("a wave must have samples")
    values = whole.astype(np.float64).reshape(-1, channels).mean(1) / scale
    if width == 1:
        values -= 1.0
    return _resampled(values, rate)


def encode(samples: Samples) -> bytes:
    """A 16-bit mono WAV file at 16 kHz; values beyond 1 are cut off."""
    buffer = io.BytesIO()
    whole = np.round(np.clip(samples, -1, 1) * 32767).astype("<i2")
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(whole.tobytes())
    return buffer.getvalue()


def _resampled(values: NDArray[np.float64], rate: int) -> Samples:
    """The same sound at 16 kHz."""
    if rate != SAMPLE_RATE:
        from scipy.signal import resample_poly

        common = math.gcd(rate, SAMPLE_RATE)
        values = resample_poly(values, SAMPLE_RATE // common, rate // common)
    return np.asarray(values, dtype=np.float32)
