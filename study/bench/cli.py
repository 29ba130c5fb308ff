"""``wardround bench``: every figure in docs/performance.md is one of these commands."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

bench_app = typer.Typer(
    help="Measure on this machine what docs/performance.md reports.", no_args_is_help=True
)
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


@bench_app.command(epilog="Example: [bold]wardround bench step --models embedded --json[/bold]")
def step(
    models: Annotated[str, typer.Option(help="Comma-separated model shapes.")] = "embedded",
    repeats: Annotated[int, typer.Option(min=3, help="Timed turns.")] = 11,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    as_json: AsJson = False,
) -> None:
    """What privacy costs in one training step, beside Opacus and plain PEFT."""
    from wardround.study.bench.step import step_benchmark

    _show(step_benchmark(models.split(","), repeats, device, say=_say(as_json)), as_json)


@bench_app.command(name="round", epilog="Example: [bold]wardround bench round --json[/bold]")
def round_(
    rounds: Annotated[
        int | None, typer.Option(min=2, help="Rounds of the study; 3 of the demo's by default.")
    ] = None,
    rivals_task: Annotated[
        str, typer.Option(help="A or B: a tiny task that other frameworks were measured with.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Which share of a round is not local training; or a tiny task beside a plain loop."""
    from wardround.study.bench.rivals import rivals_benchmark
    from wardround.study.bench.round import round_benchmark

    found = rivals_benchmark(rivals_task, rounds) if rivals_task else round_benchmark(rounds or 3)
    _show(found, as_json)


@bench_app.command(epilog="Example: [bold]wardround bench scale --hospitals 4,1000 --json[/bold]")
def scale(
    hospitals: Annotated[str, typer.Option(help="Comma-separated numbers.")] = "4,16,64,256,1000",
    as_json: AsJson = False,
) -> None:
    """What one more hospital costs in one process, in time and memory."""
    from wardround.privacy.errors import BadInput
    from wardround.study.bench.scale import scale_benchmark

    sizes = hospitals.split(",")
    if not all(size.strip().isdecimal() for size in sizes):
        raise BadInput(f"--hospitals is {hospitals!r}; expected whole numbers with commas between")
    _show(scale_benchmark([int(size) for size in sizes], say=_say(as_json)), as_json)


@bench_app.command(epilog="Example: [bold]wardround bench start --engines in-process,ray[/bold]")
def start(
    engines: Annotated[str, typer.Option(help="Comma-separated engines.")] = "in-process",
    as_json: AsJson = False,
) -> None:
    """How soon a study's first round begins, and the same study under Flower's simulation."""
    from wardround.study.bench.start import start_benchmark

    _show(start_benchmark(tuple(engines.split(","))), as_json)


@bench_app.command(epilog="Example: [bold]wardround bench noise --json[/bold]")
def noise(
    count: Annotated[int, typer.Option(min=1000, help="Numbers a draw.")] = 1 << 20,
    repeats: Annotated[int, typer.Option(min=3, help="Timed draws.")] = 9,
    as_json: AsJson = False,
) -> None:
    """Normals a second from the secure stream, one thread, beside torch's generator."""
    from wardround.study.bench.noise import noise_benchmark

    _show(noise_benchmark(count, repeats), as_json)


@bench_app.command(epilog="Example: [bold]wardround bench accountant --json[/bold]")
def accountant(
    events: Annotated[int, typer.Option(min=10, help="Different events to compose.")] = 10_000,
    as_json: AsJson = False,
) -> None:
    """How long the next epsilon takes after many events of different kinds."""
    from wardround.study.bench.accountant import accountant_benchmark

    _show(accountant_benchmark(events), as_json)


@bench_app.command(epilog="Example: [bold]wardround bench tracing --json[/bold]")
def tracing(
    facts: Annotated[int, typer.Option(min=2, help="Facts of the embedded world.")] = 12,
    as_json: AsJson = False,
) -> None:
    """Facts traced a second, beside the plain loop of one restoration a forward pass."""
    from wardround.study.bench.tracing import tracing_benchmark

    _show(tracing_benchmark(facts, _say(as_json)), as_json)


@bench_app.command(
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

    _show(editing_benchmark(tables.split(","), seeds, out, _say(as_json)), as_json)


@bench_app.command(epilog="Example: [bold]wardround bench ranking --json[/bold]")
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
        _show(ranking_study(chosen, rows_file=rows, say=_say(as_json)), as_json)
        return
    from wardround.study.bench.ranking import ranking_benchmark

    _show(ranking_benchmark(candidates, queries, repeats=repeats, say=_say(as_json)), as_json)


@bench_app.command(epilog="Example: [bold]wardround bench robust --json[/bold]")
def robust(
    draws: Annotated[int, typer.Option(min=5, help="Draws of every synthetic setting.")] = 60,
    as_json: AsJson = False,
) -> None:
    """What robust rules withstand, and what noise leaves of it (docs/robustness.md)."""
    from wardround.study.bench.robust import robust_benchmark

    _show(robust_benchmark(draws), as_json)


@bench_app.command(epilog="Example: [bold]wardround bench facts --data MedCF/valid.json[/bold]")
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
    _show(facts_benchmark(data, setup, base, _say(as_json)), as_json)


@bench_app.command(epilog="Example: [bold]wardround bench codec --json[/bold]")
def codec(
    seeds: Annotated[int, typer.Option(min=1, help="Runs of the small study each.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Bytes, error and utility of every encoding of an update."""
    from wardround.study.bench.codec import codec_benchmark

    _show(codec_benchmark(seeds, _say(as_json)), as_json)


@bench_app.command(epilog="Example: [bold]wardround bench strategies --utility --json[/bold]")
def strategies(
    utility: Annotated[
        bool, typer.Option("--utility", help="Also accuracy by epsilon; takes many minutes.")
    ] = False,
    seeds: Annotated[int, typer.Option(min=2, help="Worlds of the utility table.")] = 5,
    only: Annotated[str, typer.Option(help="Comma-separated strategies of that table.")] = "",
    rows: Annotated[
        Path | None, typer.Option(help="Keep finished rows here, and go on from them.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """How exact, how many bytes and how useful every strategy is."""
    from wardround.study.bench.strategies import (
        strategies_benchmark,
        untouched,
        utility_benchmark,
    )

    document = strategies_benchmark()
    if utility:
        names = only.split(",") if only else [row["strategy"] for row in document["strategies"]]
        document["utility"] = utility_benchmark(names, seeds, rows, _say(as_json))
        document["untouched"] = untouched(seeds)
    _show(document, as_json)


@bench_app.command(epilog="Example: [bold]wardround bench preference-bandit --plots figures[/bold]")
def preference_bandit(
    seeds: Annotated[str, typer.Option(help="Comma-separated seeds.")] = "0,1,2,3,4",
    plots: Annotated[Path | None, typer.Option(help="A folder for PNG figures.")] = None,
    as_json: AsJson = False,
) -> None:
    """What preference methods do to a bandit of 100 actions: the tables of docs/preference.md."""
    from wardround.study.bench.bandit_figures import write_figures
    from wardround.study.bench.bandit_study import bandit_benchmark

    found = bandit_benchmark(_seeds(seeds), _say(as_json))
    if plots is not None:
        found["figures"] = [str(path) for path in write_figures(found, plots)]
    _show(found, as_json)


@bench_app.command(epilog="Example: [bold]wardround bench preference --out rows.jsonl[/bold]")
def preference(
    seeds: Annotated[str, typer.Option(help="Comma-separated seeds.")] = "0,1,2",
    out: Annotated[
        Path | None, typer.Option(help="Rows go here as they finish; those in it are not run.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Five methods on clinicians' preferences in four hospitals, with and without privacy."""
    from wardround.study.bench.preference import preference_benchmark

    _show(preference_benchmark(_seeds(seeds), out, say=_say(as_json)), as_json)


@bench_app.command(epilog="Example: [bold]wardround bench cocoop --out rows.jsonl[/bold]")
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

    found = cocoop_benchmark(_seeds(seeds), out, worlds=worlds.split(","), say=_say(as_json))
    _show(found, as_json)


@bench_app.command(epilog="Example: [bold]wardround bench pwiser --out rows.jsonl[/bold]")
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
        _show(sensitivity_benchmark(), as_json)
    else:
        _show(pwiser_benchmark(_seeds(seeds), out, say=_say(as_json)), as_json)


@bench_app.command(epilog="Example: [bold]wardround bench pacit --out rows.jsonl[/bold]")
def pacit(
    seeds: Annotated[str, typer.Option(help="Comma-separated seeds.")] = "0,1,2",
    out: Annotated[
        Path | None, typer.Option(help="Rows go here as they finish; those in it are not run.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Instructions with and without verdicts on examples, in four hospitals."""
    from wardround.study.bench.pacit import pacit_benchmark

    _show(pacit_benchmark(_seeds(seeds), out, say=_say(as_json)), as_json)


@bench_app.command(epilog="Example: [bold]wardround bench causal --data FOLDER --json[/bold]")
def causal(
    seeds: Annotated[int, typer.Option(min=1, help="Random systems; twice as many for noise.")] = 5,
    data: Annotated[
        Path | None, typer.Option(help="A folder with Sachs et al.'s proteins and graph.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """What an abstraction saves, and what noise leaves of a causal order (docs/abs-lingam.md)."""
    from wardround.study.bench.causal import causal_benchmark

    _show(causal_benchmark(seeds, data, _say(as_json)), as_json)


@bench_app.command(epilog="Example: [bold]wardround bench dro --out rows.jsonl[/bold]")
def dro(
    seeds: Annotated[str, typer.Option(help="Comma-separated seeds.")] = "0,1,2",
    out: Annotated[
        Path | None, typer.Option(help="Rows go here as they finish; those in it are not run.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Safety prompts in four hospitals: DRO, its ablations and its baselines."""
    from wardround.study.bench.dro import dro_benchmark

    _show(dro_benchmark(_seeds(seeds), out, say=_say(as_json)), as_json)


@bench_app.command(epilog="Example: [bold]wardround bench choice --json[/bold]")
def choice(
    candidates: Annotated[int, typer.Option(min=2, help="Candidates.")] = 20,
    voters: Annotated[int, typer.Option(min=1, help="Voters.")] = 200,
    repeats: Annotated[int, typer.Option(min=3, help="Timed turns.")] = 11,
    as_json: AsJson = False,
) -> None:
    """How long each rule of social choice takes, and how firm its winner is under noise."""
    from wardround.study.bench.choice import choice_benchmark

    _show(choice_benchmark(candidates, voters, repeats), as_json)


@bench_app.command(epilog="Example: [bold]wardround bench secagg --json[/bold]")
def secagg(
    hospitals: Annotated[str, typer.Option(help="Comma-separated sizes.")] = "4,16,64",
    numbers: Annotated[int, typer.Option(min=1, help="Numbers in an update.")] = 1 << 18,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds timed.")] = 3,
    as_json: AsJson = False,
) -> None:
    """What a secure sum costs in bytes and time beside plain updates."""
    from wardround.study.bench.secagg import secagg_benchmark

    counts = [int(count) for count in hospitals.split(",")]
    _show(secagg_benchmark(counts, numbers, repeats), as_json)


@bench_app.command(name="all", epilog="Example: [bold]wardround bench all --json[/bold]")
def all_(as_json: AsJson = False) -> None:
    """Everything above with its defaults, one after the other."""
    from wardround.study.bench.accountant import accountant_benchmark
    from wardround.study.bench.noise import noise_benchmark
    from wardround.study.bench.round import round_benchmark
    from wardround.study.bench.step import step_benchmark

    found = {
        "step": step_benchmark(say=_say(as_json)),
        "round": round_benchmark(3),
        "noise": noise_benchmark(1 << 20, 9),
        "accountant": accountant_benchmark(10_000),
    }
    _show(found, as_json)


def _seeds(text: str) -> list[int]:
    """Seeds as the command line gives them; ``BadInput`` names what is no whole number."""
    from wardround.privacy.errors import BadInput

    if not all(seed.strip().isdecimal() for seed in text.split(",")):
        raise BadInput(f"--seeds is {text!r}; expected whole numbers with commas between")
    return [int(seed) for seed in text.split(",")]


def _say(as_json: bool) -> Any:
    """Where a benchmark says what it is doing."""
    return Console(stderr=True, quiet=as_json).print


def _show(document: Mapping[str, Any], as_json: bool) -> None:
    """One JSON document, or the same as text a person can read."""
    if as_json:
        print(json.dumps(document, indent=1, allow_nan=False))
    else:
        Console().print_json(data=document)
