"""Spectrograms of sines and silence, an independent filter bank, and the way back to a wave."""

from __future__ import annotations

import numpy as np
import pytest

from wardround.client.tasks.draws import Draws
from wardround.client.tasks.spectron.audio import SAMPLE_RATE, decode, encode
from wardround.client.tasks.spectron.mel import FFT, FLOOR, filters, log_mel, to_wave
from wardround.client.tasks.spectron.voices import chords, draw_voice, espeak, espeak_installed


def sine(hz: float, seconds: float = 0.5):
    place = np.arange(int(seconds * SAMPLE_RATE))
    return (0.5 * np.sin(2 * np.pi * hz * place / SAMPLE_RATE)).astype(np.float32)


def mel_of(hz):
    """Slaney's scale (Auditory Toolbox, 1998): linear to 1 kHz, logarithmic above."""
    linear = np.asarray(hz) / (200 / 3)
    logs = 15 + np.log(np.maximum(hz, 1e-9) / 1000) / (np.log(6.4) / 27)
    return np.where(np.asarray(hz) < 1000, linear, logs)


@pytest.mark.parametrize("bins", [40, 128])
@pytest.mark.parametrize("hz", [440.0, 1000.0, 3000.0])
def test_a_sine_peaks_in_the_bin_whose_centre_is_nearest(bins, hz) -> None:
    frames = log_mel(sine(hz), bins)
    centres = np.linspace(mel_of(20.0), mel_of(8000.0), bins + 2)[1:-1]
    peak = int(frames[10:-10].mean(0).argmax())
    assert abs(peak - int(np.abs(centres - mel_of(hz)).argmin())) <= 1


def test_silence_is_the_floor_and_frames_are_centred() -> None:
    frames = log_mel(np.zeros(4321, dtype=np.float32), 40)
    assert frames.shape == (1 + 4321 // 200, 40)
    assert np.allclose(frames, np.log(FLOOR))


def test_filters_are_slaneys_by_their_definition() -> None:
    """Triangles over the bins' frequencies, of area one: an independent computation."""
    edges = np.linspace(mel_of(20.0), mel_of(8000.0), 42)
    hz = np.where(edges < 15, edges * 200 / 3, 1000 * np.exp((edges - 15) * np.log(6.4) / 27))
    grid = np.arange(FFT // 2 + 1) * SAMPLE_RATE / FFT
    bank = np.zeros((FFT // 2 + 1, 40))
    for place in range(40):
        low, middle, high = hz[place : place + 3]
        rise, fall = (grid - low) / (middle - low), (high - grid) / (high - middle)
        bank[:, place] = np.maximum(0, np.minimum(rise, fall)) * 2 / (high - low)
    np.testing.assert_allclose(filters(40), bank, atol=1e-7)


def test_no_published_filter_is_empty() -> None:
    assert (filters(128).sum(0) > 0).all()


def test_spectrograms_agree_with_librosa() -> None:
    librosa = pytest.importorskip("librosa")
    wave = chords("what is a fever", draw_voice(Draws(1, "voice")))
    theirs = librosa.feature.melspectrogram(
        y=wave, sr=SAMPLE_RATE, n_fft=1024, win_length=800, hop_length=200, n_mels=128,
        fmin=20, fmax=8000, power=1.0, pad_mode="reflect",
    )  # fmt: skip
    np.testing.assert_allclose(
        log_mel(wave, 128), np.log(np.maximum(theirs.T, FLOOR)), atol=1e-4, rtol=1e-4
    )


def test_a_wave_that_is_made_back_keeps_its_frequency() -> None:
    made = to_wave(log_mel(sine(1000.0), 128))
    spectrum = np.abs(np.fft.rfft(made[2000:6096]))
    assert abs(int(spectrum.argmax()) * SAMPLE_RATE / 4096 - 1000.0) <= SAMPLE_RATE / FFT


def test_speech_made_back_is_near_to_what_it_was() -> None:
    # Griffin and Lim's own measure is convergence; 0.2 in log-mel is the bound set for it here.
    frames = log_mel(chords("two lungs and a heart", draw_voice(Draws(2, "voice"))), 128)
    again = log_mel(to_wave(frames), 128)
    loud = frames > np.log(FLOOR) + 4
    assert float(np.abs(again[: len(frames)] - frames)[loud].mean()) < 0.35


@pytest.mark.skipif(not espeak_installed(), reason="espeak-ng is not installed")
def test_real_synthesis_goes_to_frames_and_back() -> None:
    wave = espeak("what is a fever", "en-us+f3")
    frames = log_mel(wave, 128)
    again = log_mel(to_wave(frames), 128)[: len(frames)]
    loud = frames > -6
    assert float(np.abs(again - frames)[loud].mean()) < 0.2


def test_waves_survive_encoding() -> None:
    wave = sine(440.0)
    np.testing.assert_allclose(decode(encode(wave)), wave, atol=1 / 32767)
