"""TLS between processes of one machine: an authority that lives in one folder and signs one thing.

The consortium's certificates name public hosts; what listens on loopback gets one of these.
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
    """A certificate for 127.0.0.1 and the authority to check it with.

    Attributes:
        certificate: Key and certificate in one file.
        authority: Certificate of the authority; its key was thrown away.
    """

    certificate: Path
    authority: Path


def make_loopback_tls(folder: Path, now: datetime) -> LoopbackTls:
    """A fresh certificate in ``folder``; made anew at every start, so it never expires in use."""
    found = LoopbackTls(folder / "loopback.pem", folder / "loopback.crt")
    authority = make_authority("wardround loopback", load_tls_key(new_tls_key(), "key"), now, _DAYS)
    key = new_tls_key()
    holder = Holder("loopback", (HOST, "localhost"), client=False)
    public = load_tls_key(key, "key").public_key()
    certificate = issue(authority, holder, public, now, _DAYS)
    write_private(found.certificate, key + pem([certificate]))
    write_public(found.authority, pem([authority.certificate]).encode())
    return found
