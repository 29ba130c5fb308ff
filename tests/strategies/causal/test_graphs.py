"""Graphs as files that others read."""

from __future__ import annotations

from xml.etree import ElementTree

import networkx
import numpy as np
import pytest

from wardround.privacy.errors import BadInput
from wardround.strategies.causal.graphs import dot, edges_of, write_graph

NAMES = ("age", 'a "b"', "dose")
ADJACENCY = np.array([[0.0, 0.0, 0.0], [0.5, 0.0, 0.0], [-1.25, 0.25, 0.0]])


def test_files_hold_the_graph(tmp_path):
    folder = tmp_path / "graph"
    write_graph(ADJACENCY, NAMES, [0, 1, 2], folder)
    assert (folder / "edges.csv").read_text().splitlines() == [
        "cause,effect,weight", "age,dose,-1.25", 'age,"a ""b""",0.5', '"a ""b""",dose,0.25',
    ]  # fmt: skip
    graph = networkx.read_graphml(folder / "graph.graphml")  # Oracle: somebody else's reader.
    assert set(graph.nodes) == set(NAMES)
    assert graph.edges["age", "dose"]["weight"] == -1.25
    assert ElementTree.parse(folder / "graph.graphml").getroot().tag.endswith("graphml")
    assert (folder / "graph.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(BadInput, match="nothing is overwritten"):
        write_graph(ADJACENCY, NAMES, [0, 1, 2], folder)


def test_dot_quotes_names():
    text = dot(edges_of(ADJACENCY, NAMES), NAMES)
    assert '"age" -> "a \\"b\\"" [label="0.5"];' in text
    assert text.startswith("digraph")
