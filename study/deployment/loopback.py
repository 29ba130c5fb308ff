"""TLS between neighbours: an authority that lives for a moment and signs one certificate.

The consortium's certificates name public hosts; what listens on loopback, or on a network that
only containers of one machine share, gets one of these.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from wardround.study.provisioning.certificates import Holder, issue, make_authority, pem
from wardround.study.provisioning.keys import (
    load_tls_key,
    new_tls_key,
    write_private,
    write_public,
)

HOST = "127.0.0.1"
_DAYS = 365


@dataclass(frozen=True)
class LoopbackTls:
    """A certificate for 127.0.0.1, or a neighbour's name, and the authority to check it with.

    Attributes:
        certificate: Key and certificate in one file.
        authority: Certificate of the authority; its key was thrown away.
    """

    certificate: Path
    authority: Path


def make_loopback_tls(folder: Path, now: datetime) -> LoopbackTls:
    """A fresh certificate in ``folder``; made anew at every start, so it never expires in use."""
    found = LoopbackTls(folder / "loopback.pem", folder / "loopback.crt")
    write_tls(found, (), now)
    return found


def write_tls(found: LoopbackTls, names: tuple[str, ...], now: datetime) -> None:
    """Fill both files: a year, for ``names`` and for loopback."""
    authority = make_authority("wardround loopback", load_tls_key(new_tls_key(), "key"), now, _DAYS)
    key = new_tls_key()
    holder = Holder("loopback", (*names, HOST, "localhost"), client=False)
    public = load_tls_key(key, "key").public_key()
    certificate = issue(authority, holder, public, now, _DAYS)
    write_private(found.certificate, key + pem([certificate]))
    write_public(found.authority, pem([authority.certificate]).encode())
