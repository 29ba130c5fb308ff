"""The price of privacy in one training step: ratios of step times, interleaved in one process.

Contenders take turns, one step each, in an order that moves by one every turn, so that whatever
else the machine does falls on all of them. On CPU the ratios are of processor time, which other
processes disturb less; wall time is reported beside it. A ratio compares medians of one run.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from wardround.client.devices import find_device
from wardround.privacy.errors import BadInput
from wardround.study.bench.contenders import CONTENDERS, Step
from wardround.study.bench.cost import measure_cost
from wardround.study.bench.shapes import SHAPES, Subject, make_subject

RATIOS = {
    "private_over_fused": ("private", "fused"),
    "private_over_stock": ("private", "stock"),
    "fused_over_stock": ("fused", "stock"),
    "patient_over_record": ("private_patient", "private"),
    "opacus_hooks_over_private": ("opacus_hooks", "private"),
    "opacus_functorch_over_private": ("opacus_functorch", "private"),
    "opacus_ghost_over_private": ("opacus_ghost", "private"),
}


def step_benchmark(
    models: Sequence[str] = ("embedded",),
    repeats: int = 11,
    device: str = "cpu",
    contenders: Sequence[str] = tuple(CONTENDERS),
    threads: int = 1,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Times, ratios and costs of one training step, for each model and contender.

    Args:
        models: Names of ``SHAPES``; the first one's ratios are repeated at the top.
        repeats: Timed turns after two that are not timed.
        device: Where the models are put: ``cpu``, ``cuda``, ``cuda:N`` or ``auto``.
        contenders: Names of ``CONTENDERS``.
        threads: PyTorch's threads while this runs.
        say: Told which model is being timed.

    Returns:
        A JSON document: ``settings``, ``models`` by name and ``ratios``.

    Raises:
        BadInput: A model or a contender is unknown, the device is not there, or there are fewer
            than two repeats.
    """
    unknown = [who for who in contenders if who not in CONTENDERS]
    if unknown:
        raise BadInput(f"contenders: {unknown[0]!r} is unknown; expected {', '.join(CONTENDERS)}")
    if repeats < 2:
        raise BadInput(f"repeats is {repeats}; it must be 2 or more")
    device = find_device(device)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = {}
        for name in models:
            say(f"{name}: {repeats} turns of {len(contenders)} contenders")
            found[name] = _one_model(name, repeats, device, contenders)
    finally:
        torch.set_num_threads(before)
    settings = _settings(device, threads, repeats)
    return {"settings": settings, "ratios": found[models[0]]["ratios"], "models": found}


def _one_model(name: str, repeats: int, device: str, contenders: Sequence[str]) -> dict[str, Any]:
    """Everything about one model."""
    subject = make_subject(name, device)
    shape = SHAPES[name]
    about: dict[str, Any] = {
        "parameters": sum(p.numel() for p in subject.trainable.model.parameters()),
        "trainable": sum(p.numel() for p in subject.trainable.parameters.values()),
        "rows": shape.rows,
        "tokens": shape.tokens,
        "rank": shape.rank,
        "dtype": str(next(subject.trainable.model.parameters()).dtype).removeprefix("torch."),
    }
    with tempfile.TemporaryDirectory() as folder, _quiet():
        steps = _steps(subject, contenders, Path(folder))
        costs = {who: _cost(step, device) for who, step in steps.items()}
        times = _take_turns(steps, repeats, device)
    clock = "wall_s" if device != "cpu" else "processor_s"
    about["ratios"] = _ratios(times, clock)
    about["ratios_of_wall_time"] = _ratios(times, "wall_s")
    about["memory_ratios"] = _memory_ratios(costs)
    about["contenders"] = {
        who: {
            "wall_ms": _spread(times[who]["wall_s"]),
            "processor_ms": _spread(times[who]["processor_s"]),
            **costs[who],
        }
        for who in steps
    }
    return about


def _steps(subject: Subject, contenders: Sequence[str], folder: Path) -> dict[str, Step]:
    """A step function for each contender, on a twin of the subject."""
    return {who: CONTENDERS[who](subject.twin(), folder / who) for who in contenders}


def _cost(step: Step, device: str) -> dict[str, int]:
    """Deterministic counts of one step, and the allocator's own peak on a GPU."""
    step()  # the optimizer's state exists from here on
    gc.collect()
    cost = asdict(measure_cost(step))
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        cost["allocator_peak_bytes"] = torch.cuda.max_memory_allocated() - before
    return cost


def _take_turns(
    steps: dict[str, Step], repeats: int, device: str
) -> dict[str, dict[str, list[float]]]:
    """Wall and processor seconds of each contender in each turn."""
    times: dict[str, dict[str, list[float]]] = {
        who: {"wall_s": [], "processor_s": []} for who in steps
    }
    order = list(steps)
    for turn in range(-2, repeats):
        gc.collect()
        for who in order:
            _wait(device)
            wall, processor = time.perf_counter(), time.process_time()
            steps[who]()
            _wait(device)
            if turn >= 0:
                times[who]["wall_s"].append(time.perf_counter() - wall)
                times[who]["processor_s"].append(time.process_time() - processor)
        order = order[1:] + order[:1]
    return times


def _wait(device: str) -> None:
    """Until the device has done what was asked of it."""
    if device != "cpu":
        torch.cuda.synchronize()


def _ratios(times: dict[str, dict[str, list[float]]], clock: str) -> dict[str, float]:
    """Ratios of medians, for the pairs that ran."""
    middle = {who: statistics.median(seconds[clock]) for who, seconds in times.items()}
    return {
        name: round(middle[over] / middle[under], 4)
        for name, (over, under) in RATIOS.items()
        if over in middle and under in middle
    }


def _memory_ratios(costs: dict[str, dict[str, int]]) -> dict[str, float]:
    """Peak bytes of the private step against the steps without privacy."""
    if "private" not in costs:
        return {}
    kind = "allocator_peak_bytes" if "allocator_peak_bytes" in costs["private"] else "peak_bytes"
    return {
        f"private_over_{other}": round(costs["private"][kind] / costs[other][kind], 4)
        for other in ("fused", "stock")
        if other in costs
    }


def _spread(seconds: list[float]) -> dict[str, float]:
    """Median, quartiles and least, in milliseconds."""
    low, middle, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return {
        "median": round(1e3 * middle, 3),
        "lower_quartile": round(1e3 * low, 3),
        "upper_quartile": round(1e3 * high, 3),
        "least": round(1e3 * min(seconds), 3),
    }


def _settings(device: str, threads: int, repeats: int) -> dict[str, Any]:
    """What a reader needs to judge or repeat the figures."""
    import opacus
    import peft
    import transformers

    hardware = torch.cuda.get_device_name() if device != "cpu" else platform.processor()
    return {
        "device": device,
        "hardware": hardware or platform.machine(),
        "cores": os.cpu_count(),
        "threads": threads,
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "repeats": repeats,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
        "opacus": opacus.__version__,
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's remark that the first layer's input needs no gradient."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Full backward hook is firing", UserWarning)
        yield


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from a command line."""
    parser = argparse.ArgumentParser(description="What privacy costs in one training step.")
    parser.add_argument("--models", default="embedded", help=f"some of {','.join(SHAPES)}")
    parser.add_argument("--contenders", default=",".join(CONTENDERS))
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    chosen = parser.parse_args(arguments)
    found = step_benchmark(
        chosen.models.split(","),
        chosen.repeats,
        chosen.device,
        chosen.contenders.split(","),
        chosen.threads,
        say=lambda line: print(line, file=sys.stderr),
    )
    if chosen.json:
        print(json.dumps(found, indent=2))
        return
    for name, model in found["models"].items():
        print(name, *(f"{ratio}={value:.3f}" for ratio, value in model["ratios"].items()))
