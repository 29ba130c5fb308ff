"""A weighted graph as files: edge list, GraphML, DOT and a picture. Knows nothing of learning."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from wardround.privacy.errors import BadInput
from wardround.strategies.causal.systems import Array

Edge = tuple[str, str, float]


def edges_of(adjacency: Array, names: Sequence[str]) -> list[Edge]:
    """Cause, effect and weight of each edge, the strongest first."""
    found = [(names[j], names[i], float(adjacency[i, j])) for i, j in np.argwhere(adjacency)]
    return sorted(found, key=lambda edge: (-abs(edge[2]), edge[:2]))


def write_graph(adjacency: Array, names: Sequence[str], order: Sequence[int], to: Path) -> None:
    """Write ``edges.csv``, ``graph.graphml``, ``graph.dot`` and ``graph.png`` into a new folder.

    Raises:
        BadInput: The folder exists.
    """
    if to.exists():
        raise BadInput(f"{to} exists; nothing is overwritten")
    edges = edges_of(adjacency, names)
    to.mkdir(parents=True)
    with (to / "edges.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["cause", "effect", "weight"])
        writer.writerows(edges)
    (to / "graph.graphml").write_bytes(graphml(edges, names))
    (to / "graph.dot").write_text(dot(edges, names), encoding="utf-8")
    _picture(edges, [names[place] for place in order], to / "graph.png")


def graphml(edges: Sequence[Edge], names: Sequence[str]) -> bytes:
    """The graph in GraphML, weights as doubles."""
    root = ElementTree.Element("graphml", xmlns="http://graphml.graphdrawing.org/xmlns")
    ElementTree.SubElement(
        root, "key", {"id": "w", "for": "edge", "attr.name": "weight", "attr.type": "double"}
    )
    graph = ElementTree.SubElement(root, "graph", edgedefault="directed")
    for name in names:
        ElementTree.SubElement(graph, "node", id=name)
    for cause, effect, weight in edges:
        edge = ElementTree.SubElement(graph, "edge", source=cause, target=effect)
        ElementTree.SubElement(edge, "data", key="w").text = repr(weight)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def dot(edges: Sequence[Edge], names: Sequence[str]) -> str:
    """The graph for Graphviz."""
    lines = [f"  {_quoted(name)};" for name in names]
    lines += [
        f"  {_quoted(cause)} -> {_quoted(effect)} [label={_quoted(f'{weight:.3g}')}];"
        for cause, effect, weight in edges
    ]
    return "digraph causes {\n" + "\n".join(lines) + "\n}\n"


def _quoted(text: str) -> str:
    """A DOT string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _picture(edges: Sequence[Edge], ordered: Sequence[str], path: Path) -> None:
    """Variables on a circle in causal order, from the top; thicker arrows are stronger effects."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 7))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-1.3, 1.3), ylim=(-1.3, 1.3))
    axes.axis("off")
    angle = 2 * np.pi * np.arange(len(ordered)) / max(len(ordered), 1)
    place = {name: (np.sin(a), np.cos(a)) for name, a in zip(ordered, angle, strict=True)}
    strongest = max((abs(weight) for _, _, weight in edges), default=1.0)
    for cause, effect, weight in edges:
        axes.annotate(
            "",
            xy=place[effect],
            xytext=place[cause],
            arrowprops={
                "arrowstyle": "-|>",
                "color": "tab:blue" if weight > 0 else "tab:red",
                "linewidth": 0.5 + 2.5 * abs(weight) / strongest,
                "shrinkA": 16,
                "shrinkB": 16,
                "connectionstyle": "arc3,rad=0.08",
            },
        )
    for name, (x, y) in place.items():
        axes.text(
            x, y, name, ha="center", va="center",
            bbox={"boxstyle": "round", "facecolor": "white", "edgecolor": "grey"},
        )  # fmt: skip
    figure.savefig(path, dpi=120)
