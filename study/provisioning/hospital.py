"""Provisioning at a hospital: make keys here and ask, then install the kit that comes back.

Private keys are made in the hospital's folder and stay there. A renewal makes a new TLS key; the
signing key, which the ledger is signed with, and the node key stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography import x509

from wardround.privacy.errors import BadInput, UntrustedPeer
from wardround.study.provisioning.certificates import check_certificate
from wardround.study.provisioning.consortium import Consortium
from wardround.study.provisioning.documents import (
    Kit,
    OpenedKit,
    make_request,
    open_kit,
    open_request,
    read_document,
    read_time,
    same_fingerprint,
    to_bytes,
)
from wardround.study.provisioning.keys import (
    HospitalKeys,
    load_node_key,
    load_tls_key,
    make_private_folder,
    new_node_key,
    new_secret,
    new_signing_key,
    new_tls_key,
    node_public,
    read_or_make,
    read_private,
    signing_key,
    write_private,
    write_public,
)


@dataclass(frozen=True)
class HospitalFolder:
    """Where a hospital's provisioning files are; the same folder that its custodian uses."""

    path: Path

    @property
    def signing(self) -> Path:
        """Ed25519 key of the custodian, where ``client.hospital`` looks for it."""
        return self.path / "keys" / "signing.pem"

    @property
    def node(self) -> Path:
        """P-384 key of the SuperNode."""
        return self.path / "keys" / "node"

    @property
    def waiting(self) -> Path:
        """TLS key of a request that was not answered yet."""
        return self.path / "keys" / "tls.key"

    @property
    def secret(self) -> Path:
        """Shared by the SuperNode and whatever executes for it."""
        return self.path / "keys" / "superexec.secret"

    @property
    def certificate(self) -> Path:
        """TLS key and certificate together: one file, so that they cannot disagree."""
        return self.path / "tls.pem"

    @property
    def authority(self) -> Path:
        """The consortium's certificate."""
        return self.path / "ca.crt"

    @property
    def kit(self) -> Path:
        """The installed kit, without private keys; written last."""
        return self.path / "kit.json"


def request_kit(
    consortium: Consortium,
    hospital: str,
    folder: HospitalFolder,
    out: Path,
    now: datetime,
    renew: bool = False,
) -> str:
    """Make the keys that are missing, write a signed request to ``out``; its fingerprint.

    Privacy: ``out`` holds public keys only.

    Raises:
        BadInput: ``hospital`` is not in the file, or something is there and ``renew`` is not set.
    """
    consortium.hospital(hospital)
    if not renew:
        for path in (folder.kit, out):
            _refuse_existing(path)
    elif not folder.kit.exists():
        raise BadInput(f"{folder.path}: nothing to renew, no kit was installed; leave out --renew")
    make_private_folder(folder.path)
    if renew:
        write_private(folder.waiting, new_tls_key())
    keys = HospitalKeys(
        read_or_make(folder.signing, new_signing_key),
        read_or_make(folder.node, new_node_key),
        read_or_make(folder.waiting, new_tls_key),
    )
    signed = make_request(consortium.name, hospital, keys, now)
    _, found = open_request(signed, str(out))
    write_public(out, to_bytes(signed))
    return found


def install_kit(
    path: Path,
    folder: HospitalFolder,
    now: datetime,
    told: str | None = None,
    renew: bool = False,
) -> Kit:
    """Check the kit in ``path`` against this hospital's keys and put it in place.

    Doing it again after a crash completes it. The kit file is written last.

    Args:
        path: The kit as the coordinator sent it.
        folder: The hospital's folder.
        now: Today.
        told: The consortium's fingerprint as the coordinator told it by another way; needed once.
        renew: Replace an installed kit.

    Raises:
        UntrustedPeer: Not this consortium's, not for these keys, out of date or expired.
        BadInput: A kit is installed and ``renew`` is not set, or ``told`` is missing.
    """
    opened = open_kit(read_document(path), str(path))
    kit = opened.kit
    _check_origin(kit, _installed(folder, opened, renew), told, str(path))
    certificate = x509.load_pem_x509_certificate(kit.certificate.encode())
    authority = x509.load_pem_x509_certificate(kit.authority.encode())
    check_certificate(certificate, authority, now, str(path))
    make_private_folder(folder.path)
    tls = _own_keys(opened, folder, certificate, str(path))
    read_or_make(folder.secret, new_secret)
    write_private(folder.certificate, tls.strip() + "\n" + kit.certificate)
    write_public(folder.authority, kit.authority.encode())
    write_public(folder.node.with_suffix(".pub"), f"{kit.node}\n".encode())
    write_public(folder.kit, to_bytes(opened.signed))
    folder.waiting.unlink(missing_ok=True)
    return kit


def installed_kit(folder: HospitalFolder) -> Kit:
    """The kit in place; ``BadInput`` when there is none."""
    return open_kit(read_document(folder.kit), str(folder.kit)).kit


def _installed(folder: HospitalFolder, new: OpenedKit, renew: bool) -> Kit | None:
    """The kit that ``new`` would replace; None when there is none."""
    if not folder.kit.exists():
        return None
    old = installed_kit(folder)
    if old == new.kit:
        return old  # the same again: completes what was interrupted
    if not renew:
        _refuse_existing(folder.kit)
    if read_time(new.kit.issued_at) < read_time(old.issued_at):
        raise UntrustedPeer(
            f"the kit of {new.kit.issued_at} is older than the installed one of {old.issued_at}"
        )
    return old


def _check_origin(kit: Kit, old: Kit | None, told: str | None, what: str) -> None:
    """Raise unless the kit comes from the consortium this hospital decided to trust."""
    found = kit.consortium_fingerprint
    if old is not None:
        if old.consortium_fingerprint != found or old.hospital != kit.hospital:
            raise UntrustedPeer(f"{what}: is not from the consortium whose kit is installed")
    elif told is None:
        raise BadInput(
            f"{what}: give --fingerprint as the coordinator reads it to you; never copy it "
            "from the message that brought the kit"
        )
    elif not same_fingerprint(told, found):
        raise UntrustedPeer(
            f"{what}: its consortium's fingerprint is {found}, you were told {told}"
        )


def _own_keys(
    opened: OpenedKit, folder: HospitalFolder, certificate: x509.Certificate, what: str
) -> str:
    """The TLS key that ``certificate`` is for; keys that came with the kit are written.

    Raises:
        UntrustedPeer: The kit was made for other keys than this hospital's.
    """
    kit = opened.kit
    if opened.keys is not None:
        _check_keys(kit, opened.keys.signing, opened.keys.node, f"{what} keys")
        _place(folder.signing, opened.keys.signing)
        _place(folder.node, opened.keys.node)
    _check_keys(kit, read_private(folder.signing), read_private(folder.node), what)
    candidates = [opened.keys.tls] if opened.keys is not None else []
    candidates += [read_private(p) for p in (folder.waiting, folder.certificate) if p.exists()]
    for text in candidates:
        if load_tls_key(text, f"{what}: TLS key").public_key() == certificate.public_key():
            return text.split("-----BEGIN CERTIFICATE-----")[0]
    raise UntrustedPeer(
        f"{what}: its certificate is for a TLS key that is not in {folder.path}; it answers "
        "another request than the last one made here"
    )


def _check_keys(kit: Kit, signing: str, node: str, what: str) -> None:
    """Raise unless both private keys belong to the public ones that were certified."""
    if signing_key(signing, what).public != kit.signing:
        raise UntrustedPeer(f"{what}: was made for another signing key")
    if node_public(load_node_key(node, what)) != kit.node:
        raise UntrustedPeer(f"{what}: was made for another node key")


def _place(path: Path, text: str) -> None:
    """Write a private key that came with a kit; never over another one."""
    if read_or_make(path, lambda: text) != text:
        raise BadInput(f"{path}: holds another key than the kit brings; nothing was overwritten")


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise BadInput(f"{path}: exists; --renew replaces it")


def files(folder: HospitalFolder) -> dict[str, Any]:
    """What to hand to which process, by purpose."""
    return {
        "signing_key": str(folder.signing),
        "node_key": str(folder.node),
        "tls": str(folder.certificate),
        "authority": str(folder.authority),
        "superexec_secret": str(folder.secret),
        "kit": str(folder.kit),
    }
