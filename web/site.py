"""What a set of pages gives to the server of pages: a stamp, pages by path, and figures.

Paths are looked up, never joined to a folder, so there is nothing to climb out of.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from prometheus_client import Metric

from wardround.web.markup import Html, join, link, tag, text

STATIC = "/static"


@dataclass(frozen=True)
class Page:
    """A page's own part; the skeleton goes around it.

    Attributes:
        title: For the window and the heading.
        body: Sections.
        summary: One line, read out when a live update arrives.
        trail: Pages above this one, as (path, label).
    """

    title: str
    body: Html
    summary: str = ""
    trail: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class File:
    """A file handed out as it is.

    Attributes:
        content: Its bytes.
        media_type: What they are.
        inline_styles: Whether its own styles may apply; it never runs scripts.
    """

    content: bytes
    media_type: str
    inline_styles: bool = False


class Site(Protocol):
    """One end's pages. Called from several threads, one call at a time."""

    name: str

    def stamp(self) -> str:
        """Changes whenever a page would."""

    def find(self, path: str) -> Page | File | None:
        """The page at ``path``, without its leading slash; None where there is none."""

    def figures(self) -> Iterable[Metric]:
        """Public figures for Prometheus."""


def whole_page(site: str, page: Page) -> Html:
    """A page with everything around it; works without its script."""
    trail = [tag("li", link(path, label)) for path, label in page.trail]
    steps = tag("nav", tag("ol", *trail), aria_label="Where you are") if trail else ""
    leave = Html(
        '<form method="post" action="/logout"><button class="quiet">Log out</button></form>'
    )
    bar = tag(
        "header", tag("p", link("/", site), class_="brand"), tag("p", "", id="live", role="status"),
        leave, class_="bar",
    )  # fmt: skip
    main = tag(
        "main", steps, tag("h1", page.title), page.body, id="main", data_summary=page.summary
    )
    again = Html('<noscript><meta http-equiv="refresh" content="30"></noscript>')
    script = Html(f'<script src="{STATIC}/live.js" defer></script>')
    skip = tag("a", "Skip to content", href="#main", class_="skip")
    return _document(join([page.title, " · ", site]), join([again, script]), skip, bar, main)


def login_page(site: str, said: str = "") -> Html:
    """The form that asks for the token; works without scripts."""
    problem = tag("p", said, class_="warn", role="alert") if said else ""
    form = Html(
        '<form method="post" action="/login" class="login"><label for="token">Token</label>'
        '<input id="token" name="token" type="password" autocomplete="current-password" '
        'required autofocus spellcheck="false"><button>Log in</button></form>'
    )
    hint = tag("p", "The token is in the file that the command named when it started.")
    main = tag("main", tag("h1", site), problem, form, hint, id="main", class_="narrow")
    return _document(Html(f"Log in · {text(site)}"), Html(""), main)


def plain_page(site: str, title: str, said: str) -> Html:
    """A page that says one thing, such as what went wrong."""
    main = tag("main", tag("h1", title), tag("p", said), tag("p", link("/", "Back")), id="main")
    return _document(Html(f"{text(title)} · {text(site)}"), Html(""), main)


def _document(title: Html, head: Html, *body: object) -> Html:
    return Html(
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f'<title>{title}</title><link rel="stylesheet" href="{STATIC}/style.css">'
        f'<link rel="icon" href="{STATIC}/icon.svg">{head}</head><body>{join(body)}</body></html>\n'
    )
