"""Three users and their namespaces: what commands become, what is refused, what a relay gets."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from rich.console import Console

from wardround.privacy.errors import BadInput
from wardround.study.deployment import hospital, isolation
from wardround.study.deployment.isolation import Users, isolate, require_isolation
from wardround.study.deployment.namespaces import ClosedNetwork, IsolationImpossible
from wardround.study.deployment.passage import carry
from wardround.study.deployment.processes import PYTHON
from wardround.study.deployment.rehearsal import Ports, Rehearsal, federation
from wardround.study.deployment.supervision import Service
from wardround.study.local import run_study
from wardround.study.provisioning.authority import found
from wardround.study.provisioning.hospital import HospitalFolder, install_kit
from wardround.study.provisioning.roster import ConsortiumFolder, fingerprint_of
from wardround.study.run_folder import RunFolder

HERE = Path(__file__).parent
PORTS = Ports(23_000)
NODE_PORT = 23_090
SERVICES = [Service(name, [name]) for name in ("passage", "custodian", "supernode", "relay")]
PLACES = (Path("/homes"), Path("/programs"))
Command = Callable[..., Any]


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "_find", lambda name: f"/bin/{name}")


def commands() -> dict[str, list[str]]:
    made = isolate(SERVICES, Users("ward"), ClosedNetwork(7, 8), *PLACES)
    return {service.name: list(service.command) for service in made}


@pytest.mark.usefixtures("programs")
def test_every_service_is_its_user_without_privileges_and_sees_its_own_processes() -> None:
    users = {"passage": "node", "custodian": "custodian", "supernode": "node", "relay": "relay"}
    for name, command in commands().items():
        text = " ".join(command)
        user = f"ward-{users[name]}"
        assert f"/bin/setpriv --reuid {user} --regid {user} " in text
        for words in ("--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"):
            assert words in command
        assert "/bin/unshare --pid --fork --kill-child --mount-proc" in text
        assert command[-2:] == ["--", name]


@pytest.mark.usefixtures("programs")
def test_the_custodian_has_no_network_and_the_relay_one_that_ends_at_the_supernode() -> None:
    made = commands()
    assert [name for name, command in made.items() if "--net" in command] == ["custodian"]
    inside = f"--net=/proc/{os.getpid()}/fd/7"
    assert [name for name, command in made.items() if inside in command] == ["relay"]
    assert made["relay"][:3] == ["/bin/nsenter", inside, "--"]


@pytest.mark.usefixtures("programs")
def test_only_custodian_and_relay_are_in_the_sockets_group() -> None:
    made = commands()
    grouped = [name for name, command in made.items() if "ward-socket" in command]
    assert grouped == ["custodian", "relay"]
    assert all("--clear-groups" in made[name] for name in ("passage", "supernode"))


@pytest.mark.usefixtures("programs")
def test_each_user_has_a_home_of_its_own_and_nothing_of_the_surroundings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOSPITAL_PASSWORD", "secret")
    made = isolate(SERVICES, Users("ward"), ClosedNetwork(7, 8), *PLACES)
    homes = {service.name: service.environment["HOME"] for service in made}
    assert all(s.environment["PATH"].startswith(f"/programs{os.pathsep}") for s in made)
    assert homes["relay"] == "/homes/relay"
    assert len(set(homes.values())) == 3
    assert all("HOSPITAL_PASSWORD" not in service.environment for service in made)
    assert all(service.whole_group for service in made)


@pytest.mark.parametrize("prefix", ["", "Ward", "0ward", "ward;rm", "a" * 21])
def test_a_prefix_no_user_can_have_is_refused(prefix: str) -> None:
    with pytest.raises(BadInput, match="--users"):
        Users(prefix)


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(isolation, "_find", lambda name: None if name == "setpriv" else name)
    with pytest.raises(IsolationImpossible, match=r"root .*, the program setpriv; nothing was"):
        require_isolation()


def test_without_root_the_command_refuses_before_it_starts_anything(
    wardround: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("policy.toml", "records.jsonl"):
        (tmp_path / name).write_text("", encoding="utf-8")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    given = ("--folder", tmp_path, "--records", tmp_path / "records.jsonl")
    ended = wardround("hospital", "up", "--isolate", *given)
    assert ended.code == 3
    assert "--isolate needs root" in ended.err
    assert not (tmp_path / "run").exists()


def test_every_folder_that_a_custodian_writes_is_its_own() -> None:
    """The hospital's folder itself is root's, so one that is not known here could not be made."""
    sources = [HERE.parents[2] / "client" / name for name in ("custodian.py", "hospital.py")]
    text = "".join(path.read_text(encoding="utf-8") for path in sources)
    assert set(re.findall(r'folder / "([a-z-]+)"', text)) == set(hospital.WRITTEN)


def test_a_passage_carries_both_ways_and_turns_away_when_nobody_is_there() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"got " + await reader.read(100))
        await writer.drain()
        writer.close()

    async def ask(port: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"this")
        said = await reader.read(100)
        writer.close()
        return said

    async def both() -> tuple[bytes, bytes]:
        behind = await asyncio.start_server(echo, "127.0.0.1", 0)
        port = behind.sockets[0].getsockname()[1]
        with socket.create_server(("127.0.0.1", 0)) as front:
            carrying = asyncio.create_task(carry(front, "127.0.0.1", port))
            answered = await ask(front.getsockname()[1])
            behind.close()
            await behind.wait_closed()
            nobody = await ask(front.getsockname()[1])
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.wait_for(carrying, 10)
        return answered, nobody

    assert asyncio.run(both()) == (b"got this", b"")


def provisioned(folder: Path) -> Path:
    """A hospital's folder with a kit, a policy and a record."""
    terms = folder / "consortium.toml"
    tables = {
        "consortium": {"name": "probed"},
        "coordinator": {"hosts": ["127.0.0.1"], "port": PORTS.proxy},
        "hospitals": [{"name": "north"}],
    }
    terms.write_text(tomli_w.dumps(tables), encoding="utf-8")
    consortium, home = ConsortiumFolder(folder / "consortium"), folder / "north"
    now = datetime.now(UTC).replace(microsecond=0)
    found(terms, consortium, now, with_keys=True)
    told = fingerprint_of(consortium)
    install_kit(consortium.kit("north"), HospitalFolder(home), now, told)
    example = HERE.parents[2] / "examples" / "medical-editing" / "policy.toml"
    shutil.copyfile(example, home / "policy.toml")
    (home / "records.jsonl").write_text('{"id": "1"}\n', encoding="utf-8")
    return home


@pytest.mark.deployment
def test_a_relay_that_is_taken_over_reaches_custodian_and_supernode_and_nothing_else(
    open_folder: Path, around: tuple[str, ...], forget_users: Callable[[str], None]
) -> None:
    """The probe runs as the relay would; run as root, without any of it, it gets everything."""
    home, users = provisioned(open_folder), Users("wr-probe")
    forget_users(users.prefix)
    users.make()
    records, private = home / "records.jsonl", open_folder / "private"
    private.mkdir(mode=0o700)
    (private / "more.jsonl").write_text("{}", encoding="utf-8")
    users.own(records, "custodian", 0o600)
    keys = HospitalFolder(home)
    files = [records, private, home / "ledger", keys.node, keys.signing, keys.secret]
    files += [home / "run" / "loopback.pem", home, home / "run" / "home" / "node"]
    with socket.create_server(("0.0.0.0", 0)) as outside:
        at = outside.getsockname()[1]
        addresses = [f"127.0.0.1:{at}", f"{own_address()}:{at}"]
        probe, given = str(HERE / "probe.py"), [*map(str, files), *addresses]
        place = [str(home), str(records), str(NODE_PORT), users.prefix]
        socket_path = home / "run" / "custodian" / "socket"
        ended = subprocess.run(
            [*around, sys.executable, "-P", str(HERE / "probing.py"), *place, probe,
             str(NODE_PORT), str(socket_path), *given],
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr
        as_root = subprocess.run(
            [PYTHON, "-P", probe, str(at), str(socket_path), *given],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
    said, control = (json.loads(text.splitlines()[0]) for text in (ended.stdout, as_root.stdout))
    assert {target: said[target] for target in given} == dict.fromkeys(given, False)
    assert {target: control[target] for target in given} == dict.fromkeys(given, True)
    assert said["supernode"]
    assert said["custodian"]
    assert said["user"] == pwd.getpwnam("wr-probe-relay").pw_uid
    assert said["interfaces"] == ["lo"]
    assert (said["processes"], said["of the custodian"], said["environments"]) == (0, 0, 0)
    assert control["processes"] > 3
    assert control["environments"] > 3
    assert (said["capabilities"], said["new privileges"]) == (0, False)
    log = (home / "run" / "custodian.log").read_text(encoding="utf-8")
    assert '"ready": "north"' in log


def own_address() -> str:
    """An address of this machine that is not loopback's."""
    shown = subprocess.run(["ip", "-json", "-4", "address"], capture_output=True, check=True)
    for link in json.loads(shown.stdout):
        if link["ifname"] != "lo" and link["addr_info"]:
            return str(link["addr_info"][0]["local"])
    pytest.skip("this machine has no address beside loopback's")


@pytest.mark.deployment
@pytest.mark.parametrize("relay", ["resident", "flower"])
def test_links_that_users_leave_in_their_folders_are_not_followed_by_root(
    open_folder: Path,
    forget_users: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    relay: str,
) -> None:
    """A service that was taken over must not get files of root's at the supervisor's next start."""
    if os.geteuid() != 0:
        pytest.skip("needs root: users are made")
    home, users = provisioned(open_folder), Users("wr-links")
    forget_users(users.prefix)
    users.make()
    users.own(home / "records.jsonl", "custodian", 0o600)
    monkeypatch.setattr(hospital, "require_program", lambda *_: None)
    place = hospital.HospitalPlace(
        HospitalFolder(home), home / "policy.toml", home / "records.jsonl", NODE_PORT, relay
    )
    hospital.isolated_services(place, datetime.now(UTC), users)
    victim = open_folder / "victim"
    victim.write_text("root's", encoding="utf-8")
    victim.chmod(0o600)
    theirs = [p for p in home.rglob("*") if p.is_dir() and p.stat().st_uid != 0]
    assert {p.name for p in theirs} >= {"custodian", "node", "relay"}
    written = {p.name for p in home.rglob("*")} - {p.name for p in theirs}
    for folder in theirs:
        for name in written | {f"{name}.part" for name in written}:
            shutil.rmtree(folder / name, ignore_errors=True)
            (folder / name).unlink(missing_ok=True)
            (folder / name).symlink_to(victim)
    hospital.isolated_services(place, datetime.now(UTC), users)
    found = victim.stat()
    assert (victim.read_text(encoding="utf-8"), found.st_uid) == ("root's", 0)
    assert found.st_mode & 0o777 == 0o600


@pytest.mark.deployment
def test_records_that_the_relay_could_read_are_refused(
    open_folder: Path, around: tuple[str, ...], forget_users: Callable[[str], None]
) -> None:
    home = provisioned(open_folder)
    forget_users("wr-lax")
    (home / "records.jsonl").chmod(0o644)
    ended = subprocess.run(
        [*around, PYTHON, "-P", "-m", "wardround.study", "hospital", "up", "--isolate",
         "--users", "wr-lax", "--folder", str(home), "--records", str(home / "records.jsonl")],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert ended.returncode == 3
    assert "records.jsonl: the user wr-lax-node can read it" in ended.stderr


@pytest.mark.deployment
@pytest.mark.parametrize("relay", ["resident", "flower"])
def test_isolated_hospitals_finish_a_study(
    small_study: Path,
    open_folder: Path,
    tmp_path: Path,
    around: tuple[str, ...],
    forget_users: Callable[[str], None],
    relay: str,
) -> None:
    """Two hospitals, mode none: the adapter is that of one process, byte for byte."""
    text = small_study.read_text(encoding="utf-8")
    small_study.write_text(
        text.replace("noise_multiplier = 1.0 ", 'mode = "none" '), encoding="utf-8"
    )
    alone = run_study(Console(quiet=True), small_study, tmp_path / "alone")
    for index in range(2):
        forget_users(f"wr-test-{index}")
    rehearsal = Rehearsal(
        open_folder / "together", PORTS, relay, seed=0, users="wr-test", around=lambda where: around
    )
    now = datetime.now(UTC).replace(microsecond=0)
    with federation(rehearsal, RunFolder.open(alone.folder), now) as running:
        run = running.run_study(small_study, 300)
        said = running.said("hospital-1")
    assert "isolation is on" in said
    adapter = Path("adapter") / "adapter_model.safetensors"
    assert (run / adapter).read_bytes() == (alone.folder / adapter).read_bytes()
    owner = (rehearsal.hospital("hospital-1") / "ledger").stat().st_uid
    assert owner == pwd.getpwnam("wr-test-0-custodian").pw_uid
