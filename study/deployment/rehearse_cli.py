"""``coordinator rehearse``: a study over a whole federation on this machine, by one command."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer


def rehearse(
    study: Annotated[Path, typer.Argument(help="The study file.")],
    out: Annotated[Path, typer.Option(help="A new folder for keys, hospitals and the run.")] = Path(
        "rehearsal"
    ),
    data: Annotated[
        Path | None, typer.Option(help="A public file to deal out; made-up records without.")
    ] = None,
    relay: Annotated[str, typer.Option(help="resident, or flower.")] = "resident",
    first_port: Annotated[int, typer.Option(help="Two ports, and one a hospital from +10 on.")] = (
        8600
    ),
    timeout_s: Annotated[float, typer.Option(help="Longest wait for the end of the run.")] = 86400,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document and nothing else.")
    ] = False,
) -> None:
    """Try a study as it will run: keys, TLS and processes of a coordinator and of every hospital.

    Everything is on this machine and belongs to one user, so nobody is protected from anybody; data
    must be public or made up.
    """
    from wardround.client.workbench import Workbench
    from wardround.privacy.errors import BadInput
    from wardround.study.config import Study
    from wardround.study.deployment.rehearsal import Ports, Rehearsal, federation
    from wardround.study.local import begin

    if out.exists():
        raise BadInput(f"--out: {out} exists; nothing is overwritten")
    rehearsal = Rehearsal(out.resolve(), Ports(first_port), relay)
    with Workbench() as workbench:
        pattern = begin(Study.read(study), out / "dealt", data, workbench)
    print(f"keys and processes: {out}", file=sys.stderr)
    with federation(rehearsal, pattern, datetime.now(UTC).replace(microsecond=0)) as running:
        running.wait_until(
            lambda: "ready service=superexec" in running.said("coordinator"), "the coordinator"
        )
        run = running.run_study(study, timeout_s)
    if as_json:
        print(json.dumps({"run": str(run)}))
    else:
        print(f"completed: {run}")
        print(f"report.html: {run / 'report.html'}")
