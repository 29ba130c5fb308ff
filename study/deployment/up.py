"""``coordinator up``, ``coordinator run`` and ``hospital up``: supervisors and what they run."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wardround.privacy.errors import BadInput
from wardround.study.deployment.cli import coordinator_app as coordinator_app
from wardround.study.deployment.cli import hospital_app as hospital_app

if TYPE_CHECKING:
    from wardround.study.deployment.supervision import Service

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Folder = Annotated[Path, typer.Option("--folder", help="The coordinator's folder.")]
Home = Annotated[Path, typer.Option("--folder", help="The hospital's folder.")]
Policy = Annotated[Path | None, typer.Option("--policy", help="policy.toml in the folder without.")]
Records = Annotated[Path, typer.Option("--records", help="The data, as the task reads it.")]
Seed = Annotated[
    int | None, typer.Option("--seed", help="Repeat rounds of mode none; draws no noise.")
]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:N or auto.")]
SuperLinkPort = Annotated[int, typer.Option("--superlink-port", help="On loopback.")]
Runs = Annotated[Path, typer.Option("--runs", help="Folder that holds all runs.")]
_CONSORTIUM = Path("consortium")
_RUNS = Path("runs")
_HOSPITAL = Path("hospital")
_SUPERLINK_PORT = 8600
_NODE_PORT = 9094


@coordinator_app.command(epilog="Example: [bold]wardround coordinator up[/bold]")
def up(
    folder: Folder = _CONSORTIUM,
    listen: Annotated[str, typer.Option(help="Address the proxy binds.")] = "127.0.0.1",
    superlink_port: SuperLinkPort = _SUPERLINK_PORT,
    dashboard_port: Annotated[
        int | None, typer.Option(help="Also serve the dashboard here, on loopback.")
    ] = None,
    runs: Runs = _RUNS,
) -> None:
    """Run SuperLink, executor, proxy and, with --dashboard-port, the dashboard until ^C."""
    from wardround.study.deployment.coordinator import (
        CoordinatorPlace,
        coordinator_services,
    )
    from wardround.study.deployment.fleet_proxy import find_nginx
    from wardround.study.deployment.pages import dashboard_service
    from wardround.study.provisioning.roster import ConsortiumFolder

    place = CoordinatorPlace(ConsortiumFolder(folder), superlink_port, listen)
    services, said = coordinator_services(place, now(), find_nginx())
    if dashboard_port is not None:
        dashboard, where = dashboard_service(runs, dashboard_port)
        services, said = [*services, dashboard], [*said, where]
    supervise(services, place.home, place.run, said)


@coordinator_app.command(epilog="Example: [bold]wardround coordinator run study.toml[/bold]")
def run(
    study: Annotated[Path, typer.Argument(help="The study file.")],
    folder: Folder = _CONSORTIUM,
    runs: Runs = _RUNS,
    data: Annotated[
        Path | None, typer.Option(help="A public file to take probes from; made-up ones without.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this folder.")] = None,
    superlink_port: SuperLinkPort = _SUPERLINK_PORT,
    superlink: Annotated[
        str | None,
        typer.Option(envvar="WARDROUND_SUPERLINK", help="HOST:PORT, where it is not on loopback."),
    ] = None,
    superlink_authority: Annotated[
        Path | None,
        typer.Option(envvar="WARDROUND_SUPERLINK_AUTHORITY", help="Its authority's certificate."),
    ] = None,
    timeout_s: Annotated[float, typer.Option(help="Longest wait for the end of the run.")] = 86400,
    patience_s: Annotated[
        float, typer.Option(help="Ask again what nobody has answered for so long.")
    ] = 600,
    as_json: AsJson = False,
) -> None:
    """Start a study over the SuperLink that is up, and wait for its end."""
    from wardround.server.book import failure_files
    from wardround.study.config import Study
    from wardround.study.deployment.coordinator import (
        CoordinatorPlace,
        run_status,
        start_run,
    )
    from wardround.study.deployment.following import Progress, follow
    from wardround.study.deployment.runs import create_deployed_run, reopen, why_refused
    from wardround.study.deployment.superlink import write_connection
    from wardround.study.provisioning.keys import make_private_folder
    from wardround.study.provisioning.roster import ConsortiumFolder
    from wardround.study.results import report_document

    place = CoordinatorPlace(ConsortiumFolder(folder), superlink_port)
    if (superlink is None) != (superlink_authority is None):
        raise BadInput("--superlink and --superlink-authority go together")
    if superlink is not None and superlink_authority is not None:
        make_private_folder(place.home)
        write_connection(place.home, superlink, superlink_authority)
    if resume is None:
        opened = create_deployed_run(Study.read(study), place.consortium, runs, data, now())
    else:
        opened = reopen(Study.read(study), resume)
    failed_before = len(failure_files(opened.path / "rounds"))
    print(f"run folder: {opened.path}", file=sys.stderr)
    follow(
        partial(start_run, place, opened, patience_s),
        partial(run_status, place),
        partial(Progress.of, opened),
        partial(why_refused, opened.path, failed_before),
        timeout_s,
    )
    document = {"run": str(opened.path), **report_document(opened.path, recompute=False)}
    if as_json:
        print(json.dumps(document, indent=1, ensure_ascii=False))
    else:
        print(f"completed: {opened.path}")
        print(f"report.html: {opened.path / 'report.html'}")


@hospital_app.command(
    name="up",
    epilog="Example: [bold]wardround hospital up --records records.jsonl[/bold]",
)
def hospital_up(
    records: Records,
    folder: Home = _HOSPITAL,
    policy: Policy = None,
    node_port: Annotated[int, typer.Option(help="Of the SuperNode, on loopback.")] = _NODE_PORT,
    relay: Annotated[
        str, typer.Option(help="resident, or flower for Flower's own executor.")
    ] = "resident",
    bundles: Annotated[
        Path | None, typer.Option(help="App bundles to accept, by sha256; this version's without.")
    ] = None,
    seed: Seed = None,
    device: Device = "cpu",
    isolate: Annotated[
        bool, typer.Option("--isolate", help="A user and namespaces for each process; needs root.")
    ] = False,
    users: Annotated[
        str, typer.Option(help="With --isolate: users PREFIX-custodian, -node and -relay.")
    ] = "wardround",
    page_port: Annotated[
        int | None, typer.Option(help="Also serve the hospital's own page here, on loopback.")
    ] = None,
) -> None:
    """Run custodian, SuperNode, relay and, with --page-port, the hospital's page until ^C."""
    from wardround.study.deployment.hospital import (
        HospitalPlace,
        hospital_services,
        isolated_services,
    )
    from wardround.study.deployment.isolation import Users
    from wardround.study.deployment.pages import page_service
    from wardround.study.provisioning.hospital import HospitalFolder

    place = HospitalPlace(
        HospitalFolder(folder),
        policy or folder / "policy.toml",
        records,
        node_port,
        relay,
        bundles,
        seed,
        device,
    )
    if isolate and page_port is not None:
        raise BadInput(
            "--page-port with --isolate: what serves the page reads the ledger as the custodian "
            "does and has a network; where you want that, start wardround hospital page yourself"
        )
    if isolate:
        services = isolated_services(place, now(), Users(users))
        said = [
            f"isolation is on: users {users}-custodian, {users}-node and {users}-relay; the "
            "custodian has no network, the relay reaches the SuperNode and nothing else"
        ]
    else:
        services = hospital_services(place, now())
        said = [
            "isolation is OFF: custodian, SuperNode and relay run as one user in one network; a "
            "relay that is taken over can read this hospital's data (--isolate, as root)"
        ]
    if page_port is not None:
        page, where = page_service(place, page_port)
        services, said = [*services, page], [*said, where]
    if relay == "flower":
        said.append("--relay flower: the coordinator's app bundle is unpacked and run in the relay")
    supervise(services, place.run / "flower", place.run, said)


def supervise(
    services: Sequence[Service], home: Path, logs: Path | None, said: Sequence[str]
) -> None:
    """Keep services alive until ^C or SIGTERM, saying what has to be said first.

    Args:
        services: In their order.
        home: Flower's own folder.
        logs: Folder for a log file each; None sends everything to this process's output.
        said: Lines for whoever started it.
    """
    from wardround.study.deployment.processes import Launcher, write_programs
    from wardround.study.deployment.supervision import Supervisor

    for line in said:
        print(f"wardround: {line}", file=sys.stderr)
    write_programs(home / "bin")
    supervisor = Supervisor(services, Launcher(logs, home))

    def stop(*_: Any) -> None:
        supervisor.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    supervisor.run()


def now() -> datetime:
    """The time, to the second."""
    return datetime.now(UTC).replace(microsecond=0)
