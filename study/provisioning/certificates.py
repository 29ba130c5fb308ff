"""X.509: the consortium's authority, the certificates it issues, and its revocation list.

Pure functions of keys and a clock. Keys are on P-256: gRPC refuses Ed25519 certificates. Who is
named in a certificate comes from the consortium file, never from who asks for it. Source: RFC 5280.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import (
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from wardround.privacy.errors import UntrustedPeer

_SKEW = timedelta(hours=1)  # how far a hospital's clock may be behind
PEM = serialization.Encoding.PEM


@dataclass(frozen=True)
class Authority:
    """The consortium's own certificate and the key that signs all others."""

    certificate: x509.Certificate
    key: EllipticCurvePrivateKey = field(repr=False)

    @property
    def identifier(self) -> x509.AuthorityKeyIdentifier:
        """Names this key in what it signs."""
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())


@dataclass(frozen=True)
class Holder:
    """Who a certificate is for.

    Attributes:
        name: Common name.
        hosts: DNS names and IP addresses it may serve under.
        client: Whether it proves identity as a client too.
    """

    name: str
    hosts: tuple[str, ...]
    client: bool


def make_authority(
    consortium: str, key: EllipticCurvePrivateKey, now: datetime, days: int
) -> Authority:
    """A self-signed authority that issues end certificates and no further authorities."""
    name = _name(consortium, "Wardround authority")
    builder = _builder(name, name, key.public_key(), now, now + timedelta(days=days))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(authority=True), critical=True)
    return Authority(builder.sign(key, hashes.SHA256()), key)


def issue(
    authority: Authority, holder: Holder, public: EllipticCurvePublicKey, now: datetime, days: int
) -> x509.Certificate:
    """A certificate for ``holder``; it never outlives the authority."""
    issuer = authority.certificate
    (organisation,) = issuer.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    end = min(now + timedelta(days=days), issuer.not_valid_after_utc)
    builder = _builder(
        _name(str(organisation.value), holder.name), issuer.subject, public, now, end
    )
    purposes = [ExtendedKeyUsageOID.CLIENT_AUTH] if holder.client else []
    if holder.hosts:
        purposes.append(ExtendedKeyUsageOID.SERVER_AUTH)
        names = x509.SubjectAlternativeName(map(_general_name, holder.hosts))
        builder = builder.add_extension(names, critical=False)
    builder = (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(authority.identifier, critical=False)
    )
    return builder.sign(authority.key, hashes.SHA256())


def make_revocation_list(
    authority: Authority,
    revoked: Mapping[int, datetime],
    number: int,
    now: datetime,
    days: int,
) -> bytes:
    """The authority's signed list of serial numbers to refuse, in PEM.

    Args:
        authority: Signs it.
        revoked: When each serial number was revoked.
        number: Grows from list to list.
        now: When it is made.
        days: Until a newer one has to replace it.
    """
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(now - _SKEW)
        .next_update(now + timedelta(days=days))
        .add_extension(authority.identifier, critical=False)
        .add_extension(x509.CRLNumber(number), critical=False)
    )
    for serial, when in sorted(revoked.items()):
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(when)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(authority.key, hashes.SHA256()).public_bytes(PEM)


def check_certificate(
    certificate: x509.Certificate, authority: x509.Certificate, now: datetime, what: str
) -> None:
    """Raise ``UntrustedPeer`` naming ``what`` unless ``authority`` issued it and it holds now."""
    for each, name in ((certificate, what), (authority, f"{what}: the authority")):
        if not each.not_valid_before_utc <= now <= each.not_valid_after_utc:
            raise UntrustedPeer(
                f"{name}: holds from {each.not_valid_before_utc:%Y-%m-%d} "
                f"to {each.not_valid_after_utc:%Y-%m-%d}, and it is {now:%Y-%m-%d}"
            )
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise UntrustedPeer(f"{what}: was not issued by the consortium's authority") from error


def _name(consortium: str, common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, consortium),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: EllipticCurvePublicKey,
    now: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _usage(authority: bool) -> x509.KeyUsage:
    """An authority signs certificates and lists; everybody else signs handshakes."""
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def pem(parts: Iterable[x509.Certificate]) -> str:
    """Certificates one after another, in PEM."""
    return "".join(part.public_bytes(PEM).decode() for part in parts)


def key_hash(public: EllipticCurvePublicKey) -> str:
    """SHA-256 of a public key, hexadecimal; names it whatever certificate it is in."""
    encoded = public.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(encoded).hexdigest()
