"""The commands as an engineer types them; no secret in anything they print or log."""

from __future__ import annotations

import itertools
import logging
import re
import subprocess
import sys
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from wardround.study.provisioning import cli
from wardround.study.provisioning.authority import renew, revoke
from wardround.study.provisioning.consortium import Consortium
from wardround.study.provisioning.expiry import Ending, endings, warnings

ROOT = Path(__file__).resolve().parents[3]
Command = Any
World = Any

TERMS = """
[consortium]
name = "North"
[coordinator]
hosts = ["localhost"]
[[hospitals]]
name = "one"
[[hospitals]]
name = "two"
"""


_PRIVATE = re.compile(r"BEGIN [A-Z ]*PRIVATE KEY-----(.*?)-----END", re.DOTALL)


def secrets_below(folder: Path) -> set[str]:
    """Every line of every private key below ``folder``, and every shared secret."""
    found = set()
    for path in folder.rglob("*"):
        if path.suffix == ".secret":
            found.add(path.read_text(encoding="utf-8"))
        elif path.is_file():
            text = path.read_text(encoding="utf-8").replace("\\n", "\n")  # keys in JSON, too
            for key in _PRIVATE.findall(text):
                found |= {line for line in key.splitlines() if len(line) >= 40}
    return found


def test_from_file_to_revocation(
    wardround: Command,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.DEBUG)
    seconds, start = itertools.count(), datetime.now(UTC).replace(microsecond=0)
    monkeypatch.setattr(cli, "_now", lambda: start + timedelta(seconds=next(seconds)))
    (tmp_path / "consortium.toml").write_text(TERMS, encoding="utf-8")
    said: list[Any] = []

    def say(*words: str, code: int = 0) -> Any:
        ended = wardround("provision", *words)
        said.append(ended)
        assert ended.code == code, ended.err
        return ended

    consortium = say("consortium.toml", "--json").document()["fingerprint"]
    asked = say("request", "consortium.toml", "--hospital", "one", "--json").document()
    refused = say("sign", asked["request"], code=2)
    assert "give --fingerprint as the hospital reads it to you" in refused.err
    say("sign", asked["request"], "--fingerprint", asked["fingerprint"])
    kit = "consortium/kits/one.kit.json"
    assert "you were told" in say("install", kit, "--fingerprint", "00", code=3).err
    installed = say("install", kit, "--fingerprint", consortium, "--json").document()
    assert installed["hosts"] == ["localhost"]
    assert all((tmp_path / path).is_file() for path in installed["files"].values())
    assert "this hospital's certificate: until" in say("status", "hospital").out
    assert "the certificate of one: until" in say("status", "consortium").out
    assert (
        "did you mean" in say("request", "consortium.toml", "--hospitl", "one", code=2).err.lower()
    )
    assert "exists; --renew" in say("consortium.toml", code=2).err
    say("consortium.toml", "--renew")
    say("request", "consortium.toml", "--hospital", "one", "--renew")
    say("sign", "one.request.json", "--renew")
    say("install", kit, "--renew")
    say("consortium.toml", "--with-keys", "--folder", "with-keys")
    say("revoke", "one", "--reason", "test")
    assert "'three' is not a member" in say("revoke", "three", "--reason", "x", code=2).err
    found = secrets_below(tmp_path)
    assert len(found) >= 12
    shown = "".join(ended.out + ended.err for ended in said) + caplog.text
    assert not [secret for secret in found if secret in shown]
    assert "PRIVATE KEY-" not in shown


def test_the_canary_would_be_seen(tmp_path: Path, make_world: Any) -> None:
    """The search finds keys where they are: in the files, and in kits that hold them."""
    make_world(with_keys=True)
    found = secrets_below(tmp_path)
    kits = "".join(p.read_text(encoding="utf-8") for p in tmp_path.rglob("*.kit.json"))
    assert sum(secret in kits for secret in found) >= 6


def test_warnings_come_in_time_and_before_what_is_less_urgent() -> None:
    now = datetime(2026, 1, 31, tzinfo=UTC)
    found = [
        Ending("a", now + timedelta(days=31), "do a"),
        Ending("b", now + timedelta(days=30), "do b"),
        Ending("c", now - timedelta(seconds=1), "do c"),
    ]
    assert warnings(found, now, 30) == [
        "c EXPIRED on 2026-01-30: do c",
        "b expires in 30 days, on 2026-03-02: do b",
    ]


def test_both_folders_warn_and_renewing_ends_it(world: World) -> None:
    soon = world.now + timedelta(days=340)
    found, days = endings(world.coordinator.path)
    assert [line.split(" expires")[0] for line in warnings(found, soon, days)] == [
        "the coordinator's certificate",
        "the revocation list",
        "the certificate of north",
    ]
    own, days = endings(world.hospital("north").path)
    (line,) = warnings(own, soon, days)
    assert line.startswith("this hospital's certificate expires in 25 days")
    renew(world.terms, world.coordinator, soon)
    found, days = endings(world.coordinator.path)
    (line,) = warnings(found, soon, days)
    assert line.startswith("the certificate of north")


def test_an_expired_certificate_ends_status_with_3(wardround: Command, make_world: Any) -> None:
    world = make_world(now=datetime.now(UTC).replace(microsecond=0) - timedelta(days=400))
    world.enrol("north")
    ended = wardround("provision", "status", world.hospital("north").path)
    assert ended.code == 3
    assert "this hospital's certificate EXPIRED" in ended.err


def test_a_revocation_list_older_than_the_roster_is_no_list(world: World) -> None:
    """As a crash between the two leaves them; revoking again writes the list."""
    place = world.coordinator
    old = place.revocations.read_bytes()
    revoke(place, "north", "stolen", world.now)
    place.revocations.write_bytes(old)
    found, days = endings(place.path)
    assert [line for line in warnings(found, world.now, days) if "revocation list EXPIRED" in line]
    revoke(place, "north", "stolen", world.now)
    found, days = endings(place.path)
    assert warnings(found, world.now, days) == []


@pytest.mark.parametrize("file", ["ca.crt", "server.pem", "ca.crl"])
def test_a_damaged_folder_is_named(wardround: Command, world: World, file: str) -> None:
    (world.coordinator.path / "coordinator" / file).write_text("-----BEGIN", encoding="utf-8")
    ended = wardround("provision", "status", world.coordinator.path)
    assert ended.code == 2
    assert file in ended.err


def test_the_documentation_s_file_and_options_are_real() -> None:
    text = (ROOT / "docs" / "provisioning.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    assert len(Consortium.parse(tomllib.loads(example), "example").hospitals) == 2
    commands = get_command(cli.provision_app).commands  # type: ignore[attr-defined]
    spans = re.findall(r"`(?:wardround provision )?([a-z.]+ [^`]*)`", text)
    checked = 0
    for span in spans:
        word = span.split()[0]
        name = "make" if word == "consortium.toml" else word
        if name in commands:
            options = {option for param in commands[name].params for option in param.opts}
            used = re.findall(r"--[a-z-]+", span)
            assert set(used) <= options, span
            checked += 1
    assert checked >= 9


def test_provisioning_loads_no_model_library() -> None:
    """A command must not wait for torch, and a coordinator's laptop need not have it."""
    code = (
        "import sys, wardround.study.provisioning.authority, wardround.study.provisioning.expiry;"
        "sys.exit('torch' in sys.modules or 'flwr' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0


def test_the_custodian_finds_its_signing_key(world: World) -> None:
    from wardround.client.hospital import HOSPITAL_KEY

    place = world.hospital("north")
    assert place.signing == place.path / HOSPITAL_KEY
