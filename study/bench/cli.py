"""``wardround bench``: every figure in docs/performance.md is one of these commands.

What compares methods of one task is in ``task_cli``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wardround.study.bench.showing import AsJson, show, teller
from wardround.study.bench.task_cli import task_app

bench_app = typer.Typer(
    help="Measure on this machine what docs/performance.md reports.", no_args_is_help=True
)
bench_app.add_typer(task_app)


@bench_app.command(epilog="Example: [bold]wardround bench step --models embedded --json[/bold]")
def step(
    models: Annotated[str, typer.Option(help="Comma-separated model shapes.")] = "embedded",
    repeats: Annotated[int, typer.Option(min=3, help="Timed turns.")] = 11,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    as_json: AsJson = False,
) -> None:
    """What privacy costs in one training step, beside Opacus and plain PEFT."""
    from wardround.study.bench.step import step_benchmark

    show(step_benchmark(models.split(","), repeats, device, say=teller(as_json)), as_json)


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
    show(found, as_json)


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
    show(scale_benchmark([int(size) for size in sizes], say=teller(as_json)), as_json)


@bench_app.command(epilog="Example: [bold]wardround bench start --engines in-process,ray[/bold]")
def start(
    engines: Annotated[str, typer.Option(help="Comma-separated engines.")] = "in-process",
    as_json: AsJson = False,
) -> None:
    """How soon a study's first round begins, and the same study under Flower's simulation."""
    from wardround.study.bench.start import start_benchmark

    show(start_benchmark(tuple(engines.split(","))), as_json)


@bench_app.command(epilog="Example: [bold]wardround bench noise --json[/bold]")
def noise(
    count: Annotated[int, typer.Option(min=1000, help="Numbers a draw.")] = 1 << 20,
    repeats: Annotated[int, typer.Option(min=3, help="Timed draws.")] = 9,
    as_json: AsJson = False,
) -> None:
    """Normals a second from the secure stream, one thread, beside torch's generator."""
    from wardround.study.bench.noise import noise_benchmark

    show(noise_benchmark(count, repeats), as_json)


@bench_app.command(epilog="Example: [bold]wardround bench accountant --json[/bold]")
def accountant(
    events: Annotated[int, typer.Option(min=10, help="Different events to compose.")] = 10_000,
    as_json: AsJson = False,
) -> None:
    """How long the next epsilon takes after many events of different kinds."""
    from wardround.study.bench.accountant import accountant_benchmark

    show(accountant_benchmark(events), as_json)


@bench_app.command(epilog="Example: [bold]wardround bench robust --json[/bold]")
def robust(
    draws: Annotated[int, typer.Option(min=5, help="Draws of every synthetic setting.")] = 60,
    as_json: AsJson = False,
) -> None:
    """What robust rules withstand, and what noise leaves of it (docs/robustness.md)."""
    from wardround.study.bench.robust import robust_benchmark

    show(robust_benchmark(draws), as_json)


@bench_app.command(epilog="Example: [bold]wardround bench codec --json[/bold]")
def codec(
    seeds: Annotated[int, typer.Option(min=1, help="Runs of the small study each.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Bytes, error and utility of every encoding of an update."""
    from wardround.study.bench.codec import codec_benchmark

    show(codec_benchmark(seeds, teller(as_json)), as_json)


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
        document["utility"] = utility_benchmark(names, seeds, rows, teller(as_json))
        document["untouched"] = untouched(seeds)
    show(document, as_json)


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
    show(secagg_benchmark(counts, numbers, repeats), as_json)


@bench_app.command(epilog="Example: [bold]wardround bench deployment --json[/bold]")
def deployment(
    rounds: Annotated[int, typer.Option(help="Of each federation; two of them do not count.")] = 8,
    update: Annotated[str, typer.Option(help="demo, or large: an update of 5 MB.")] = "demo",
    first_port: Annotated[int, typer.Option(help="The first of 300 free ports.")] = 22_000,
    as_json: AsJson = False,
) -> None:
    """What a round over real processes costs beside training, and under stock Flower."""
    from wardround.study.bench.deployment import deployment_benchmark

    show(deployment_benchmark(rounds, update, first_port, teller(as_json)), as_json)


@bench_app.command(epilog="Example: [bold]wardround bench load --relays 64 --json[/bold]")
def load(
    relays: Annotated[int, typer.Option(help="Hospitals, all of them in one process.")] = 64,
    rounds: Annotated[int, typer.Option(help="The first does not count.")] = 6,
    update: Annotated[str, typer.Option(help="demo, or large: an update of 5 MB.")] = "demo",
    first_port: Annotated[int, typer.Option(help="The first of two free ports.")] = 22_600,
    as_json: AsJson = False,
) -> None:
    """Memory of a coordinator's processes and time of a round with many hospitals."""
    from wardround.study.bench.load import load_benchmark

    show(load_benchmark(relays, rounds, update, first_port, teller(as_json)), as_json)


@bench_app.command(name="all", epilog="Example: [bold]wardround bench all --json[/bold]")
def all_(as_json: AsJson = False) -> None:
    """Everything above with its defaults, one after the other."""
    from wardround.study.bench.accountant import accountant_benchmark
    from wardround.study.bench.noise import noise_benchmark
    from wardround.study.bench.round import round_benchmark
    from wardround.study.bench.step import step_benchmark

    found = {
        "step": step_benchmark(say=teller(as_json)),
        "round": round_benchmark(3),
        "noise": noise_benchmark(1 << 20, 9),
        "accountant": accountant_benchmark(10_000),
    }
    show(found, as_json)
