"""``wardround edit`` and ``wardround trace``: public corrections applied centrally, and where to.

An edit's folder holds the adapter, a page to look at and ``edit.json``: what was asked, what was
held back because it contradicts itself, what it changed, signed by whoever applied it. Nothing here
is private, and nothing private may come here: the file must be public.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from wardround.client.models import Base, load_base
from wardround.client.tasks.editing.anatomy import Kind
from wardround.client.tasks.editing.editor import EditConfig, Editor, Regime, run_regime
from wardround.client.tasks.editing.evaluation import by_relation, summary
from wardround.client.tasks.editing.formats import read_edits
from wardround.client.tasks.editing.locate import locate, rank_pattern
from wardround.client.tasks.editing.methods import Method, save
from wardround.client.tasks.editing.records import Edit
from wardround.client.tasks.editing.scales import Normalisation
from wardround.client.tasks.editing.splits import hold_out
from wardround.client.tasks.editing.tracing import TraceConfig
from wardround.privacy.errors import BadInput
from wardround.privacy.signing import SigningKey, canonical, sha256
from wardround.study.editing_page import editing_page

_CONTEXT = b"wardround edit\n"
LOCATED_LAYERS = 3


def edit_base(
    base: Base,
    source: Path,
    config: EditConfig,
    regime: Regime,
    out: Path,
    limit: int = 0,
    key: Path | None = None,
    fluency: bool = False,
    on_edit: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Apply a public file of corrections and write what came of it.

    Args:
        base: The frozen base.
        source: MedCF, MedFE or EasyEdit's format.
        config: Method and settings.
        regime: How the corrections follow each other; ``single`` leaves no adapter to write.
        out: Folder to write, which must not exist.
        limit: At most this many corrections; 0 takes all.
        key: Signs the record; made when absent. Without it a key is made inside ``out``.
        fluency: Also let the model write on from every correction's prompt, before and after.
        on_edit: Told how many corrections are done, and of how many.

    Returns:
        What ``edit.json`` says.

    Raises:
        BadInput: Something cannot be used; nothing is written then.
    """
    if out.exists():
        raise BadInput(f"{out}: exists already; name a folder that does not")
    kept, report = hold_out(read_edits(source))
    edits: list[Edit] = [record.content for record in (kept[:limit] if limit else kept)]
    if not edits:
        raise BadInput(f"{source}: every correction contradicts another one")
    preserved = _preserved(edits) if config.method is Method.MEMIT else ()
    started = time.monotonic()
    editor = Editor(base, config, 0, preserved)
    try:
        before = editor.scores(edits, edits)
        written = {"before": editor.fluency(edits)} if fluency else {}
        after = run_regime(editor, edits, regime, lambda done: on_edit(done, len(edits)))
        if fluency and regime is not Regime.SINGLE:
            written["after"] = editor.fluency(edits)
        document = {
            "base": base.source,
            "base_sha256": base.sha256,
            "corrections_sha256": sha256(source.read_bytes()),
            "corrections": len(edits),
            "held_back": list(report.notes()),
            "regime": str(regime),
            "settings": json.loads(json.dumps(asdict(config), default=str)),
            "before": summary(before),
            "after": summary(after),
            "relations": by_relation(edits, after),
            "fluency": written,
            "steps": editor.steps,
            "seconds": round(time.monotonic() - started, 1),
        }
        _write(editor, config, regime, document, base, out, key)
    finally:
        editor.detach()
    return document


def _preserved(edits: Sequence[Edit]) -> tuple[tuple[str, str], ...]:
    """Questions of the file that no correction is about: their keys stay where they are."""
    found = {p.prompt: p.answer for e in edits for group in e.locality.values() for p in group}
    return tuple(found.items())


def _write(
    editor: Editor,
    config: EditConfig,
    regime: Regime,
    document: dict[str, Any],
    base: Base,
    out: Path,
    key: Path | None,
) -> None:
    """Adapter, page and signed record, whole or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        fresh = Path(scratch) / "edit"
        fresh.mkdir()
        if regime is not Regime.SINGLE:
            note = (
                f"Public corrections, applied centrally without noise: {document['corrections']} "
                f"by {config.method}. Not private, and made from nothing private."
            )
            arrays = editor.trainable.read()
            save(editor.trainable, config.adapter, arrays, base.source, fresh / "adapter", note)
        signer = SigningKey.load_or_create(key or fresh / "signing.pem")
        document["key"] = signer.public
        document["signature"] = signer.sign(_CONTEXT + canonical(document))
        (fresh / "edit.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
        (fresh / "report.html").write_text(editing_page(document), encoding="utf-8")
        fresh.rename(out)


def show_edit(console: Console, document: Mapping[str, Any], out: Path) -> None:
    """Scores before and after, what was held back, and where the files are."""
    for note in document["held_back"]:
        console.print(note, highlight=False)
    table = Table("score", "before", "after", title="Corrections (public, not private)")
    for name, value in document["after"].items():
        table.add_row(name, f"{document['before'].get(name, float('nan')):.3f}", f"{value:.3f}")
    for when, value in document["fluency"].items():
        console.print(f"fluency {when}: {value:.2f} bits")
    console.print(table)
    console.print(f"{document['corrections']} corrections in {document['seconds']} s: {out}")


def trace_facts(
    base: Base,
    source: Path,
    config: TraceConfig,
    targets: Sequence[str],
    rank: int,
    limit: int,
    console: Console,
) -> dict[str, Any]:
    """Trace a public file's questions: where the base keeps its facts, and the ranks that follow.

    Raises:
        BadInput: The file cannot be used, or no subject occurs in its prompt.
    """
    edits: list[Edit] = [record.content for record in read_edits(source)[:limit]]
    facts = [(edit.prompt, edit.subject, edit.ground_truth or edit.target_new) for edit in edits]
    started = time.process_time()
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("tracing", total=len(facts))
        located = locate(base, facts, config, lambda done: bar.update(task, completed=done))
    seconds = time.process_time() - started
    return {
        "facts": located.facts,
        "known": located.known,
        "facts_per_second": round(located.facts / seconds, 2),
        "clean": round(located.clean, 4),
        "corrupted": round(located.corrupted, 4),
        "total_effect": round(located.total_effect, 4),
        "sigma": located.sigma,
        "indirect_effect": {
            str(kind): [round(value, 4) for value in located.effects[kind].tolist()]
            for kind in Kind
        },
        "layers": {str(kind): located.top_layers(kind, LOCATED_LAYERS) for kind in Kind},
        "rank_pattern": rank_pattern(base.model, located, targets, rank, Normalisation.MIN_MAX),
    }


def show_trace(console: Console, document: Mapping[str, Any]) -> None:
    """Effects by layer, and what to put into a study file."""
    console.print(
        f"{document['facts']} facts, {document['known']} known, traced at "
        f"{document['facts_per_second']} a second: clean {document['clean']}, corrupted "
        f"{document['corrupted']}, total effect {document['total_effect']}",
        highlight=False,
    )
    effects = document["indirect_effect"]
    table = Table("layer", *effects, title="Mean indirect effect", title_justify="left")
    for layer, values in enumerate(zip(*effects.values(), strict=True)):
        table.add_row(str(layer), *(f"{value:+.3f}" for value in values))
    console.print(table)
    console.print(f"[task.trace] sigma = {document['sigma']:.6g}", markup=False)
    console.print("[adapter.rank_pattern]", markup=False)
    for path, rank in document["rank_pattern"].items():
        console.print(f'"{path}" = {rank}', highlight=False, markup=False)


def open_base(name: str, device: str = "cpu") -> Base:
    """A base by name or folder."""
    return load_base(name, device=device)
