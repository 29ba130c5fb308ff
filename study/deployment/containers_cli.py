"""The commands that serve containers: ``containers`` at both ends and ``coordinator superlink``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from wardround.privacy.errors import BadInput
from wardround.study.deployment.up import (
    AsJson,
    Folder,
    Home,
    now,
    supervise,
)
from wardround.study.deployment.up import coordinator_app as coordinator_app
from wardround.study.deployment.up import hospital_app as hospital_app

_CONSORTIUM = Path("consortium")
_FIRST_USER = 10011


@coordinator_app.command(
    name="containers", epilog="Example: [bold]sudo wardround coordinator containers[/bold]"
)
def coordinator_containers(
    folder: Folder = _CONSORTIUM,
    runs: Annotated[Path, typer.Option("--runs", help="Folder that will hold all runs.")] = Path(
        "runs"
    ),
    as_json: AsJson = False,
) -> None:
    """Lay out what the coordinator's containers mount, each file with its own owner."""
    from wardround.study.deployment.containers import prepare_coordinator
    from wardround.study.provisioning.roster import ConsortiumFolder

    _said(prepare_coordinator(ConsortiumFolder(folder), runs, now()), as_json)


@hospital_app.command(
    name="containers",
    epilog="Example: [bold]sudo wardround hospital containers --folder hospitals/north "
    "--supernode supernode-north[/bold]",
)
def hospital_containers(
    folder: Home,
    supernode: Annotated[str, typer.Option(help="The SuperNode's service in the compose file.")],
    user: Annotated[
        int, typer.Option(help="Its user number; relay and custodian have the next two.")
    ] = _FIRST_USER,
    as_json: AsJson = False,
) -> None:
    """Lay out what a hospital's containers mount; all else in it becomes its custodian's."""
    from wardround.study.deployment.containers import HospitalUsers, prepare_hospital
    from wardround.study.provisioning.hospital import HospitalFolder

    place = prepare_hospital(HospitalFolder(folder), supernode, HospitalUsers(user), now())
    _said(place, as_json)


@coordinator_app.command(
    epilog="Example: [bold]wardround coordinator superlink --nodes nodes --host 10.0.0.2 "
    "--certificate superlink.pem --authority superlink.crt --secret superlink.secret "
    "--home flower[/bold]"
)
def superlink(
    nodes: Annotated[Path, typer.Option(help="Folder of public node keys, NAME.pub.")],
    certificate: Annotated[Path, typer.Option(help="Its TLS key and certificate, one file.")],
    authority: Annotated[Path, typer.Option(help="What that certificate is checked with.")],
    secret: Annotated[Path, typer.Option(help="Shared with its executor, byte by byte.")],
    home: Annotated[Path, typer.Option(help="Flower's own folder; made when absent.")],
    host: Annotated[str, typer.Option(help="Address to bind, on a network of its own.")],
    port: Annotated[int, typer.Option(help="Port to bind.")] = 8600,
) -> None:
    """Run a SuperLink until SIGTERM, and tell it the node keys whenever it has started."""
    from wardround.study.deployment.loopback import LoopbackTls
    from wardround.study.deployment.superlink import SuperLink
    from wardround.study.provisioning.keys import make_private_folder

    for path in (certificate, authority, secret):
        if not path.is_file():
            raise BadInput(f"{path}: no such file")
    if not nodes.is_dir():
        raise BadInput(f"{nodes}: no such folder")
    make_private_folder(home)
    link = SuperLink(host, port, LoopbackTls(certificate, authority), secret, home)
    link.write_connection()
    service = link.service(lambda: sorted(nodes.glob("*.pub")))
    supervise([replace(service, takes_down=())], home, None, [])


def _said(place: Path, as_json: bool) -> None:
    print(json.dumps({"folder": str(place)}) if as_json else f"ready for docker compose: {place}")
