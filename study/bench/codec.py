"""What encodings cost and keep: bytes of one update, error of its values, utility of a small study.

Bytes and error are of one noised update of a LoRA adapter of 4 MiB, header and report included.
Utility is the demo's study cut down, private, with fresh noise in every run: differences within
the spread of ``fp32`` say nothing.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch

from wardround.client.workbench import Workbench
from wardround.privacy.stream import SecureStream
from wardround.strategies.codec import decode, encode
from wardround.strategies.encoding import Encoding
from wardround.study.config import Study
from wardround.study.local import begin
from wardround.study.runner import Outcome, Stage, execute

_LAYERS, _WIDTH, _RANK = 64, 1024, 8  # 2 · 64 · 8 · 1024 values of 4 bytes: 4 MiB
_REPORT = "x" * 2000  # as long as a hospital's signed report
_ROUNDS, _STEPS, _HOSPITALS, _NOISE = 4, 5, 2, 1.0
_WORLD = {  # few facts, so that 20 steps can move them
    "records_per_hospital": 160,
    "corroborated": 4,
    "corroborated_support": 32,
    "weak": 2,
    "weak_support": 4,
    "single": 2,
    "filler_facts": 40,
    "random_probes": 4,
}


def codec_benchmark(seeds: int, say: Callable[[str], object]) -> dict[str, Any]:
    """Every encoding's bytes, error and utility.

    Args:
        seeds: Runs of the small study for each encoding.
        say: Told what is being done.
    """
    rows = [_row(encoding) for encoding in Encoding]
    with (
        as_file(files("wardround.study") / "embedded" / "medical-editing") as example,
        Workbench() as workbench,
    ):
        study = Study.read(example / "study.toml")
        for row in rows:
            outcomes = []
            for seed in range(seeds):
                say(f"{row['encoding']}, seed {seed}")
                outcomes.append(_run(study, Encoding(row["encoding"]), seed, workbench))
            row |= _utility(outcomes)
    whole = rows[0]
    for row in rows:
        row["share_of_fp32"] = round(row["update_bytes"] / whole["update_bytes"], 4)
        row["study_share_of_fp32"] = round(row["study_bytes_up"] / whole["study_bytes_up"], 4)
    settings = {
        "seeds": seeds,
        "rounds": _ROUNDS,
        "steps_per_round": _STEPS,
        "hospitals": _HOSPITALS,
        "noise_multiplier": _NOISE,
    }
    return {"encodings": rows, "settings": settings}


def _row(encoding: Encoding) -> dict[str, Any]:
    """Bytes of one update and the root mean square error of its values, relative to their own."""
    stream = SecureStream.from_os()
    arrays = {
        f"base_model.model.layers.{i}.mlp.{part}.weight": stream.normal(shape).float()
        for i in range(_LAYERS)
        for part, shape in (("lora_A", (_RANK, _WIDTH)), ("lora_B", (_WIDTH, _RANK)))
    }
    block = encode({"report": _REPORT}, arrays, encoding, stream)
    _, found = decode(block, "update")
    off = sum(float(((found[n] - a) ** 2).sum()) for n, a in arrays.items())
    size = sum(float((a**2).sum()) for a in arrays.values())
    error = float(torch.tensor(off / size).sqrt())
    return {"encoding": encoding.value, "update_bytes": len(block), "relative_error": error}


def _run(study: Study, encoding: Encoding, seed: int, workbench: Workbench) -> Outcome:
    """The small study with this encoding."""
    privacy = replace(study.privacy, epsilon=None, noise_multiplier=_NOISE, steps_per_round=_STEPS)
    small = replace(
        study,
        privacy=privacy,
        task={"generated": _WORLD},
        study=replace(study.study, rounds=_ROUNDS, evaluate_every=_ROUNDS, seed=seed),
        hospitals=replace(study.hospitals, count=_HOSPITALS),
        strategy=replace(study.strategy, encoding=encoding),
    )
    with tempfile.TemporaryDirectory(prefix="wardround-bench-") as scratch:
        folder = begin(small, Path(scratch), None, workbench)
        return execute(folder, Stage(workbench=workbench))


def _utility(outcomes: list[Outcome]) -> dict[str, Any]:
    """Mean and standard deviation over seeds of every score, and what all hospitals sent."""
    scores = {}
    for name in outcomes[0].after:
        values = [outcome.after[name] for outcome in outcomes]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        scores[name] = {"mean": round(statistics.fmean(values), 4), "sd": round(spread, 4)}
    return {"study_bytes_up": outcomes[0].bytes_up, "utility": scores}
