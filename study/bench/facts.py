"""Real facts: a public file of corrections, a small base that knew the old answers, four hospitals.

Trains the base on the file (or takes one), says how much of it the base knew, traces some of its
facts, then runs the study with privacy and without. The base is small and trained on this file
alone: what comes out says how federated editing behaves, nothing about medicine.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.resources import as_file, files
from pathlib import Path
from statistics import mean
from typing import Any

import tomli_w

from wardround.client.bases.build import Recipe
from wardround.client.bases.corpus import build_from_corpus
from wardround.client.bases.making import Shape
from wardround.client.models import Base, load_base
from wardround.client.tasks.editing.anatomy import Kind, find_anatomy
from wardround.client.tasks.editing.formats import read_edits
from wardround.client.tasks.editing.locate import Located, locate
from wardround.client.tasks.editing.public import PublicShape
from wardround.client.tasks.editing.records import Edit
from wardround.client.tasks.editing.splits import hold_out
from wardround.client.tasks.editing.tracing import Rows, TraceConfig
from wardround.client.workbench import Workbench
from wardround.privacy.tables import read_toml
from wardround.study.config import Study
from wardround.study.local import begin
from wardround.study.runner import Outcome, Stage, execute


@dataclass(frozen=True)
class FactsSetup:
    """How large the experiment is.

    Attributes:
        limit: Corrections of the file the base is taught; 0 takes all.
        base_steps: Steps the base is trained for.
        traced: Facts to trace.
        epsilon: Of the private study.
        rounds: Of ten steps each.
        seeds: The studies run with seeds 1 to this many: which corrections, which records.
        shape: How the file becomes records.
    """

    limit: int = 0
    base_steps: int = 700
    traced: int = 12
    epsilon: float = 8.0
    rounds: int = 15
    seeds: int = 1
    shape: PublicShape = field(default_factory=lambda: PublicShape(corroborated=8))


def facts_benchmark(
    data: Path,
    setup: FactsSetup,
    base: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """What the base knew, where, and what the study did to it.

    Args:
        data: A public MedCF, MedFE or EasyEdit file.
        setup: How large.
        base: A base that ``wardround base train`` made; trained here without.
        say: Told what is being done.
    """
    with tempfile.TemporaryDirectory(prefix="wardround-bench-") as scratch:
        folder = Path(scratch)
        if base is None:
            base = folder / "base"
            shape = Shape(hidden=128, layers=4, heads=4, mlp=344)
            recipe = Recipe(vocabulary=2000, shape=shape, steps=setup.base_steps, warm_up_steps=40,
                            learning_rate=2e-3)  # fmt: skip
            build_from_corpus(data, base, recipe, setup.limit, say)
        manifest = json.loads((base / "manifest.json").read_text(encoding="utf-8"))
        loaded = load_base(str(base))
        say("tracing")
        found, facts_per_second = _trace(loaded, data, setup)
        rows = []
        for seed in range(1, setup.seeds + 1):
            study = _study(folder, base, loaded, setup, seed)
            private = f"epsilon {setup.epsilon:g}"
            for name, one in ((private, study), ("none", study.with_mode_none())):
                say(f"seed {seed} of {setup.seeds}, privacy: {name}")
                rows.append({"privacy": name, "seed": seed, **_run(one, data, folder)})
    return {
        "base": {key: manifest[key] for key in ("parameters", "sentences", "exact_match")},
        "facts_traced_per_second": facts_per_second,
        "total_effect": round(found.total_effect, 4),
        "indirect_effect_at_last_token": {
            str(kind): [round(value, 3) for value in found.effects[kind].tolist()] for kind in Kind
        },
        "means": means_of(rows),
        "studies": rows,
        "settings": asdict(setup),
    }


def means_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """By privacy, each score before and after, mean over seeds."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name in dict.fromkeys(str(row["privacy"]) for row in rows):
        group = [row for row in rows if row["privacy"] == name]
        found[name] = {
            when: {
                score: round(mean(row[when][score] for row in group), 4) for score in group[0][when]
            }
            for when in ("before", "after")
        }
    return found


def _trace(base: Base, data: Path, setup: FactsSetup) -> tuple[Located, float]:
    """Some of the file's facts, and how many a second of processor time."""
    kept, _ = hold_out(read_edits(data))
    edits: list[Edit] = [record.content for record in kept[: setup.traced]]
    facts = [(edit.prompt, edit.subject, edit.ground_truth or edit.target_new) for edit in edits]
    started = time.process_time()
    found = locate(base, facts, TraceConfig(rows=Rows.LAST))
    return found, round(found.facts / (time.process_time() - started), 2)


def _study(folder: Path, path: Path, base: Base, setup: FactsSetup, seed: int) -> Study:
    """The embedded study on this base and file, its policy beside it."""
    depth = len(find_anatomy(base.model).blocks)
    late = [f"layers.{layer}.mlp.down_proj" for layer in range(depth // 2, depth)]
    with as_file(files("wardround.study") / "embedded" / "medical-editing") as embedded:
        study = Study.read(embedded / "study.toml")
        policy = read_toml(embedded / "policy.toml")
    policy["allow"]["bases"] = [base.sha256]
    policy["budget"]["epsilon"] = max(8.0, setup.epsilon)
    policy["data"]["provenance"] = "public"
    (folder / "policy.toml").write_text(tomli_w.dumps(policy), encoding="utf-8")
    section = replace(study.study, rounds=setup.rounds, seed=seed, evaluate_every=setup.rounds)
    return replace(
        study,
        path=folder / "study.toml",
        study=section,
        model=replace(study.model, base=str(path), sha256=base.sha256),
        adapter={**study.adapter, "targets": late},
        privacy=replace(study.privacy, epsilon=setup.epsilon),
        task={"public": asdict(setup.shape), "max_length": 200},
    )


def _run(study: Study, data: Path, folder: Path) -> dict[str, Any]:
    """Scores before and after one study, and what it cost."""
    started = time.process_time()
    with Workbench() as workbench:
        draft = begin(study, folder / "runs", data, workbench)
        outcome: Outcome = execute(draft, Stage(workbench=workbench))
    return {
        "before": _rounded(outcome.before),
        "after": _rounded(outcome.after),
        "bytes_up": outcome.bytes_up,
        "notes": list(outcome.notes),
        "cpu_s": round(time.process_time() - started, 1),
    }


def _rounded(scores: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in scores.items()}
