"""Serving a site: where it listens, over what, and until it is told to stop.

Loopback unless asked otherwise, and then only with TLS, or behind a proxy that speaks it.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from wardround.privacy.errors import BadInput
from wardround.web.app import Manners, make_app
from wardround.web.door import Door, load_or_create_token
from wardround.web.site import Site


@dataclass(frozen=True)
class Listening:
    """Where a site is served.

    Attributes:
        token_file: Holds the token; made when absent.
        host: Address to listen on.
        port: Port to listen on.
        certificate: TLS certificate chain, PEM.
        key: Its private key, PEM.
        behind_proxy: Whether a proxy in front speaks TLS.
    """

    token_file: Path
    host: str = "127.0.0.1"
    port: int = 8050
    certificate: Path | None = None
    key: Path | None = None
    behind_proxy: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.port < 65536:
            raise BadInput(f"--port is {self.port}; it must lie between 1 and 65535")
        if (self.certificate is None) != (self.key is None):
            raise BadInput("--certificate and --key go together")
        for path in (self.certificate, self.key):
            if path is not None and not path.is_file():
                raise BadInput(f"{path}: no such file")
        if not (_is_loopback(self.host) or self.secure):
            raise BadInput(
                f"--host is {self.host}: a token over plain HTTP can be read on the way; give "
                "--certificate and --key, or --behind-proxy where a proxy in front speaks TLS"
            )

    @property
    def secure(self) -> bool:
        """Whether browsers reach it over TLS."""
        return self.certificate is not None or self.behind_proxy

    @property
    def address(self) -> str:
        """What to type into a browser on this machine."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.certificate else 'http'}://{host}:{self.port}/"


def serve(site: Site, at: Listening, ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; ``ready`` is told the address once the token is there.

    Raises:
        BadInput: The token file cannot be used, or the port is taken.
    """
    door = Door(load_or_create_token(at.token_file), time.monotonic)
    server: uvicorn.Server | None = None

    def stopping() -> bool:
        return server is not None and server.should_exit

    server = uvicorn.Server(
        uvicorn.Config(
            make_app(site, door, Manners(secure=at.secure, stopping=stopping)),
            host=at.host,
            port=at.port,
            ssl_certfile=at.certificate,
            ssl_keyfile=at.key,
            log_config=None,
            ws="none",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=128,
            timeout_graceful_shutdown=5,
        )
    )
    ready(at.address)
    try:
        server.run()
    except SystemExit as error:
        raise BadInput(f"{at.host}:{at.port} cannot be listened on; is the port taken?") from error


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
