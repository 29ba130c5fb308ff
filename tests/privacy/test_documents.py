"""Signatures, envelopes and tables: what is taken from others, and what is not."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from wardround.privacy.envelope import open_bytes, parse_document, seal_bytes
from wardround.privacy.errors import BadInput, BadMessage, UntrustedPeer, WardroundError
from wardround.privacy.signing import SigningKey, canonical, sha256, verify
from wardround.privacy.tables import from_table, nearest, read_toml, refuse_unknown

# --- signing ------------------------------------------------------------------------------------


def test_keys_are_kept_for_their_owner_only(tmp_path):
    key = SigningKey.load_or_create(tmp_path / "keys" / "key.pem")
    assert (tmp_path / "keys" / "key.pem").stat().st_mode & 0o777 == 0o600
    assert SigningKey.load_or_create(tmp_path / "keys" / "key.pem").public == key.public


def test_what_is_not_a_key_is_refused(tmp_path):
    path = tmp_path / "key.pem"
    path.write_text("hello", encoding="utf-8")
    with pytest.raises(BadInput, match="not a private key in PEM form"):
        SigningKey.load_or_create(path)
    other = generate_private_key(SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(other)
    with pytest.raises(BadInput, match="not an Ed25519 key"):
        SigningKey.load_or_create(path)
    locked = generate_private_key(SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"a passphrase"),
    )
    path.write_bytes(locked)
    with pytest.raises(BadInput, match="without passphrase"):
        SigningKey.load_or_create(path)


def test_signatures_hold_for_their_bytes_and_key_alone():
    key = SigningKey.generate()
    signature = key.sign(b"data")
    verify(key.public, b"data", signature, "it")
    for public, data, given in (
        (key.public, b"date", signature),
        (SigningKey.generate().public, b"data", signature),
        (key.public, b"data", "zz"),
        ("zz", b"data", signature),
    ):
        with pytest.raises(UntrustedPeer, match="it: the signature does not verify"):
            verify(public, data, given, "it")


def test_documents_have_one_form():
    assert canonical({"b": 1, "a": [1.5, "é"]}) == '{"a":[1.5,"é"],"b":1}'.encode()
    with pytest.raises(ValueError, match="Out of range"):
        canonical({"a": float("nan")})
    # FIPS 180-2, appendix B.1.
    assert sha256(b"abc").startswith("ba7816bf8f01cfea")


# --- envelopes ----------------------------------------------------------------------------------


def test_a_sealed_payload_opens_for_its_purpose_only():
    key = SigningKey.generate()
    sealed = seal_bytes(b"payload", key, "plan")
    assert open_bytes(sealed, key.public, "plan") == b"payload"
    with pytest.raises(UntrustedPeer):
        open_bytes(sealed, key.public, "reply")
    with pytest.raises(BadMessage, match="64 bytes are too few"):
        open_bytes(sealed[:64], key.public, "plan")


@pytest.mark.parametrize("payload", [b"\xff", b"{", b"[" * 100_000])
def test_what_is_not_json_is_refused(payload):
    with pytest.raises(BadMessage, match="plan: not JSON"):
        parse_document(payload, "plan")


def test_only_objects_are_documents():
    assert parse_document(b'{"a":1}', "plan") == {"a": 1}
    with pytest.raises(BadMessage, match="not a JSON object"):
        parse_document(b"[]", "plan")


# --- tables -------------------------------------------------------------------------------------


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass(frozen=True)
class Inner:
    size: int

    def __post_init__(self):
        if self.size < 1:
            raise ValueError(f"size is {self.size}; it must be 1 or more")


@dataclasses.dataclass(frozen=True)
class Outer:
    share: float
    colour: Colour = Colour.RED
    names: tuple[str, ...] = ()
    inner: Inner | None = None
    where: Path = Path()
    anything: Any = None
    table: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    flag: bool = False


def test_tables_become_dataclasses():
    outer = from_table(
        Outer,
        {
            "share": 1, "colour": "blue", "names": ["a"], "inner": {"size": 2},
            "where": "x/y", "anything": [1], "table": {"k": 1}, "flag": True,
        },
        "file [outer]",
    )  # fmt: skip
    assert outer == Outer(1.0, Colour.BLUE, ("a",), Inner(2), Path("x/y"), [1], {"k": 1}, flag=True)
    assert isinstance(outer.share, float)
    assert from_table(Outer, {"share": 1.5, "inner": None}, "f").inner is None


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([], "f: expected a table, found list"),
        ({}, "f share: missing"),
        ({"share": "1"}, "f share is '1'; expected float"),
        ({"share": True}, "f share is True; expected float"),
        ({"share": 1, "shade": 2}, "f: unknown key 'shade'; did you mean 'share'?"),
        ({"share": 1, "zzz": 2}, "unknown key 'zzz'; known: anything, colour"),
        ({"share": 1, "colour": "rde"}, "expected one of red, blue; did you mean 'red'?"),
        ({"share": 1, "names": "a"}, "f names is 'a'; expected a list"),
        ({"share": 1, "names": [1]}, r"f names\[0\] is 1; expected str"),
        ({"share": 1, "inner": {"size": 0}}, "f inner size is 0; it must be 1 or more"),
        ({"share": 1, "inner": {"size": True}}, "f inner size is True; expected int"),
        ({"share": 1, "table": []}, r"f table is \[\]; expected a table"),
        ({"share": 1, "flag": 1}, "f flag is 1; expected bool"),
        ({"share": 1, "where": 3}, "f where is 3; expected Path"),
    ],
)
def test_errors_name_file_field_and_what_was_expected(table, message):
    with pytest.raises(BadInput, match=message):
        from_table(Outer, table, "f")


def test_no_known_keys_no_hint():
    assert nearest("word", []) == ""
    refuse_unknown({}, [], "f")


def test_toml_files_that_cannot_be_read(tmp_path):
    with pytest.raises(BadInput, match="no such file"):
        read_toml(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("a = ", encoding="utf-8")
    with pytest.raises(BadInput, match="not valid TOML"):
        read_toml(tmp_path / "bad.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(BadInput, match="cannot be read"):
        read_toml(tmp_path / "bytes.toml")


def test_errors_know_their_exit_codes():
    assert (WardroundError.exit_code, BadInput.exit_code) == (3, 2)
