"""Commands around preferences and votes: ``precompute``, ``decide`` and ``count``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


def precompute(
    study: Annotated[Path, typer.Argument(help="The study file.")],
    data: Annotated[Path, typer.Option(help="Records, in a format the task reads.")],
    out: Annotated[Path, typer.Option(help="A new file of the same records.")],
    as_json: AsJson = False,
) -> None:
    """Write beside records what a study's frozen model says of them; nothing leaves the house."""
    from wardround.study.config import Study
    from wardround.study.precompute import precompute as write

    records = write(Study.read(study), data, out)
    if as_json:
        _print_json({"records": records, "out": str(out)})
    else:
        Console().print(f"{records} records: {out}", highlight=False, soft_wrap=True)


def decide(
    run_dir: Annotated[Path, typer.Argument(help="Folder of a run of the task ballots.")],
    rule: Annotated[
        str, typer.Option(help="How duels become a choice; split-cycle if not given.")
    ] = "",
    weighting: Annotated[
        str, typer.Option(help="Whose voice counts how much: voter, site or square-root.")
    ] = "voter",
    least_stability: Annotated[
        float, typer.Option(help="Share of draws of fresh noise that must leave the choice as is.")
    ] = 0.8,
    pairs: Annotated[
        Path | None, typer.Option(help="Write collective preference pairs here, to tune on.")
    ] = None,
    seed: int = 0,
    as_json: AsJson = False,
) -> None:
    """Turn what hospitals released of their ballots into collective choices, and say how firm."""
    from wardround.study.decide import decide_run, show_decision, write_pairs

    decision = decide_run(run_dir, rule, weighting, least_stability, seed)
    if pairs is not None:
        write_pairs(decision, pairs)
    if as_json:
        _print_json(decision.to_json())
    else:
        show_decision(Console(), decision)


def count(
    study: Annotated[Path, typer.Argument(help="A study file of the task ballots.")],
    ballots: Annotated[Path, typer.Option(help="Ballots that may be seen.")],
    rule: Annotated[str, typer.Option(help="For one winner or for several seats.")],
    seats: Annotated[int, typer.Option(min=1, help="How many are elected.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Count ballots that are public by rules that need whole ones; NOT PRIVATE."""
    from wardround.study.config import Study
    from wardround.study.count import count_ballots

    document = count_ballots(Study.read(study), ballots, rule, seats)
    if as_json:
        _print_json(document)
    else:
        table = Table("agenda", "ballots", "winners", title=f"{rule}, NOT PRIVATE")
        for row in document["agendas"]:
            table.add_row(row["agenda"], str(row["ballots"]), ", ".join(row["winners"]))
        Console().print(table)


def _print_json(document: Mapping[str, Any]) -> None:
    """One JSON document on standard output."""
    print(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False))
