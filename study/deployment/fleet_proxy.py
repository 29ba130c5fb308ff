"""The only door to a coordinator: a TLS proxy that lets the Fleet API through and nothing else.

A SuperLink answers hospitals, operators and executors on one port, and asks operators for nothing
but the authority's certificate. So it listens on loopback, and this stands in front. Where the
dashboard runs in a container, it is reached by a second port here that is bound to loopback.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

_CONFIG = """\
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 512; }}
http {{
  access_log off;
  server_tokens off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  ssl_protocols TLSv1.2 TLSv1.3;
  limit_req_zone $binary_remote_addr zone=fleet:1m rate=200r/s;
  upstream superlink {{ server {superlink}; keepalive 8; }}
  server {{
    listen {listen} ssl;
    ssl_certificate {certificate};
    ssl_certificate_key {certificate};
    client_max_body_size 16m;
    client_body_buffer_size 8m;
    merge_slashes on;
    location /v1/fleet/ {{
      limit_except POST {{ deny all; }}
      limit_req zone=fleet burst=400 nodelay;
      proxy_pass https://superlink;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host {upstream_name};
      proxy_ssl_trusted_certificate {authority};
      proxy_ssl_verify on;
      proxy_ssl_name {upstream_name};
      proxy_ssl_server_name on;
      proxy_read_timeout 120s;
      proxy_request_buffering off;
      proxy_buffers 16 512k;
      proxy_buffer_size 64k;
    }}
    location / {{ return 403; }}
  }}
{pages}}}
"""
_PAGES = """\
  server {{
    listen {listen} ssl;
    ssl_certificate {certificate};
    ssl_certificate_key {certificate};
    client_max_body_size 16k;
    location / {{
      proxy_pass http://{dashboard};
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host:$server_port;
      proxy_buffering off;
      proxy_read_timeout 1h;
    }}
  }}
"""


@dataclass(frozen=True)
class Pages:
    """The dashboard behind the proxy.

    Attributes:
        listen: Address and port for browsers.
        dashboard: Address and port of the dashboard, which speaks plain HTTP.
    """

    listen: str
    dashboard: str


@dataclass(frozen=True)
class FleetProxy:
    """What the proxy connects.

    Attributes:
        listen: Address and port hospitals connect to.
        certificate: Key and certificate for it in one file.
        superlink: Address and port of the SuperLink.
        upstream_name: Name in the SuperLink's certificate.
        authority: What that certificate is checked with.
        pages: The dashboard, where it is behind the proxy.
    """

    listen: str
    certificate: Path
    superlink: str
    upstream_name: str
    authority: Path
    pages: Pages | None = None

    def text(self, folder: Path) -> str:
        """The configuration; nginx writes its temporary files to ``folder``."""
        pages = self.pages and _PAGES.format(
            listen=self.pages.listen,
            dashboard=self.pages.dashboard,
            certificate=self.certificate,
        )
        return _CONFIG.format(
            folder=folder,
            superlink=self.superlink,
            listen=self.listen,
            certificate=self.certificate,
            upstream_name=self.upstream_name,
            authority=self.authority,
            pages=pages or "",
        )

    def write(self, folder: Path) -> Path:
        """The configuration file, in ``folder``."""
        path = folder / "nginx.conf"
        path.write_text(self.text(folder), encoding="utf-8")
        return path


def find_nginx() -> str | None:
    """Path of nginx; None where it is not installed."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
