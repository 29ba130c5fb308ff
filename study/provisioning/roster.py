"""The coordinator's folder and the roster in it: who is a member, and who was put out.

The roster is one signed file, replaced whole under the next number. Reading it needs the
coordinator's signing key alone, not the authority's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography import x509

from wardround.privacy.errors import BadInput
from wardround.privacy.signing import SigningKey
from wardround.privacy.tables import from_table
from wardround.study.provisioning.certificates import pem
from wardround.study.provisioning.documents import (
    consortium_fingerprint,
    open_document,
    read_document,
)
from wardround.study.provisioning.keys import read_private, signing_key


@dataclass(frozen=True)
class ConsortiumFolder:
    """Everything the coordinator has of a consortium; nobody else may look into it."""

    path: Path

    @property
    def terms(self) -> Path:
        """The consortium file as it was last used."""
        return self.path / "consortium.toml"

    @property
    def roster(self) -> Path:
        """Members and revoked, signed."""
        return self.path / "roster.json"

    @property
    def authority_key(self) -> Path:
        """Signs certificates. Only provisioning needs it: it may be kept elsewhere."""
        return self.path / "authority" / "ca.key"

    @property
    def authority(self) -> Path:
        """The consortium's certificate."""
        return self.path / "coordinator" / "ca.crt"

    @property
    def server(self) -> Path:
        """TLS key and certificate of the coordinator in one file."""
        return self.path / "coordinator" / "server.pem"

    @property
    def signing(self) -> Path:
        """Ed25519 key that signs plans and the roster."""
        return self.path / "coordinator" / "signing.pem"

    @property
    def secret(self) -> Path:
        """Shared by the SuperLink and its SuperExec."""
        return self.path / "coordinator" / "superexec.secret"

    @property
    def revocations(self) -> Path:
        """Serial numbers that TLS proxies refuse."""
        return self.path / "coordinator" / "ca.crl"

    def node(self, hospital: str) -> Path:
        """The public key that ``flwr supernode register`` takes."""
        return self.path / "coordinator" / "nodes" / f"{hospital}.pub"

    def kit(self, hospital: str) -> Path:
        """What is sent to a hospital."""
        return self.path / "kits" / f"{hospital}.kit.json"


@dataclass(frozen=True)
class Member:
    """A hospital the coordinator enrols.

    Attributes:
        hospital: Its name.
        signing: Public key that its answers are signed with.
        node: Public key that Flower registers.
        request: Fingerprint of the request behind the present kit.
        requested_at: When that request was made.
        kit: The present kit's document with its signature.
        serials: Serial numbers, in hexadecimal, of every certificate it was ever issued.
        tls: Hash of every TLS key it was ever issued one for.
    """

    hospital: str
    signing: str
    node: str
    request: str
    requested_at: str
    kit: Mapping[str, Any]
    serials: tuple[str, ...]
    tls: tuple[str, ...]

    def __post_init__(self) -> None:
        try:
            _ = self.certificate
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError("kit holds no certificate in PEM form") from None

    @property
    def certificate(self) -> x509.Certificate:
        """Its present certificate."""
        return x509.load_pem_x509_certificate(self.kit["document"]["certificate"].encode())


@dataclass(frozen=True)
class Revoked:
    """A hospital that was put out: none of its keys is ever accepted again."""

    hospital: str
    signing: str
    node: str
    serials: tuple[str, ...]
    tls: tuple[str, ...]
    revoked_at: str
    reason: str


@dataclass(frozen=True)
class Roster:
    """Who is a member and who was put out; replaced whole, under the next number."""

    consortium: str
    number: int
    members: tuple[Member, ...] = ()
    revoked: tuple[Revoked, ...] = ()

    def member(self, name: str) -> Member | None:
        """The member called ``name``, if there is one."""
        return next((m for m in self.members if m.hospital == name), None)


def read_certificate(path: Path) -> x509.Certificate:
    """The first certificate in a PEM file, whatever else it holds.

    Raises:
        BadInput: It is missing or holds none.
    """
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        raise BadInput(f"{path}: no certificate could be read from it") from None


def read_roster(folder: ConsortiumFolder) -> Roster:
    """The roster, once the coordinator's own signature on it is verified.

    Raises:
        WardroundError: It is missing, damaged or signed by somebody else.
    """
    what = str(folder.roster)
    signer = coordinator_key(folder).public
    fields = open_document(read_document(folder.roster), "roster", signer, what)
    return from_table(Roster, fields, what)


def enrolled_keys(folder: ConsortiumFolder, now: datetime) -> dict[str, str]:
    """Public signing key of every member whose certificate holds today, by hospital."""
    return {
        member.hospital: member.signing
        for member in read_roster(folder).members
        if now <= member.certificate.not_valid_after_utc
    }


def coordinator_key(folder: ConsortiumFolder) -> SigningKey:
    """The key that signs plans, the roster and kits."""
    return signing_key(read_private(folder.signing), str(folder.signing))


def fingerprint_of(folder: ConsortiumFolder) -> str:
    """The consortium's fingerprint, to be read to every hospital."""
    authority = pem([read_certificate(folder.authority)])
    return consortium_fingerprint(authority, coordinator_key(folder).public)
