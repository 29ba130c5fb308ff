"""The server of pages: everything behind the door, nothing to write, live by server-sent events.

One guard stands in front of all routes, so a new route cannot be forgotten; every answer, errors
included, carries the same strict headers. Answers never hold a path of this machine or a secret.
Knows nothing of what the pages show.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from importlib import resources
from typing import TypeVar
from urllib.parse import parse_qs

from fastapi import FastAPI, Request
from fastapi.responses import (
    HTMLResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Metric, generate_latest
from prometheus_client.registry import Collector
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wardround.privacy.errors import WardroundError
from wardround.web.door import Door, TooManyTries
from wardround.web.site import STATIC, File, Site, login_page, plain_page, whole_page

log = logging.getLogger("wardround.web")

T = TypeVar("T")
COOKIE = "wardround"
_OPEN = ("/login", "/health", f"{STATIC}/style.css", f"{STATIC}/icon.svg")
_TYPES = {"style.css": "text/css", "live.js": "text/javascript", "icon.svg": "image/svg+xml"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_FILE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox"
_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}
_MOST_LOGIN_BYTES = 2048
_MOST_STREAMS = 32
_HEARTBEAT_S = 15.0


@dataclass(frozen=True)
class Manners:
    """How an app behaves, apart from what it shows.

    Attributes:
        secure: Whether cookies go over TLS only.
        poll_s: Pause between two looks for changes.
        stopping: Whether the server is about to end; open streams then end too.
        sleep: Waits.
    """

    secure: bool = False
    poll_s: float = 1.0
    stopping: Callable[[], bool] = lambda: False
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


def make_app(site: Site, door: Door, manners: Manners | None = None) -> ASGIApp:
    """The application for one site behind one door."""
    manners = manners or Manners()
    app = FastAPI(title=site.name, docs_url=None, redoc_url=None, openapi_url=None)
    asked = _OneAtATime()
    streams = asyncio.Semaphore(_MOST_STREAMS)

    @app.post("/login")
    async def login(request: Request) -> Response:
        token = await _form_token(request)
        try:
            session = door.enter(token, _address(request.scope))
        except TooManyTries as error:
            return _slow_down(site, error)
        if session is None:
            log.warning("login refused address=%(address)s", {"address": _address(request.scope)})
            return HTMLResponse(login_page(site.name, "That is not the token."), 401)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(
            COOKIE, session, httponly=True, samesite="strict", secure=manners.secure, path="/"
        )
        return answer

    @app.post("/logout")
    async def logout(request: Request) -> Response:
        door.leave(request.cookies.get(COOKIE, ""))
        answer = RedirectResponse("/login", 303)
        answer.delete_cookie(COOKIE, httponly=True, samesite="strict", secure=manners.secure)
        return answer

    @app.get("/login")
    async def ask() -> Response:
        return HTMLResponse(login_page(site.name))

    @app.get("/health")
    async def health() -> Response:
        return PlainTextResponse("ok\n")

    @app.get(STATIC + "/{name}")
    async def static(name: str) -> Response:
        if name not in _TYPES:
            raise HTTPException(404)
        return Response(_static(name), media_type=_TYPES[name])

    @app.get("/metrics")
    async def metrics() -> Response:
        figures = await asked.run(lambda: list(site.figures()))
        registry = CollectorRegistry()
        registry.register(_Ready(figures))
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/events")
    async def events(request: Request) -> Response:
        if streams.locked():
            return PlainTextResponse("too many open pages\n", 503, {"retry-after": "30"})
        session = request.cookies.get(COOKIE, "")

        async def stream() -> AsyncIterator[str]:
            async with streams:
                yield "retry: 3000\n\n"
                async for line in _changes(site, asked, manners):
                    if manners.stopping() or not door.admits(session):
                        return
                    yield line

        return StreamingResponse(stream(), media_type="text/event-stream")

    @app.get("/{path:path}")
    async def page(path: str) -> Response:
        found = await asked.run(lambda: site.find(path))
        if found is None:
            raise HTTPException(404)
        if isinstance(found, File):
            policy = {"content-security-policy": _FILE_POLICY} if found.inline_styles else None
            return Response(found.content, media_type=found.media_type, headers=policy)
        return HTMLResponse(whole_page(site.name, found))

    @app.exception_handler(HTTPException)
    async def refuse(request: Request, error: Exception) -> Response:
        code = error.status_code if isinstance(error, HTTPException) else 500
        said = {404: "There is no such page.", 405: "Pages here can only be read."}
        what = said.get(code, "This cannot be answered.")
        return HTMLResponse(plain_page(site.name, f"Error {code}", what), code)

    @app.exception_handler(WardroundError)
    async def cannot(request: Request, error: Exception) -> Response:
        # What it says may name files of this machine: it goes to the log, not to the wire.
        log.warning(
            "page not shown page=%(page)s reason=%(reason)s",
            {"page": request.url.path, "reason": str(error)},
        )
        said = "What this page shows cannot be read; the server's log says why."
        return HTMLResponse(plain_page(site.name, "Error 503", said), 503)

    return _Headers(_Guard(app, site, door))


class _Guard:
    """Nobody passes without a session or the token."""

    def __init__(self, app: ASGIApp, site: Site, door: Door) -> None:
        self._app, self._site, self._door = app, site, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # nothing here speaks anything else
        request = Request(scope)
        answer: ASGIApp = self._app
        if scope["path"] not in _OPEN:
            try:
                if not self._admits(request):
                    answer = _unknown(self._site, request)
            except TooManyTries as error:
                answer = _slow_down(self._site, error)
        await answer(scope, receive, send)

    def _admits(self, request: Request) -> bool:
        """Whether a cookie or a bearer's token opens the door."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self._door.knows(token.strip(), _address(request.scope))
        return self._door.admits(request.cookies.get(COOKIE, ""))


class _Headers:
    """The same strict headers on every answer that does not bring stricter ones."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("content-security-policy", _POLICY)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, guarded)


class _OneAtATime:
    """Runs a site's calls in a thread, so that reading files holds nobody up, and one by one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    async def run(self, call: Callable[[], T]) -> T:
        def locked() -> T:
            with self._lock:
                return call()

        return await run_in_threadpool(locked)


class _Ready(Collector):
    """Figures that are at hand."""

    def __init__(self, figures: list[Metric]) -> None:
        self._figures = figures

    def collect(self) -> list[Metric]:
        return self._figures


async def _changes(site: Site, asked: _OneAtATime, manners: Manners) -> AsyncIterator[str]:
    """An event whenever the stamp changes, a comment now and then, and empty text in between."""
    known, quiet_s = await asked.run(site.stamp), 0.0
    while True:
        stamp = await asked.run(site.stamp)
        if stamp != known:
            known, quiet_s = stamp, 0.0
            yield f"event: change\ndata: {stamp}\n\n"
        elif quiet_s >= _HEARTBEAT_S:
            quiet_s = 0.0
            yield ": still here\n\n"
        else:
            yield ""
        await manners.sleep(manners.poll_s)
        quiet_s += manners.poll_s


async def _form_token(request: Request) -> str:
    """The token field of a small form; empty when there is none."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_LOGIN_BYTES:
            raise HTTPException(413)
    fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=4)
    return fields.get("token", [""])[0].strip()


def _unknown(site: Site, request: Request) -> Response:
    """401: the form for a browser, one line for a program."""
    challenge = {"www-authenticate": "Bearer"}
    if "text/html" in request.headers.get("accept", ""):
        return HTMLResponse(login_page(site.name), 401, challenge)
    return PlainTextResponse("a token is needed\n", 401, challenge)


def _slow_down(site: Site, error: TooManyTries) -> Response:
    wait_s = max(1, round(error.wait_s))
    said = f"Too many wrong tokens; try again in {wait_s} s."
    return HTMLResponse(login_page(site.name, said), 429, {"retry-after": str(wait_s)})


def _address(scope: Scope) -> str:
    """Who asks, as far as this machine can tell."""
    client = scope.get("client")
    return str(client[0]) if client else "?"


@functools.cache
def _static(name: str) -> bytes:
    return (resources.files("wardround.web") / "static" / name).read_bytes()
