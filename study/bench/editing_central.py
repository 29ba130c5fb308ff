"""The table ``methods``: public corrections applied centrally by each way of editing, no privacy.

Eight made-up corrections a seed, not those that any setting was chosen on. Every method that trains
stops at the same loss on its targets. What does better or worse is what the rows say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from wardround.client.lora import AdapterConfig
from wardround.client.models import Base, load_base
from wardround.client.tasks.draws import Draws
from wardround.client.tasks.editing.editor import EditConfig, Editor, Regime, run_regime
from wardround.client.tasks.editing.evaluation import summary
from wardround.client.tasks.editing.generated import StudyShape, make_study
from wardround.client.tasks.editing.locate import locate, rank_pattern
from wardround.client.tasks.editing.memit import MemitConfig, Site
from wardround.client.tasks.editing.methods import Method
from wardround.client.tasks.editing.records import Edit
from wardround.client.tasks.editing.router import RouterKind
from wardround.client.tasks.editing.scales import Normalisation, Rule, ScaleConfig
from wardround.client.tasks.editing.tracing import Rows, TraceConfig
from wardround.client.tasks.editing.world import World

LATE = tuple(f"layers.{layer}.mlp.down_proj" for layer in (5, 6, 7))
EVERY = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
EDITS, PRESERVED, PROBED = 8, 200, 16
TRACED = TraceConfig(rows=Rows.SUBJECT_AND_LAST, samples=4)


@dataclass(frozen=True)
class CentralRow:
    """One way of editing.

    Attributes:
        name: What the row shows.
        config: How.
        regime: How edits follow each other.
        traced_ranks: Whether each module gets the published rank of its layer.
    """

    name: str
    config: EditConfig
    regime: Regime = Regime.BATCH
    traced_ranks: bool = False


def central_rows() -> Iterable[CentralRow]:
    """All ways in the table."""
    late, every = AdapterConfig(LATE, 8, 16.0), AdapterConfig(EVERY, 8, 16.0)
    lora = EditConfig(late, Method.LORA, 3e-3, trace=TRACED)
    memit = EditConfig(late, Method.MEMIT, memit=MemitConfig(Site.ANSWER, preserve=10.0))
    scaled = replace(lora, method=Method.MEDLASA)
    wide = replace(scaled, adapter=every, learning_rate=1e-3)
    published = replace(wide, scale=ScaleConfig(Rule.PUBLISHED))
    whole = replace(lora, method=Method.FT, learning_rate=3e-4)
    yield CentralRow("lora, layers 5-7", lora)
    yield CentralRow("lora, all layers", replace(wide, method=Method.LORA))
    yield CentralRow("medlasa as published, all layers", published, traced_ranks=True)
    yield CentralRow("medlasa decoupled, all layers", wide)
    near = replace(wide, router=RouterKind.NEAREST_EDIT)
    yield CentralRow("medlasa decoupled, all layers, router nearest-edit", near)
    yield CentralRow("medlasa decoupled, layers 5-7", scaled)
    yield CentralRow("ft, layers 5-7", whole)
    yield CentralRow("memit, layers 5-7", memit)
    for regime in (Regime.SINGLE, Regime.SEQUENTIAL):
        yield CentralRow(f"lora, layers 5-7, {regime}", lora, regime)
        yield CentralRow(f"medlasa decoupled, layers 5-7, {regime}", scaled, regime)
        yield CentralRow(f"ft, layers 5-7, {regime}", whole, regime)
        yield CentralRow(f"memit, layers 5-7, {regime}", memit, regime)


def run_central(name: str, seed: int) -> dict[str, Any]:
    """One row's scores for one seed."""
    row = next(row for row in central_rows() if row.name == name)
    base = load_base("drugs")
    edits, others = _facts(seed)
    config = row.config
    if row.traced_ranks:
        config = replace(config, adapter=_with_ranks(base, config.adapter, others))
    editor = Editor(base, config, seed, [(prompt, answer) for prompt, _, answer in others])
    try:
        after = summary(run_regime(editor, edits, row.regime))
        return {**_figures(after), "regime": str(row.regime), "steps": editor.steps}
    finally:
        editor.detach()


def _facts(seed: int) -> tuple[list[Edit], list[tuple[str, str, str]]]:
    """Corrections, and public facts that no correction and no probe is about."""
    shape = StudyShape(corroborated=EDITS, weak=0, single=0)
    edits: list[Edit] = [record.content for record in make_study(shape, 4, seed).probes]
    probes = {p.prompt for e in edits for group in e.locality.values() for p in group}
    subjects = {edit.subject for edit in edits}
    free = [
        fact
        for fact in Draws(seed, "bench/preserved").shuffled(World().facts)
        if fact.drug not in subjects and fact.prompt(0) not in probes
    ]
    return edits, [(fact.prompt(0), fact.drug, fact.value) for fact in free[:PRESERVED]]


def _with_ranks(
    base: Base, adapter: AdapterConfig, facts: list[tuple[str, str, str]]
) -> AdapterConfig:
    """The adapter with the published rank set, from public facts."""
    located = locate(base, facts[:PROBED], replace(TRACED, rows=Rows.ALL_BUT_LAST))
    pattern = rank_pattern(
        base.model, located, adapter.targets, adapter.rank, Normalisation.MIN_MAX
    )
    return replace(adapter, rank_pattern=pattern)


def _figures(scores: Mapping[str, float]) -> dict[str, float]:
    """What the table shows."""
    return {
        name: round(value, 4)
        for name, value in scores.items()
        if not name.endswith(".corroborated")
    }
