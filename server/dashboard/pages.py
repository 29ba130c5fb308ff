"""A run as pages: overview, one round, and the list of several runs. Lays out; computes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from wardround.server.book import HospitalAnswer, RoundRecord
from wardround.server.dashboard.reading import RunState, Standing
from wardround.web.charts import line_chart
from wardround.web.markup import (
    Html,
    duration,
    facts,
    join,
    link,
    section,
    share,
    size,
    table,
    tag,
)
from wardround.web.site import Page

NOT_PRIVATE = "NOT PRIVATE"


def overview(state: RunState, root: str, trail: tuple[tuple[str, str], ...] = ()) -> Page:
    """Everything about a run on one page; ``root`` is where its pages begin."""
    parts = [
        _now(state),
        _privacy(state),
        _scores(state),
        _refusals(state),
        _book(state, root),
    ]
    parts.insert(0 if state.problems else len(parts), _problems(state))
    body = join(parts)
    return Page(state.info.study, body, _summary(state), trail)


def round_page(
    state: RunState, record: RoundRecord, root: str, trail: tuple[tuple[str, str], ...]
) -> Page:
    """One round: what every hospital answered."""
    figures = facts(
        (
            ("answered", f"{_usable(record)} of {len(record.answers)}"),
            ("sent by hospitals", size(record.bytes_up)),
            ("sent to hospitals", size(record.bytes_down)),
            ("took", duration(record.seconds)),
            ("ended", _time(state.ended_at.get(record.round))),
        )
    )
    rows = [
        (
            answer.hospital,
            "update" if answer.report is not None else tag("span", "no update", class_="chip bad"),
            *_answer_cells(answer),
            size(answer.bytes_up),
            answer.reason,
        )
        for answer in record.answers
    ]
    head = ("hospital", "answer", "ε, this study", "ε, ever", "noise multiplier", "steps", "sent",
            "reason")  # fmt: skip
    scores = table(("score", "value"), [(n, f"{v:.3f}") for n, v in record.metrics.items()], " n")
    raw = tag("p", link(f"{root}rounds/{record.round}.json", "The signed record, as JSON"))
    parts = [
        section("round", "This round", figures, raw),
        section("answers", "Answers", table(head, rows, "  nnnnn ")),
        section("scores", "Scores on public probes", scores) if record.metrics else "",
    ]
    title = f"{state.info.study}: round {record.round} of {record.rounds}"
    return Page(title, join(parts), _summary(state), trail)


def runs_page(states: Mapping[str, RunState]) -> Page:
    """All runs of a folder, newest first."""
    rows = [
        (
            link(f"/{name}/", name),
            state.info.study,
            _chip(state),
            f"{state.reached} of {state.info.rounds}",
            _most_epsilon(state),
            str(len(state.refusals)),
            _time(state.ended_at.get(state.reached)),
        )
        for name, state in sorted(states.items(), key=_newest_first)
    ]
    head = ("run", "study", "state", "rounds", "largest ε, this study", "refusals", "last round")
    body = table(head, rows, "   nnn ") if rows else tag("p", "No run has begun yet.")
    return Page("Runs", section("runs", "All runs", body), f"{len(rows)} runs")


def _newest_first(item: tuple[str, RunState]) -> tuple[float, str]:
    name, state = item
    return -state.ended_at.get(state.reached, 0.0), name


def _summary(state: RunState) -> str:
    if state.stopped:
        return f"Stopped after round {state.reached}: {state.stopped}"
    if state.finished:
        return f"All {state.info.rounds} rounds have ended."
    if state.failure:
        return f"Round {state.failure.round} of {state.info.rounds} failed; the run has ended."
    return f"Round {state.reached} of {state.info.rounds} has ended."


def _problems(state: RunState) -> Html:
    """What does not verify, or that all of it does."""
    if not state.problems:
        checked = f"{len(state.records)} round records verified, each hospital's own report too."
        return section("signatures", "Signatures", tag("p", checked))
    found = tag("ul", *(tag("li", problem) for problem in state.problems))
    warning = tag("div", "Do not rely on what does not verify:", found, class_="warn", role="alert")
    return section("signatures", "Signatures", warning)


def _chip(state: RunState) -> Html:
    if state.problems:
        return tag("span", "does not verify", class_="chip bad")
    if state.stopped:
        return tag("span", "stopped early", class_="chip")
    if state.finished:
        return tag("span", "finished", class_="chip good")
    if state.failure:
        return tag("span", f"round {state.failure.round} failed", class_="chip bad")
    return tag("span", f"round {state.reached + 1}", class_="chip")


def _now(state: RunState) -> Html:
    """Where the run is, how long it will take, what went over the wire."""
    info, records = state.info, state.records
    done = share(state.reached, info.rounds, f"{state.reached} of {info.rounds} rounds ended")
    left = state.seconds_left
    last = records[-1] if records else None
    pairs: list[tuple[str, object]] = [
        ("state", join([_chip(state), " ", _mode(state)])),
        ("rounds ended", f"{state.reached} of {info.rounds}"),
        ("time left, about", "–" if left is None else duration(left)),
        ("last round ended", _time(state.ended_at.get(state.reached))),
        ("answered last", f"{_usable(last)} of {len(last.answers)}" if last else "–"),
        ("time so far", duration(sum(record.seconds for record in records))),
        ("sent by hospitals", size(sum(record.bytes_up for record in records))),
        ("sent to hospitals", size(sum(record.bytes_down for record in records))),
        ("task", info.task),
        ("strategy", info.strategy),
        ("base model", info.base),
        ("run", info.run),
    ]
    why: Html | str = ""
    if state.stopped:
        why = tag("p", f"Stopped: {state.stopped}", class_="note")
    elif state.failure:
        said = f"{_sentence(state.failure.failed)} The model is that of round {state.reached}; "
        why = tag("div", said, "a run that goes on tries again.", class_="warn", role="alert")
    return section("now", "Now", tag("div", done, class_="progress"), facts(pairs), why)


def _mode(state: RunState) -> Html:
    return Html("") if state.info.private else tag("span", NOT_PRIVATE, class_="chip bad")


def _privacy(state: RunState) -> Html:
    """Who has spent how much of what, and how it grew."""
    rows = [
        (
            standing.hospital,
            *_spent_cells(state, standing),
            str(standing.answered),
            str(standing.refused),
            str(standing.last_round or "–"),
            size(standing.bytes_up),
        )
        for standing in state.standings()
    ]
    head = ("hospital", "ε, this study", "ε, ever, of its budget", "δ", "unit", "answered",
            "refused", "last round", "sent")  # fmt: skip
    chart = tag("div", _epsilon_chart(state), _seconds_chart(state), class_="charts")
    note = tag(
        "p", "As each hospital signed it. The budget is the hospital's own, over all studies.",
        class_="note",
    )  # fmt: skip
    return section("privacy", "Hospitals and privacy", table(head, rows, " n n nnnn"), note, chart)


def _spent_cells(state: RunState, standing: Standing) -> tuple[object, ...]:
    """Epsilon of the study, of the data set's life beside its budget, delta and unit."""
    if standing.report is None:
        return "–", "nothing answered yet", "–", "–"
    delta, unit = standing.figure("delta"), str(standing.report.get("unit", "–"))
    shown = "–" if delta is None else f"{delta:g}"
    ever, budget = standing.figure("epsilon_life"), standing.figure("epsilon_budget")
    study = standing.figure("epsilon_study")
    if ever is None or budget is None or study is None:
        return NOT_PRIVATE, NOT_PRIVATE, shown, unit
    said = f"{ever:.3f} of {budget:g}"
    return f"{study:.3f}", tag("div", share(ever, budget, said), said), shown, unit


def _epsilon_chart(state: RunState) -> Html:
    """Epsilon over each data set's life, by round, and the least budget."""
    lines: dict[str, list[tuple[float, float]]] = {}
    budgets = []
    for record in state.records:
        for answer in record.answers:
            report = answer.report or {}
            ever, budget = report.get("epsilon_life"), report.get("epsilon_budget")
            if isinstance(ever, int | float) and isinstance(budget, int | float):
                lines.setdefault(answer.hospital, []).append((record.round, ever))
                budgets.append(budget)
    level = (
        ("budget" if len(set(budgets)) == 1 else "least budget", min(budgets)) if budgets else None
    )
    return line_chart("ε ever spent", lines, "round", level)


def _seconds_chart(state: RunState) -> Html:
    times = {"seconds": [(float(r.round), r.seconds) for r in state.records]}
    return line_chart("Seconds a round took", times, "round")


def _scores(state: RunState) -> Html:
    """What the model learnt, on public probes."""
    scores = state.scores
    if not scores:
        return section("scores", "Scores on public probes", tag("p", "Nothing was scored yet."))
    first, last = scores[min(scores)], scores[max(scores)]
    rows = [
        (name, f"{first[name]:.3f}" if name in first else "–", f"{value:.3f}")
        for name, value in last.items()
    ]
    head = ("score", f"round {min(scores)}", f"round {max(scores)}")
    lines = {
        name: [(float(n), scores[n][name]) for n in sorted(scores) if name in scores[n]]
        for name in last
    }
    charts = [line_chart(f"Scores {word}", part, "round") for word, part in _in_parts(lines)]
    return section(
        "scores", "Scores on public probes", table(head, rows, " nn"),
        tag("div", *charts, class_="charts"),
    )  # fmt: skip


def _in_parts(
    lines: Mapping[str, list[tuple[float, float]]],
) -> list[tuple[str, Mapping[str, list[tuple[float, float]]]]]:
    """At most five lines a chart, so that each can be told from the others."""
    names = list(lines)
    parts = [names[i : i + 5] for i in range(0, len(names), 5)]
    words = (
        [""] if len(parts) == 1 else [f"({i} of {len(parts)})" for i in range(1, len(parts) + 1)]
    )
    return [(word, {n: lines[n] for n in part}) for word, part in zip(words, parts, strict=True)]


def _refusals(state: RunState) -> Html:
    rows = [(f"round {number}", a.hospital, a.reason) for number, a in state.refusals]
    shown = table(("when", "hospital", "reason"), rows) if rows else tag("p", "None.")
    return section("refusals", "Refusals and missing answers", shown)


def _book(state: RunState, root: str) -> Html:
    """Every round, newest first, with the way to its signed record."""
    rows: list[tuple[object, ...]] = [
        (
            link(f"{root}rounds/{record.round}", f"round {record.round}"),
            f"{_usable(record)} of {len(record.answers)}",
            size(record.bytes_up),
            size(record.bytes_down),
            duration(record.seconds),
            _time(state.ended_at.get(record.round)),
            link(f"{root}rounds/{record.round}.json", "signed record"),
        )
        for record in reversed(state.records)
    ]
    rows += [
        (
            f"round {record.round}, failed",
            f"{_usable(record)} of {len(record.answers)}",
            size(record.bytes_up),
            "–",
            duration(record.seconds),
            "–",
            link(f"{root}rounds/{name}", "signed record"),
        )
        for name, record in reversed(list(state.failures.items()))
    ]
    head = ("round", "answered", "from hospitals", "to hospitals", "took", "ended", "file")
    report = (
        tag("p", link(f"{root}report.html", "The privacy report, for data protection officers"))
        if state.has_report
        else tag("p", "The privacy report is written when the run ends.", class_="note")
    )
    shown = table(head, rows, " nnnn") if rows else tag("p", "No round has ended yet.")
    return section("book", "Report book", report, shown)


def _answer_cells(answer: HospitalAnswer) -> Sequence[str]:
    """Epsilons, noise and steps of one answer."""
    report = answer.report
    if report is None:
        return ("–",) * 4
    spent = (report.get("epsilon_study"), report.get("epsilon_life"))
    return (
        *(f"{v:.3f}" if isinstance(v, int | float) else NOT_PRIVATE for v in spent),
        str(report.get("noise_multiplier", "–")),
        str(report.get("steps", "–")),
    )


def _most_epsilon(state: RunState) -> str:
    if not state.info.private:
        return NOT_PRIVATE
    spent = [standing.figure("epsilon_study") for standing in state.standings()]
    known = [value for value in spent if value is not None]
    return f"{max(known):.3f}" if known else "–"


def _sentence(text: str) -> str:
    """``text`` with a capital letter and a full stop."""
    return f"{text[:1].upper()}{text[1:]}."


def _usable(record: RoundRecord) -> int:
    return sum(answer.report is not None for answer in record.answers)


def _time(unix_s: float | None) -> Html:
    """A moment, in UTC, to the second."""
    if unix_s is None:
        return Html("–")
    moment = datetime.fromtimestamp(unix_s, UTC)
    iso = moment.isoformat(timespec="seconds")
    return tag("time", f"{moment:%Y-%m-%d %H:%M:%S} UTC", datetime=iso)
