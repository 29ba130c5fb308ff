"""The bandit's tables as PNG figures. Knows how to draw, not how the numbers come about."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Rows = Sequence[Mapping[str, Any]]


def write_figures(document: Mapping[str, Any], folder: Path) -> list[Path]:
    """One PNG a table of :func:`bandit_benchmark`.

    Args:
        document: The benchmark's tables.
        folder: Made if there is none; figures of the same names are replaced.

    Returns:
        The files, in the order of the tables.
    """
    drawings: Mapping[str, tuple[int, Callable[[Any, Rows], None]]] = {
        "on_policy": (2, _draw_on_policy),
        "negative_gradient": (2, _draw_negative_gradient),
        "reuse": (1, _draw_reuse),
        "divergence": (1, _draw_divergence),
    }
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, (panels, draw) in drawings.items():
        path = folder / f"{name.replace('_', '-')}.png"
        _save(path, panels, draw, document[name])
        paths.append(path)
    return paths


def _save(path: Path, panels: int, draw: Callable[[Any, Rows], None], rows: Rows) -> None:
    """Draw one figure of some panels side by side."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5 * panels, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = [figure.add_subplot(1, panels, place + 1) for place in range(panels)]
    draw(axes, rows)
    for panel in axes:
        panel.grid(alpha=0.3)
    figure.savefig(path, format="png", dpi=120, metadata={"Software": None})


def _draw_on_policy(axes: Any, rows: Rows) -> None:
    """Reward over steps: dashed offline, drawn through on-policy, a colour a method."""
    colours = {name: f"C{place}" for place, name in enumerate(_names(rows, "method"))}
    for panel, reward in zip(axes, _names(rows, "reward"), strict=True):
        for row in rows:
            if row["reward"] == reward:
                on = row["sampling"] == "on"
                steps = [15 * place for place in range(len(row["curve"]))]
                panel.plot(
                    steps,
                    row["curve"],
                    color=colours[row["method"]],
                    linestyle="-" if on else "--",
                    label=row["method"] if on else None,
                )
        panel.set_title(f"{reward}: on-policy (line) and offline (dashed)")
        _label(panel, "steps")


def _draw_negative_gradient(axes: Any, rows: Rows) -> None:
    """A bar a method and gap, at 100 prompts."""
    for panel, reward in zip(axes, _names(rows, "reward"), strict=True):
        chosen = [row for row in rows if row["reward"] == reward and row["prompts"] == 100]
        labels = [
            f"{row['method']}, gap {row['least_gap']}" if row["least_gap"] else row["method"]
            for row in chosen
        ]
        panel.barh(labels, [row["mean"] for row in chosen], xerr=[row["sd"] for row in chosen])
        panel.set_title(f"{reward}, offline, 100 prompts")
        panel.set_xlabel("expected reward")


def _draw_reuse(axes: Any, rows: Rows) -> None:
    """Final reward over the steps taken on one batch."""
    for name in _names(rows, "method"):
        mine = [row for row in rows if row["method"] == name]
        axes[0].errorbar(
            [row["reuse"] for row in mine],
            [row["mean"] for row in mine],
            yerr=[row["sd"] for row in mine],
            marker=".",
            capsize=2,
            label=name,
        )
    axes[0].set_xscale("log")
    _label(axes[0], "steps on one batch, of 300")


def _draw_divergence(axes: Any, rows: Rows) -> None:
    """Expected reward on the way to one target."""
    for name in ("forward", "reverse"):
        axes[0].plot(
            [row["step"] for row in rows], [row[name]["mean"] for row in rows], marker=".",
            label=f"{name} divergence",
        )  # fmt: skip
    axes[0].set_xscale("log")
    _label(axes[0], "steps")


def _label(panel: Any, across: str) -> None:
    """Axes of a panel that shows reward upwards."""
    panel.set_xlabel(across)
    panel.set_ylabel("expected reward")
    panel.set_ylim(0, 1.05)
    panel.legend(fontsize="small", frameon=False)


def _names(rows: Rows, column: str) -> list[str]:
    """The column's values in the order they first appear."""
    return list(dict.fromkeys(row[column] for row in rows))
