"""The consortium file: read as written, or refused with one line that says what to mend."""

from __future__ import annotations

import ipaddress
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround.privacy.errors import BadInput
from wardround.study.provisioning.certificates import Holder, issue, make_authority
from wardround.study.provisioning.consortium import Consortium
from wardround.study.provisioning.keys import load_tls_key, new_tls_key

GOOD = """
[consortium]
name = "North"
[coordinator]
hosts = ["coordinator.example", "10.0.0.1"]
[validity]
certificate_days = 90
[[hospitals]]
name = "one"
[[hospitals]]
name = "two"
hosts = ["two.internal"]
"""

CASES = {
    "unknown key": ('name = "one"', 'nmae = "one"', r"\[\[hospitals\]\] 1.*'nmae'.*'name'"),
    "unknown table": ("[validity]", "[validty]", r"'validty'; did you mean 'validity'"),
    "no hosts": ('["coordinator.example", "10.0.0.1"]', "[]", r"\[coordinator\] hosts is empty"),
    "wildcard": ("coordinator.example", "*.example", r"hosts\[0\] is '\*.example'"),
    "upper case": ("coordinator.example", "C.example", r"hosts\[0\] is 'C.example'"),
    "not an address": ("10.0.0.1", "10.0.0.999", r"hosts\[1\] is '10.0.0.999'"),
    "any address": ("10.0.0.1", "0.0.0.0", r"nobody can connect"),
    "a path for a name": ('"one"', '"../one"', r"1: name is '../one'"),
    "two of a name": ('"one"', '"two"', r"hospitals names 'two' twice"),
    "the coordinator's host": ("two.internal", "10.0.0.1", r"'10.0.0.1' belongs to both.*and two"),
    "too long": (
        "certificate_days = 90",
        "certificate_days = 900",
        r"900; it must be from 1 to 825",
    ),
    "no end to warnings": ("certificate_days = 90", "warn_days = 365", r"warn_days is 365"),
    "wrong type": ("certificate_days = 90", 'certificate_days = "90"', r"'90'; expected int"),
    "nameless": ('name = "North"', 'name = ""', r"\[consortium\] name is ''"),
    "a line end": ('name = "North"', 'name = "a\\nb"', r"expected printable text"),
    "a long name": ('"North"', f'"{"é" * 33}"', r"name has 66 bytes; it must have 64"),
    "port": ("[validity]", "port = 0\n[validity]", r"port is 0; it must be from 1 to 65535"),
    "not TOML": ("[validity]", "[validity", r"not valid TOML"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_named(tmp_path: Path, case: str) -> None:
    old, new, message = CASES[case]
    assert old in GOOD
    path = tmp_path / "consortium.toml"
    path.write_text(GOOD.replace(old, new), encoding="utf-8")
    with pytest.raises(BadInput, match=message) as caught:
        Consortium.read(path)
    assert "consortium.toml" in str(caught.value)


def test_two_spellings_of_one_address_are_one_host() -> None:
    tables = tomllib.loads(GOOD.replace('"10.0.0.1"', '"::1", "0:0:0:0:0:0:0:1"'))
    with pytest.raises(BadInput, match="same host twice"):
        Consortium.parse(tables, "f")


NAMES = st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True)
HOSTS = st.one_of(
    st.from_regex(r"([a-z]([a-z0-9-]{0,10}[a-z0-9])?\.){0,3}[a-z]{2,8}", fullmatch=True),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
)
NOW = datetime(2026, 1, 31, tzinfo=UTC)
AUTHORITY = make_authority("North", load_tls_key(new_tls_key(), "key"), NOW, 10)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_what_is_accepted_is_read_as_written(data: st.DataObject) -> None:
    """Written by an independent TOML writer, read back, and fit to stand in a certificate."""
    hosts = data.draw(st.lists(HOSTS, min_size=1, max_size=3, unique=True))
    names = data.draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
    port = data.draw(st.integers(1, 65535))
    tables: dict[str, Any] = {
        "consortium": {
            "name": data.draw(st.text("aé ß-9", min_size=1, max_size=20).map(str.strip))
        },
        "coordinator": {"hosts": hosts, "port": port},
        "hospitals": [{"name": name} for name in names],
    }
    text = tomli_w.dumps(tables)
    addresses = [ipaddress.ip_address(h) for h in hosts if ":" in h or h[-1].isdigit()]
    if not tables["consortium"]["name"] or any(
        address.is_multicast or address.is_unspecified for address in addresses
    ):
        with pytest.raises(BadInput, match=r"name is ''|nobody can connect"):
            Consortium.parse(tomllib.loads(text), "f")
        return
    read = Consortium.parse(tomllib.loads(text), "f")
    assert (read.name, read.coordinator.port) == (tables["consortium"]["name"], port)
    assert [h.name for h in read.hospitals] == names
    holder = Holder("coordinator", read.coordinator.hosts, client=False)
    made = issue(AUTHORITY, holder, AUTHORITY.key.public_key(), NOW, 5)
    sans = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in sans] == list(read.coordinator.hosts)


JUNK = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
KEYS = ("consortium", "coordinator", "hospitals", "validity")


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(KEYS),
        JUNK
        | st.dictionaries(st.sampled_from(("name", "hosts", "port", "warn_days")), JUNK)
        | st.lists(st.dictionaries(st.sampled_from(("name", "hosts")), JUNK), max_size=2),
    )
)
def test_junk_is_refused_and_never_crashes(tables: dict[str, Any]) -> None:
    """Without three right tables nothing is accepted, so only BadInput may come out."""
    with pytest.raises(BadInput, match=r"^f"):
        Consortium.parse(tables, "f")


@settings(max_examples=50, deadline=None)
@given(content=st.binary(max_size=200))
def test_any_bytes_for_a_file(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("toml") / "consortium.toml"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"consortium\.toml"):
        Consortium.read(path)
