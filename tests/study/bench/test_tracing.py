"""The tracing benchmark compares two ways that say the same."""

from __future__ import annotations

from wardround.study.bench.tracing import tracing_benchmark


def test_both_ways_agree_and_the_batched_one_is_faster():
    told = []
    found = tracing_benchmark(2, told.append)
    # Float32 probabilities through some twenty layers' sums.
    assert found["largest_difference"] < 1e-5
    # 3 and more on a quiet machine; processor time on a busy one still shows the order.
    assert found["speed_up"] > 1.5
    assert len(told) == 2
