"""How fast noise is drawn: the secure stream beside torch's generator, one thread, interleaved."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from wardround.privacy.stream import SecureStream


def noise_benchmark(count: int, repeats: int) -> dict[str, Any]:
    """Million normals a second by processor time, medians over ``repeats`` draws of ``count``."""
    stream = SecureStream.from_os()
    generator = torch.Generator().manual_seed(0)
    contenders: dict[str, Callable[[], object]] = {
        "secure_stream": lambda: stream.normal((count,)),
        "torch_float32": lambda: torch.randn(count, generator=generator),
        "torch_float64": lambda: torch.randn(count, generator=generator, dtype=torch.float64),
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        for turn in range(repeats + 1):
            for name, draw in contenders.items():
                started = time.process_time()
                draw()
                if turn:
                    seconds[name].append(time.process_time() - started)
    finally:
        torch.set_num_threads(threads)
    speed = {n: round(count / statistics.median(s) / 1e6, 1) for n, s in seconds.items()}
    return {"million_normals_per_second": speed, "settings": {"count": count, "repeats": repeats}}
