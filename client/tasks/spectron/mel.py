"""Log-mel spectrograms, and back to a wave by Griffin and Lim's iteration.

16 kHz, windows of 50 ms every 12.5 ms, 20 to 8,000 Hz, natural logarithm of magnitudes from 1e-5
up, frames centred. Sources: Nachmani et al. (2024), Spectron, arXiv 2305.15255; Griffin and Lim
(1984), "Signal estimation from modified short-time Fourier transform".
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from wardround.client.tasks.spectron.audio import SAMPLE_RATE, Samples

WINDOW, HOP, FFT = 800, 200, 1024
LOWEST_HZ, HIGHEST_HZ = 20.0, 8000.0
FLOOR = 1e-5
SILENCE = float(np.log(FLOOR))
_ITERATIONS = 60

Floats = NDArray[np.float32]


def log_mel(samples: Samples, bins: int) -> Floats:
    """The spectrogram, shape ``(1 + samples // 200, bins)``."""
    magnitudes = np.abs(_transform(samples))
    return np.log(np.maximum(magnitudes @ filters(bins), FLOOR)).astype(np.float32)


def to_wave(spectrogram: Floats, iterations: int = _ITERATIONS) -> Samples:
    """A wave whose spectrogram is near to this one, shape ``(bins' frames, bins)`` to samples.

    Phases begin at zero, so the same spectrogram gives the same wave.
    """
    frames, bins = spectrogram.shape
    wanted = np.maximum(np.exp(spectrogram.astype(np.float64)) @ _inverse(bins), 0.0)
    length = (frames - 1) * HOP
    spectrum = wanted.astype(np.complex128)
    for _ in range(iterations):
        again = _transform(_overlapped(spectrum, length))
        spectrum = wanted * np.exp(1j * np.angle(again))
    return _overlapped(spectrum, length).astype(np.float32)


@lru_cache(maxsize=8)
def filters(bins: int) -> NDArray[np.float64]:
    """Slaney's triangular filters, shape ``(513, bins)``."""
    from transformers.audio_utils import mel_filter_bank

    bank = mel_filter_bank(
        num_frequency_bins=FFT // 2 + 1,
        num_mel_filters=bins,
        min_frequency=LOWEST_HZ,
        max_frequency=HIGHEST_HZ,
        sampling_rate=SAMPLE_RATE,
        norm="slaney",
        mel_scale="slaney",
    )
    return np.asarray(bank, dtype=np.float64)


@lru_cache(maxsize=8)
def _inverse(bins: int) -> NDArray[np.float64]:
    """From mel magnitudes to linear ones, shape ``(bins, 513)``."""
    found: NDArray[np.float64] = np.linalg.pinv(filters(bins)).astype(np.float64)
    return found


@lru_cache(maxsize=1)
def _window() -> NDArray[np.float64]:
    """A periodic Hann window of 800 samples in the middle of 1,024."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    side = (FFT - WINDOW) // 2
    return np.pad(hann, (side, FFT - WINDOW - side))


def _transform(samples: NDArray[np.floating]) -> NDArray[np.complex128]:
    """Short-time spectrum, shape ``(1 + samples // 200, 513)``; edges are mirrored."""
    side = FFT // 2
    mode = "reflect" if len(samples) > side else "constant"
    padded = np.pad(samples.astype(np.float64), side, mode=mode)  # type: ignore[call-overload]
    frames = np.lib.stride_tricks.sliding_window_view(padded, FFT)[::HOP]
    found: NDArray[np.complex128] = np.fft.rfft(frames * _window(), axis=1)
    return found


def _overlapped(spectrum: NDArray[np.complex128], length: int) -> NDArray[np.float64]:
    """The wave whose windows are nearest to a spectrum, least squares."""
    side = FFT // 2
    total = np.zeros(length + 2 * side)
    weight = np.zeros_like(total)
    pieces = np.fft.irfft(spectrum, n=FFT, axis=1) * _window()
    square = _window() ** 2
    for place, piece in enumerate(pieces):
        start = place * HOP
        total[start : start + FFT] += piece
        weight[start : start + FFT] += square
    found: NDArray[np.float64] = (total / np.maximum(weight, 1e-8))[side : side + length]
    return found
