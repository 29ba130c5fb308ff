"""What will end when, and what to say about it; the clock is passed in."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509

from wardround.privacy.errors import BadInput
from wardround.study.provisioning.consortium import Consortium
from wardround.study.provisioning.hospital import HospitalFolder, installed_kit
from wardround.study.provisioning.roster import (
    ConsortiumFolder,
    read_certificate,
    read_roster,
)


@dataclass(frozen=True)
class Ending:
    """A certificate or list and the last moment it holds.

    Attributes:
        what: For a person: ``certificate of north``.
        ends_at: UTC.
        remedy: What to do about it.
    """

    what: str
    ends_at: datetime
    remedy: str

    def days_left(self, now: datetime) -> int:
        """Whole days from ``now``; below 0 once it has ended."""
        return math.floor((self.ends_at - now) / timedelta(days=1))

    def warning(self, now: datetime, warn_days: int) -> str | None:
        """One line when it has ended or ends within ``warn_days``."""
        days = self.days_left(now)
        if days < 0:
            return f"{self.what} EXPIRED on {self.ends_at:%Y-%m-%d}: {self.remedy}"
        if days <= warn_days:
            return f"{self.what} expires in {days} days, on {self.ends_at:%Y-%m-%d}: {self.remedy}"
        return None


_NEW_CONSORTIUM = "found the consortium anew in another folder"


def coordinator_endings(folder: ConsortiumFolder) -> list[Ending]:
    """Everything in the coordinator's folder that ends."""
    server, authority = read_certificate(folder.server), read_certificate(folder.authority)
    try:
        revocations = x509.load_pem_x509_crl(folder.revocations.read_bytes())
    except (OSError, ValueError) as error:
        raise BadInput(f"{folder.revocations}: no revocation list; --renew writes it") from error
    roster = read_roster(folder)
    renew = "wardround provision consortium.toml --renew"
    number = revocations.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    # A list older than the roster was interrupted while being written: it ended when it was made.
    until = revocations.next_update_utc if number == roster.number else None
    found = [
        Ending("the authority", authority.not_valid_after_utc, _NEW_CONSORTIUM),
        Ending("the coordinator's certificate", server.not_valid_after_utc, renew),
        Ending("the revocation list", until or revocations.last_update_utc, renew),
    ]
    return found + [
        Ending(
            f"the certificate of {member.hospital}",
            member.certificate.not_valid_after_utc,
            "the hospital runs wardround provision request --renew",
        )
        for member in roster.members
    ]


def hospital_endings(folder: HospitalFolder) -> list[Ending]:
    """Everything in a hospital's folder that ends."""
    own, authority = read_certificate(folder.certificate), read_certificate(folder.authority)
    return [
        Ending("the authority", authority.not_valid_after_utc, "ask the coordinator"),
        Ending(
            "this hospital's certificate",
            own.not_valid_after_utc,
            "wardround provision request --renew",
        ),
    ]


def endings(path: Path) -> tuple[list[Ending], int]:
    """What ends in a coordinator's or a hospital's folder, and how many days before to warn.

    Raises:
        BadInput: It is neither.
    """
    consortium, hospital = ConsortiumFolder(path), HospitalFolder(path)
    if consortium.roster.is_file():
        days = Consortium.read(consortium.terms).validity.warn_days
        return coordinator_endings(consortium), days
    if hospital.kit.is_file():
        return hospital_endings(hospital), installed_kit(hospital).warn_days
    raise BadInput(f"{path}: neither a consortium's folder nor a hospital with an installed kit")


def warnings(found: Iterable[Ending], now: datetime, warn_days: int) -> list[str]:
    """The lines to show, the most urgent first."""
    lines = [(ending.ends_at, ending.warning(now, warn_days)) for ending in found]
    return [line for _, line in sorted(lines, key=lambda pair: pair[0]) if line is not None]
