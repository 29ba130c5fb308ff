"""The noise source: is it what it says, everywhere and every time?

False-alarm rates: the seeded tests cannot fail by chance on unchanged code; had the key been drawn
afresh, each statistical bound would be broken with probability below 1e-9.
"""

from __future__ import annotations

import math
import multiprocessing
import time

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from scipy import stats

from wardround.privacy import stream as module
from wardround.privacy.stream import SecureStream

ALARM = 1e-9


def test_bytes_are_chacha20s_key_stream(stream):
    """Known answer: RFC 8439, appendix A.1, test vector 1: key and nonce of zeros, block 0."""
    expected = bytes.fromhex(
        "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
        "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586"
    )
    assert bytes(SecureStream(bytes(32))._bytes(64)) == expected


def test_reading_in_pieces_is_reading_at_once(monkeypatch):
    monkeypatch.setattr(module, "_ZEROS", memoryview(bytes(8 * 5)))
    pieces, whole = SecureStream(bytes(32)), SecureStream(bytes(32))
    parts = [pieces.words(n) for n in (1, 7, 0, 13, 100)]
    assert np.array_equal(np.concatenate(parts), whole.words(121))


def test_a_key_makes_a_limited_stream_and_its_successor(monkeypatch):
    monkeypatch.setattr(module, "_BYTES_PER_KEY", 64)
    stream = SecureStream(bytes(32))
    data = bytes(stream._bytes(160))
    first = Cipher(algorithms.ChaCha20(bytes(32), bytes(16)), None).encryptor()
    assert data[:64] == first.update(bytes(64))
    second = Cipher(algorithms.ChaCha20(first.update(bytes(32)), bytes(16)), None).encryptor()
    assert data[64:128] == second.update(bytes(64))


def test_a_short_key_is_refused():
    with pytest.raises(ValueError, match="32 bytes, not 16"):
        SecureStream(bytes(16))


def _draw_in_child(stream, pipe):
    try:
        stream.words(1)
    except RuntimeError as error:
        pipe.send(str(error))


def test_a_forked_child_cannot_draw_its_parents_noise(stream):
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(
        target=_draw_in_child, args=(stream, theirs)
    )
    child.start()
    child.join(10)
    assert "another process" in ours.recv()


def test_a_stream_belongs_to_one_process(monkeypatch, stream):
    monkeypatch.setattr(module.os, "getpid", lambda: 1)
    with pytest.raises(RuntimeError, match="another process"):
        stream.uniform(1)


def test_two_streams_from_the_system_share_nothing():
    a, b = (SecureStream.from_os().words(1000) for _ in range(2))
    assert not np.isin(a, b).any()


@pytest.mark.statistical
def test_uniforms_are_uniform_and_never_0_or_1(stream):
    values = stream.uniform(200_000)
    assert values.min() > 0
    assert values.max() < 1
    assert stats.kstest(values, "uniform").pvalue > ALARM


@pytest.mark.statistical
@pytest.mark.parametrize("count", [1, 2, 3, 65_535, 65_536, 200_001])
def test_normals_of_any_number_are_normal(stream, count):
    values = stream.normal((count,))
    assert values.dtype == torch.float64
    assert values.shape == (count,)
    assert stats.kstest(values.numpy(), "norm").pvalue > ALARM
    if count > 1000:
        assert abs(float(values.var()) - 1) < stats.norm.isf(ALARM / 2) * math.sqrt(2 / count)
        assert abs(float((values**4).mean()) - 3) < stats.norm.isf(ALARM / 2) * math.sqrt(
            96 / count
        )


@pytest.mark.statistical
def test_both_halves_of_a_pair_are_independent(stream):
    count = 2 * module._CHUNK
    values = stream.normal((count,)).view(-1, 2, module._CHUNK // 2)
    left, right = values[:, 0].flatten(), values[:, 1].flatten()
    bound = stats.norm.isf(ALARM / 4) / math.sqrt(len(left))
    for a, b in ((left, right), (left.square(), right.square()), (left.abs(), right)):
        assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < bound


def test_the_extreme_radii_are_drawn_from_the_full_word(monkeypatch, stream):
    """All bits 0: the longest radius, sqrt(2 ln 2^64). All bits 1: the shortest, 0."""
    for word, radius in ((0, math.sqrt(2 * 64 * math.log(2))), (2**63 - 1, 0.0)):
        data = int(word).to_bytes(8, "little") + bytes(8)
        monkeypatch.setattr(stream, "_bytes", lambda count, d=data: bytearray(d))
        value, other = stream.normal((2,))
        assert float(value) == pytest.approx(radius, abs=1e-6)
        assert float(other) == 0.0


@pytest.mark.statistical
def test_coins_fall_as_often_as_they_should(stream):
    for probability in (0.0, 0.03, 0.5, 1.0):
        heads = int(stream.bernoulli(100_000, probability).sum())
        assert stats.binomtest(heads, 100_000, probability).pvalue > ALARM


@pytest.mark.statistical
@pytest.mark.parametrize("bound", [1, 2, 3, 10, 2**62])
def test_integers_below_a_bound_are_uniform(stream, bound):
    values = stream.below(bound, 30_000)
    assert values.min() >= 0
    assert values.max() < bound
    cells = np.bincount((values.astype(float) / bound * min(bound, 10)).astype(int))
    assert len(cells) == 1 or stats.chisquare(cells).pvalue > ALARM


def test_a_biased_remainder_is_drawn_again(monkeypatch, stream):
    """2**64 = 3 * 6148914691236517205 + 1: the last word would favour 0."""
    words = iter([np.array([2**64 - 1, 4], np.uint64), np.array([5], np.uint64)])
    monkeypatch.setattr(stream, "words", lambda count: next(words))
    assert stream.below(3, 2).tolist() == [1, 2]


@pytest.mark.statistical
def test_subsets_are_uniform_and_ascending(stream):
    assert stream.subset(3, 5) == [0, 1, 2]
    assert stream.subset(0, 5) == []
    seen = [tuple(stream.subset(5, 2)) for _ in range(5000)]
    assert all(a < b for a, b in seen)
    assert stats.chisquare([seen.count(pair) for pair in set(seen)]).pvalue > ALARM
    assert len(set(seen)) == 10


@pytest.mark.slow
def test_fifty_million_normals_a_second(stream):
    """On one core. A busy machine halves it, so the bound here is half; benchmarks measure."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        taken = []
        for _ in range(5):
            start = time.process_time()
            stream.normal((2**21,))
            taken.append(time.process_time() - start)
    finally:
        torch.set_num_threads(threads)
    assert 2**21 / min(taken) > 25e6
