"""The coordinator's site: one run, or all runs of a folder; paths are looked up."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from prometheus_client import Metric

from wardround.server.dashboard.figures import run_figures
from wardround.server.dashboard.pages import overview, round_page, runs_page
from wardround.server.dashboard.reading import RunInfo, RunReader
from wardround.web.site import File, Page

_ROUND = re.compile(r"rounds/([1-9][0-9]{0,5})(\.json)?")
_FAILED = re.compile(r"rounds/(failed-[0-9]{4,6}-[0-9]{4,6}\.json)")
Trail = tuple[tuple[str, str], ...]


class RunSite:
    """One run."""

    def __init__(self, info: RunInfo, root: str = "/", trail: Trail = ()) -> None:
        """``root`` is where its pages begin, ``trail`` the pages above them."""
        self.name = "Wardround coordinator"
        self.reader = RunReader(info)
        self._root, self._trail = root, trail

    def stamp(self) -> str:
        """Changes when a round has ended, was scored, or the report was written."""
        return self.reader.stamp()

    def find(self, path: str) -> Page | File | None:
        """``""``, ``report.html``, ``rounds/N``, ``rounds/N.json`` and a failed try's file."""
        if path == "":
            return overview(self.reader.read(), self._root, self._trail)
        if path == "report.html":
            report = self.reader.report_page()
            return None if report is None else File(report, "text/html", inline_styles=True)
        failed = _FAILED.fullmatch(path)
        if failed is not None:
            return self._raw(failed[1])
        asked = _ROUND.fullmatch(path)
        return None if asked is None else self._round(int(asked[1]), raw=asked[2] is not None)

    def figures(self) -> Iterable[Metric]:
        """The run's public figures."""
        return run_figures([self.reader.read()])

    def _round(self, number: int, raw: bool) -> Page | File | None:
        state = self.reader.read()
        record = next((r for r in state.records if r.round == number), None)
        if raw:
            return self._raw(f"{number:04d}.json")
        if record is None:
            return None
        trail = (*self._trail, (self._root, state.info.study))
        return round_page(state, record, self._root, trail)

    def _raw(self, name: str) -> File | None:
        content = self.reader.raw(name)
        return None if content is None else File(content, "application/json")


class RunsSite:
    """All runs of a folder; a run that begins while it is shown appears by itself."""

    def __init__(self, runs: Callable[[], Mapping[str, RunInfo]]) -> None:
        """``runs`` finds the runs there are now, by name of their folders."""
        self.name = "Wardround coordinator"
        self._find_runs = runs
        self._sites: dict[str, RunSite] = {}

    def stamp(self) -> str:
        """Changes when any run does."""
        return "_".join(f"{name}:{site.stamp()}" for name, site in self._all().items())

    def find(self, path: str) -> Page | File | None:
        """The list, or what one run has at the rest of the path."""
        sites = self._all()
        if path == "":
            return runs_page({name: site.reader.read() for name, site in sites.items()})
        name, _, rest = path.partition("/")
        return sites[name].find(rest) if name in sites else None

    def figures(self) -> Iterable[Metric]:
        """The public figures of every run."""
        return run_figures([site.reader.read() for site in self._all().values()])

    def _all(self) -> Mapping[str, RunSite]:
        for name, info in self._find_runs().items():
            known = self._sites.get(name)
            if known is None or known.reader.info != info:
                self._sites[name] = RunSite(info, f"/{name}/", (("/", "Runs"),))
        return self._sites
