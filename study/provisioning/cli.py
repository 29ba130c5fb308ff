"""The commands of ``wardround provision``, for the coordinator and for a hospital's engineer."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from wardround.privacy.errors import WardroundError


class _FileFirst(TyperGroup):
    """``provision FILE`` means ``provision make FILE``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["make", *args]
        return super().parse_args(ctx, args)


provision_app = typer.Typer(
    cls=_FileFirst,
    no_args_is_help=True,
    help="Keys, certificates and kits: [bold]wardround provision consortium.toml[/bold].",
)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Terms = Annotated[Path, typer.Argument(help="The consortium file.")]
Folder = Annotated[Path, typer.Option("--folder", help="The coordinator's folder.")]
Home = Annotated[Path, typer.Option("--folder", help="The hospital's folder.")]
Told = Annotated[
    str | None, typer.Option("--fingerprint", help="As it was read to you, on the telephone.")
]
Renew = Annotated[bool, typer.Option("--renew", help="Replace what is there.")]
_CONSORTIUM = Path("consortium")
_HOSPITAL = Path("hospital")


@provision_app.command(epilog="Example: [bold]wardround provision consortium.toml[/bold]")
def make(
    terms: Terms,
    folder: Folder = _CONSORTIUM,
    with_keys: Annotated[
        bool, typer.Option("--with-keys", help="Make hospitals' keys here; kits hold them.")
    ] = False,
    renew: Renew = False,
    as_json: AsJson = False,
) -> None:
    """At the coordinator: make authority, server certificate and signing key, or renew them."""
    from wardround.study.provisioning import authority
    from wardround.study.provisioning.roster import ConsortiumFolder, fingerprint_of

    place = ConsortiumFolder(folder)
    run = authority.renew if renew else authority.found
    roster = run(terms, place, _now(), with_keys)
    kits = {m.hospital: str(place.kit(m.hospital)) for m in roster.members if with_keys}
    document = {
        "folder": str(folder),
        "consortium": roster.consortium,
        "fingerprint": fingerprint_of(place),
        "members": [member.hospital for member in roster.members],
        "kits": kits,
    }
    lines = [
        f"{roster.consortium}: made in {folder}/" if not renew else f"{folder}/: renewed",
        f"consortium fingerprint, to be read to every hospital: {document['fingerprint']}",
        *(f"kit WITH PRIVATE KEYS, hand it over in person: {kit}" for kit in kits.values()),
    ]
    _show(document, lines, as_json)
    _warn(folder)


@provision_app.command(
    epilog="Example: [bold]wardround provision request consortium.toml --hospital north[/bold]"
)
def request(
    terms: Terms,
    hospital: Annotated[str, typer.Option(help="Your hospital's name in the consortium file.")],
    folder: Home = _HOSPITAL,
    out: Annotated[
        Path | None, typer.Option(help="The file to send; NAME.request.json without.")
    ] = None,
    renew: Renew = False,
    as_json: AsJson = False,
) -> None:
    """At a hospital: make the keys, which stay here, and a request to send to the coordinator."""
    from wardround.study.provisioning.consortium import Consortium
    from wardround.study.provisioning.hospital import HospitalFolder, request_kit

    path = out or Path(f"{hospital}.request.json")
    consortium = Consortium.read(terms)
    found = request_kit(consortium, hospital, HospitalFolder(folder), path, _now(), renew)
    lines = [f"send to the coordinator: {path}", f"fingerprint, to be read to them: {found}"]
    _show({"request": str(path), "fingerprint": found}, lines, as_json)
    if renew:
        _warn(folder)


@provision_app.command(
    epilog="Example: [bold]wardround provision sign north.request.json --fingerprint 3f9c-…[/bold]"
)
def sign(
    request: Annotated[Path, typer.Argument(help="A hospital's request.")],
    folder: Folder = _CONSORTIUM,
    fingerprint: Told = None,
    renew: Renew = False,
    as_json: AsJson = False,
) -> None:
    """At the coordinator: check a request, enrol the hospital and write its kit."""
    from wardround.study.provisioning.authority import sign_request
    from wardround.study.provisioning.roster import ConsortiumFolder

    kit = sign_request(request, ConsortiumFolder(folder), _now(), fingerprint, renew)
    _show({"kit": str(kit)}, [f"send to the hospital: {kit}"], as_json)
    _warn(folder)


@provision_app.command(
    epilog="Example: [bold]wardround provision install north.kit.json --fingerprint 81d0-…[/bold]"
)
def install(
    kit: Annotated[Path, typer.Argument(help="The kit that the coordinator sent.")],
    folder: Home = _HOSPITAL,
    fingerprint: Told = None,
    renew: Renew = False,
    as_json: AsJson = False,
) -> None:
    """At a hospital: check the kit against the keys here and put it in place."""
    from wardround.study.provisioning.hospital import HospitalFolder, files, install_kit

    place = HospitalFolder(folder)
    found = install_kit(kit, place, _now(), fingerprint, renew)
    document = {
        "hospital": found.hospital,
        "coordinator": found.coordinator,
        "hosts": list(found.hosts),
        "port": found.port,
        "signing": found.signing,
        "files": files(place),
    }
    lines = [
        f"{found.hospital}: kit installed in {folder}/",
        f"coordinator: {found.hosts[0]}:{found.port}, signs plans with {found.coordinator}",
        f"this hospital's public signing key: {found.signing}",
    ]
    _show(document, lines, as_json)
    _warn(folder)


@provision_app.command(
    epilog="Example: [bold]wardround provision revoke north --reason 'laptop stolen'[/bold]"
)
def revoke(
    hospital: Annotated[str, typer.Argument(help="The member to put out.")],
    reason: Annotated[str, typer.Option(help="Why; stands in the roster.")],
    folder: Folder = _CONSORTIUM,
    as_json: AsJson = False,
) -> None:
    """At the coordinator: put a hospital out for good; its keys are never accepted again."""
    from wardround.study.provisioning import authority
    from wardround.study.provisioning.roster import ConsortiumFolder

    place = ConsortiumFolder(folder)
    roster = authority.revoke(place, hospital, reason, _now())
    members = [member.hospital for member in roster.members]
    lines = [
        f"{hospital} is revoked; members: {', '.join(members) or 'nobody'}",
        f"reload {place.revocations} in the proxy and unregister its node from the SuperLink",
    ]
    _show({"revoked": hospital, "members": members}, lines, as_json)
    _warn(folder)


@provision_app.command(epilog="Example: [bold]wardround provision status hospital[/bold]")
def status(
    folder: Annotated[Path, typer.Argument(help="A coordinator's or a hospital's folder.")],
    as_json: AsJson = False,
) -> None:
    """Say what expires when; exit code 3 when something has."""
    from wardround.study.provisioning.expiry import endings, warnings

    now = _now()
    found, warn_days = endings(folder)
    rows = [
        {"what": e.what, "ends_at": f"{e.ends_at:%Y-%m-%d}", "days_left": e.days_left(now)}
        for e in found
    ]
    lines = [f"{r['what']}: until {r['ends_at']}, {r['days_left']} days" for r in rows]
    document = {"endings": rows, "warnings": warnings(found, now, warn_days)}
    _show(document, lines, as_json)
    _warn(folder)
    if any(ending.ends_at < now for ending in found):
        raise typer.Exit(WardroundError.exit_code)


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _warn(folder: Path) -> None:
    """What expires soon goes to standard error, after every command."""
    from wardround.study.provisioning.expiry import endings, warnings

    found, warn_days = endings(folder)
    for line in warnings(found, _now(), warn_days):
        print(f"wardround: warning: {line}", file=sys.stderr)


def _show(document: dict[str, Any], lines: list[str], as_json: bool) -> None:
    if as_json:
        print(json.dumps(document, indent=1, ensure_ascii=False))
    else:
        print("\n".join(lines))
