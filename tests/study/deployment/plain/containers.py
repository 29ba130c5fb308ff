"""Runs the services of a compose file on this machine, in namespaces, without a container engine.

What the file says is what they get: image tree, command, user and groups, capabilities, read-only
root, tmpfs, bind mounts, volumes, secrets, networks and names, health checks, restarts. Everything
happens in mount, network and process namespaces of this process, so all of it goes when it goes.
Not done: resource limits, ``init``, published ports (the bridges' addresses are asked instead).
Needs root and an image that ``image.py`` made.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import image
import yaml
from image import call

AGAIN_S = 1.0


def read(path: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """A compose file with its variables filled in, the defaults where none is set."""

    def value(match: re.Match[str]) -> str:
        return environment.get(match[1]) or match[2] or ""

    text = re.sub(r"\$\{(\w+)(?::-([^}]*))?\}", value, path.read_text(encoding="utf-8"))
    return yaml.safe_load(text)


@dataclass
class Container:
    """A service and the process it is now.

    Attributes:
        name: The service's.
        spec: What the compose file says of it.
        root: Its root folder.
        addresses: By network.
        process: The outermost process; the service itself is its child.
    """

    name: str
    spec: dict[str, Any]
    root: Path
    addresses: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    ended_at: float = 0.0

    @property
    def pid(self) -> int | None:
        """Of the service itself, as this process sees it."""
        if self.process is None or self.process.poll() is not None:
            return None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        try:
            found = children.read_text(encoding="ascii").split()
        except OSError:
            return None
        return int(found[0]) if found else None

    @property
    def status(self) -> dict[str, str]:
        """Users, groups and capabilities as the kernel says them."""
        lines = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii").splitlines()
        return {name: " ".join(rest.split()) for name, _, rest in (x.partition(":") for x in lines)}


class Machine:
    """All services of one compose file, in a project folder."""

    def __init__(self, project: Path, built: Path, environment: Mapping[str, str]) -> None:
        """Make networks, volumes and roots; nothing is started yet."""
        self.project, self.built = project, built
        self.file = read(project / "docker-compose.yml", environment)
        self.image = image.Image(**json.loads((built / "image.json").read_text(encoding="utf-8")))
        self.scratch = project / "machine"
        self.scratch.mkdir()
        call("mount", "-t", "tmpfs", "tmpfs", "/run")  # names of network namespaces are our own
        self.tree = image.mounts(built)
        self.volumes = {name: self._volume(name) for name in self.file["volumes"]}
        services = self.file["services"]
        self.containers = {n: Container(n, s, self.scratch / n) for n, s in services.items()}
        self._networks()
        for container in self.containers.values():
            self._fill(container)

    def _volume(self, name: str) -> Path:
        path, options = self.scratch / f"volume-{name}", self.file["volumes"][name]["driver_opts"]
        path.mkdir()
        call("mount", "-t", options["type"], "-o", options["o"], options["device"], str(path))
        return path

    def _networks(self) -> None:
        call("ip", "link", "set", "lo", "up")
        free = {}
        for i, (name, spec) in enumerate(self.file["networks"].items()):
            ipam = (spec or {}).get("ipam", {}).get("config", [{}])[0]
            subnet = ipaddress.ip_network(ipam.get("subnet", f"10.77.{i}.0/24"))
            hosts = [str(host) for host in subnet.hosts()]
            call("ip", "link", "add", f"net{i}", "type", "bridge")
            call("ip", "address", "add", f"{hosts[0]}/{subnet.prefixlen}", "dev", f"net{i}")
            call("ip", "link", "set", f"net{i}", "up")
            free[name] = f"net{i}", subnet.prefixlen, hosts[8:]
        for i, container in enumerate(self.containers.values()):
            call("ip", "netns", "add", container.name)
            call("ip", "-n", container.name, "link", "set", "lo", "up")
            for j, (name, wish) in enumerate(joined(container.spec).items()):
                bridge, length, hosts = free[name]
                address = wish.get("ipv4_address") or hosts.pop(0)
                here = f"v{i}x{j}"
                call("ip", "link", "add", here, "type", "veth", "peer", "name", f"eth{j}",
                     "netns", container.name)  # fmt: skip
                call("ip", "link", "set", here, "master", bridge, "up")
                call("ip", "-n", container.name, "address", "add", f"{address}/{length}",
                     "dev", f"eth{j}")  # fmt: skip
                call("ip", "-n", container.name, "link", "set", f"eth{j}", "up")
                container.addresses[name] = address

    def _hosts(self, container: Container) -> str:
        """What Docker's own name server would say: who shares a network, by name and alias."""
        lines = ["127.0.0.1 localhost"]
        lines += [" ".join(reversed(x.split(":"))) for x in container.spec.get("extra_hosts", ())]
        for network in container.addresses:
            for other in self.containers.values():
                if network in other.addresses:
                    names = [other.name, *joined(other.spec)[network].get("aliases", ())]
                    lines.append(f"{other.addresses[network]} {' '.join(names)}")
        return "\n".join(lines) + "\n"

    def _fill(self, container: Container) -> None:
        """Mount what the service sees; its root last becomes read-only where the file says so."""
        root, spec = container.root, container.spec
        root.mkdir()
        call("mount", "--bind", str(self.tree), str(root))
        image.hide(root)
        hosts = self.scratch / f"{container.name}.hosts"
        hosts.write_text(self._hosts(container), encoding="utf-8")
        binds = [(str(hosts), "/etc/hosts", "ro")]
        for line in spec.get("volumes", ()):
            source, target, *how = line.split(":")
            binds.append((source, target, *(how or ["rw"])))
        for use in spec.get("secrets", ()):
            file = self.file["secrets"][use["source"]]["file"]
            binds.append((file, f"/run/secrets/{use['target']}", "ro"))
        if spec.get("read_only"):
            call("mount", "-o", "remount,bind,ro", str(root))
        call("mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", str(root / "run/secrets"))
        for source, target, how in binds:
            found = self.volumes.get(source) or self.project / source
            inside = root / target.lstrip("/")
            if target.startswith("/run/secrets/"):
                inside.touch()
            call("mount", "--bind", str(found), str(inside))
            if how == "ro":
                call("mount", "-o", "remount,bind,ro", str(inside))
        for line in spec.get("tmpfs", ()):
            target, _, options = line.partition(":")
            safe = f"noexec,nosuid,nodev,{options}".rstrip(",")  # Docker's defaults
            call("mount", "-t", "tmpfs", "-o", safe, "tmpfs", str(root / target.lstrip("/")))

    def words(self, container: Container, command: list[str]) -> list[str]:
        """A command as the service's user, with its rights, in its root."""
        spec = container.spec
        user, _, group = spec["user"].partition(":")
        groups = ",".join([group, *spec.get("group_add", ())])
        who = [f"--reuid={user}", f"--regid={group}", f"--groups={groups}"]
        if "no-new-privileges:true" in spec.get("security_opt", ()):
            who.append("--no-new-privs")
        if "ALL" in spec.get("cap_drop", ()):
            who += ["--inh-caps=-all", "--bounding-set=-all"]
        settings = {**self.image.env, **spec.get("environment", {}), "OMP_NUM_THREADS": "1"}
        pairs = [f"{name}={value}" for name, value in settings.items()]
        inside = ["env", "-i", "--chdir", self.image.workdir, *pairs]
        return ["chroot", str(container.root), "setpriv", *who, *inside, *command]

    def start(self, container: Container) -> None:
        """Start the service's command as process 1 of its own process namespace."""
        apart = ["unshare", "--pid", "--fork", "--kill-child",
                 f"--mount-proc={container.root / 'proc'}"]  # fmt: skip
        command = ["ip", "netns", "exec", container.name, *apart]
        with (self.scratch / f"{container.name}.log").open("ab") as log:
            container.process = subprocess.Popen(
                [*command, *self.words(container, container.spec["command"])],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        container.starts += 1

    def run(
        self, name: str, command: list[str], timeout_s: float = 600
    ) -> subprocess.CompletedProcess[str]:
        """``docker compose exec``: a command beside a running service."""
        container = self.containers[name]
        into = ["nsenter", f"--target={container.pid}", "--net", "--pid", "--mount"]
        return subprocess.run(
            [*into, *self.words(container, command)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def healthy(self, name: str) -> bool:
        """Whether the service's own health check passes."""
        container = self.containers[name]
        if container.pid is None:
            return False
        _, *test = container.spec["healthcheck"]["test"]
        return self.run(name, test, 60).returncode == 0

    def up(self, order: list[str]) -> None:
        """Start services in an order that respects ``depends_on``."""
        for name in order:
            for before in self.containers[name].spec.get("depends_on", ()):
                if self.containers[before].process is None:
                    raise ValueError(f"{name} depends on {before}, which comes later")
            self.start(self.containers[name])

    def keep(self, until: Callable[[], bool], within_s: float, look_s: float = 1.0) -> None:
        """Start again what ends, as ``unless-stopped`` says, until something holds."""
        deadline, look = time.monotonic() + within_s, 0.0
        while True:
            for container in self.containers.values():
                ended = container.process is not None and container.process.poll() is not None
                if not ended or container.spec.get("restart") != "unless-stopped":
                    continue
                container.ended_at = container.ended_at or time.monotonic()
                if time.monotonic() - container.ended_at > AGAIN_S:
                    container.ended_at = 0.0
                    self.start(container)
            if time.monotonic() >= look:
                if until():
                    return
                look = time.monotonic() + look_s
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {within_s:g} s")
            time.sleep(min(0.1, look_s))

    def down(self) -> dict[str, float]:
        """``docker compose stop``: SIGTERM, and after the grace period SIGKILL; seconds taken."""
        began, took = time.monotonic(), {}
        for container in self.containers.values():
            if container.pid is not None:
                os.kill(container.pid, signal.SIGTERM)
        for container in self.containers.values():
            if container.process is None:
                continue
            grace = float(container.spec["stop_grace_period"].removesuffix("s"))
            try:
                container.process.wait(max(0.1, grace - (time.monotonic() - began)))
            except subprocess.TimeoutExpired:
                container.process.kill()
            took[container.name] = round(time.monotonic() - began, 1)
        return took


def joined(spec: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Networks of a service with what it wishes on each; a list is short for no wishes."""
    networks = spec.get("networks", {})
    if isinstance(networks, list):
        return {name: {} for name in networks}
    return {name: wish or {} for name, wish in networks.items()}


def order(services: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Service names, each after those it depends on."""
    found: list[str] = []

    def visit(name: str) -> None:
        for before in services[name].get("depends_on", ()):
            visit(before)
        if name not in found:
            found.append(name)

    for name in services:
        visit(name)
    return found
