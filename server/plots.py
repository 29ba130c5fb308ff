"""Line plots as inline SVG: no scripts, no fonts, no links; equal figures give equal text."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

Line = tuple[Sequence[float], Sequence[float]]


def line_plot(
    lines: Mapping[str, Line], across: str, up: str, *, level: tuple[str, float] | None = None,
    logarithmic: bool = False,
) -> str:  # fmt: skip
    """An SVG element.

    Args:
        lines: By label, points across and up.
        across: Label of the horizontal axis.
        up: Label of the vertical axis.
        level: A labelled horizontal line, such as a budget.
        logarithmic: Whether the horizontal axis is.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    # Text stays text, so the file is small and can be searched.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "wardround"}):
        # The legend stands beside the axes, a line in it for each; it must not push them away.
        height = max(3.4, 0.6 + 0.17 * len(lines))
        figure = Figure(figsize=(8, height), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        for name, (xs, ys) in lines.items():
            axes.plot(xs, ys, marker=".", label=name)
        if level is not None:
            axes.axhline(level[1], color="#b3261e", linestyle="--", label=level[0])
        if logarithmic:
            axes.set_xscale("log")
        axes.set_xlabel(across)
        axes.set_ylabel(up)
        axes.grid(alpha=0.3)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small", frameon=False)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
