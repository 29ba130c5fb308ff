"""The report as one HTML file: no scripts, no links, plots inside; opens in any browser, offline.

Written for a data protection officer. Says nothing that a hospital did not sign: figures come from
the report book, and this module only lays them out.
"""

from __future__ import annotations

import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wardround.server.book import RoundRecord
from wardround.strategies.checkpoint import write_atomically

Metrics = Mapping[str, float]

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0
1rem;color:#1a2230} h1{font-size:1.7rem;margin-bottom:.2rem} h2{font-size:1.2rem;margin-top:2rem}
table{border-collapse:collapse;width:100%} td,th{border-bottom:1px solid #d5dbe5;padding:.35rem
.6rem; text-align:right} td:first-child,th:first-child{text-align:left}
.note{background:#eef3fb;padding:.8rem 1rem; border-left:4px solid #3366aa}
.warn{background:#fdeceb;border-left:4px solid #b3261e;padding:.8rem 1rem}
svg{max-width:100%;height:auto} footer{margin-top:3rem;color:#5a6475;font-size:.9rem}
"""


def write_page(
    path: Path, records: Sequence[RoundRecord], history: Mapping[int, Metrics], note: str
) -> None:
    """Write the report of a run.

    Args:
        path: Replaced atomically.
        records: The rounds, in order; at least one.
        history: Scores on public probes by round; round 0 is the untouched base.
        note: The privacy cost in one sentence.
    """
    last = records[-1]
    private = not note.startswith("NOT PRIVATE")
    parts = [
        f"<h1>{html.escape(last.study)}</h1>",
        f"<p>Run {html.escape(last.run)}, {last.round} of {last.rounds} rounds.</p>",
        f'<p class="{"note" if private else "warn"}">{html.escape(note)}</p>',
        "<h2>What each hospital has spent</h2>",
        _hospital_table(records),
    ]
    if private:
        parts += ["<h2>Privacy cost by round</h2>", _epsilon_plot(records)]
    parts += [
        "<h2>What the model learnt</h2>",
        _metric_table(history),
        _metric_plot(history),
        "<h2>What is not covered</h2>",
        _limits(private),
        "<footer>Figures are those each hospital signed; the files are in rounds/.</footer>",
    ]
    title = f"{html.escape(last.study)}: privacy report"
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )
    write_atomically(path, page.encode())


def _hospital_table(records: Sequence[RoundRecord]) -> str:
    """One row a hospital: the newest report, rounds taken part in, bytes."""
    newest: dict[str, Mapping[str, Any]] = {}
    rounds: dict[str, int] = {}
    sent: dict[str, int] = {}
    refusals: dict[str, str] = {}
    for record in records:
        for answer in record.answers:
            rounds.setdefault(answer.hospital, 0)
            sent[answer.hospital] = sent.get(answer.hospital, 0) + answer.bytes_up
            if answer.report is None:
                refusals[answer.hospital] = f"round {record.round}: {answer.reason}"
            else:
                newest[answer.hospital] = answer.report
                rounds[answer.hospital] += 1
    rows = []
    for name in sorted(rounds):
        report = newest.get(name, {})
        cells = (
            name,
            str(rounds[name]),
            _epsilon(report, "epsilon_study"),
            _epsilon(report, "epsilon_life"),
            f"{report['epsilon_budget']:g}" if report else "–",
            f"{report['delta']:g}" if report else "–",
            f"{sent[name] / 1e6:.2f} MB",
            refusals.get(name, ""),
        )
        rows.append(cells)
    head = ("hospital", "rounds", "ε this study", "ε ever", "ε budget", "δ", "sent", "last refusal")
    return _table(head, rows)


def _epsilon(report: Mapping[str, Any], field: str) -> str:
    """An epsilon as text; data used without protection has none."""
    if not report:
        return "0"
    value = report[field]
    return "not private" if value is None else f"{value:.4f}"


def _metric_table(history: Mapping[int, Metrics]) -> str:
    """Every score before and after."""
    first, last = history[min(history)], history[max(history)]
    rows = [(name, f"{first[name]:.3f}", f"{last[name]:.3f}") for name in last]
    return _table(("score", "before", "after"), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _epsilon_plot(records: Sequence[RoundRecord]) -> str:
    """Composed epsilon after each round, one line a hospital."""
    lines: dict[str, tuple[list[int], list[float]]] = {}
    for record in records:
        for answer in record.answers:
            if answer.report is not None and answer.report["epsilon_study"] is not None:
                xs, ys = lines.setdefault(answer.hospital, ([], []))
                xs.append(record.round)
                ys.append(answer.report["epsilon_study"])
    return _plot(lines, "round", "ε spent in this study")


def _metric_plot(history: Mapping[int, Metrics]) -> str:
    """Scores by round."""
    rounds = sorted(history)
    names = history[rounds[-1]]
    lines = {name: (rounds, [history[n][name] for n in rounds]) for name in names}
    return _plot(lines, "round", "score on public probes")


def _plot(lines: Mapping[str, tuple[list[int], list[float]]], across: str, up: str) -> str:
    """An inline SVG line plot."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    # Text stays text (small, searchable) and ids are fixed, so equal figures give equal files.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "wardround"}):
        figure = Figure(figsize=(8, 3.4), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        for name, (xs, ys) in lines.items():
            axes.plot(xs, ys, marker=".", label=name)
        axes.set_xlabel(across)
        axes.set_ylabel(up)
        axes.grid(alpha=0.3)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small", frameon=False)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _limits(private: bool) -> str:
    """What epsilon does not promise, in plain words."""
    if not private:
        return (
            "<p>Everything: this run was made without clipping or noise, on data declared public "
            "or generated, to have something to compare with.</p>"
        )
    points = (
        "A server that keeps every upload still sees a trace of each record; ε bounds how sure it "
        "can become, it does not make the trace zero.",
        "A fact stated by many records is protected only as a group: 64 records together have 64 "
        "times less protection than one. That is why corroborated facts can be learnt at all.",
        "What a hospital declares in public (its name, its declared number of units, when it takes "
        "part) is not protected.",
    )
    return "<ul>" + "".join(f"<li>{html.escape(point)}</li>" for point in points) + "</ul>"
