"""Strategies beside each other: how exact, how many bytes, and how useful at which epsilon.

Exactness is measured against the mean of the hospitals' products, multiplied out in float64, for
factors that have drifted apart by half their own size; bytes are those of real blocks. Utility is
the toy study of ``study.bench.toy``, whose learning rate is chosen for every strategy and epsilon
from the same rates, on worlds that are not shown.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wardround.privacy.accountant import calibrate_noise_multiplier
from wardround.strategies.base import Arrays, Brief, Update
from wardround.strategies.codec import encode
from wardround.strategies.factors import CORE, A, B, background, layers
from wardround.strategies.registry import list_strategies, make_strategy
from wardround.study.bench import toy

_SHAPES = {"first": (128, 344), "second": (344, 128)}
_HOSPITALS, _RANK, _DRIFT, _SEED = 5, 8, 0.5, 20
EPSILONS = (math.inf, 8.0, 3.0, 1.0)
_RATES = (0.03, 0.1, 0.3, 1.0)
_CHOOSING = (1, 2)  # worlds that learning rates are chosen on
_SHOWN = 100  # the first world that is shown


def strategies_benchmark() -> dict[str, Any]:
    """Aggregation error and bytes of every strategy."""
    return {
        "strategies": [_measure(e.name) for e in list_strategies() if e.traits.trains],
        "settings": {
            "hospitals": _HOSPITALS,
            "rank": _RANK,
            "layers": [list(shape) for shape in _SHAPES.values()],
            "drift": _DRIFT,
        },
    }


def utility_benchmark(
    names: Iterable[str], seeds: int, rows: Path | None, say: Callable[[str], Any]
) -> list[dict[str, Any]]:
    """Accuracy of each strategy at each epsilon, mean and deviation over ``seeds`` worlds.

    Args:
        names: Which strategies.
        seeds: How many worlds are shown.
        rows: Finished rows are added here, and those that are here already are not made again.
        say: Told each row as it is finished.
    """
    steps = toy.ROUNDS * toy.STEPS
    done = _read(rows)
    for epsilon in EPSILONS:
        todo = [name for name in names if (name, _written(epsilon)) not in done]
        noise = 0.0
        if todo and epsilon < math.inf:
            noise = calibrate_noise_multiplier(epsilon, toy.DELTA, toy.SAMPLING_RATE, steps)
        for name in todo:
            row: dict[str, Any] = {"strategy": name, "epsilon": _written(epsilon)}
            row |= {"noise_multiplier": noise, **_utility(name, noise, seeds)}
            done[name, _written(epsilon)] = row
            if rows is not None:
                with rows.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
            say(f"{name}, epsilon {epsilon:g}: {row['mean']:.3f} ± {row['sd']:.3f}")
    return list(done.values())


def untouched(seeds: int) -> dict[str, float]:
    """What the base alone scores on the worlds that are shown."""
    worlds = [toy.make_world(_SHOWN + number) for number in range(seeds)]
    return _summary([toy.accuracy(world, {}) for world in worlds])


def _utility(name: str, noise_multiplier: float, seeds: int) -> dict[str, Any]:
    """The rate that was best on the choosing worlds, and what it comes to on the shown ones."""

    def score(world: int, rate: float) -> float:
        made = toy.make_world(world)
        return toy.run_toy(make_strategy(name), made, noise_multiplier, rate, 1000 + world)

    chosen = max(_RATES, key=lambda rate: sum(score(world, rate) for world in _CHOOSING))
    found = [score(_SHOWN + number, chosen) for number in range(seeds)]
    return {"learning_rate": chosen, **_summary(found), "accuracies": found}


def _summary(found: list[float]) -> dict[str, float]:
    """Mean and standard deviation."""
    spread = statistics.stdev(found) if len(found) > 1 else 0.0
    return {"mean": round(statistics.fmean(found), 4), "sd": round(spread, 4)}


def _measure(name: str) -> dict[str, Any]:
    """One strategy's exactness and bytes, in a round of an adapter in use."""
    generator = torch.Generator().manual_seed(_SEED)
    strategy, arrays = make_strategy(name), {}
    for layer, (m, n) in _SHAPES.items():
        arrays[layer + A] = torch.randn(_RANK, n, generator=generator) / math.sqrt(n)
        arrays[layer + B] = torch.randn(m, _RANK, generator=generator) / math.sqrt(m)
    state = strategy.start(arrays)
    brief, aggregation, ended = strategy.brief(state, 1), strategy.begin(state, 1), []
    for number in range(_HOSPITALS):
        change = {
            wire: _DRIFT
            * torch.randn(array.shape, generator=generator)
            / math.sqrt(max(array.shape))
            for wire, array in brief.expects.items()
        }
        ended.append(_products(_moved(state, brief, change), brief.background))
        aggregation.add(Update(f"hospital-{number}", change))
    after = aggregation.finish()
    wanted = {layer: torch.stack([found[layer] for found in ended]).mean(0) for layer in _SHAPES}
    model, down = strategy.deploy(after), strategy.brief(after, 2)
    sent = _moved(after, down, {})
    return {
        "strategy": name,
        "aggregation_error": _away(_products(model.arrays, model.background), wanted),
        "sent_down_error": _away(_products(sent, down.background), wanted),
        "bytes_up": len(encode({"kind": "update"}, brief.expects)),
        "bytes_down": len(encode({"kind": "global"}, {**down.arrays, **down.background})),
    }


def _moved(state: Arrays, brief: Brief, change: Arrays) -> dict[str, Tensor]:
    """A hospital's arrays after its round; what it keeps to itself is as the state has it."""
    start = {**{name: state[name] for name in brief.keeps}, **brief.arrays}
    return {name: array.double() + change.get(name, 0.0) for name, array in start.items()}


def _products(arrays: Arrays, behind: Arrays) -> dict[str, Tensor]:
    """Each layer's whole product, multiplied out in float64."""
    found = {}
    for layer in layers(arrays):
        left, right = arrays[layer + B].double(), arrays[layer + A].double()
        core = arrays.get(layer + CORE)
        found[layer] = left @ right if core is None else left @ core.double() @ right
        held = background(behind, layer)
        if held is not None:
            found[layer] = found[layer] + held.left @ held.right
    return found


def _away(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> float:
    """Relative distance of two sets of products."""
    away = sum(float((found[layer] - wanted[layer]).square().sum()) for layer in wanted)
    return math.sqrt(away / sum(float(array.square().sum()) for array in wanted.values()))


def _written(epsilon: float) -> float | None:
    """JSON knows no infinity: no privacy is null."""
    return epsilon if epsilon < math.inf else None


def _read(rows: Path | None) -> dict[tuple[str, float | None], dict[str, Any]]:
    """Rows finished by an earlier call."""
    if rows is None or not rows.exists():
        return {}
    made = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
    return {(row["strategy"], row["epsilon"]): row for row in made}
