"""The ``wardround`` command; each subcommand imports what it needs when it runs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from wardround.privacy.errors import WardroundError
from wardround.study.bench.cli import bench_app
from wardround.study.choice_cli import count, decide, precompute
from wardround.study.deployment.containers_cli import coordinator_app, hospital_app
from wardround.study.deployment.rehearse_cli import rehearse
from wardround.study.editing_cli import base_app, edit, trace
from wardround.study.garbage import look_seldom
from wardround.study.pages_cli import dashboard, page, track
from wardround.study.provisioning.cli import provision_app

app = typer.Typer(
    name="wardround",
    help="Federated fine-tuning for hospitals, centred on privacy.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

ledger_app = typer.Typer(help="Look into a hospital's ledger; nothing in it is changed.")
app.add_typer(ledger_app, name="ledger", no_args_is_help=True)
app.add_typer(bench_app, name="bench")
app.add_typer(base_app, name="base")
app.add_typer(provision_app, name="provision")
app.add_typer(hospital_app, name="hospital")
hospital_app.command(
    epilog="Example: [bold]wardround hospital page hospital/ledger --policy policy.toml[/bold]"
)(page)
app.command(epilog="Example: [bold]wardround dashboard runs[/bold]")(dashboard)
app.add_typer(coordinator_app, name="coordinator")
coordinator_app.command(
    epilog="Example: [bold]wardround coordinator rehearse study.toml --out trial[/bold]"
)(rehearse)
app.command(epilog="Example: [bold]wardround track RUN --to runs/tensorboard[/bold]")(track)
app.command(epilog="Example: [bold]wardround edit valid.json --out edited[/bold]")(edit)
app.command(
    epilog="Example: [bold]wardround precompute study.toml --data a.jsonl --out b.jsonl[/bold]"
)(precompute)
app.command(epilog="Example: [bold]wardround decide RUN --rule schulze --pairs pairs.jsonl[/bold]")(
    decide
)
app.command(
    epilog="Example: [bold]wardround count ballots.toml --ballots all.jsonl --rule equal-shares "
    "--seats 3[/bold]"
)(count)
app.command(epilog="Example: [bold]wardround trace valid.json --base bases/medcf[/bold]")(trace)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Runs = Annotated[Path, typer.Option("--runs", help="Folder that holds all runs.")]


def begin_process() -> None:
    """Settings of the whole process, before anything large is imported."""
    # Nothing that runs here may call home, and nothing that is local may be looked up on a hub.
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    look_seldom()


def main() -> None:
    """Entry point: errors a person can act on become one line and an exit code."""
    begin_process()
    try:
        app()
    except WardroundError as error:
        print(f"wardround: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


@app.callback()
def logs(
    context: typer.Context,
    log_format: Annotated[
        str, typer.Option(envvar="WARDROUND_LOG_FORMAT", help="text, or json: one object a line.")
    ] = "text",
    log_level: Annotated[
        str,
        typer.Option(
            envvar="WARDROUND_LOG_LEVEL",
            help="debug, info, warning or error; info for what stays and warning for the rest.",
            show_default=False,
        ),
    ] = "",
) -> None:
    """Federated fine-tuning for hospitals, centred on privacy."""
    from wardround.study.logs import set_up_logs

    stays = context.invoked_subcommand in ("hospital", "coordinator")
    set_up_logs(log_format, log_level or ("info" if stays else "warning"))


@app.command(
    epilog="Example: [bold]wardround demo --json > demo.json[/bold]",
)
def demo(as_json: AsJson = False, runs: Runs = Path("runs"), seed: int = 0) -> None:
    """Four hospitals correct a small model, with privacy and without, on this machine."""
    from wardround.study.demo import demo_document, run_demo, show_demo

    result = run_demo(_console(as_json), runs, seed)
    if as_json:
        _print_json(demo_document(result))
    else:
        show_demo(Console(), result)


@app.command(
    epilog="Example: [bold]wardround run examples/medical-editing/study.toml[/bold]",
)
def run(
    study: Annotated[Path, typer.Argument(help="The study file.")],
    data: Annotated[
        Path | None,
        typer.Option(
            help="A public file or folder to deal out to the hospitals; made-up records without."
        ),
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this folder.")] = None,
    engine: Annotated[
        str, typer.Option(help="in-process, or ray for Flower's simulation.")
    ] = "in-process",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:N or auto.")] = "cpu",
    as_json: AsJson = False,
    runs: Runs = Path("runs"),
) -> None:
    """Run a study with all its hospitals on this machine, or go on with one that was stopped."""
    from wardround.study.local import run_study
    from wardround.study.results import outcome_document, show_outcome

    outcome = run_study(_console(as_json), study, runs, data, resume, engine, device)
    if as_json:
        _print_json(outcome_document(outcome))
    else:
        show_outcome(Console(), outcome)


@app.command(epilog="Example: [bold]wardround price study.toml --policy policy.toml[/bold]")
def price(
    study: Annotated[Path, typer.Argument(help="The study file.")],
    policy: Annotated[
        Path | None, typer.Option(help="Ask this policy instead of the study's own.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="The public file that will be dealt out.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a study will cost each hospital, before anybody trains."""
    from wardround.study.pricing import price_study, show_price

    document = price_study(study, policy, data)
    if as_json:
        _print_json(document)
    else:
        show_price(Console(), document)


@app.command(epilog="Example: [bold]wardround audit examples/medical-editing/study.toml[/bold]")
def audit(
    study: Annotated[Path, typer.Argument(help="The study file.")],
    canaries: Annotated[int, typer.Option(help="Records put in or left out by a coin.")] = 200,
    seed: Annotated[
        int | None, typer.Option(help="Repeat these coins; they are secret without.")
    ] = None,
    attacks: Annotated[
        bool, typer.Option("--attacks", help="Attack tiny models instead, beside the limits.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Try to prove a study's epsilon wrong, on made-up records; exit code 3 when that succeeds."""
    from wardround.study.attacks import attack_study, show_attacks
    from wardround.study.audit import AuditSetup, audit_study, show_audit

    show = show_attacks if attacks else show_audit
    document = (
        attack_study(study, seed)
        if attacks
        else audit_study(study, AuditSetup(canaries=canaries, seed=seed))
    )
    if as_json:
        _print_json(document)
    else:
        show(Console(), document)
    if not document["holds"]:
        raise typer.Exit(WardroundError.exit_code)


@app.command(epilog="Example: [bold]wardround report RUN --verify[/bold]")
def report(
    run_dir: Annotated[Path, typer.Argument(help="A run's folder.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Also compute every epsilon anew from its events.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check the signed rounds of a run, write its report page again and say what was spent."""
    from wardround.study.results import report_document, show_report

    document = report_document(run_dir, recompute=verify)
    if as_json:
        _print_json(document)
    else:
        show_report(Console(), document)


@app.command(name="export", epilog="Example: [bold]wardround export RUN --to adapter/[/bold]")
def export_adapter(
    run_dir: Annotated[Path, typer.Argument(help="A run's folder.")],
    to: Annotated[Path, typer.Option(help="A folder that does not exist yet.")],
    as_json: AsJson = False,
) -> None:
    """Write what a run has learnt so far as an adapter, its privacy cost beside it."""
    from wardround.study.publishing import export_run

    reached = export_run(run_dir, to)
    if as_json:
        _print_json({"adapter": str(to), "round": reached})
    else:
        print(f"{to}: the adapter after round {reached}")


@app.command(
    epilog="Example: [bold]wardround evaluate RUN --data beir/ --predictions run.trec[/bold]"
)
def evaluate(
    run_dir: Annotated[Path, typer.Argument(help="A run's folder.")],
    data: Annotated[
        Path | None, typer.Option(help="What to evaluate on; the run's own public probes without.")
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="Also write what the model predicts, as the task has it.")
    ] = None,
    base: Annotated[
        bool, typer.Option("--base", help="The untouched base instead of the run's result.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Evaluate what a run has learnt on data you may look at; nothing leaves this machine."""
    from wardround.study.evaluate import evaluate_result, show_evaluation

    document = evaluate_result(run_dir, data, predictions, base)
    if as_json:
        _print_json(document)
    else:
        show_evaluation(Console(), document)


@app.command(epilog="Example: [bold]wardround causes RUN --out graph[/bold]")
def causes(
    source: Annotated[
        Path, typer.Argument(help="A run of the task abs_lingam, or a CSV file of your own.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="A new folder for edge list, GraphML, DOT and picture.")
    ] = None,
    paired: Annotated[
        tuple[Path, Path] | None,
        typer.Option(help="Of a CSV file: paired rows of the low and the high level."),
    ] = None,
    resamples: Annotated[
        int, typer.Option(min=0, help="Of a CSV file: draws of rows that say how firm edges are.")
    ] = 0,
    least_stability: Annotated[
        float, typer.Option(help="Of a run: share of draws of fresh noise that edges must survive.")
    ] = 0.8,
    seed: int = 0,
    as_json: AsJson = False,
) -> None:
    """Say who causes whom, or that the noise is too large to say."""
    from wardround.study.causes import causes_of_file, causes_of_run, show_causes, write_causes

    if source.is_dir():
        found = causes_of_run(source, least_stability, seed)
    else:
        found = causes_of_file(source, paired, resamples, seed)
    if as_json:
        _print_json(found.to_json())
    else:
        show_causes(Console(), found)
    if out is not None:
        write_causes(found, out)


@app.command(epilog="Example: [bold]wardround tasks --json[/bold]")
def tasks(as_json: AsJson = False) -> None:
    """List the tasks a study can name."""
    from wardround.client.tasks.registry import tasks as list_tasks

    rows = [
        {"name": task.name, "summary": task.summary, "units": list(task.units)}
        for task in list_tasks()
    ]
    _print_rows("tasks", rows, as_json)


@app.command(epilog="Example: [bold]wardround strategies[/bold]")
def strategies(as_json: AsJson = False) -> None:
    """List the ways updates can be combined."""
    from wardround.strategies.registry import list_strategies

    rows = [entry.to_row() for entry in list_strategies()]
    if not as_json:  # the document says it all; a terminal has room for this much
        shown = ("name", "summary", "leaves", "exact", "mixed_ranks", "secure_aggregation", "noise")
        rows = [{column: row[column] for column in shown} for row in rows]
    _print_rows("strategies", rows, as_json)


LedgerFolder = Annotated[Path, typer.Argument(help="The ledger's folder.")]


@ledger_app.command(epilog="Example: [bold]wardround ledger show RUN/hospitals/north/ledger[/bold]")
def show(folder: LedgerFolder, as_json: AsJson = False) -> None:
    """Say what each data set has been charged, over all studies."""
    from wardround.study.ledgers import ledger_document, show_ledger

    document = ledger_document(folder)
    if as_json:
        _print_json(document)
    else:
        show_ledger(Console(), document)


@ledger_app.command(
    name="verify",
    epilog="Example: [bold]wardround ledger verify RUN/hospitals/north/ledger --key 3f9c…[/bold]",
)
def verify_ledger(
    folder: LedgerFolder,
    key: Annotated[str | None, typer.Option(help="The hospital's public key, if known.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check every entry, signature and stored reply; exit code 3 says what is wrong."""
    from wardround.privacy.ledger_view import check_ledger

    summary = check_ledger(folder, key)
    if as_json:
        _print_json({"verified": True, **summary.to_json()})
    else:
        print(f"{summary.entries} entries verified, signed by {summary.public_key}")
        for note in summary.notes:
            print(note)


@ledger_app.command(
    epilog="Example: [bold]wardround ledger export RUN/hospitals/north/ledger > north.json[/bold]"
)
def export(folder: LedgerFolder) -> None:
    """Print the whole chain as one JSON document that others can verify."""
    from wardround.privacy.ledger_view import export_ledger

    _print_json(export_ledger(folder))


def _console(as_json: bool) -> Console:
    """Where progress goes: never into a JSON document."""
    return Console(stderr=True, quiet=as_json)


def _print_json(document: Mapping[str, Any]) -> None:
    print(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False))


def _print_rows(title: str, rows: list[dict[str, Any]], as_json: bool) -> None:
    """A list of things, as a table or as one document."""
    if as_json:
        _print_json({title: rows})
        return
    from rich.table import Table

    table = Table(*rows[0], box=None)
    for row in rows:
        table.add_row(*map(_cell, row.values()))
    Console().print(table)


def _cell(value: object) -> str:
    """One value of a table."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(value) if isinstance(value, list) else str(value)
