"""Line charts as SVG without styles or scripts, so that a strict content policy lets them through.

Colours come from the page's style sheet by class, dark and light alike. Knows nothing of what is
drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from wardround.web.markup import Html, join, tag, text

Points = Sequence[tuple[float, float]]

_WIDTH, _HEIGHT = 420, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 12, 34
_MOST_LINES = 6


def line_chart(
    title: str, lines: Mapping[str, Points], across: str, level: tuple[str, float] | None = None
) -> Html:
    """A figure with one line for each label.

    Args:
        title: What goes up; also says the chart to screen readers.
        lines: Points by label; equal ones share a label, and of many only the ends are drawn.
        across: What goes across.
        level: A labelled horizontal line, such as a budget.
    """
    drawn = _few({name: points for name, points in lines.items() if points})
    if not drawn:
        return Html("")
    xs = [x for points in drawn.values() for x, _ in points]
    ys = [y for points in drawn.values() for _, y in points]
    if level is not None:
        ys.append(level[1])
    plane = _Plane(_range(xs, whole=True), _range([0.0, *ys]))
    parts = [*plane.grid(across)]
    if level is not None:
        parts.append(plane.rule(level[1]))
    for number, points in enumerate(drawn.values()):
        parts.append(plane.line(points, number))
    said = "; ".join(
        f"{name}: {points[-1][1]:.4g} at {points[-1][0]:g}" for name, points in drawn.items()
    )
    svg = Html(
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{text(f"{title} by {across}. {said}")}">{join(parts)}</svg>'
    )
    keys = [_key(f"line s{n}", name) for n, name in enumerate(drawn)]
    if level is not None:
        keys.append(_key("line rule", f"{level[0]} {level[1]:g}"))
    return tag("figure", tag("figcaption", title), svg, tag("p", *keys, class_="legend"))


def _few(lines: Mapping[str, Points]) -> dict[str, Points]:
    """Lines under a common label where they are equal; the outer two where they are too many."""
    groups: dict[tuple[tuple[float, float], ...], list[str]] = {}
    for name, points in lines.items():
        groups.setdefault(tuple(points), []).append(name)
    named: dict[str, Points] = {}
    for same, names in groups.items():
        label = ", ".join(names) if len(names) < 3 else f"{names[0]} and {len(names) - 1} equal"
        named[label] = same
    if len(named) <= _MOST_LINES:
        return named
    ordered = sorted(named, key=lambda name: named[name][-1][1])
    ends = (("least", ordered[0]), ("most", ordered[-1]))
    return {f"{word}: {name}": named[name] for word, name in ends}


def _range(values: Sequence[float], whole: bool = False) -> tuple[float, float]:
    """Least and greatest, never equal."""
    least, most = min(values), max(values)
    if least == most:
        return (least - 1, most + 1) if whole else (least, most + 1)
    return least, most


class _Plane:
    """From values to places."""

    def __init__(self, across: tuple[float, float], up: tuple[float, float]) -> None:
        self._across, self._up = across, up

    def x(self, value: float) -> str:
        low, high = self._across
        return f"{_LEFT + (value - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT):.1f}"

    def y(self, value: float) -> str:
        low, high = self._up
        span = _HEIGHT - _TOP - _BOTTOM
        return f"{_TOP + (1 - (value - low) / (high - low)) * span:.1f}"

    def grid(self, across: str) -> Iterator[Html]:
        """Lines and numbers behind the curves."""
        for value in _ticks(*self._up):
            y = self.y(value)
            yield Html(
                f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}"></line>'
                f'<text x="{_LEFT - 6}" y="{y}" dy="4" text-anchor="end">{value:g}</text>'
            )
        for value in _ticks(*self._across, whole=True):
            yield Html(
                f'<text x="{self.x(value)}" y="{_HEIGHT - _BOTTOM + 16}" '
                f'text-anchor="middle">{value:g}</text>'
            )
        middle = (_LEFT + _WIDTH - _RIGHT) / 2
        yield Html(
            f'<text x="{middle}" y="{_HEIGHT - 4}" text-anchor="middle">{text(across)}</text>'
        )

    def rule(self, value: float) -> Html:
        """A horizontal line across all."""
        y = self.y(value)
        return Html(
            f'<line class="line rule" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}"></line>'
        )

    def line(self, points: Points, number: int) -> Html:
        """One curve with its last point marked."""
        path = " ".join(f"{self.x(x)},{self.y(y)}" for x, y in points)
        x, y = points[-1]
        return Html(
            f'<polyline class="line s{number}" points="{path}"></polyline>'
            f'<circle class="dot s{number}" cx="{self.x(x)}" cy="{self.y(y)}" r="3"></circle>'
        )


def _ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """Round numbers from ``low`` to ``high``, about five."""
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw)
    if whole:
        step = max(1.0, round(step))
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 12) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _key(kind: str, label: str) -> Html:
    """One entry of the legend."""
    swatch = Html(
        f'<svg class="key" viewBox="0 0 24 8" aria-hidden="true">'
        f'<line class="{kind}" x1="0" x2="24" y1="4" y2="4"></line></svg>'
    )
    return tag("span", swatch, label)
