"""What docker-compose.yml and the Dockerfile promise, read from the files themselves."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from wardround.client.custody import supernode
from wardround.study.cli import app
from wardround.study.deployment import containers

ROOT = Path(__file__).resolve().parents[3]
HOSPITALS = ("north", "south", "west")
TEXT = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
# Defaults filled in, as without an .env file.
FILE: dict[str, Any] = yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", TEXT))
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
OF_HOSPITALS = [
    f"{kind}-{name}" for name in HOSPITALS for kind in ("supernode", "relay", "custodian")
]
every_service = pytest.mark.parametrize("name", SERVICES)
every_hospital = pytest.mark.parametrize("hospital", HOSPITALS)


def networks(name: str) -> set[str]:
    return set(SERVICES[name].get("networks", ()))


def mounted(name: str) -> dict[str, tuple[str, str]]:
    """By path inside: what is mounted there and how."""
    lines = [line.split(":") for line in SERVICES[name].get("volumes", ())]
    return {line[1]: (line[0], line[2] if len(line) == 3 else "rw") for line in lines}


def test_the_services_are_these() -> None:
    assert set(SERVICES) == {"fleet-proxy", "superlink", "superexec", "dashboard", *OF_HOSPITALS}


@every_service
def test_nobody_has_rights_or_a_root_to_write_to(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "devices", "pid", "ipc"} & set(service)
    assert any(line.startswith("/tmp:size=") for line in service["tmpfs"])


@every_service
def test_everybody_is_limited_restarted_and_looked_after(name: str) -> None:
    service = SERVICES[name]
    for limit in ("mem_limit", "cpus", "pids_limit"):
        assert service[limit], limit
    assert service["restart"] == "unless-stopped"
    assert set(service["healthcheck"]) == {"test", "interval", "timeout", "retries", "start_period"}
    assert re.fullmatch(r"\d+s", service["stop_grace_period"])


@every_service
def test_nothing_calls_home(name: str) -> None:
    environment = SERVICES[name]["environment"]
    for variable, value in (
        ("FLWR_TELEMETRY_ENABLED", "0"),
        ("FLWR_DISABLE_UPDATE_CHECK", "1"),
        ("HF_HUB_OFFLINE", "1"),
        ("HF_HUB_DISABLE_TELEMETRY", "1"),
    ):
        assert environment[variable] == value


def test_every_service_has_a_user_of_its_own_and_none_is_root() -> None:
    users = {name: service["user"].split(":") for name, service in SERVICES.items()}
    assert len({user for user, _ in users.values()}) == len(SERVICES)
    assert len({group for _, group in users.values()}) == len(SERVICES)
    assert all(int(user) >= 10000 and user == group for user, group in users.values())


def test_users_are_those_that_files_are_given_to() -> None:
    for name, user in (
        ("fleet-proxy", containers.FLEET_PROXY),
        ("superlink", containers.SUPERLINK),
        ("superexec", containers.SUPEREXEC),
        ("dashboard", containers.DASHBOARD),
    ):
        assert SERVICES[name]["user"] == f"{user}:{user}"
    for hospital in HOSPITALS:
        line = re.search(rf"hospitals/{hospital} --supernode (\S+) --user (\d+)", TEXT)
        assert line is not None
        assert line[1] == f"supernode-{hospital}"
        users = containers.HospitalUsers(int(line[2]))
        for kind in ("supernode", "relay", "custodian"):
            user = getattr(users, kind)
            assert SERVICES[f"{kind}-{hospital}"]["user"] == f"{user}:{user}"


@every_hospital
def test_a_custodian_has_no_network(hospital: str) -> None:
    custodian = SERVICES[f"custodian-{hospital}"]
    assert custodian["network_mode"] == "none"
    assert not {"networks", "ports", "expose", "links"} & set(custodian)
    assert all(
        SERVICES[name].get("network_mode") is None for name in SERVICES if "cust" not in name
    )


def test_only_the_proxy_publishes_and_only_the_fleet_api_to_others() -> None:
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert ports == {"fleet-proxy": ["8443:8443", "127.0.0.1:8050:8050"]}
    assert not any("expose" in service for service in SERVICES.values())


def test_the_coordinators_network_has_no_egress_and_one_door() -> None:
    assert FILE["networks"]["core"]["internal"] is True
    inside = {name for name in SERVICES if "core" in networks(name)}
    assert inside == {"fleet-proxy", "superlink", "superexec", "dashboard"}
    assert all(networks(name) == {"core"} for name in inside - {"fleet-proxy"})


@every_hospital
def test_a_relay_reaches_its_supernode_and_nothing_else(hospital: str) -> None:
    assert FILE["networks"][hospital] == {"internal": True}
    assert networks(f"relay-{hospital}") == {hospital}
    assert {name for name in SERVICES if hospital in networks(name)} == {
        f"relay-{hospital}",
        f"supernode-{hospital}",
    }


@every_hospital
def test_a_supernode_shares_its_way_out_with_the_proxy_alone(hospital: str) -> None:
    edge = f"{hospital}-edge"
    assert networks(f"supernode-{hospital}") == {hospital, edge}
    assert {name for name in SERVICES if edge in networks(name)} == {
        f"supernode-{hospital}",
        "fleet-proxy",
    }
    host = SERVICES["fleet-proxy"]["networks"][edge]["aliases"]
    assert f"--superlink={host[0]}:8443" in SERVICES[f"supernode-{hospital}"]["command"]


@every_hospital
def test_records_and_ledger_are_the_custodians_alone(hospital: str) -> None:
    seen = mounted(f"custodian-{hospital}")
    assert seen["/data"] == (f"./data/{hospital}", "ro")
    assert seen["/var/lib/wardround"] == (f"./hospitals/{hospital}", "rw")
    for name in SERVICES:
        for source, _ in mounted(name).values():
            if name != f"custodian-{hospital}":
                assert source != f"./data/{hospital}"
                assert source in (
                    f"./hospitals/{hospital}/containers/public",
                    f"{hospital}-socket",
                ) or not source.startswith((f"./hospitals/{hospital}", hospital)), name


@every_hospital
def test_the_socket_is_shared_by_custodian_and_relay_alone(hospital: str) -> None:
    volume = f"{hospital}-socket"
    users = {n for n in SERVICES if volume in {source for source, _ in mounted(n).values()}}
    assert users == {f"custodian-{hospital}", f"relay-{hospital}"}
    custodian, relay = SERVICES[f"custodian-{hospital}"], SERVICES[f"relay-{hospital}"]
    assert mounted(f"custodian-{hospital}")["/run/custodian"] == (volume, "rw")
    (group,) = custodian["group_add"]
    assert relay["group_add"] == [group]
    others = [s for n, s in SERVICES.items() if n not in users]
    assert all(group not in s.get("group_add", ()) for s in others)
    options = FILE["volumes"][volume]["driver_opts"]["o"].split(",")
    owner = custodian["user"].split(":")[0]
    assert {f"uid={owner}", f"gid={group}", "mode=2750"} <= set(options)


def test_no_down_takes_a_ledger_away() -> None:
    """``down --volumes`` removes named volumes: sockets alone are in these, in memory."""
    assert {options["driver_opts"]["type"] for options in FILE["volumes"].values()} == {"tmpfs"}


def test_whatever_is_named_exists() -> None:
    named = set().union(*map(networks, SERVICES))
    assert named == set(FILE["networks"])
    sources = {source for name in SERVICES for source, _ in mounted(name).values()}
    assert {s for s in sources if not s.startswith(("./", "/"))} == set(FILE["volumes"])
    for name, service in SERVICES.items():
        assert set(service.get("depends_on", ())) <= set(SERVICES), name
    used = [use["source"] for s in SERVICES.values() for use in s.get("secrets", ())]
    assert sorted(used) == sorted(FILE["secrets"])  # each by one service
    for service in SERVICES.values():
        for line in service.get("extra_hosts", ()):
            host, address = line.split(":")
            assert SERVICES[host]["networks"]["core"]["ipv4_address"] == address


@every_service
def test_secrets_are_where_commands_look_for_them(name: str) -> None:
    service = SERVICES[name]
    given = {f"/run/secrets/{use['target']}" for use in service.get("secrets", ())}
    words = " ".join(service["command"])
    asked = set(re.findall(r"/run/secrets/[\w.]+", words))
    assert asked == given or (name == "fleet-proxy" and given == {"/run/secrets/server.pem"})


@every_service
def test_every_command_is_one_we_have(name: str) -> None:
    """Options of ours are looked up in the command itself; those of others by a started process."""
    for words in (SERVICES[name]["command"], SERVICES[name]["healthcheck"]["test"][1:]):
        program, *rest = words
        if program == "wardround":
            options = [word.split("=")[0] for word in rest if word.startswith("--")]
            command: Any = typer.main.get_command(app)
            for word in rest:
                if word in getattr(command, "commands", {}):
                    command = command.commands[word]
            known = {option for parameter in command.params for option in parameter.opts}
            assert set(options) <= known, command.name
            needed = {p.opts[0] for p in command.params if p.required and p.opts[0][0] == "-"}
            assert needed <= set(options)
        elif rest[:2] == ["-m", supernode.__name__]:
            assert program == "python"
        else:
            assert program in ("nginx", "flower-superexec", "python")


@pytest.fixture(scope="module")
def image() -> Iterator[Any]:
    path = Path(__file__).with_name("plain") / "image.py"
    spec = importlib.util.spec_from_file_location("plain_image", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_the_image_is_pinned_and_nobody_in_it_is_root(image: Any) -> None:
    steps = image.steps((ROOT / "Dockerfile").read_text(encoding="utf-8"))
    ((_, base),) = [step for step in steps if step[0] == "FROM"]
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", base)
    assert [rest for word, rest in steps if word == "USER"] == ["10000:10000"]
    installs = [rest for word, rest in steps if word == "RUN" and "pip install" in rest]
    assert installs
    assert all("--constraint constraints.txt" in line for line in installs)
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert "torch==2.13.0" in pins
    assert "grep '^torch==' constraints.txt" in installs[0]


def test_the_image_gets_every_package_and_nothing_else(image: Any) -> None:
    steps = image.steps((ROOT / "Dockerfile").read_text(encoding="utf-8"))
    copied = {w for word, rest in steps if word == "COPY" for w in rest.split()[:-1]}
    rings = {"privacy/", "strategies/", "web/", "client/", "server/", "study/"}
    assert copied == rings | {"constraints.txt", "pyproject.toml", "README.md", "LICENSE"}
    let_through = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert let_through[1] == "*"
    assert {line[1:] for line in let_through if line.startswith("!")} == copied


def test_the_image_has_a_place_for_whatever_is_mounted(image: Any) -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    (made,) = [rest for _, rest in image.steps(text) if rest.startswith("mkdir -p")]
    places = set(made.split()[2:])
    inside = {path for name in SERVICES for path in mounted(name)}
    assert inside | {"/run/secrets"} <= places


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="docker-compose not installed")
def test_docker_compose_accepts_the_file() -> None:
    done = subprocess.run(
        ["docker-compose", "-f", str(ROOT / "docker-compose.yml"), "config", "-q"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
