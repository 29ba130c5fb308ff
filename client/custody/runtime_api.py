"""The SuperNode's side of a resident relay, by ten names of Flower's internals.

Flower has no public way to answer messages without unpacking what a coordinator shipped. These
names are what its own executor and ClientApp process use. flwr is pinned exactly, and
``check_contract`` compares each name with what this module was written against: where one differs,
the relay does not start. Knows nothing of custodians.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from flwr.app import Context, Message

from wardround.privacy.errors import BadInput, UntrustedPeer, WardroundError

log = logging.getLogger("wardround.relay")

CLIENT_TASK = "flwr-clientapp"
_COMPONENT = "SuperExec"
_ACQUIRE = "/flwr.proto.Runtime/AcquireTask"

# By module and name: parameters of what is called, fields of what is sent.
CONTRACT: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("flwr.proto.runtime_pb2", "AcquireTaskRequest"): (
        "supported_task_types",
        "agentapp_fab_hashes",
    ),
    ("flwr.proto.runtime_pb2", "SendTaskHeartbeatRequest"): (),
    ("flwr.supercore.heartbeat", "HeartbeatSender"): ("heartbeat_fn",),
    ("flwr.supercore.interceptors", "RuntimeTokenHttpInterceptor"): ("token",),
    ("flwr.supercore.interceptors", "RuntimeVersionHttpInterceptor"): ("component_name",),
    ("flwr.supercore.interceptors", "SuperExecAuthHttpInterceptor"): (
        "master_secret",
        "protected_methods",
    ),
    ("flwr.supercore.runtime", "RuntimeHttpClient.from_server_address"): (
        "server_address",
        "insecure",
        "root_certificates",
        "interceptors",
        "retry_invoker",
    ),
    ("flwr.supernode.runtime.run_clientapp", "pull_task_input"): ("client",),
    ("flwr.supernode.runtime.run_clientapp", "push_message"): ("client", "message", "context"),
    ("flwr.supernode.runtime.run_clientapp", "push_task_output"): (
        "client",
        "context",
        "sub_status",
        "details",
    ),
}


class FlowerChanged(WardroundError):
    """Flower's internals are not those this release was written against; nothing was started."""


def check_contract() -> None:
    """Raise ``FlowerChanged`` unless every name is there with the parameters we use."""
    for module, name in CONTRACT:
        find(module, name)


def find(module: str, name: str) -> Any:
    """What a name of the contract stands for.

    Raises:
        FlowerChanged: It is not there, or takes other parameters.
    """
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise FlowerChanged(f"{module}.{name} is gone; install the pinned flwr") from error
    expected, there = CONTRACT[module, name], parameters(found)
    if there != expected:
        raise FlowerChanged(
            f"{module}.{name} takes {', '.join(there) or 'nothing'}, expected "
            f"{', '.join(expected) or 'nothing'}; install the pinned flwr"
        )
    return found


def parameters(found: Any) -> tuple[str, ...]:
    """Fields of a protocol message, or parameters of anything else that is called."""
    if hasattr(found, "DESCRIPTOR"):
        return tuple(field.name for field in found.DESCRIPTOR.fields)
    return tuple(inspect.signature(found).parameters)


class Task(Protocol):
    """One message that the SuperNode wants answered."""

    def pull(self) -> tuple[Message, Context, str]:
        """The message, its context and the SHA-256 of the bundle that it is meant for."""

    def push(self, reply: Message, context: Context) -> None:
        """Hand the reply over."""

    def finish(self, context: Context | None, failure: str) -> None:
        """Say that the task is over; ``failure`` is empty when it went well."""

    def abandon(self) -> None:
        """Say nothing any more, so that the SuperNode misses whoever had the task."""


class Runtime(Protocol):
    """A SuperNode, as far as a relay needs it."""

    def acquire(self) -> Task | None:
        """The next task, or None when there is none or nobody can be asked now."""


@dataclass(frozen=True)
class SuperNode:
    """A SuperNode in process isolation.

    Attributes:
        address: ``HOST:PORT`` of its Runtime API.
        secret: File of the secret that it shares with its executor; taken as it is, byte by byte.
        authority: Certificate its own is signed by; None speaks without TLS, for loopback only.
    """

    address: str
    secret: Path
    authority: Path | None = None

    def connect(self) -> Runtime:
        """A connection; nobody is asked yet.

        Raises:
            BadInput: A file cannot be read.
            FlowerChanged: See ``check_contract``.
        """
        check_contract()
        secret = _read(self.secret)
        certificates = None if self.authority is None else _read(self.authority)
        make = find("flwr.supercore.runtime", "RuntimeHttpClient.from_server_address")
        version = find("flwr.supercore.interceptors", "RuntimeVersionHttpInterceptor")
        allowed = find("flwr.supercore.interceptors", "SuperExecAuthHttpInterceptor")

        def client(interceptor: Any) -> Any:
            return make(
                server_address=self.address,
                insecure=certificates is None,
                root_certificates=certificates,
                interceptors=[version(component_name=_COMPONENT), interceptor],
                retry_invoker=None,  # Flower's own would send this process SIGINT
            )

        executor = allowed(master_secret=secret, protected_methods=frozenset({_ACQUIRE}))
        return _FlowerRuntime(self.address, client, client(executor))


class _FlowerRuntime:
    """The Runtime API of one SuperNode."""

    def __init__(self, address: str, client: Callable[[Any], Any], executor: Any) -> None:
        self._address = address
        self._client = client
        self._executor = executor
        self._request = find("flwr.proto.runtime_pb2", "AcquireTaskRequest")
        self._token = find("flwr.supercore.interceptors", "RuntimeTokenHttpInterceptor")

    def acquire(self) -> Task | None:
        """As ``Runtime`` says; ``UntrustedPeer`` when the secret is not the SuperNode's."""
        import httpx

        try:
            found = self._executor.AcquireTask(self._request(supported_task_types=[CLIENT_TASK]))
        except httpx.HTTPStatusError as error:
            if error.response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
                raise UntrustedPeer(
                    f"{self._address}: the SuperNode does not accept the secret; both read every "
                    "byte of their file, a line end included"
                ) from error
            log.warning("supernode status=%d", error.response.status_code)
            return None
        except httpx.TransportError as error:
            log.debug("supernode unreachable error=%s", type(error).__name__)
            return None
        if not (found.HasField("task") and found.token):
            return None
        return _FlowerTask(self._client(self._token(found.token)))


class _FlowerTask:
    """One task, kept alive by heartbeats until it is finished."""

    def __init__(self, client: Any) -> None:
        self._client = client
        beat = find("flwr.proto.runtime_pb2", "SendTaskHeartbeatRequest")()
        self._heart = find("flwr.supercore.heartbeat", "HeartbeatSender")(lambda: self._beat(beat))
        self._heart.start()

    def _beat(self, beat: Any) -> bool:
        """Whether the SuperNode heard it; a task it has given up needs none."""
        import httpx

        try:
            self._client.SendTaskHeartbeat(beat)
        except httpx.TransportError:
            return False
        except httpx.HTTPStatusError as error:
            log.warning("heartbeat status=%d", error.response.status_code)
        return True

    def pull(self) -> tuple[Message, Context, str]:
        message, context, _, bundle = find(
            "flwr.supernode.runtime.run_clientapp", "pull_task_input"
        )(self._client)
        return message, context, hashlib.sha256(bundle.content).hexdigest()

    def push(self, reply: Message, context: Context) -> None:
        find("flwr.supernode.runtime.run_clientapp", "push_message")(self._client, reply, context)

    def finish(self, context: Context | None, failure: str) -> None:
        push = find("flwr.supernode.runtime.run_clientapp", "push_task_output")
        try:
            push(self._client, context, "failed" if failure else "completed", failure)
        finally:
            self.abandon()

    def abandon(self) -> None:
        with contextlib.suppress(RuntimeError):  # Flower's word for a heart that stands still
            self._heart.stop()
        self._client.close()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from error
