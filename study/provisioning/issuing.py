"""What the coordinator writes when somebody joins, leaves or renews.

The roster is committed before a kit without keys is handed out; node keys and the TLS revocation
list are written from it again and again. Decides nothing: ``authority`` does.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import datetime

from wardround.study.provisioning.certificates import (
    Authority,
    Holder,
    issue,
    key_hash,
    make_revocation_list,
    pem,
)
from wardround.study.provisioning.consortium import Consortium
from wardround.study.provisioning.documents import (
    Kit,
    Request,
    read_time,
    sign_document,
    to_bytes,
    write_time,
)
from wardround.study.provisioning.keys import (
    HospitalKeys,
    load_tls_key,
    new_tls_key,
    read_private,
    write_private,
    write_public,
)
from wardround.study.provisioning.roster import (
    ConsortiumFolder,
    Member,
    Roster,
    coordinator_key,
    read_certificate,
)


def enrol(
    folder: ConsortiumFolder,
    consortium: Consortium,
    roster: Roster,
    request: Request,
    fingerprint: str,
    now: datetime,
    keys: HospitalKeys | None = None,
) -> Member:
    """Issue a certificate, sign the kit, commit the roster that holds both, write the kit.

    With ``keys`` the kit is written first and holds them: once the roster has the member, its only
    copy must not be lost. Without, the roster comes first, so that no certificate is unrecorded.
    """
    authority = read_authority(folder)
    entry = consortium.hospital(request.hospital)
    days = consortium.validity.certificate_days
    holder = Holder(entry.name, entry.hosts, client=True)
    certificate = issue(authority, holder, request.tls_public, now, days)
    key = coordinator_key(folder)
    kit = Kit(
        consortium=consortium.name,
        hospital=entry.name,
        issued_at=write_time(now),
        warn_days=consortium.validity.warn_days,
        hosts=consortium.coordinator.hosts,
        port=consortium.coordinator.port,
        coordinator=key.public,
        authority=pem([authority.certificate]),
        certificate=pem([certificate]),
        signing=request.signing,
        node=request.node,
    )
    before = roster.member(entry.name)
    member = Member(
        hospital=entry.name,
        signing=request.signing,
        node=request.node,
        request=fingerprint,
        requested_at=request.made_at,
        kit=sign_document("kit", asdict(kit), key),
        serials=(*(before.serials if before else ()), f"{certificate.serial_number:x}"),
        tls=(*(before.tls if before else ()), key_hash(request.tls_public)),
    )
    others = tuple(m for m in roster.members if m.hospital != entry.name)
    fresh = replace(roster, number=roster.number + 1, members=(*others, member))
    if keys is not None:
        whole = {**member.kit, "keys": asdict(keys)}
        write_private(folder.kit(entry.name), to_bytes(whole).decode())
    commit(folder, consortium, fresh, now)
    if keys is None:
        write_kit(folder, member)
    return member


def write_kit(folder: ConsortiumFolder, member: Member) -> None:
    """The kit of a member, without private keys, where it is fetched from."""
    write_public(folder.kit(member.hospital), to_bytes(member.kit))


def write_server(folder: ConsortiumFolder, consortium: Consortium, now: datetime) -> None:
    """A fresh TLS key and certificate for the coordinator's hosts, in one file."""
    key = new_tls_key()
    certificate = issue(
        read_authority(folder),
        Holder("coordinator", consortium.coordinator.hosts, client=False),
        load_tls_key(key, "new key").public_key(),
        now,
        consortium.validity.certificate_days,
    )
    write_private(folder.server, key + pem([certificate]))


def commit(
    folder: ConsortiumFolder, consortium: Consortium, roster: Roster, now: datetime
) -> Roster:
    """Replace the roster, then everything that follows from it; the roster."""
    signed = sign_document("roster", asdict(roster), coordinator_key(folder))
    write_public(folder.roster, to_bytes(signed))
    publish(folder, consortium, roster, now)
    return roster


def publish(
    folder: ConsortiumFolder, consortium: Consortium, roster: Roster, now: datetime
) -> None:
    """Node keys to register and the revocation list, as the roster has them; stale ones go."""
    members = {member.hospital: member for member in roster.members}
    for stale in folder.node("x").parent.glob("*.pub"):
        if stale.stem not in members:
            stale.unlink()
    for out in roster.revoked:
        if out.hospital not in members:
            folder.kit(out.hospital).unlink(missing_ok=True)
    for name, member in members.items():
        write_public(folder.node(name), f"{member.node}\n".encode())
    revoked = {
        int(serial, 16): read_time(out.revoked_at)
        for out in roster.revoked
        for serial in out.serials
    }
    days = consortium.validity.certificate_days
    made = make_revocation_list(read_authority(folder), revoked, roster.number, now, days)
    write_public(folder.revocations, made)


def read_authority(folder: ConsortiumFolder) -> Authority:
    """The consortium's certificate and its key.

    Raises:
        BadInput: The key is not there, or others may read it.
    """
    certificate = read_certificate(folder.authority)
    key = load_tls_key(read_private(folder.authority_key), str(folder.authority_key))
    return Authority(certificate, key)
