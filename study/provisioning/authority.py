"""Provisioning at the coordinator: found the consortium, sign requests, renew, revoke.

One command at a time, under a lock. Clock and paths are passed in. Knows nothing of Flower.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from wardround.privacy.errors import BadInput, UntrustedPeer
from wardround.study.provisioning.certificates import key_hash, make_authority, pem
from wardround.study.provisioning.consortium import Consortium
from wardround.study.provisioning.documents import (
    Request,
    make_request,
    open_request,
    read_document,
    read_time,
    same_fingerprint,
    write_time,
)
from wardround.study.provisioning.issuing import (
    commit,
    enrol,
    publish,
    write_kit,
    write_server,
)
from wardround.study.provisioning.keys import (
    HospitalKeys,
    load_tls_key,
    make_private_folder,
    new_secret,
    new_signing_key,
    new_tls_key,
    write_private,
    write_public,
)
from wardround.study.provisioning.roster import ConsortiumFolder, Revoked, Roster, read_roster

_REQUEST_AGE = timedelta(days=30)
_SKEW = timedelta(days=1)  # a request may be this far ahead of our clock


def found(terms: Path, folder: ConsortiumFolder, now: datetime, with_keys: bool = False) -> Roster:
    """Make the authority, the coordinator's keys and certificate, and an empty roster.

    The folder appears whole or not at all. With ``with_keys`` every hospital's keys are made here
    and travel inside its kit: whoever reads the kit on its way can pass for the hospital.

    Raises:
        BadInput: The file is wrong, or the folder exists.
    """
    consortium = Consortium.read(terms)
    if folder.path.exists():
        raise BadInput(f"{folder.path}: exists; --renew renews what is in it")
    folder.path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.path.parent, prefix=".new-consortium-"))
    try:
        draft = ConsortiumFolder(scratch / "consortium")
        make_private_folder(draft.path)
        for part in ("authority", "coordinator", "coordinator/nodes", "kits"):
            make_private_folder(draft.path / part)
        key = new_tls_key()
        made = make_authority(
            consortium.name, load_tls_key(key, "new key"), now, consortium.validity.authority_days
        )
        write_private(draft.authority_key, key)
        write_public(draft.authority, pem([made.certificate]).encode())
        write_private(draft.signing, new_signing_key())
        write_private(draft.secret, new_secret())
        write_public(draft.terms, terms.read_bytes())
        write_server(draft, consortium, now)
        roster = Roster(consortium.name, 1)
        commit(draft, consortium, roster, now)
        if with_keys:
            roster = _enrol_with_keys(draft, consortium, roster, now)
        draft.path.rename(folder.path)
        return roster
    finally:
        shutil.rmtree(scratch)


def renew(terms: Path, folder: ConsortiumFolder, now: datetime, with_keys: bool = False) -> Roster:
    """A new key and certificate for the coordinator's hosts, a fresh revocation list, new terms.

    The authority, the signing key and every member stay. Hospitals that were added to the file may
    ask from now on, or get a kit with keys.

    Raises:
        BadInput: The file is of another consortium, or leaves out a member.
    """
    consortium = Consortium.read(terms)
    with _alone(folder):
        roster = read_roster(folder)
        if roster.consortium != consortium.name:
            raise BadInput(
                f"{terms}: [consortium] name is {consortium.name!r}, but {folder.path} is of "
                f"{roster.consortium!r}"
            )
        known = {hospital.name for hospital in consortium.hospitals}
        for member in roster.members:
            if member.hospital not in known:
                raise BadInput(f"{terms}: leaves out the member {member.hospital}; revoke it first")
        if terms.resolve() != folder.terms.resolve():
            write_public(folder.terms, terms.read_bytes())
        write_server(folder, consortium, now)
        roster = commit(folder, consortium, replace(roster, number=roster.number + 1), now)
        return _enrol_with_keys(folder, consortium, roster, now) if with_keys else roster


def sign_request(
    path: Path,
    folder: ConsortiumFolder,
    now: datetime,
    told: str | None = None,
    renew: bool = False,
) -> Path:
    """Check a hospital's request, enrol it and write its kit, which holds no private key.

    The same request again gives the same kit.

    Args:
        path: The request as it came.
        folder: The coordinator's folder.
        now: Today.
        told: The request's fingerprint as the hospital read it aloud. Not needed to renew: the
            signing key that is enrolled vouches for the new request.
        renew: Give a member a new kit.

    Raises:
        UntrustedPeer: A signature, key, name or date that does not fit; names what.
        BadInput: ``told`` is missing, or the hospital is a member and ``renew`` is not set.
    """
    what = str(path)
    request, fingerprint = open_request(read_document(path), what)
    consortium = Consortium.read(folder.terms)
    with _alone(folder):
        roster = read_roster(folder)
        member = roster.member(request.hospital)
        if member is not None and member.request == fingerprint:
            write_kit(folder, member)
            return folder.kit(member.hospital)
        _check_request(request, consortium, roster, now, what)
        if member is None:
            _check_told(told, fingerprint, what)
        elif not renew:
            raise BadInput(
                f"{what}: {member.hospital} is a member already; --renew replaces its kit"
            )
        elif member.signing != request.signing:
            raise UntrustedPeer(
                f"{what}: is signed with another key than {member.hospital} is enrolled with; if "
                "the hospital lost its key, revoke it and enrol it anew"
            )
        elif read_time(request.made_at) <= read_time(member.requested_at):
            raise UntrustedPeer(f"{what}: is not newer than the request behind the present kit")
        enrol(folder, consortium, roster, request, fingerprint, now)
        return folder.kit(request.hospital)


def revoke(folder: ConsortiumFolder, hospital: str, reason: str, now: datetime) -> Roster:
    """Put a member out: off the roster, its certificates refused, its keys never enrolled again.

    Again, it completes what was interrupted.

    Raises:
        BadInput: It is not a member.
    """
    consortium = Consortium.read(folder.terms)
    with _alone(folder):
        roster = read_roster(folder)
        member = roster.member(hospital)
        if member is None and any(out.hospital == hospital for out in roster.revoked):
            publish(folder, consortium, roster, now)
            return roster
        if member is None:
            members = ", ".join(m.hospital for m in roster.members) or "nobody"
            raise BadInput(f"{hospital!r} is not a member; members: {members}")
        out = Revoked(
            hospital,
            member.signing,
            member.node,
            member.serials,
            member.tls,
            write_time(now),
            reason,
        )
        rest = tuple(m for m in roster.members if m is not member)
        fresh = replace(
            roster, number=roster.number + 1, members=rest, revoked=(*roster.revoked, out)
        )
        return commit(folder, consortium, fresh, now)


def _check_request(
    request: Request, consortium: Consortium, roster: Roster, now: datetime, what: str
) -> None:
    """Raise unless this consortium may enrol the request's keys under its name today."""
    if request.consortium != consortium.name:
        raise UntrustedPeer(f"{what}: is for the consortium {request.consortium!r}")
    consortium.hospital(request.hospital)
    age = now - read_time(request.made_at)
    if not -_SKEW <= age <= _REQUEST_AGE:
        raise UntrustedPeer(
            f"{what}: was made at {request.made_at}; requests hold {_REQUEST_AGE.days} days, "
            f"and it is {write_time(now)}"
        )
    tls = key_hash(request.tls_public)
    for out in roster.revoked:
        if request.signing == out.signing or request.node == out.node or tls in out.tls:
            raise UntrustedPeer(
                f"{what}: asks for a key of {out.hospital}, revoked at {out.revoked_at}"
            )
    for member in roster.members:
        if member.hospital != request.hospital and (
            request.signing == member.signing or request.node == member.node or tls in member.tls
        ):
            raise UntrustedPeer(f"{what}: asks for a key that {member.hospital} is enrolled with")


def _check_told(told: str | None, found: str, what: str) -> None:
    """Raise unless somebody heard this fingerprint from the hospital."""
    if told is None:
        raise BadInput(
            f"{what}: give --fingerprint as the hospital reads it to you; never copy it from the "
            "message that brought the request"
        )
    if not same_fingerprint(told, found):
        raise UntrustedPeer(f"{what}: its fingerprint is {found}, you were told {told}")


def _enrol_with_keys(
    folder: ConsortiumFolder, consortium: Consortium, roster: Roster, now: datetime
) -> Roster:
    """Kits with fresh private keys inside for every hospital that is not a member yet."""
    for hospital in consortium.hospitals:
        if roster.member(hospital.name) is None:
            keys = HospitalKeys.generate()
            signed = make_request(consortium.name, hospital.name, keys, now)
            request, fingerprint = open_request(signed, hospital.name)
            enrol(folder, consortium, roster, request, fingerprint, now, keys)
            roster = read_roster(folder)
    return roster


@contextmanager
def _alone(folder: ConsortiumFolder) -> Iterator[None]:
    """Hold the folder's lock; ``BadInput`` when the folder is missing or somebody has it."""
    if not folder.roster.is_file():
        raise BadInput(f"{folder.path}: not a consortium's folder; make it with provision FILE")
    handle = os.open(folder.path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise BadInput(f"{folder.path}: another provisioning command is at work") from error
    else:
        yield
    finally:
        os.close(handle)
