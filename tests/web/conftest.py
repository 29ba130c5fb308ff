"""A run and a hospital's books made without training, and a browser to look at their pages."""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import uvicorn
from websockets.sync.client import connect

from wardround.privacy.chain import LedgerHead
from wardround.privacy.events import Gaussian, PoissonSampled, Repeated
from wardround.privacy.ledger import Charge, Ledger
from wardround.privacy.mechanisms import PrivacyPlan
from wardround.privacy.plan import RoundPlan
from wardround.privacy.report import Standing, hospital_report, sign_report
from wardround.privacy.signing import SigningKey
from wardround.privacy.units import Unit
from wardround.server.book import HospitalAnswer, ReportBook, RoundRecord
from wardround.server.dashboard.reading import RunInfo
from wardround.web.app import Manners, make_app
from wardround.web.door import Door
from wardround.web.site import Site

TOKEN = "a-token-for-tests-and-nothing-else"
STEP = PoissonSampled(0.1, Gaussian(1.5))
PLAN = PrivacyPlan(Unit.RECORD, 1.0, 1.5, 0.1, 10, 32.0)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


@dataclass
class MadeUpRun:
    """A run of three hospitals whose records are written by hand."""

    info: RunInfo
    key: SigningKey
    hospitals: dict[str, SigningKey]

    def report(self, name: str, number: int, **changes: Any) -> dict[str, Any]:
        """One hospital's signed report on a round; ``changes`` are made before signing."""
        spent = Repeated(STEP, 10 * number)
        head = LedgerHead(2 * number, f"{number:064d}")
        standing = Standing(name, "notes", "private", 320, 8.0, 1e-5, spent, spent, head)
        plan = RoundPlan(
            self.info.study, self.info.run, number, self.info.rounds, name, "editing", "fedavg",
            "drugs", "b" * 64, "a" * 64, PLAN,
        )  # fmt: skip
        report = hospital_report(plan, standing)
        return sign_report(report | changes, self.hospitals[name])

    def end_round(self, number: int, refuses: str = "", reason: str = "", **changes: Any) -> None:
        """Write the record of one round, scores beside it."""
        answers = tuple(
            HospitalAnswer(name, None, reason, 300)
            if name == refuses
            else HospitalAnswer(name, self.report(name, number, **changes), "", 48_264)
            for name in self.hospitals
        )
        scores = {"corrected": 1 - 0.8**number, "kept": 1 - 0.01 * number}
        record = RoundRecord(
            self.info.study, self.info.run, number, self.info.rounds, answers, scores, 190_000, 2.5
        )
        ReportBook(self.info.folder / "rounds", self.key).write(record)
        with (self.info.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"round": number, **scores}) + "\n")

    def fail_round(self, number: int, reason: str) -> None:
        """Write the record of a try at which every hospital refused."""
        answers = tuple(HospitalAnswer(name, None, reason, 300) for name in self.hospitals)
        record = RoundRecord(
            self.info.study, self.info.run, number, self.info.rounds, answers, seconds=1.0,
            failed=f"round {number}: no usable update ({reason})",
        )  # fmt: skip
        ReportBook(self.info.folder / "rounds", self.key).write(record)


@pytest.fixture
def run(tmp_path: Path) -> MadeUpRun:
    """Four of six rounds; in the second, one hospital refused, with markup in its reason."""
    folder = tmp_path / "runs" / "secret-folder"
    folder.mkdir(parents=True)
    keys = {name: SigningKey.generate() for name in ("north", "harbour", "st-anne")}
    signing = SigningKey.generate()
    members = {name: key.public for name, key in keys.items()}
    info = RunInfo(
        folder, "discharge-letters", "letters-1", "editing", "fedavg", "drugs", 6, True, members,
        signing.public,
    )  # fmt: skip
    made = MadeUpRun(info, signing, keys)
    (folder / "metrics.jsonl").write_text('{"round": 0, "corrected": 0.0, "kept": 1.0}\n')
    for number in range(1, 5):
        refuses = "harbour" if number == 2 else ""
        made.end_round(number, refuses, "[budget] epsilon allows 8 <script>alert(1)</script>")
    return made


@pytest.fixture
def books(tmp_path: Path) -> Iterator[tuple[Path, Path, Ledger]]:
    """A ledger with two studies, its policy, and the open ledger."""
    home = tmp_path / "secret-hospital"
    home.mkdir()
    policy = home / "policy.toml"
    tables = {
        "budget": {"epsilon": 4.0, "delta": 1e-5, "unit": "record"},
        "allow": {
            "tasks": ["editing"], "bases": ["b" * 64], "strategies": ["fedavg"],
            "min_noise_multiplier": 0.5, "max_rounds": 10, "min_units": 50,
        },
        "data": {"name": "notes", "declared_units": 320},
    }  # fmt: skip
    policy.write_text(tomli_w.dumps(tables), encoding="utf-8")
    ledger = Ledger(home / "ledger", SigningKey.generate())
    for study, number in itertools.product(("letters", "referrals"), (1, 2)):
        charge = Charge(
            study, f"{study}-run", number, "a" * 64, "notes", Unit.RECORD, Repeated(STEP, 10)
        )
        reservation = ledger.reserve(charge)
        if (study, number) != ("referrals", 2):
            ledger.commit(reservation, f"{study}{number}".encode())
    yield home / "ledger", policy, ledger
    ledger.close()


@pytest.fixture
def served() -> Iterator[Callable[[Site], str]]:
    """Serves a site on a free port of this machine; gives its address."""
    running: list[tuple[uvicorn.Server, threading.Thread]] = []

    def serve(site: Site) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        manners = Manners(
            poll_s=0.05, stopping=lambda: bool(running) and running[-1][0].should_exit
        )
        app = make_app(site, Door(TOKEN, time.monotonic), manners)
        server = uvicorn.Server(
            uvicorn.Config(
                app, log_config=None, ws="none", timeout_graceful_shutdown=2, access_log=False
            )
        )
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        running.append((server, thread))
        thread.start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield serve
    for server, thread in running:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


class Browser:
    """Headless Chromium, driven by its own protocol."""

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM is not None
        self._process = subprocess.Popen(
            [
                CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
                "--disable-background-networking", "--disable-component-update",
                "--hide-scrollbars",
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--mute-audio",
                "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank",
            ],
            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert self._process.stderr is not None
        address = next(
            line.split()[-1]
            for line in self._process.stderr
            if line.startswith("DevTools listening")
        )
        self._reading = threading.Thread(target=self._process.stderr.read, daemon=True)
        self._reading.start()
        self._open = ExitStack()
        self._socket = self._open.enter_context(connect(address, max_size=None, proxy=None))
        self._ids = itertools.count(1)
        self._session: str | None = None
        self.complaints: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command and its result; what the page complains of meanwhile is kept."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._socket.send(json.dumps(message))
        while True:
            heard = self._hear(60)
            if heard.get("id") == number:
                assert "error" not in heard, heard
                return dict(heard["result"])

    def _hear(self, timeout_s: float) -> dict[str, Any]:
        """The next message; complaints are kept."""
        heard = dict(json.loads(self._socket.recv(timeout=timeout_s)))
        if heard.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown"):
            self.complaints.append(json.dumps(heard["params"])[:500])
        return heard

    def _listen(self, seconds: float) -> None:
        """Take in what the browser tells by itself, until it is quiet for so long."""
        with suppress(TimeoutError):
            while True:
                self._hear(seconds)

    def run(self, script: str) -> Any:
        """The value of an expression, awaited."""
        found = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, script: str) -> None:
        """Until an expression is true; fails after about a minute."""
        for _ in range(300):
            if self.run(script):
                return
            self._listen(0.2)
        raise AssertionError(f"never true: {script}")

    def open(self, address: str) -> None:
        """Go to a page and wait until it is there."""
        self.call("Page.navigate", url=address)
        self.wait("location.href !== 'about:blank' && document.readyState === 'complete'")

    def type(self, text: str) -> None:
        """Type into whatever has the focus."""
        self.call("Input.insertText", text=text)

    def press(self, key: str, code: int) -> None:
        """Press a key of the keyboard."""
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code,
                **(text if kind == "keyDown" else {}),
            )  # fmt: skip

    def shape(self, width: int, height: int, dark: bool = False) -> None:
        """Size of the window, and what the person prefers."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
            mobile=width < 600,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, path: Path) -> None:
        """The whole page as PNG."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(shot))

    def close(self) -> None:
        """End it."""
        assert self._process.stderr is not None
        self._open.close()
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(20)
        self._reading.join(20)
        self._process.stderr.close()


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all tests of this folder."""
    if CHROMIUM is None:
        pytest.skip("no chromium on PATH")
    browser = Browser(tmp_path_factory.mktemp("profile"))
    try:
        yield browser
    finally:
        browser.close()


@pytest.fixture
def browser(chromium: Browser) -> Browser:
    """The browser, as if fresh."""
    chromium.call("Network.clearBrowserCookies")
    chromium.call("Emulation.setScriptExecutionDisabled", value=False)
    chromium.shape(1280, 900)
    chromium.complaints.clear()
    return chromium
