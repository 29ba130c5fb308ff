"""The signed documents of provisioning: a hospital's request, its kit, the coordinator's roster.

Each is one JSON object ``{"document": …, "signature": …}``: short enough to read before trusting,
with nothing to unpack. The signature is Ed25519 over the canonical document and its kind, so none
passes for another. Knows nothing of files' places or of who is allowed what.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_public_key,
)

from wardround.privacy.envelope import parse_document
from wardround.privacy.errors import BadInput, BadMessage, UntrustedPeer
from wardround.privacy.signing import SigningKey, canonical, sha256, verify
from wardround.privacy.tables import from_table
from wardround.study.provisioning.certificates import PEM
from wardround.study.provisioning.consortium import check_name
from wardround.study.provisioning.keys import (
    HospitalKeys,
    load_node_key,
    load_tls_key,
    node_public,
    signing_key,
)

SCHEMA = 1
_SIZE_BYTES = 1 << 22  # a roster of a thousand hospitals is about 2 MB
_PUBLIC_KEY = re.compile(r"[0-9a-f]{64}")
_TIME = "%Y-%m-%dT%H:%M:%SZ"


def write_time(moment: datetime) -> str:
    """A moment in UTC, to the second."""
    return moment.astimezone(UTC).strftime(_TIME)


def read_time(text: str) -> datetime:
    """The moment ``write_time`` wrote; ``ValueError`` for anything else."""
    moment = datetime.strptime(text, _TIME).replace(tzinfo=UTC)
    if write_time(moment) != text:
        raise ValueError(f"{text!r} is not a time in the form 2026-01-31T12:00:00Z")
    return moment


def fingerprint(document: Mapping[str, Any]) -> str:
    """128 bits of SHA-256 over the canonical document, to be read aloud: ``3f9c-…``, 8 groups."""
    digits = sha256(canonical(document))[:32]
    return "-".join(digits[i : i + 4] for i in range(0, 32, 4))


def same_fingerprint(told: str, found: str) -> bool:
    """Whether what a person typed is ``found``; blanks, hyphens and case do not matter."""
    return re.sub(r"[\s:-]", "", told).lower() == found.replace("-", "")


@dataclass(frozen=True)
class Request:
    """What a hospital asks to be certified: public keys, and proof that it has the private ones.

    Attributes:
        consortium: Name of the consortium it means.
        hospital: Who asks.
        made_at: When; a later request replaces an earlier one, never the other way round.
        signing: Ed25519 public key, 64 hexadecimal digits; signs the document.
        node: P-384 public key in OpenSSH form.
        certificate_request: PKCS #10 in PEM for the TLS key; of what it says only the key counts.
        node_proof: ECDSA signature of all other fields with the node key.
    """

    consortium: str
    hospital: str
    made_at: str
    signing: str
    node: str
    certificate_request: str
    node_proof: str = ""

    def __post_init__(self) -> None:
        read_time(self.made_at)
        check_name("hospital", self.hospital)
        if not _PUBLIC_KEY.fullmatch(self.signing):
            raise ValueError("signing is not a public key of 64 hexadecimal digits")

    @property
    def tls_public(self) -> ec.EllipticCurvePublicKey:
        """The key to certify; its private half signed ``certificate_request``.

        Raises:
            UntrustedPeer: It did not, or the key is not on P-256.
        """
        try:
            found = x509.load_pem_x509_csr(self.certificate_request.encode())
            public, proven = found.public_key(), found.is_signature_valid
        except (ValueError, UnsupportedAlgorithm, InvalidSignature):
            proven, public = False, None
        if not proven:
            raise UntrustedPeer(f"{self.hospital}: certificate_request is not signed by its key")
        if not isinstance(public, ec.EllipticCurvePublicKey) or public.curve.name != "secp256r1":
            raise UntrustedPeer(f"{self.hospital}: certificate_request is not for a P-256 key")
        return public

    def with_proof(self, node_key: ec.EllipticCurvePrivateKey) -> Request:
        """The same request, with ``node_proof``."""
        proof = node_key.sign(self._proven(), ec.ECDSA(hashes.SHA384())).hex()
        return Request(**(asdict(self) | {"node_proof": proof}))

    def check_proofs(self) -> None:
        """Raise ``UntrustedPeer`` unless it was made with the node key and the TLS key it names."""
        try:
            key = load_ssh_public_key(self.node.encode())
            if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp384r1":
                raise ValueError
            # Spelt in one way only, or a revoked key could come back with a comment.
            if key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH) != self.node.encode():
                raise ValueError
            key.verify(bytes.fromhex(self.node_proof), self._proven(), ec.ECDSA(hashes.SHA384()))
        except (
            ValueError,
            UnsupportedAlgorithm,
            NotImplementedError,  # what the library says to a compressed point
            InvalidSignature,
        ) as error:
            raise UntrustedPeer(f"{self.hospital}: node_proof is not by the node key") from error
        _ = self.tls_public

    def _proven(self) -> bytes:
        return b"wardround node key\n" + canonical(asdict(self) | {"node_proof": ""})


@dataclass(frozen=True)
class Kit:
    """What a hospital needs to take part, and nothing secret.

    Attributes:
        consortium: Name of the consortium.
        hospital: Whom it is for.
        issued_at: When; an older kit never replaces a newer one.
        warn_days: How many days before an end to warn.
        hosts: Where the coordinator is.
        port: On which port.
        coordinator: Public key that signs plans; 64 hexadecimal digits; signs this document.
        authority: The consortium's certificate in PEM.
        certificate: The hospital's own, in PEM.
        signing: The hospital's public signing key, as it asked.
        node: The hospital's public node key, as it asked.
    """

    consortium: str
    hospital: str
    issued_at: str
    warn_days: int
    hosts: tuple[str, ...]
    port: int
    coordinator: str
    authority: str
    certificate: str
    signing: str
    node: str

    def __post_init__(self) -> None:
        read_time(self.issued_at)
        check_name("hospital", self.hospital)
        if not _PUBLIC_KEY.fullmatch(self.coordinator):
            raise ValueError("coordinator is not a public key of 64 hexadecimal digits")
        for name in ("authority", "certificate"):
            try:
                _ = x509.load_pem_x509_certificate(getattr(self, name).encode())
            except ValueError:
                raise ValueError(f"{name} is not a certificate in PEM form") from None

    @property
    def consortium_fingerprint(self) -> str:
        """What a hospital compares with what the coordinator told it by another way."""
        return consortium_fingerprint(self.authority, self.coordinator)


def consortium_fingerprint(authority: str, coordinator: str) -> str:
    """The fingerprint of a consortium: of its certificate and of its coordinator's signing key."""
    certificate = x509.load_pem_x509_certificate(authority.encode())
    return fingerprint(
        {"authority": certificate.fingerprint(hashes.SHA256()).hex(), "coordinator": coordinator}
    )


def sign_document(kind: str, document: Mapping[str, Any], key: SigningKey) -> dict[str, Any]:
    """``document`` with its schema, kind and signature."""
    whole = {"schema": SCHEMA, "kind": kind, **document}
    return {"document": whole, "signature": key.sign(_signed(kind, whole))}


def open_document(found: Mapping[str, Any], kind: str, signer: str, what: str) -> dict[str, Any]:
    """The document's fields, once its signature is verified.

    Args:
        found: The whole JSON object.
        kind: What it must be.
        signer: Name of the field that holds the signer's public key, or that key itself.
        what: Names it in messages.

    Raises:
        BadMessage: It is not such a document.
        UntrustedPeer: Its signature does not verify.
    """
    document, signature = found.get("document"), found.get("signature")
    if not isinstance(document, dict) or not isinstance(signature, str):
        raise BadMessage(f"{what}: expected an object with document and signature")
    if document.get("kind") != kind:
        raise BadMessage(f"{what}: kind is {document.get('kind')!r}; expected {kind!r}")
    if document.get("schema") != SCHEMA:
        raise BadMessage(
            f"{what}: schema is {document.get('schema')!r}; this version reads {SCHEMA}"
        )
    public = document.get(signer, signer)
    try:
        signed = _signed(kind, document)
    except (ValueError, RecursionError) as error:
        raise BadMessage(f"{what}: holds a value that no document of this kind has") from error
    verify(public if isinstance(public, str) else "", signed, signature, what)
    return {name: value for name, value in document.items() if name not in ("schema", "kind")}


def _signed(kind: str, document: Mapping[str, Any]) -> bytes:
    return b"wardround provisioning " + kind.encode() + b"\n" + canonical(document)


def to_bytes(document: Mapping[str, Any]) -> bytes:
    """How documents lie on disk: readable, one key a line."""
    return (json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def read_document(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``; ``BadInput`` or ``BadMessage`` names the file."""
    try:
        with path.open("rb") as file:
            raw = file.read(_SIZE_BYTES + 1)
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from error
    if len(raw) > _SIZE_BYTES:
        raise BadMessage(f"{path}: more than {_SIZE_BYTES} bytes; not a provisioning document")
    return parse_document(raw, str(path))


@dataclass(frozen=True)
class OpenedKit:
    """A kit whose signature verified, with the private keys it came with, if any."""

    kit: Kit
    signed: Mapping[str, Any]
    keys: HospitalKeys | None = field(default=None, repr=False)


def open_request(found: Mapping[str, Any], what: str) -> tuple[Request, str]:
    """A request whose every signature verified, and its fingerprint.

    Raises:
        WardroundError: Naming ``what`` and what is wrong with it.
    """
    fields = open_document(found, "request", "signing", what)
    request = from_table(Request, fields, what)
    try:
        request.check_proofs()
    except UntrustedPeer as error:
        raise UntrustedPeer(f"{what}: {error}") from error
    return request, fingerprint(found["document"])


def open_kit(found: Mapping[str, Any], what: str) -> OpenedKit:
    """A kit signed by the coordinator it names; who that is, the caller has to ask.

    Raises:
        WardroundError: Naming ``what`` and what is wrong with it.
    """
    fields = open_document(found, "kit", "coordinator", what)
    keys = from_table(HospitalKeys, found["keys"], f"{what} keys") if "keys" in found else None
    signed = {name: found[name] for name in ("document", "signature")}
    return OpenedKit(from_table(Kit, fields, what), signed, keys)


def make_request(
    consortium: str, hospital: str, keys: HospitalKeys, made_at: datetime
) -> dict[str, Any]:
    """A signed request for ``hospital``'s public keys; its private ones stay behind."""
    signer = signing_key(keys.signing, "signing key")
    node = load_node_key(keys.node, "node key")
    asked = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    tls = load_tls_key(keys.tls, "TLS key")
    request = Request(
        consortium=consortium,
        hospital=hospital,
        made_at=write_time(made_at),
        signing=signer.public,
        node=node_public(node),
        certificate_request=asked.sign(tls, hashes.SHA256()).public_bytes(PEM).decode(),
    ).with_proof(node)
    return sign_document("request", asdict(request), signer)
