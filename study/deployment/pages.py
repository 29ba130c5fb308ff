"""The pages of both ends as services of a supervisor; on loopback, each with its own token file."""

from __future__ import annotations

from pathlib import Path

from wardround.privacy.errors import BadInput
from wardround.study.deployment.hospital import HospitalPlace
from wardround.study.deployment.loopback import HOST
from wardround.study.deployment.processes import PYTHON, listens
from wardround.study.deployment.supervision import Service


def dashboard_service(runs: Path, port: int) -> tuple[Service, str]:
    """The coordinator's page over ``runs``, which is made when absent, and where it is.

    Raises:
        BadInput: No such port.
    """
    _check("--dashboard-port", port)
    runs.mkdir(parents=True, exist_ok=True)
    command = [
        PYTHON, "-P", "-m", "wardround.study", "dashboard", str(runs.resolve()),
        "--host", HOST, "--port", str(port),
    ]  # fmt: skip
    service = Service("dashboard", command, ready=listens(HOST, port))
    return service, _where("dashboard", port, runs / "dashboard.token")


def page_service(place: HospitalPlace, port: int) -> tuple[Service, str]:
    """The hospital's own page, once its custodian has made the ledger, and where it is.

    Raises:
        BadInput: No such port.
    """
    _check("--page-port", port)
    folder = place.folder.path.resolve()
    command = [
        PYTHON, "-P", "-m", "wardround.study", "hospital", "page", str(folder / "ledger"),
        "--policy", str(place.policy.resolve()),
        "--host", HOST, "--port", str(port),
    ]  # fmt: skip
    service = Service("page", command, after=("custodian",), ready=listens(HOST, port))
    return service, _where("page", port, place.folder.path / "page.token")


def _check(option: str, port: int) -> None:
    if not 0 < port < 65536:
        raise BadInput(f"{option} is {port}; it must lie between 1 and 65535")


def _where(name: str, port: int, token: Path) -> str:
    return f"{name}: http://{HOST}:{port}/, login token in {token}"
