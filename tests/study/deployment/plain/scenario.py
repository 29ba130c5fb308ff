"""A federation of docker-compose.yml's services from start to the end of a study; prints JSON.

    python tests/study/deployment/plain/scenario.py PROJECT IMAGE STUDY [SERVICE]

PROJECT holds the compose file and what it mounts, IMAGE is what ``image.py`` made, STUDY is the
path of a study in the container. A SERVICE is killed while the first round is under way.
"""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import containers

START_S, STUDY_S = 240.0, 400.0
CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)"


def facts(machine: Any, name: str) -> dict[str, Any]:
    """What the kernel says of a running service, and what it can do."""
    container = machine.containers[name]
    kernel = container.status
    links = subprocess.run(
        ["ip", "-n", name, "-br", "link"], capture_output=True, text=True, check=True
    )
    return {
        "user": kernel["Uid"].split()[0],
        "group": kernel["Gid"].split()[0],
        "groups": kernel["Groups"].split(),
        "capabilities": [kernel[k] for k in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")],
        "no_new_privileges": kernel["NoNewPrivs"],
        "interfaces": sorted(line.split("@")[0].split()[0] for line in links.stdout.splitlines()),
        "writes_root": machine.run(name, ["touch", "/opt/here"]).stderr.strip(),
        "sees": machine.run(name, ["ls", "/data", "/var/lib/wardround"]).stdout.split(),
        "secrets": machine.run(name, ["ls", "/run/secrets"]).stdout.split(),
        "processes": sum(
            word.isdigit() for word in machine.run(name, ["ls", "/proc"]).stdout.split()
        ),
    }


def reaches(machine: Any, name: str, host: str, port: int) -> str:
    """How an attempt to connect ends; empty when it succeeds."""
    said = machine.run(name, ["python", "-c", CONNECT, host, str(port)]).stderr.strip()
    return said.splitlines()[-1] if said else ""


def through_the_proxy(machine: Any, port: int, path: str, body: bytes | None = None) -> str:
    """Status and beginning of an answer, asked from outside as a browser or a hospital would."""
    address = machine.containers["fleet-proxy"].addresses["core"]
    context = ssl.create_default_context(
        cafile=str(machine.project / "consortium" / "coordinator" / "ca.crt")
    )
    context.check_hostname = False  # the name is only known inside
    try:
        with urllib.request.urlopen(
            f"https://{address}:{port}{path}", body, timeout=10, context=context
        ) as answer:
            return f"{answer.status} {answer.read(100).decode()}"
    except urllib.error.HTTPError as error:
        return f"{error.code} {error.read(100).decode()}"


def study(machine: Any, path: str, victim: str | None) -> dict[str, Any]:
    """Run a study to its end from the executor's container, killing somebody on the way."""
    command = ["wardround", "coordinator", "run", path, "--folder", "/var/lib/wardround",
               "--runs", "/srv/runs", "--timeout-s", str(STUDY_S), "--json"]  # fmt: skip
    ended: list[subprocess.CompletedProcess[str]] = []

    def work() -> None:
        ended.append(machine.run("superexec", command, STUDY_S + 60))

    ledger = machine.project / "hospitals" / "north" / "ledger" / "ledger.jsonl"
    before = ledger.stat().st_size
    began = time.monotonic()
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    killed_at = None
    if victim is not None:
        # Once north's custodian has charged a round it is held, so its relay is in the middle of a
        # call when the victim is killed.
        machine.keep(lambda: bool(ended) or ledger.stat().st_size > before, STUDY_S, 0.02)
        custodian = machine.containers["custodian-north"].pid
        os.kill(custodian, signal.SIGSTOP)
        os.kill(machine.containers[victim].pid, signal.SIGKILL)
        killed_at = round(time.monotonic() - began, 1)
        os.kill(custodian, signal.SIGCONT)
    machine.keep(lambda: bool(ended), STUDY_S + 60)
    thread.join()
    done = ended.pop()
    return {
        "code": done.returncode,
        "out": done.stdout,
        "err": done.stderr[-3000:],
        "seconds": round(time.monotonic() - began, 1),
        "killed_at": killed_at,
    }


def main() -> None:
    """Enter namespaces of our own, then run."""
    if "--inside" not in sys.argv:
        with_us = ["setpriv", "--pdeathsig", "KILL"]  # however this process ends
        apart = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
        sys.exit(subprocess.call([*with_us, *apart, sys.executable, *sys.argv, "--inside"]))
    words = [word for word in sys.argv[1:] if word != "--inside"]
    project, built, path, *victims = words
    machine = containers.Machine(Path(project), Path(built), {})
    names = containers.order(machine.file["services"])
    began = time.monotonic()
    machine.up(names)
    healthy: dict[str, float] = {}
    before: dict[str, int] = {}

    def all_healthy() -> bool:
        """All are, and nobody was started again since the last look at all of them."""
        for name in names:
            if name not in healthy and machine.healthy(name):
                healthy[name] = round(time.monotonic() - began, 1)
        if len(healthy) < len(names):
            return False
        starts = {name: machine.containers[name].starts for name in names}
        steady = starts == before
        before.update(starts)
        return steady and all(map(machine.healthy, names))

    document: dict[str, Any] = {}
    try:
        machine.keep(all_healthy, START_S)
        document = {
            "healthy": healthy,
            "facts": {name: facts(machine, name) for name in names},
            "custodian_to_superlink": reaches(machine, "custodian-north", "172.30.240.2", 8600),
            "relay_to_superlink": reaches(machine, "relay-north", "172.30.240.2", 8600),
            "supernode_to_superlink": reaches(machine, "supernode-north", "172.30.240.2", 8600),
            "supernode_to_proxy": reaches(
                machine, "supernode-north", "coordinator.example.org", 8443
            ),
            "dashboard": through_the_proxy(machine, 8050, "/health"),
            "fleet_api": through_the_proxy(machine, 8443, "/v1/fleet/pull-messages", b""),
            "control_api": through_the_proxy(machine, 8443, "/v1/control/list-runs", b""),
            "study": study(machine, path, victims[0] if victims else None),
            "restarts": {n: machine.containers[n].starts - before[n] for n in names},
        }
    except TimeoutError as error:
        document["error"] = f"{error}; healthy: {healthy}"
    document["stopped"] = machine.down()
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
