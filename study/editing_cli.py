"""Commands around editing that need no federation: ``edit``, ``trace`` and ``base train``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

base_app = typer.Typer(help="Make small base models from public files.", no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
BaseName = Annotated[str, typer.Option(help="Embedded base, folder or hub name.")]
Targets = Annotated[str, typer.Option(help="Comma-separated linear modules to change.")]


@base_app.command(
    epilog="Example: [bold]wardround base train --corpus valid.json --out bases/medcf[/bold]"
)
def train(
    corpus: Annotated[Path, typer.Option(help="Corrections (.json, .jsonl), or text by line.")],
    out: Annotated[Path, typer.Option(help="Folder to write; must not exist.")],
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps.")] = 700,
    vocabulary: Annotated[int, typer.Option(min=300, help="Token pieces.")] = 2000,
    hidden: Annotated[int, typer.Option(min=16, help="Width; a multiple of heads.")] = 128,
    layers: Annotated[int, typer.Option(min=1, help="Decoder blocks.")] = 4,
    heads: Annotated[int, typer.Option(min=1, help="Attention heads.")] = 4,
    batch: Annotated[int, typer.Option(min=1, help="Sentences a step.")] = 64,
    learning_rate: Annotated[float, typer.Option(help="AdamW's, at its peak.")] = 2e-3,
    limit: Annotated[int, typer.Option(min=0, help="Corrections or lines; 0 takes all.")] = 0,
    seed: int = 0,
    as_json: AsJson = False,
) -> None:
    """Train a small base that knows what a public file says before anything is edited."""
    from wardround.client.bases.build import Recipe
    from wardround.client.bases.corpus import build_from_corpus
    from wardround.client.bases.making import Shape
    from wardround.privacy.errors import BadInput

    if hidden % (2 * heads):
        raise BadInput(f"--hidden is {hidden}; it must be a multiple of twice --heads ({heads})")
    recipe = Recipe(
        name=out.name, vocabulary=vocabulary,
        shape=Shape(hidden, layers, heads, mlp=hidden * 43 // 16), steps=steps,
        warm_up_steps=min(40, steps), batch=batch,
        learning_rate=learning_rate, seed=seed,
    )  # fmt: skip
    console = Console(stderr=True, quiet=as_json)
    manifest = build_from_corpus(corpus, out, recipe, limit, console.print)
    print(json.dumps(manifest, indent=1))


def edit(
    edits: Annotated[Path, typer.Argument(help="A public file of corrections.")],
    out: Annotated[Path, typer.Option(help="Folder to write; must not exist.")],
    base: BaseName = "drugs",
    method: Annotated[str, typer.Option(help="lora, medlasa, ft or memit.")] = "lora",
    regime: Annotated[str, typer.Option(help="single, batch or sequential.")] = "batch",
    targets: Targets = "mlp.down_proj",
    rank: Annotated[int, typer.Option(min=1)] = 8,
    alpha: float = 16.0,
    learning_rate: Annotated[float, typer.Option(help="Adam's.")] = 1e-3,
    steps: Annotated[int, typer.Option(min=1, help="At most, an edit or batch.")] = 70,
    stop_loss: Annotated[float, typer.Option(help="Stop below this loss on the targets.")] = 0.15,
    router: Annotated[str, typer.Option(help="trace, nearest-edit or none.")] = "trace",
    rows: Annotated[str, typer.Option(help="Tokens restored while tracing.")] = "subject",
    site: Annotated[str, typer.Option(help="Where memit writes: subject or answer.")] = "subject",
    limit: Annotated[int, typer.Option(min=0, help="Corrections; 0 takes all.")] = 0,
    key: Annotated[Path | None, typer.Option(help="Key that signs the record.")] = None,
    fluency: Annotated[bool, typer.Option("--fluency", help="Also let the model write.")] = False,
    as_json: AsJson = False,
) -> None:
    """Apply public corrections centrally, without noise, and say what they changed."""
    from wardround.client.tasks.editing.editor import EditConfig, Regime
    from wardround.privacy.errors import BadInput
    from wardround.privacy.tables import from_table
    from wardround.study.editing import edit_base, open_base, show_edit

    table = {
        "adapter": {"targets": targets.split(","), "rank": rank, "alpha": alpha},
        "method": method, "learning_rate": learning_rate, "steps": steps, "stop_loss": stop_loss,
        "router": router, "trace": {"rows": rows}, "memit": {"site": site},
    }  # fmt: skip
    config = from_table(EditConfig, table, "wardround edit")
    if regime not in list(Regime):
        raise BadInput(f"--regime is {regime!r}; expected one of {', '.join(Regime)}")
    console = Console(stderr=True, quiet=as_json)
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("editing", total=None)
        document = edit_base(
            open_base(base), edits, config, Regime(regime), out, limit, key, fluency,
            lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip
    if as_json:
        print(json.dumps(document, indent=1, allow_nan=False))
    else:
        show_edit(Console(), document, out)


def trace(
    facts: Annotated[Path, typer.Argument(help="A public file of corrections to trace.")],
    base: BaseName = "drugs",
    targets: Targets = "mlp.down_proj",
    rank: Annotated[int, typer.Option(min=1, help="rank0 of the rank set.")] = 8,
    rows: Annotated[str, typer.Option(help="subject, subject+last, last, all-but-last.")] = (
        "all-but-last"
    ),
    samples: Annotated[int, typer.Option(min=1, help="Noise samples.")] = 10,
    limit: Annotated[int, typer.Option(min=1, help="Facts to trace.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Say in which layers a base keeps its facts, and which ranks follow."""
    from wardround.client.tasks.editing.tracing import TraceConfig
    from wardround.privacy.tables import from_table
    from wardround.study.editing import open_base, show_trace, trace_facts

    config = from_table(TraceConfig, {"rows": rows, "samples": samples}, "wardround trace")
    console = Console(stderr=True, quiet=as_json)
    document = trace_facts(open_base(base), facts, config, targets.split(","), rank, limit, console)
    if as_json:
        print(json.dumps(document, indent=1, allow_nan=False))
    else:
        show_trace(Console(), document)
