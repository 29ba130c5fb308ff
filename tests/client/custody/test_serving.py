"""A custodian behind a socket: any size, one call at a time, typed errors, a stop without loss."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from wardround.client.custody.calling import (
    CustodianFailed,
    CustodianUnreachable,
    RemoteCustodian,
)
from wardround.client.custody.place import UnixSocket
from wardround.client.custody.serving import CustodianServer
from wardround.privacy.errors import BadInput, BadMessage


class Echo:
    """Answers what it was asked; counts how many are asked at once."""

    def __init__(self) -> None:
        self.calls: list[bytes] = []
        self.inside = self.most_inside = 0
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def declare(self) -> bytes:
        return b"declared"

    def train(self, sealed_plan: bytes, arrays_block: bytes) -> bytes:
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        self.calls.append(sealed_plan)
        self.begun.set()
        assert self.go_on.wait(20)
        self.inside -= 1
        return sealed_plan + arrays_block

    def secure_sum(self, sealed_request: bytes, arrays_block: bytes) -> bytes:
        raise MemoryError(arrays_block)


@pytest.fixture
def place(tmp_path: Path) -> UnixSocket:
    return UnixSocket(tmp_path / "run" / "custodian")


@pytest.fixture
def echo() -> Echo:
    return Echo()


Serve = Callable[..., CustodianServer]


@pytest.fixture
def serve(place: UnixSocket, echo: Echo) -> Iterator[Serve]:
    running = []

    def start(most_bytes: int = 1 << 30) -> CustodianServer:
        running.append(CustodianServer(echo, place, most_bytes))
        return running[-1]

    yield start
    echo.go_on.set()
    for server in running:
        server.stop(10.0)


def test_an_update_larger_than_grpc_takes_in_one_message(place: UnixSocket, serve: Serve) -> None:
    """gRPC refuses messages above 4 MiB (4,194,304 bytes) unless told otherwise."""
    serve()
    arrays = os.urandom(9 << 20)
    with RemoteCustodian(place, 20.0) as remote:
        assert remote.train(b"plan", arrays) == b"plan" + arrays
        assert remote.train(b"", b"") == b""
        assert remote.declare() == b"declared"


def test_socket_and_folder_are_closed_to_others(place: UnixSocket, serve: Serve) -> None:
    serve()
    assert stat.S_IMODE(place.path.stat().st_mode) == 0o660
    assert stat.S_IMODE(place.path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_an_open_folder_is_refused(place: UnixSocket, serve: Serve, mode: int) -> None:
    place.path.parent.mkdir()
    place.path.parent.chmod(mode)
    with pytest.raises(BadInput, match="needs 0750 or less"):
        serve()


def test_a_group_folder_is_accepted(place: UnixSocket, serve: Serve) -> None:
    place.path.parent.mkdir()
    place.path.parent.chmod(0o2750)
    serve()


def test_what_is_in_the_way_is_left_alone(place: UnixSocket, serve: Serve, tmp_path: Path) -> None:
    place.path.parent.mkdir(mode=0o700)
    place.path.write_text("kept")
    with pytest.raises(BadInput, match="is no socket"):
        serve()
    assert place.path.read_text() == "kept"
    place.path.unlink()
    with closing(socket.socket(socket.AF_UNIX)) as other:
        other.bind(str(place.path))
        other.listen()
        with pytest.raises(BadInput, match="another process answers"):
            serve()
    serve()  # what a dead process left behind goes
    with pytest.raises(BadInput, match="the system allows 107"):
        UnixSocket(tmp_path / ("x" * 108))


def test_calls_come_one_at_a_time(place: UnixSocket, serve: Serve, echo: Echo) -> None:
    serve()
    echo.go_on.clear()
    with RemoteCustodian(place, 20.0) as remote, ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(remote.train, b"%d" % i, b"") for i in range(4)]
        assert echo.begun.wait(20)
        assert remote.ready(20.0)  # health is answered while a round runs
        echo.go_on.set()
        assert [future.result() for future in asked] == [b"0", b"1", b"2", b"3"]
    assert sorted(echo.calls) == [b"0", b"1", b"2", b"3"]
    assert echo.most_inside == 1


def test_errors_have_types(place: UnixSocket, serve: Serve) -> None:
    with RemoteCustodian(place, 0.05) as nobody:
        with pytest.raises(CustodianUnreachable, match="train"):
            nobody.train(b"", b"")
        assert not nobody.ready(0.05)
    serve(most_bytes=1000)
    with RemoteCustodian(place, 20.0) as remote:
        with pytest.raises(CustodianFailed, match="log says why") as caught:
            remote.secure_sum(b"", b"secret")
        assert "secret" not in str(caught.value)
        with pytest.raises(BadMessage, match="more than 1000 bytes"):
            remote.train(b"", b"x" * 1000)
    with (
        RemoteCustodian(place, 20.0, most_bytes=10) as frugal,
        pytest.raises(BadMessage, match="more than 10 bytes"),
    ):
        frugal.train(b"", b"x" * 100)
    with pytest.raises(BadInput, match="deadline_s is 0"):
        RemoteCustodian(place, 0)


def test_a_caller_waits_for_a_custodian_that_is_not_there_yet(
    place: UnixSocket, serve: Serve
) -> None:
    with RemoteCustodian(place, 20.0) as remote, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(remote.declare)
        assert not remote.ready(0.05)
        serve()
        assert asked.result() == b"declared"


def test_a_stop_lets_the_running_call_end_and_takes_no_other(
    place: UnixSocket, serve: Serve, echo: Echo
) -> None:
    server = serve()
    echo.go_on.clear()
    with RemoteCustodian(place, 20.0) as remote, ThreadPoolExecutor(2) as pool:
        asked = pool.submit(remote.train, b"begun", b"")
        assert echo.begun.wait(20)
        stopped = pool.submit(server.stop, 20.0)
        assert server._stopping.wait(20)
        echo.go_on.set()
        assert asked.result() == b"begun"
        assert stopped.result()
    with RemoteCustodian(place, 0.05) as late, pytest.raises(CustodianUnreachable):
        late.declare()


def test_a_stop_says_when_a_call_goes_on(place: UnixSocket, serve: Serve, echo: Echo) -> None:
    server = serve()
    echo.go_on.clear()
    with RemoteCustodian(place, 20.0) as remote, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(remote.train, b"begun", b"")
        assert echo.begun.wait(20)
        assert not server.stop(0.0)
        remote.close()
        with pytest.raises((CustodianUnreachable, ValueError)):
            asked.result()
        echo.go_on.set()


def test_whoever_has_gone_is_not_served(
    place: UnixSocket, serve: Serve, echo: Echo, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone: list[threading.Event] = []

    def admits(self: UnixSocket, context: Any) -> bool:
        gone.append(threading.Event())
        context.add_callback(gone[-1].set)
        return True

    monkeypatch.setattr(UnixSocket, "admits", admits)
    server = serve()
    echo.go_on.clear()
    with RemoteCustodian(place, 20.0) as first, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(first.train, b"first", b"")
        assert echo.begun.wait(20)
        with (
            RemoteCustodian(place, 0.2) as impatient,
            pytest.raises(CustodianUnreachable, match="Deadline"),
        ):
            impatient.train(b"impatient", b"")
        assert gone[1].wait(20)  # the caller knows a moment before the server does
        echo.go_on.set()
        assert asked.result() == b"first"
    assert server.stop(10.0)
    assert echo.calls == [b"first"]
