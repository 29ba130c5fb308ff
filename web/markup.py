"""HTML from values: everything is escaped unless this module made it.

``Html`` is the one type that goes into a page as it stands, so a forgotten escape shows as text
instead of running. Knows nothing of what a page is about.
"""

from __future__ import annotations

import html
from collections.abc import Sequence


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def text(value: object) -> Html:
    """``value`` as HTML: escaped, unless it is ``Html`` already."""
    return value if isinstance(value, Html) else Html(html.escape(str(value)))


def join(parts: Sequence[object], between: str = "") -> Html:
    """All parts one after the other."""
    return Html(between.join(text(part) for part in parts))


def tag(name: str, *parts: object, **attributes: object) -> Html:
    """One element; ``class_`` and ``data_x`` become ``class`` and ``data-x``.

    >>> tag("td", "a < b", class_="figure")
    '<td class="figure">a &lt; b</td>'
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{written}>{join(parts)}</{name}>")


def link(to: str, label: object) -> Html:
    """A link inside this site."""
    return tag("a", label, href=to)


def section(identifier: str, title: str, *parts: object) -> Html:
    """A part of a page that live updates replace by itself."""
    heading = f"{identifier}-title"
    return tag(
        "section", tag("h2", title, id=heading), *parts, id=identifier, aria_labelledby=heading
    )


def table(head: Sequence[str], rows: Sequence[Sequence[object]], figures: str = "") -> Html:
    """A table whose rows become cards on a narrow screen.

    Args:
        head: Column titles; the first column names its row.
        rows: Cells; ``Html`` goes in as it is.
        figures: One letter a column, ``n`` for columns of numbers, anything else for text.
    """
    kinds = ["figure" if figures[i : i + 1] == "n" else None for i in range(len(head))]
    top = join(
        [tag("th", title, scope="col", class_=k) for title, k in zip(head, kinds, strict=True)]
    )
    body = [
        tag(
            "tr",
            tag("th", row[0], scope="row"),
            *(
                tag("td", cell, class_=kind, data_label=title)
                for cell, kind, title in zip(row[1:], kinds[1:], head[1:], strict=True)
            ),
        )
        for row in rows
    ]
    inside = tag("table", tag("thead", tag("tr", top)), tag("tbody", *body))
    return tag("div", inside, class_="scroll")


def facts(pairs: Sequence[tuple[str, object]]) -> Html:
    """Names and values side by side."""
    return tag("dl", *(tag("div", tag("dt", n), tag("dd", v)) for n, v in pairs), class_="facts")


def share(value: float, most: float, label: str) -> Html:
    """A bar for ``value`` out of ``most``, said in words for those who cannot see it."""
    full = 1.0 if most <= 0 else max(0.0, min(1.0, value / most))
    kind = "full" if full >= 0.999 else "high" if full >= 0.8 else "low"
    width = f"{100 * full:.1f}"
    return Html(
        f'<svg class="share {kind}" viewBox="0 0 100 8" preserveAspectRatio="none" role="img" '
        f'aria-label="{text(label)}"><rect class="track" width="100" height="8"></rect>'
        f'<rect class="done" width="{width}" height="8"></rect></svg>'
    )


def size(count: int) -> str:
    """A number of bytes for a person.

    >>> size(192_512)
    '192.5 kB'
    """
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("a size always has a unit")


def duration(seconds: float) -> str:
    """A time span for a person.

    >>> duration(3725)
    '1 h 2 min'
    """
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours / 24:.1f} days"
