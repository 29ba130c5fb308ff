"""The report as one HTML file: no scripts, no links, plots inside; opens in any browser, offline.

Written for a data protection officer who need not know what an accountant does. Figures are those
the hospitals signed, and what follows from the events in them; this module only lays them out.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from wardround.privacy.report import officer_document
from wardround.server.book import RoundRecord
from wardround.server.plots import Line, line_plot
from wardround.strategies.checkpoint import write_atomically

Metrics = Mapping[str, float]
Report = Mapping[str, Any]

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;
color:#1a2230} h1{font-size:1.7rem;margin-bottom:.2rem} h2{font-size:1.2rem;margin-top:2.2rem}
table{border-collapse:collapse;width:100%;margin:.6rem 0} td,th{border-bottom:1px solid #d5dbe5;
padding:.35rem .6rem;text-align:left;vertical-align:top} .figures td+td,.figures th+th{
text-align:right} .note{background:#eef3fb;padding:.8rem 1rem;border-left:4px solid #3366aa}
.warn{background:#fdeceb;border-left:4px solid #b3261e;padding:.8rem 1rem} svg{max-width:100%;
height:auto} progress{width:9rem} footer{margin-top:3rem;color:#5a6475;font-size:.9rem}
"""
_FOOTER = (
    "<footer>Every figure comes from reports that the hospitals signed; they are in "
    "<code>rounds/</code>, and <code>wardround report --verify</code> checks them and computes "
    "each epsilon anew from its events.</footer>"
)


def write_page(
    path: Path,
    records: Sequence[RoundRecord],
    history: Mapping[int, Metrics],
    note: str,
    failures: Sequence[RoundRecord] = (),
) -> None:
    """Write the report of a run.

    Args:
        path: Replaced atomically.
        records: The rounds, in order; at least one.
        history: Scores on public probes by round; round 0 is the untouched base.
        note: The privacy cost in one sentence.
        failures: Failed tries at rounds, in order.
    """
    last = records[-1]
    title = f"{html.escape(last.study)}: privacy report"
    body = "".join([*_sections(records, history, note), *_failures(failures), _FOOTER])
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body>{body}</body></html>\n"
    )
    write_atomically(path, page.encode())


def _sections(
    records: Sequence[RoundRecord], history: Mapping[int, Metrics], note: str
) -> Iterator[str]:
    """The page from top to bottom: what it means, who spent what, how sure, how well."""
    last = records[-1]
    newest = _newest(records)
    worst = max(newest.values(), key=_cost)
    officer = officer_document(worst)
    private = bool(worst["private"])
    yield f"<h1>{html.escape(last.study)}</h1>"
    yield f"<p>Run {html.escape(last.run)}, {last.round} of {last.rounds} rounds.</p>"
    if last.stopped:
        yield f"<p>Stopped early: {html.escape(last.stopped)}.</p>"
    yield f'<p class="{"note" if private else "warn"}">{html.escape(note)}</p>'
    yield f"<h2>In plain words</h2><p>{html.escape(officer['summary'])}</p>"
    yield "<h2>What each hospital has spent</h2>" + _hospital_table(records, newest)
    if private:
        yield "<h2>Privacy cost by round</h2>" + _epsilon_plot(records, worst)
        yield from _risk(officer["risk"], str(worst["hospital"]), str(worst["unit"]))
    yield "<h2>What the model learnt</h2>" + _metric_table(history) + _metric_plot(history)
    yield "<h2>Points of NIST SP 800-226</h2>"
    yield _table(("point", "answer"), [(p["point"], p["answer"]) for p in officer["nist"]])
    yield "<h2>Against what this protects</h2>"
    rows = [(t["threat"], "yes" if t["covered"] else "no", t["how"]) for t in officer["threats"]]
    yield _table(("threat", "covered", "why"), rows)
    yield "<h2>Who and what is not covered</h2>" + _list(worst["not_covered"])
    if private:
        yield "<h2>What other accountants say</h2>"
        yield _opinions(officer["second_opinions"], worst)


def _failures(failures: Sequence[RoundRecord]) -> Iterator[str]:
    """Who gave which reason when a round failed; nothing where none did."""
    rows = [
        (str(failure.round), answer.hospital, answer.reason or "answered; not counted")
        for failure in failures
        for answer in failure.answers
    ]
    if rows:
        yield "<h2>Rounds that failed</h2>"
        yield (
            "<p>The model stayed as it was and the round was tried again, if the run went on. A "
            "hospital that had trained for it was charged all the same, once: that stands in its "
            "next report.</p>"
        )
        yield _table(("round", "hospital", "reason"), rows)


def _newest(records: Sequence[RoundRecord]) -> dict[str, Report]:
    """Each hospital's last report."""
    return {
        answer.hospital: answer.report
        for record in records
        for answer in record.answers
        if answer.report is not None
    }


def _cost(report: Report) -> float:
    """For finding the hospital that spent most; no bound counts as most of all."""
    spent = report["epsilon_life"]
    return float("inf") if spent is None else float(spent)


def _hospital_table(records: Sequence[RoundRecord], newest: Mapping[str, Report]) -> str:
    """One row a hospital: epsilon, budget bar, rounds taken part in, bytes, last refusal."""
    rows = []
    for name in sorted({answer.hospital for record in records for answer in record.answers}):
        answers = [(r.round, a) for r in records for a in r.answers if a.hospital == name]
        refused = [(number, a.reason) for number, a in answers if a.report is None]
        report = newest.get(name)
        rows.append(
            (
                html.escape(name),
                str(len(answers) - len(refused)),
                *_spent_cells(report),
                f"{sum(a.bytes_up for _, a in answers) / 1e6:.2f} MB",
                html.escape(f"round {refused[-1][0]}: {refused[-1][1]}") if refused else "",
            )
        )
    head = ("hospital", "rounds", "ε, this study", "ε, ever", "of its budget", "δ", "sent",
            "last refusal")  # fmt: skip
    return _table(head, rows, escaped=True, figures=True)


def _spent_cells(report: Report | None) -> tuple[str, str, str, str]:
    """Epsilon of the study, of the data set's life, a bar beside the budget, and delta."""
    if report is None:
        return "0", "–", "–", "–"
    delta = f"{report['delta']:g}"
    if report["epsilon_life"] is None:
        return "not private", "not private", "–", delta
    ever, budget = report["epsilon_life"], report["epsilon_budget"]
    bar = f'<progress max="{budget}" value="{ever}"></progress> {budget:g}'
    return f"{report['epsilon_study']:.4f}", f"{ever:.4f}", bar, delta


def _risk(risk: Mapping[str, Any], hospital: str, unit: str) -> Iterator[str]:
    """What the most able attacker could reach, in rates a reader can picture."""
    yield f"<h2>How sure the best attacker could become ({html.escape(hospital)})</h2>"
    yield (
        f"<p>Of people whose {html.escape(unit)} was <em>not</em> in the data, an attacker accepts "
        "to accuse this share wrongly; of those who were, at most the second share can be found. "
        f"No attack reaches an area under the curve above "
        f"{risk['most_area_under_curve']:.3f}; guessing gives 0.5.</p>"
    )
    rows = [
        (f"{row['false_positives']:.1%}", f"{row['true_positives']:.2%}")
        for row in risk["most_true_positives"]
    ]
    yield _table(("wrongly accused", "found at most"), rows, figures=True)
    curve = [(row["delta"], row["epsilon"]) for row in risk["curve"] if row["epsilon"] is not None]
    if curve:
        deltas, epsilons = zip(*curve, strict=True)
        yield line_plot({"ε": (deltas, epsilons)}, "δ", "ε", logarithmic=True)
    yield f"<p>Somebody with several {html.escape(unit)}s in the data is protected less:</p>"
    persons = [
        (
            str(row["records"]),
            "–" if row["epsilon"] is None else f"{row['epsilon']:.2f}",
            f"{row['most_true_positives_at_1_percent']:.1%}",
        )
        for row in risk["persons"]
    ]
    head = (f"{unit}s of one person", "ε", "found at most, 1 % wrong")
    yield _table(head, persons, figures=True)


def _opinions(opinions: Mapping[str, object], report: Report) -> str:
    """The reported epsilon beside what other accountants compute from the same events."""
    rows = [(str(report["accountant"]) + " (reported)", f"{report['epsilon_life']:.4f}")]
    for name, value in opinions.items():
        rows.append((name, f"{value:.4f}" if isinstance(value, float) else str(value)))
    return _table(("accountant", "ε over the data set's life"), rows, figures=True)


def _metric_table(history: Mapping[int, Metrics]) -> str:
    """Every score before and after."""
    first, last = history[min(history)], history[max(history)]
    rows = [(name, f"{first[name]:.3f}", f"{last[name]:.3f}") for name in last]
    return _table(("score on public probes", "before", "after"), rows, figures=True)


def _epsilon_plot(records: Sequence[RoundRecord], worst: Report) -> str:
    """Composed epsilon after each round, one line a hospital, and the budget."""
    lines: dict[str, tuple[list[float], list[float]]] = {}
    for record in records:
        for answer in record.answers:
            if answer.report is not None and answer.report["epsilon_life"] is not None:
                xs, ys = lines.setdefault(answer.hospital, ([], []))
                xs.append(record.round)
                ys.append(answer.report["epsilon_life"])
    budget = float(worst["epsilon_budget"])
    return line_plot(lines, "round", "ε ever spent", level=("budget", budget))


def _metric_plot(history: Mapping[int, Metrics]) -> str:
    """Scores by round."""
    rounds = sorted(history)
    lines: dict[str, Line] = {
        name: (rounds, [history[n][name] for n in rounds]) for name in history[rounds[-1]]
    }
    return line_plot(lines, "round", "score on public probes")


def _list(items: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(item)}</li>" for item in items) + "</ul>"


def _table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    escaped: bool = False,
    figures: bool = False,
) -> str:
    """A table; cells are escaped here unless the caller has done it."""
    top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join(
        "<tr>"
        + "".join(f"<td>{cell if escaped else html.escape(cell)}</td>" for cell in row)
        + "</tr>"
        for row in rows
    )
    kind = ' class="figures"' if figures else ""
    return f"<table{kind}><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
