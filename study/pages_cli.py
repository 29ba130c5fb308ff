"""The commands that show runs and ledgers: ``dashboard``, ``hospital page`` and ``track``."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wardround.privacy.errors import BadInput, WardroundError

if TYPE_CHECKING:
    from wardround.server.dashboard.reading import RunInfo
    from wardround.web.site import Site

log = logging.getLogger("wardround.pages")

AsJson = Annotated[bool, typer.Option("--json", help="Say where it listens as one JSON document.")]
Host = Annotated[str, typer.Option(help="Address to listen on; loopback unless over TLS.")]
Port = Annotated[int, typer.Option(help="Port to listen on.")]
TokenFile = Annotated[
    Path | None,
    typer.Option(help="File that holds the login token; made, for its owner only, when absent."),
]
Certificate = Annotated[Path | None, typer.Option(help="TLS certificate chain, PEM.")]
Key = Annotated[Path | None, typer.Option(help="The certificate's private key, PEM.")]
BehindProxy = Annotated[
    bool, typer.Option("--behind-proxy", help="A proxy in front speaks TLS to browsers.")
]


def dashboard(
    path: Annotated[Path, typer.Argument(help="A run's folder, or one that holds runs.")],
    host: Host = "127.0.0.1",
    port: Port = 8050,
    token_file: TokenFile = None,
    certificate: Certificate = None,
    key: Key = None,
    behind_proxy: BehindProxy = False,
    as_json: AsJson = False,
) -> None:
    """Serve the coordinator's pages: rounds, epsilon against budgets, refusals, the report book."""
    from wardround.server.dashboard.site import RunSite, RunsSite
    from wardround.web.serving import Listening

    if not path.is_dir():
        raise BadInput(f"{path}: no such folder")
    at = Listening(
        token_file or path / "dashboard.token", host, port, certificate, key, behind_proxy
    )
    single = (path / "run.json").is_file()
    site: Site = RunSite(run_info(path)) if single else RunsSite(RunsFolder(path).runs)
    _serve(site, at, as_json)


def page(
    ledger: Annotated[Path, typer.Argument(help="The hospital's ledger folder.")],
    policy: Annotated[
        Path | None, typer.Option(help="The hospital's policy, for budgets and rules.")
    ] = None,
    host: Host = "127.0.0.1",
    port: Port = 8051,
    token_file: TokenFile = None,
    certificate: Certificate = None,
    key: Key = None,
    behind_proxy: BehindProxy = False,
    as_json: AsJson = False,
) -> None:
    """Serve a hospital's own pages: what was spent on its data, every charge, every refusal."""
    from wardround.client.page.site import HospitalSite
    from wardround.privacy.policy import Policy
    from wardround.web.serving import Listening

    if not ledger.is_dir():
        raise BadInput(f"{ledger}: no such folder")
    if policy is not None:
        Policy.read(policy)
    at = Listening(
        token_file or ledger.parent / "page.token", host, port, certificate, key, behind_proxy
    )
    _serve(HospitalSite(ledger, policy), at, as_json)


def run_info(path: Path) -> RunInfo:
    """What was fixed when the run in ``path`` began; ``BadInput`` when it is not a run."""
    from wardround.privacy.plan import Mode
    from wardround.server.dashboard.reading import RunInfo
    from wardround.study.run_folder import RunFolder

    run = RunFolder.open(path)
    study = run.study
    return RunInfo(
        folder=path,
        study=study.study.name,
        run=run.facts.run,
        task=study.study.task,
        strategy=study.strategy.name,
        base=study.model.base,
        rounds=study.study.rounds,
        private=study.privacy.mode is not Mode.NONE,
        members=run.facts.members,
        coordinator=run.facts.coordinator,
    )


class RunsFolder:
    """The runs in a folder, by name; a run's facts are read again only when their file changes."""

    def __init__(self, parent: Path) -> None:
        self._parent = parent
        self._known: dict[str, tuple[int, RunInfo | None]] = {}

    def runs(self) -> Mapping[str, RunInfo]:
        """Those there are now; what is not a run, or not one yet, is left out."""
        for facts in sorted(self._parent.glob("[!.]*/run.json")):
            name, changed_ns = facts.parent.name, facts.stat().st_mtime_ns
            if name not in self._known or self._known[name][0] != changed_ns:
                self._known[name] = changed_ns, _info_or_none(facts.parent)
        return {name: info for name, (_, info) in self._known.items() if info is not None}


def _info_or_none(path: Path) -> RunInfo | None:
    """A run's facts, or None and a line in the log that says why not."""
    try:
        return run_info(path)
    except WardroundError as error:
        log.warning("run not shown reason=%(reason)s", {"reason": str(error)})
        return None


def _serve(site: Site, at: Any, as_json: bool) -> None:
    """Serve, and say where; the token itself is never printed."""
    from wardround.web.serving import serve

    def ready(address: str) -> None:
        if as_json:
            print(json.dumps({"address": address, "token_file": str(at.token_file)}), flush=True)
        else:
            print(f"{site.name}: {address}\nlogin token: in {at.token_file}", flush=True)

    serve(site, at, ready)


def track(
    run_dir: Annotated[Path, typer.Argument(help="A run's folder.")],
    to: Annotated[str, typer.Option(help="Folder for tensorboard, tracking address for mlflow.")],
    sink: Annotated[str, typer.Option(help="tensorboard or mlflow.")] = "tensorboard",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Send a run's verified round records to TensorBoard or MLflow, as a new run there."""
    from wardround.server.book import read_book
    from wardround.server.sinks import send_to

    info = run_info(run_dir)
    count = send_to(sink, to, info.run, read_book(run_dir / "rounds"))
    document = {"sink": sink, "run": info.run, "rounds": count}
    print(json.dumps(document) if as_json else f"{count} rounds of {info.run} sent to {sink}")
