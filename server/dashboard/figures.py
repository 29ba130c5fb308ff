"""A run's public figures for Prometheus; names and labels are listed in ``docs/dashboard.md``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from wardround.server.dashboard.reading import RunState

_PRIVACY = {
    "epsilon_study": "Epsilon of this study, as the hospital signed it.",
    "epsilon_life": "Epsilon of the data set over all studies, as the hospital signed it.",
    "epsilon_budget": "The most its data set may ever cost, as the hospital signed it.",
    "delta": "Delta that the epsilons are computed at.",
}


def run_figures(states: Iterable[RunState]) -> Iterator[Metric]:
    """One family a figure, one sample a run, or a run and hospital."""
    found = list(states)
    yield _gauge("rounds_planned", "Rounds the study takes.", found, lambda s: s.info.rounds)
    yield _gauge("rounds_ended", "Rounds that have ended.", found, lambda s: s.reached)
    yield _gauge("failures_total", "Tries at rounds that failed.", found,
                 lambda s: len(s.failures))  # fmt: skip
    yield _gauge("problems", "Records or reports that do not verify.", found,
                 lambda s: len(s.problems))  # fmt: skip
    yield _gauge("seconds_total", "Time the rounds took together.", found,
                 lambda s: sum(r.seconds for r in s.records))  # fmt: skip
    yield _gauge("bytes_down_total", "Bytes sent to hospitals.", found,
                 lambda s: sum(r.bytes_down for r in s.records))  # fmt: skip
    yield from _of_hospitals(found)
    scores = GaugeMetricFamily(
        "wardround_run_score", "Newest score on public probes.", labels=("run", "score")
    )
    for state in found:
        for name, value in (state.scores[max(state.scores)] if state.scores else {}).items():
            scores.add_metric((state.info.run, name), value)
    yield scores


def _gauge(
    name: str, said: str, states: list[RunState], value: Callable[[RunState], float]
) -> Metric:
    """One sample a run."""
    family = GaugeMetricFamily(f"wardround_run_{name}", said, labels=("run",))
    for state in states:
        family.add_metric((state.info.run,), value(state))
    return family


def _of_hospitals(states: list[RunState]) -> Iterator[Metric]:
    """What belongs to one hospital of one run."""
    labels = ("run", "hospital")
    answers = CounterMetricFamily(
        "wardround_hospital_answers", "Answers by result.", labels=(*labels, "result")
    )
    sent = CounterMetricFamily("wardround_hospital_sent_bytes", "Bytes it sent.", labels=labels)
    privacy = {
        name: GaugeMetricFamily(f"wardround_hospital_{name}", said, labels=labels)
        for name, said in _PRIVACY.items()
    }
    for state in states:
        for standing in state.standings():
            who = (state.info.run, standing.hospital)
            answers.add_metric((*who, "update"), standing.answered)
            answers.add_metric((*who, "none"), standing.refused)
            sent.add_metric(who, standing.bytes_up)
            for name, family in privacy.items():
                value = standing.figure(name)
                if value is not None:
                    family.add_metric(who, value)
    yield from (answers, sent, *privacy.values())
