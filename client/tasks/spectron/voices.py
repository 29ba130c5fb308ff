"""Made-up speech: chords that spell letters, or espeak-ng where that program is installed.

Chord speech needs nothing and is the same everywhere: each letter is a short chord of its own, a
voice shifts pitch, formants and pace. It is test data and nobody's voice. espeak-ng is a separate
program (GPL-3) that is called, never shipped.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wardround.client.tasks.draws import Draws
from wardround.client.tasks.spectron.audio import SAMPLE_RATE, Samples, decode
from wardround.privacy.errors import BadInput

ALPHABET = "abcdefghijklmnopqrstuvwxyz '?"
ESPEAK = "espeak-ng"
_LETTER_S = 0.055
_TIMEOUT_S = 30


@dataclass(frozen=True)
class Voice:
    """Somebody who speaks in chords.

    Attributes:
        pitch_hz: Of the lowest tone.
        formants: Factor of the letters' tones.
        pace: Factor of the letters' length.
        breath: Loudness of the noise beside the tones.
    """

    pitch_hz: float
    formants: float
    pace: float
    breath: float


def draw_voice(draws: Draws) -> Voice:
    """A voice from public draws."""

    def between(low: float, high: float) -> float:
        return low + (high - low) * draws.below(1 << 20) / (1 << 20)

    return Voice(between(90, 260), between(0.92, 1.09), between(0.85, 1.2), between(0.002, 0.01))


def chords(text: str, voice: Voice) -> Samples:
    """A text in chords; what is no letter is a pause."""
    pieces = [_letter(letter, voice) for letter in text.lower()]
    spoken = np.concatenate(pieces) if pieces else np.zeros(1)
    noise = _noise(len(spoken))
    return (0.3 * spoken + voice.breath * noise).astype(np.float32)


def espeak(text: str, voice: str, words_per_minute: int = 160) -> Samples:
    """A text in one of espeak-ng's voices, such as ``en-us+f3``.

    Raises:
        BadInput: The program is not installed, or refuses the voice.
    """
    if not espeak_installed():
        raise BadInput(f"{ESPEAK} is not installed; install it, or use chord speech")
    with tempfile.TemporaryDirectory(prefix="wardround-voice-") as scratch:
        path = Path(scratch) / "said.wav"
        command = [ESPEAK, "-v", voice, "-s", str(words_per_minute), "-w", str(path), "--", text]
        done = subprocess.run(  # noqa: S603  # a fixed program; the text is an argument, no shell
            command, capture_output=True, timeout=_TIMEOUT_S, check=False
        )
        if done.returncode or not path.exists():
            raise BadInput(f"{ESPEAK} refused voice {voice!r} (exit code {done.returncode})")
        return decode(path.read_bytes())


def espeak_installed() -> bool:
    """Whether espeak-ng can be called."""
    return shutil.which(ESPEAK) is not None


def _letter(letter: str, voice: Voice) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """One letter's chord, faded in and out."""
    count = round(_LETTER_S * voice.pace * SAMPLE_RATE)
    place = ALPHABET.find(letter)
    if place < 0 or letter == " ":
        return np.zeros(count)
    time_s = np.arange(count) / SAMPLE_RATE
    low = 350 * 1.16 ** (place % 6) * voice.formants
    high = 1100 * 1.2 ** (place // 6) * voice.formants * (1 + 0.05 * (place % 2))
    tones = ((voice.pitch_hz, 0.5), (low, 1.0), (high, 0.7), (2 * high, 0.2))
    wave = sum(size * np.sin(2 * np.pi * hz * time_s) for hz, size in tones)
    fade = np.minimum(1.0, np.minimum(np.arange(count), np.arange(count)[::-1]) / 80)
    return np.asarray(wave * fade / 2.4, dtype=np.float64)


def _noise(count: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Fixed noise between -1 and 1: the fractional parts of a quadratic sequence."""
    place = np.arange(count, dtype=np.float64)
    found: np.ndarray[tuple[int], np.dtype[np.float64]] = (
        2 * np.mod(place * place * 0.6180339887498949, 1.0) - 1
    )
    return found
