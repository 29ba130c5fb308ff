"""The commands of ``wardround bench`` that compare methods of one task."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wardround.study.bench.showing import AsJson, seeds_of, show, teller

task_app = typer.Typer()


@task_app.command(epilog="Example: [bold]wardround bench tracing --json[/bold]")
def tracing(
    facts: Annotated[int, typer.Option(min=2, help="Facts of the embedded world.")] = 12,
    as_json: AsJson = False,
) -> None:
    """Facts traced a second, beside the plain loop of one restoration a forward pass."""
    from wardround.study.bench.tracing import tracing_benchmark

    show(tracing_benchmark(facts, teller(as_json)), as_json)


@task_app.command(
    epilog="Example: [bold]wardround bench editing --tables private --out rows.jsonl --json[/bold]"
)
def editing(
    tables: Annotated[str, typer.Option(help="Comma-separated tables.")] = "private",
    seeds: Annotated[int, typer.Option(min=1, help="Seeds a row.")] = 3,
    out: Annotated[
        Path | None, typer.Option(help="Rows go here as they finish; those in it are not run.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """The tables of docs/medical-editing.md: one study a row, up to hours on a small machine."""
    from wardround.study.bench.editing import editing_benchmark

    show(editing_benchmark(tables.split(","), seeds, out, teller(as_json)), as_json)


@task_app.command(epilog="Example: [bold]wardround bench ranking --json[/bold]")
def ranking(
    candidates: Annotated[int, typer.Option(min=2, help="Candidates a query.")] = 50,
    queries: Annotated[int, typer.Option(min=1, help="Queries in a timed turn.")] = 4,
    repeats: Annotated[int, typer.Option(min=2, help="Timed turns.")] = 5,
    study: Annotated[
        bool, typer.Option("--study", help="Train and compare the two stages instead.")
    ] = False,
    seeds: Annotated[str, typer.Option(help="Of --study: comma-separated seeds.")] = "0,1,2",
    rows: Annotated[
        Path | None, typer.Option(help="Of --study: append each row here when it is known.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Pairs of query and passage scored in a second; or the table of docs/ranking.md."""
    if study:
        from wardround.study.bench.ranking_study import ranking_study

        chosen = [int(seed) for seed in seeds.split(",")]
        show(ranking_study(chosen, rows_file=rows, say=teller(as_json)), as_json)
        return
    from wardround.study.bench.ranking import ranking_benchmark

    show(ranking_benchmark(candidates, queries, repeats=repeats, say=teller(as_json)), as_json)


@task_app.command(epilog="Example: [bold]wardround bench facts --data MedCF/valid.json[/bold]")
def facts(
    data: Annotated[Path, typer.Option(help="A public MedCF, MedFE or EasyEdit file.")],
    base: Annotated[
        Path | None, typer.Option(help="From wardround base train; trained here without.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="Corrections to teach; 0 takes all.")] = 0,
    base_steps: Annotated[int, typer.Option(min=1, help="Steps to train the base.")] = 700,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of ten steps.")] = 15,
    corroborated: Annotated[int, typer.Option(min=1, help="Corrections with support.")] = 8,
    support: Annotated[int, typer.Option(min=1, help="Records behind each.")] = 64,
    records: Annotated[int, typer.Option(min=50, help="Records a hospital.")] = 320,
    epsilon: float = 8.0,
    seeds: Annotated[int, typer.Option(min=1, help="Studies, with seeds 1 to this many.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Real facts in four hospitals: what a small base knew, and what a study did to it."""
    from wardround.client.tasks.editing.public import PublicShape
    from wardround.study.bench.facts import FactsSetup, facts_benchmark

    shape = PublicShape(corroborated, support, 8, records)
    setup = FactsSetup(limit, base_steps, 12, epsilon, rounds, seeds, shape)
    show(facts_benchmark(data, setup, base, teller(as_json)), as_json)


@task_app.command(epilog="Example: [bold]wardround bench preference-bandit --plots figures[/bold]")
def preference_bandit(
    seeds: Annotated[str, typer.Option(help="Comma-separated seeds.")] = "0,1,2,3,4",
    plots: Annotated[Path | None, typer.Option(help="A folder for PNG figures.")] = None,
    as_json: AsJson = False,
) -> None:
    """What preference methods do to a bandit of 100 actions: the tables of docs/preference.md."""
    from wardround.study.bench.bandit_figures import write_figures
    from wardround.study.bench.bandit_study import bandit_benchmark

    found = bandit_benchmark(seeds_of(seeds), teller(as_json))
    if plots is not None:
        found["figures"] = [str(path) for path in write_figures(found, plots)]
    show(found, as_json)


@task_app.command(epilog="Example: [bold]wardround bench preference --out rows.jsonl[/bold]")
def preference(
    seeds: Annotated[str, typer.Option(help="Comma-separated seeds.")] = "0,1,2",
    out: Annotated[
        Path | None, typer.Option(help="Rows go here as they finish; those in it are not run.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Five methods on clinicians' preferences in four hospitals, with and without privacy."""
    from wardround.study.bench.preference import preference_benchmark

    show(preference_benchmark(seeds_of(seeds), out, say=teller(as_json)), as_json)


@task_app.command(epilog="Example: [bold]wardround bench cocoop --out rows.jsonl[/bold]")
def cocoop(
    seeds: Annotated[str, typer.Option(help="Comma-separated seeds.")] = "0,1,2",
    worlds: Annotated[str, typer.Option(help="made-up, digits, or both.")] = "made-up,digits",
    out: Annotated[
        Path | None, typer.Option(help="Rows go here as they finish; those in it are not run.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """CoOp, CoCoOp and its controls in four hospitals, with and without privacy."""
    from wardround.study.bench.cocoop import cocoop_benchmark

    found = cocoop_benchmark(seeds_of(seeds), out, worlds=worlds.split(","), say=teller(as_json))
    show(found, as_json)


@task_app.command(epilog="Example: [bold]wardround bench pwiser --out rows.jsonl[/bold]")
def pwiser(
    seeds: Annotated[str, typer.Option(help="Comma-separated seeds.")] = "0,1,2,3,4",
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Measure what one unit can move instead.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Rows go here as they finish; those in it are not run.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Cross-entropy and the pairwise loss on click logs, for three shares of chance clicks."""
    from wardround.study.bench.pwiser import pwiser_benchmark, sensitivity_benchmark

    if sensitivity:
        show(sensitivity_benchmark(), as_json)
    else:
        show(pwiser_benchmark(seeds_of(seeds), out, say=teller(as_json)), as_json)


@task_app.command(epilog="Example: [bold]wardround bench pacit --out rows.jsonl[/bold]")
def pacit(
    seeds: Annotated[str, typer.Option(help="Comma-separated seeds.")] = "0,1,2",
    out: Annotated[
        Path | None, typer.Option(help="Rows go here as they finish; those in it are not run.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Instructions with and without verdicts on examples, in four hospitals."""
    from wardround.study.bench.pacit import pacit_benchmark

    show(pacit_benchmark(seeds_of(seeds), out, say=teller(as_json)), as_json)


@task_app.command(epilog="Example: [bold]wardround bench causal --data FOLDER --json[/bold]")
def causal(
    seeds: Annotated[int, typer.Option(min=1, help="Random systems; twice as many for noise.")] = 5,
    data: Annotated[
        Path | None, typer.Option(help="A folder with Sachs et al.'s proteins and graph.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """What an abstraction saves, and what noise leaves of a causal order (docs/abs-lingam.md)."""
    from wardround.study.bench.causal import causal_benchmark

    show(causal_benchmark(seeds, data, teller(as_json)), as_json)


@task_app.command(epilog="Example: [bold]wardround bench dro --out rows.jsonl[/bold]")
def dro(
    seeds: Annotated[str, typer.Option(help="Comma-separated seeds.")] = "0,1,2",
    out: Annotated[
        Path | None, typer.Option(help="Rows go here as they finish; those in it are not run.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Safety prompts in four hospitals: DRO, its ablations and its baselines."""
    from wardround.study.bench.dro import dro_benchmark

    show(dro_benchmark(seeds_of(seeds), out, say=teller(as_json)), as_json)


@task_app.command(epilog="Example: [bold]wardround bench choice --json[/bold]")
def choice(
    candidates: Annotated[int, typer.Option(min=2, help="Candidates.")] = 20,
    voters: Annotated[int, typer.Option(min=1, help="Voters.")] = 200,
    repeats: Annotated[int, typer.Option(min=3, help="Timed turns.")] = 11,
    as_json: AsJson = False,
) -> None:
    """How long each rule of social choice takes, and how firm its winner is under noise."""
    from wardround.study.bench.choice import choice_benchmark

    show(choice_benchmark(candidates, voters, repeats), as_json)


@task_app.command(epilog="Example: [bold]wardround bench spectron --page answers.html[/bold]")
def spectron(
    seeds: Annotated[str, typer.Option(help="Comma-separated seeds; none skips the study.")] = "",
    budget_s: Annotated[float, typer.Option(min=1, help="Processor seconds of training.")] = 100.0,
    page: Annotated[
        Path | None, typer.Option(help="Write a page with spoken answers to listen to.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Rows go here as they finish; those in it are not run.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """What a hundred seconds teach a speech model; with seeds, the study of four hospitals."""
    from wardround.study.bench.spectron import hundred_seconds, spectron_study

    if seeds:
        show(spectron_study(seeds_of(seeds), out, say=teller(as_json)), as_json)
    else:
        show(hundred_seconds(budget_s, page, say=teller(as_json)), as_json)
