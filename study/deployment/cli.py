"""The commands of ``wardround hospital`` and ``wardround coordinator``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wardround.privacy.errors import BadInput, WardroundError

if TYPE_CHECKING:
    from wardround.client.custody.place import Place

hospital_app = typer.Typer(no_args_is_help=True, help="What runs at a hospital.")
coordinator_app = typer.Typer(no_args_is_help=True, help="What runs at the coordinator.")

Socket = Annotated[
    Path | None, typer.Option(help="Unix socket; its folder is made, readable by its owner only.")
]
Address = Annotated[str | None, typer.Option(help="HOST:PORT under mutual TLS, not a socket.")]
Authority = Annotated[Path | None, typer.Option(help="Certificate that callers' are signed by.")]
Identity = Annotated[Path | None, typer.Option(help="PEM file of a private key and certificate.")]


@hospital_app.command(
    epilog="Example: [bold]wardround hospital custodian /var/lib/wardround --records notes.jsonl "
    "--policy policy.toml --socket /run/custodian/socket[/bold]"
)
def custodian(
    folder: Annotated[Path, typer.Argument(help="Keys and ledger; made when absent.")],
    records: Annotated[Path, typer.Option(help="The data, in a format the task reads.")],
    policy: Annotated[Path, typer.Option(help="The policy file.")],
    coordinator: Annotated[
        str | None, typer.Option(help="Its public signing key; the installed kit's without.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="This hospital's name; the installed kit's without.")
    ] = None,
    members: Annotated[
        Path | None, typer.Option(help="JSON of public keys by hospital, for secure sums.")
    ] = None,
    socket: Socket = None,
    listen: Address = None,
    authority: Authority = None,
    identity: Identity = None,
    caller: Annotated[
        list[str] | None, typer.Option(help="Name in the relay's certificate, with --listen.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:N or auto.")] = "cpu",
    most_megabytes: Annotated[int, typer.Option(help="The longest request that is taken.")] = 1024,
    grace_s: Annotated[
        float, typer.Option(help="Seconds that a running round has left after SIGTERM.")
    ] = 60.0,
    seed: Annotated[
        int | None, typer.Option(help="Repeat rounds of mode none, which protect nobody.")
    ] = None,
) -> None:
    """Hold a hospital's data, policy, ledger and keys, and answer its relay until SIGTERM."""
    from wardround.client.hospital import Hospital
    from wardround.study.deployment.custodian_process import (
        Service,
        read_members,
        serve_hospital,
    )
    from wardround.study.provisioning.hospital import HospitalFolder, installed_kit

    place = _place(socket, listen, authority, identity, tuple(caller or ()))
    if coordinator is None or name is None:
        kit = installed_kit(HospitalFolder(folder))
        coordinator, name = coordinator or kit.coordinator, name or kit.hospital
    hospital = Hospital(
        name=name,
        folder=folder,
        policy=policy,
        records=records,
        coordinator=coordinator,
        members=read_members(members) if members is not None else {},
    )
    serve_hospital(
        hospital,
        Service(place, device, most_megabytes << 20, grace_s, seed),
        ready=lambda key: print(json.dumps({"ready": name, "public_key": key}), flush=True),
    )


@hospital_app.command(
    epilog="Example: [bold]wardround hospital relay --supernode 127.0.0.1:9094 --secret "
    "keys/superexec.secret --allow bundles.txt --socket /run/custodian/socket[/bold]"
)
def relay(
    supernode: Annotated[str, typer.Option(help="HOST:PORT of the SuperNode's Runtime API.")],
    secret: Annotated[Path, typer.Option(help="What the SuperNode shares with its executor.")],
    allow: Annotated[Path, typer.Option(help="SHA-256 of every bundle to be answered, a line.")],
    supernode_authority: Annotated[
        Path | None, typer.Option(help="Certificate of the SuperNode's authority; no TLS without.")
    ] = None,
    socket: Socket = None,
    listen: Address = None,
    authority: Authority = None,
    identity: Identity = None,
    deadline_s: Annotated[float, typer.Option(help="How long the custodian may take.")] = 3600.0,
) -> None:
    """Answer a SuperNode's messages from a custodian, without unpacking any coordinator's code."""
    from wardround.client.custody.runtime_api import SuperNode
    from wardround.study.deployment.relay_process import run_relay

    place = _place(socket, listen, authority, identity, ())
    node = SuperNode(supernode, secret, supernode_authority)
    run_relay(place, node, allow, deadline_s, ready=lambda: print('{"ready": "relay"}', flush=True))


@hospital_app.command(
    epilog="Example: [bold]wardround hospital ready --socket /run/custodian/socket[/bold]"
)
def ready(
    socket: Socket = None,
    listen: Address = None,
    authority: Authority = None,
    identity: Identity = None,
    within_s: Annotated[float, typer.Option(help="How long to wait for it.")] = 5.0,
) -> None:
    """Say whether a custodian takes calls; exit code 3 when it does not."""
    from wardround.client.custody.calling import RemoteCustodian

    with RemoteCustodian(_place(socket, listen, authority, identity, ())) as remote:
        if not remote.ready(within_s):
            print("not ready")
            raise typer.Exit(WardroundError.exit_code)
    print("ready")


@coordinator_app.callback()
def _coordinator() -> None:
    """What runs at the coordinator."""


@coordinator_app.command(epilog="Example: [bold]wardround coordinator bundle --out study[/bold]")
@hospital_app.command(epilog="Example: [bold]wardround hospital bundle > bundles.txt[/bold]")
def bundle(
    out: Annotated[Path | None, typer.Option(help="Also write its folder, for flwr run.")] = None,
) -> None:
    """Print the SHA-256 of the bundle that this release ships; a relay's list is made of these."""
    from wardround.study.deployment.shipping import bundle_sha256, write_bundle

    if out is not None:
        write_bundle(out)
    print(bundle_sha256())


def _place(
    socket: Path | None,
    listen: str | None,
    authority: Path | None,
    identity: Path | None,
    callers: tuple[str, ...],
) -> Place:
    """Where a custodian answers, from the options of a command."""
    from wardround.client.custody.place import TlsAddress, UnixSocket

    if (socket is None) == (listen is None):
        raise BadInput("give either --socket or --listen")
    if socket is not None:
        return UnixSocket(socket)
    if listen is None or authority is None or identity is None:
        raise BadInput("--listen needs --authority and --identity")
    return TlsAddress(listen, authority, identity, callers)
