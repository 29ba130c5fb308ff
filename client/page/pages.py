"""A hospital's books as one page. Lays out; computes nothing."""

from __future__ import annotations

from wardround.client.page.reading import Books, Spent, policy_lines
from wardround.privacy.events import Event, Gaussian, PoissonSampled, Primitive, primitive_counts
from wardround.web.charts import line_chart
from wardround.web.markup import Html, facts, join, section, share, table, tag
from wardround.web.site import Page

NOT_PRIVATE = "NOT PRIVATE"
_MOST_CHARGES = 500  # of the newest; the ledger's export has them all


def books_page(books: Books) -> Page:
    """What was spent on which data set, by whom, what was refused, and what the policy allows."""
    body = join(
        [
            _standing(books),
            *(_account(number, account) for number, account in enumerate(books.accounts, 1)),
            _refusals(books),
            _charges(books),
            _policy(books),
        ]
    )
    return Page("Ledger and policy", body, f"{len(books.charges)} charges in the ledger.")


def _standing(books: Books) -> Html:
    """Whether the ledger is sound, and who signs it."""
    if books.summary is None or books.problems:
        said = tag("ul", *(tag("li", problem) for problem in books.problems))
        warning = tag("div", "Do not rely on these books:", said, class_="warn", role="alert")
        return section("standing", "The ledger", warning)
    summary = books.summary
    chip = tag("span", "verified", class_="chip good")
    pairs: list[tuple[str, object]] = [
        ("state", chip),
        ("entries", str(summary.entries)),
        ("charges", str(len(books.charges))),
        ("refusals", str(len(books.refusals))),
        ("signed with", summary.public_key),
    ]
    checked = "Chain, signatures and witness agree."
    notes = [tag("p", note, class_="note") for note in (checked, *summary.notes)]
    return section("standing", "The ledger", facts(pairs), *notes)


def _account(number: int, account: Spent) -> Html:
    """One data set: what it has cost beside its budget, and which studies did."""
    spent = NOT_PRIVATE if account.epsilon is None else f"{account.epsilon:.4f}"
    bar = Html("")
    if account.budget is not None and account.epsilon is not None:
        said = f"{account.epsilon:.4f} of {account.budget:g}"
        bar = tag("div", share(account.epsilon, account.budget, said), class_="progress")
    pairs: list[tuple[str, object]] = [
        ("ε spent, over all studies", spent),
        ("budget", "–" if account.budget is None else f"{account.budget:g}"),
        ("δ", f"{account.delta:g}"),
        ("protects a", account.unit),
        ("rounds charged", str(account.rounds)),
        ("rounds answered", str(account.answered)),
    ]
    rows = [
        (study, run, NOT_PRIVATE if eps is None else f"{eps:.4f}", str(rounds))
        for study, run, eps, rounds in account.by_run
    ]
    studies = table(("study", "run", "ε by itself", "rounds charged"), rows, "  nn")
    level = None if account.budget is None else ("budget", account.budget)
    chart = line_chart("ε over all studies", {account.dataset: account.growth}, "charges", level)
    note = tag(
        "p", "ε of several studies is computed from all their events together; it is less than "
        "the sum of the single figures.", class_="note",
    )  # fmt: skip
    return section(
        f"account-{number}", f"Data set {account.dataset}", bar, facts(pairs),
        *((studies, note) if rows else (tag("p", "Nothing was charged yet.", class_="note"),)),
        tag("div", chart if rows else "", class_="charts"),
    )  # fmt: skip


def _refusals(books: Books) -> Html:
    rows = [
        (_time(refusal.time), str(refusal.round or "–"), refusal.error, refusal.reason)
        for refusal in reversed(books.refusals)
    ]
    head = ("when", "round", "kind", "reason")
    return section("refusals", "Refusals", table(head, rows) if rows else tag("p", "None."))


def _charges(books: Books) -> Html:
    """Every charge, newest first."""
    rows = [
        (
            _time(charge.time),
            charge.study,
            charge.run,
            str(charge.round),
            charge.dataset,
            _said(charge.event),
            "answered" if charge.answered else tag("span", "not answered", class_="chip"),
        )
        for charge in reversed(books.charges[-_MOST_CHARGES:])
    ]
    head = ("when", "study", "run", "round", "data set", "what was done", "answer")
    left = len(books.charges) - len(rows)
    note = tag("p", f"{left} older ones are in the ledger's export.", class_="note") if left else ""
    shown = table(head, rows) if rows else tag("p", "None yet.")
    return section("charges", "Every charge", shown, note)


def _said(event: Event) -> str:
    """What was done to the data, in few words."""
    counts = primitive_counts(event)
    return ", ".join(f"{count} × {_said_once(part)}" for part, count in counts.items()) or "nothing"


def _said_once(part: Primitive) -> str:
    """One step; noise is in units of the clip norm."""
    match part:
        case Gaussian(noise):
            return f"noise {noise:g}"
        case PoissonSampled(rate, Gaussian(noise)):
            return f"noise {noise:g} on a sample of {rate:.4g}"
    return str(part)


def _time(iso: str) -> Html:
    """A moment as the ledger has it, to the second."""
    return tag("time", f"{iso[:10]} {iso[11:19]} UTC", datetime=iso)


def _policy(books: Books) -> Html:
    if books.policy is None:
        return section("policy", "Policy", tag("p", "No policy file was named."))
    rules = list(policy_lines(books.policy).items())
    return section("policy", "Policy", table(("rule", "value"), rules))
