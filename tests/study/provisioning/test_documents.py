"""Requests and kits: what was changed on the way is refused, by name, and nothing is written."""

from __future__ import annotations

import base64
import copy
import json
import os
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround.privacy.disk import Disk
from wardround.privacy.errors import BadInput, UntrustedPeer, WardroundError
from wardround.privacy.signing import SigningKey
from wardround.study.provisioning.authority import found, renew, revoke, sign_request
from wardround.study.provisioning.documents import (
    Request,
    open_kit,
    open_request,
    read_document,
    sign_document,
)
from wardround.study.provisioning.hospital import HospitalFolder, install_kit
from wardround.study.provisioning.keys import HospitalKeys, load_node_key
from wardround.study.provisioning.roster import enrolled_keys, fingerprint_of, read_roster

World = Any


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder``."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def signed_again(document: dict[str, Any], world: World, name: str) -> dict[str, Any]:
    """A changed request with a true signature: what a dishonest hospital can send."""
    fields = {k: v for k, v in document.items() if k not in ("schema", "kind")}
    return sign_document("request", fields, SigningKey.load_or_create(world.hospital(name).signing))


def test_every_changed_field_of_a_request_is_refused_and_named(world: World) -> None:
    told = world.request("west")
    path, before = world.request_path("west"), tree(world.coordinator.path)
    whole = json.loads(path.read_text(encoding="utf-8"))
    fields = list(whole["document"])
    assert len(fields) == 9
    for field in fields:
        changed = copy.deepcopy(whole)
        value = changed["document"][field]
        changed["document"][field] = value + 1 if isinstance(value, int) else f"{value}x"
        path.write_text(json.dumps(changed), encoding="utf-8")
        with pytest.raises(WardroundError, match=r"west\.request\.json"):
            sign_request(path, world.coordinator, world.now, told)
    assert tree(world.coordinator.path) == before


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("node", "node_proof is not by the node key"),
        ("certificate_request", "certificate_request is not"),
        ("hospital", "node_proof"),
        ("made_at", "node_proof"),
    ],
)
def test_a_request_for_keys_of_others_is_refused(world: World, field: str, message: str) -> None:
    """North signs truly, but puts in what is west's."""
    world.request("west")
    west = json.loads(world.request_path("west").read_text(encoding="utf-8"))["document"]
    mine = json.loads(world.request_path("north").read_text(encoding="utf-8"))["document"]
    west["made_at"] = "2020-01-01T00:00:00Z"
    mine[field] = west[field]
    if field == "certificate_request":  # proven with north's own node key, signed by nobody's
        fields = {k: v for k, v in mine.items() if k not in ("schema", "kind")}
        broken = fields | {field: _with_broken_signature(west[field])}
        node = load_node_key(world.hospital("north").node.read_text(encoding="utf-8"), "node")
        mine |= asdict(Request(**broken).with_proof(node))
    with pytest.raises(UntrustedPeer, match=message):
        open_request(signed_again(mine, world, "north"), "r")


def _compressed(key: bytes) -> bytes:
    """An OpenSSH key whose points (97 bytes on P-384, from 0x04) say they are compressed."""
    point = b"\0\0\0\x61"
    assert point + b"\x04" in key
    return key.replace(point + b"\x04", point + b"\x02")


def test_keys_with_compressed_points_are_refused(world: World) -> None:
    """The library answers them with NotImplementedError, in a file as in a hospital's request."""
    mine = json.loads(world.request_path("north").read_text(encoding="utf-8"))["document"]
    kind, blob = mine["node"].split()
    mine["node"] = f"{kind} {base64.b64encode(_compressed(base64.b64decode(blob))).decode()}"
    with pytest.raises(UntrustedPeer, match="node_proof is not by the node key"):
        open_request(signed_again(mine, world, "north"), "r")
    first, *middle, last = world.hospital("north").node.read_text(encoding="utf-8").splitlines()
    body = base64.b64encode(_compressed(base64.b64decode("".join(middle)))).decode()
    with pytest.raises(BadInput, match="not a private key"):
        load_node_key(f"{first}\n{body}\n{last}\n", "node")


def _with_broken_signature(request: str) -> str:
    """A PKCS #10 request whose last bit, part of its signature, is another."""
    der = bytearray(x509.load_pem_x509_csr(request.encode()).public_bytes(Encoding.DER))
    der[-1] ^= 1
    return x509.load_der_x509_csr(bytes(der)).public_bytes(Encoding.PEM).decode()


@settings(max_examples=80, deadline=None)
@given(
    found=st.dictionaries(
        st.sampled_from(("document", "signature", "keys")),
        st.text(max_size=5)
        | st.dictionaries(
            st.sampled_from(("schema", "kind", "signing", "coordinator", "hospital")),
            st.sampled_from(("request", "kit", "ab" * 32)) | st.integers(1, 2) | st.floats(),
        ),
    )
)
def test_junk_documents_never_crash(found: dict[str, Any]) -> None:
    for open_it in (open_request, open_kit):
        with pytest.raises(WardroundError, match=r"^f"):
            open_it(found, "f")


def test_a_request_needs_its_fingerprint_by_another_way(world: World) -> None:
    told = world.request("west")
    sign = (world.request_path("west"), world.coordinator, world.now)
    with pytest.raises(BadInput, match="give --fingerprint"):
        sign_request(*sign)
    with pytest.raises(UntrustedPeer, match="you were told"):
        sign_request(*sign, told[:-1] + ("0" if told[-1] != "0" else "1"))
    kit = sign_request(*sign, told.upper().replace("-", " "))
    again = kit.read_bytes()
    kit.unlink()
    assert sign_request(*sign).read_bytes() == again  # the same request, the same kit
    assert len(read_roster(world.coordinator).members[-1].serials) == 1


@pytest.mark.parametrize("days", [-31, 2])
def test_a_request_from_another_time_is_refused(world: World, days: int) -> None:
    told = world.request("west", world.now + timedelta(days=days))
    with pytest.raises(UntrustedPeer, match="requests hold 30 days"):
        sign_request(world.request_path("west"), world.coordinator, world.now, told)


def test_a_renewal_is_vouched_for_by_the_enrolled_key(world: World) -> None:
    place, later = world.hospital("north"), world.now + timedelta(days=300)
    first = world.request_path("north").read_bytes()
    signing, node, tls = (p.read_bytes() for p in (place.signing, place.node, place.certificate))
    world.request("north", later, renew=True)
    path = world.request_path("north")
    with pytest.raises(BadInput, match="is a member already; --renew"):
        sign_request(path, world.coordinator, later)
    kit = sign_request(path, world.coordinator, later, renew=True)
    with pytest.raises(BadInput, match=r"kit\.json: exists; --renew"):
        install_kit(kit, place, later)
    install_kit(kit, place, later, renew=True)
    assert (place.signing.read_bytes(), place.node.read_bytes()) == (signing, node)
    assert place.certificate.read_bytes() != tls
    path.write_bytes(first)  # an old request, sent again
    with pytest.raises(UntrustedPeer, match="not newer"):
        sign_request(path, world.coordinator, world.now, renew=True)


def test_another_signing_key_cannot_renew(world: World, tmp_path: Path) -> None:
    thief = type(world)(tmp_path / "thief", world.now + timedelta(hours=1))
    thief.root.mkdir()
    thief.terms.write_bytes(world.terms.read_bytes())
    told = thief.request("north")
    with pytest.raises(UntrustedPeer, match="signed with another key"):
        sign_request(thief.request_path("north"), world.coordinator, thief.now, told, renew=True)


def test_revoked_keys_never_come_back(world: World) -> None:
    place = world.hospital("north")
    revoke(world.coordinator, "north", "stolen", world.now)
    assert enrolled_keys(world.coordinator, world.now) == {}
    assert not world.coordinator.node("north").exists()
    assert not world.coordinator.kit("north").exists()
    told = world.request("north", world.now, renew=True)
    with pytest.raises(UntrustedPeer, match="asks for a key of north, revoked at"):
        sign_request(world.request_path("north"), world.coordinator, world.now, told)
    for path in (place.signing, place.waiting):  # the node key alone is enough to be known again
        path.unlink()
    told = world.request("north", world.now, renew=True)
    with pytest.raises(UntrustedPeer, match="asks for a key of north, revoked at"):
        sign_request(world.request_path("north"), world.coordinator, world.now, told)
    place.node.unlink()
    told = world.request("north", world.now, renew=True)
    sign_request(world.request_path("north"), world.coordinator, world.now, told)
    assert list(enrolled_keys(world.coordinator, world.now)) == ["north"]
    assert [out.reason for out in read_roster(world.coordinator).revoked] == ["stolen"]


def test_a_member_ends_with_its_certificate(world: World) -> None:
    assert list(enrolled_keys(world.coordinator, world.now)) == ["north"]
    assert enrolled_keys(world.coordinator, world.now + timedelta(days=366)) == {}


def test_a_name_cannot_write_on_the_terminal(world: World) -> None:
    mine = json.loads(world.request_path("north").read_text(encoding="utf-8"))["document"]
    mine["hospital"] = "north\x1b[2J"
    with pytest.raises(BadInput, match="lower-case letters") as caught:
        open_request(signed_again(mine, world, "north"), "r")
    assert "\x1b" not in str(caught.value)


def test_a_changed_roster_is_refused(world: World) -> None:
    path = world.coordinator.roster
    path.write_text(path.read_text(encoding="utf-8").replace("north", "nurth"), encoding="utf-8")
    with pytest.raises(UntrustedPeer, match=r"roster\.json: the signature"):
        enrolled_keys(world.coordinator, world.now)


def test_a_kit_is_for_one_hospital_and_one_consortium(world: World, tmp_path: Path) -> None:
    told, trusted = world.request("west"), fingerprint_of(world.coordinator)
    kit = sign_request(world.request_path("west"), world.coordinator, world.now, told)
    west = world.hospital("west")
    with pytest.raises(BadInput, match="give --fingerprint"):
        install_kit(kit, west, world.now)
    with pytest.raises(UntrustedPeer, match="you were told"):
        install_kit(kit, west, world.now, "0000")
    with pytest.raises(UntrustedPeer, match="not from the consortium whose kit is installed"):
        install_kit(kit, world.hospital("north"), world.now, trusted, renew=True)
    with pytest.raises(UntrustedPeer, match="holds from"):
        install_kit(kit, west, world.now + timedelta(days=366), trusted)
    assert not west.kit.exists()
    whole = json.loads(kit.read_text(encoding="utf-8"))
    whole["document"]["port"] = 1
    forged = tmp_path / "forged.json"
    forged.write_text(json.dumps(whole), encoding="utf-8")
    with pytest.raises(UntrustedPeer, match=r"forged\.json: the signature"):
        install_kit(forged, west, world.now, trusted)
    west.waiting.unlink()
    with pytest.raises(UntrustedPeer, match="answers another request"):
        install_kit(kit, west, world.now, trusted)


def test_a_kit_without_keys_holds_no_private_key(world: World) -> None:
    kit = world.coordinator.kit("north").read_text(encoding="utf-8")
    assert "PRIVATE" not in kit
    assert "keys" not in json.loads(kit)
    for path in (world.request_path("north"), world.coordinator.roster):
        assert "PRIVATE" not in path.read_text(encoding="utf-8")


def test_a_kit_with_keys_works_in_an_empty_folder(make_world: Any, tls: Any) -> None:
    world = make_world(with_keys=True)
    trusted, coordinator = fingerprint_of(world.coordinator), world.coordinator
    for name in ("north", "south", "west"):
        kit, place = coordinator.kit(name), world.hospital(name)
        assert kit.stat().st_mode & 0o777 == 0o600
        install_kit(kit, place, world.now, trusted)
        assert "PRIVATE" not in place.kit.read_text(encoding="utf-8")
        server = tls.server(coordinator.server, coordinator.authority, coordinator.revocations)
        client = tls.client(place.certificate, place.authority)
        assert tls.handshake(server, client, "127.0.0.1") == ""
    own = SigningKey.load_or_create(world.hospital("west").signing).public
    assert enrolled_keys(coordinator, world.now)["west"] == own


def test_new_hospitals_join_by_renewing_and_members_are_never_dropped(world: World) -> None:
    text = world.terms.read_text(encoding="utf-8")
    world.terms.write_text(text + '[[hospitals]]\nname = "east"\n', encoding="utf-8")
    renew(world.terms, world.coordinator, world.now)
    world.enrol("east")
    assert set(enrolled_keys(world.coordinator, world.now)) == {"north", "east"}
    world.terms.write_text(text.replace('"north"', '"nord"'), encoding="utf-8")
    with pytest.raises(BadInput, match="leaves out the member north; revoke it first"):
        renew(world.terms, world.coordinator, world.now)


def test_nothing_is_overwritten(world: World) -> None:
    before = tree(world.root)
    with pytest.raises(BadInput, match="exists; --renew"):
        found(world.terms, world.coordinator, world.now)
    with pytest.raises(BadInput, match="exists; --renew"):
        world.request("north")
    with pytest.raises(BadInput, match="nothing to renew"):
        world.request("west", renew=True)
    assert tree(world.root) == before


def test_private_files_are_their_owner_s_alone(make_world: Any) -> None:
    """Under a umask that hides nothing."""
    before = os.umask(0)
    try:
        world = make_world()
        world.enrol("north")
    finally:
        os.umask(before)
    private = {
        str(p.relative_to(world.root)): p.stat().st_mode & 0o777
        for p in world.root.rglob("*")
        if p.is_file() and ("PRIVATE" in p.read_text(encoding="utf-8") or p.suffix == ".secret")
    }
    assert (
        len(private) == 8
    )  # ca.key server.pem signing.pem secret; signing.pem node tls.pem secret
    assert set(private.values()) == {0o600}
    folders = (world.coordinator.path, world.hospital("north").path)
    assert {p.stat().st_mode & 0o777 for p in folders} == {0o700}
    secret = world.hospital("north").secret.read_bytes()
    assert len(secret) == 64
    assert secret.strip() == secret


def test_a_key_that_others_may_read_is_refused(world: World) -> None:
    world.coordinator.authority_key.chmod(0o640)
    told = world.request("west")
    with pytest.raises(BadInput, match=r"ca\.key: permissions are 0640"):
        sign_request(world.request_path("west"), world.coordinator, world.now, told)


def test_keys_do_not_show(world: World) -> None:
    keys = HospitalKeys.generate()
    assert "PRIVATE" not in f"{keys!r} {keys} {vars(world.hospital('north'))}"
    world.hospital("west").path.mkdir()
    place = HospitalFolder(world.hospital("west").path)
    place.signing.parent.mkdir()
    place.signing.write_text("-----BEGIN PRIVATE KEY-----\nCANARY\n", encoding="utf-8")
    place.signing.chmod(0o600)
    with pytest.raises(BadInput) as caught:
        world.request("west")
    shown: BaseException | None = caught.value
    while shown is not None:
        assert "CANARY" not in str(shown)
        shown = shown.__cause__


@pytest.mark.fault
@pytest.mark.parametrize("at", range(6))
def test_stopped_at_any_replacement(world: World, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Signing, revoking and installing: done again, each comes to one member and one kit."""
    told, trusted = world.request("west"), fingerprint_of(world.coordinator)
    path, coordinator, west = world.request_path("west"), world.coordinator, world.hospital("west")
    real, calls = Disk.replace, 0

    def replace(self: Disk, source: Path, target: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == at + 1:
            raise OSError("no space left on device")
        real(self, source, target)

    def broken_then_again(do: Any) -> None:
        nonlocal calls
        calls = 0
        with monkeypatch.context() as patch:
            patch.setattr(Disk, "replace", replace)
            try:
                do()
            except OSError:
                read_roster(coordinator)  # whole, whatever happened
        do()

    broken_then_again(lambda: sign_request(path, coordinator, world.now, told))
    kit = coordinator.kit("west")
    broken_then_again(lambda: install_kit(kit, west, world.now, trusted))
    assert read_document(west.kit) == read_document(kit)
    roster = read_roster(coordinator)
    assert [m.hospital for m in roster.members] == ["north", "west"]
    assert len(roster.members[1].serials) == 1
    broken_then_again(lambda: revoke(coordinator, "west", "left", world.now))
    roster = read_roster(coordinator)
    assert [m.hospital for m in roster.members] == ["north"]
    assert not coordinator.node("west").exists()
    assert not kit.exists()


@pytest.mark.fault
@pytest.mark.parametrize("at", range(10))
def test_founding_leaves_a_whole_folder_or_none(
    tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    real, calls = Disk.replace, 0

    def replace(self: Disk, source: Path, target: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == at + 1:
            raise OSError("no space left on device")
        real(self, source, target)

    monkeypatch.setattr(Disk, "replace", replace)
    place = type(world.coordinator)(tmp_path / "other" / "consortium")
    try:
        found(world.terms, place, world.now)
        assert read_roster(place).number == 1
    except OSError:
        assert list((tmp_path / "other").iterdir()) == []
