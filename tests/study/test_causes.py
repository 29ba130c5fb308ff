"""``wardround causes``: a graph from a run's noised sums or a file, and when there is none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from wardround.client.tasks.abs_lingam.config import causal_config
from wardround.client.tasks.abs_lingam.formats import read_rows
from wardround.client.workbench import Workbench
from wardround.privacy.errors import BadInput
from wardround.strategies.causal.moments import contributions, judge
from wardround.study.causes import causes_of_file, causes_of_run, write_causes
from wardround.study.cli import app
from wardround.study.config import Study
from wardround.study.local import begin
from wardround.study.runner import Stage, execute

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "abs-lingam"


def run(tmp_path: Path, noise_multiplier: float) -> Path:
    """The example with 1,200 rows a hospital and two of them."""
    study = Study.read(EXAMPLE / "study.toml")
    generated = {"records_per_hospital": 1200, "edges": 4}
    study = replace(
        study,
        hospitals=replace(study.hospitals, count=2),
        privacy=replace(study.privacy, epsilon=None, noise_multiplier=noise_multiplier),
        task={**study.task, "generated": generated},
    )
    with Workbench() as workbench:
        folder = begin(study, tmp_path / "runs", None, workbench, lambda draft: None)
        execute(folder, Stage(workbench=workbench))
    return folder.path


def test_a_run_of_noise_alone_becomes_no_graph(tmp_path: Path) -> None:
    """Nothing but noise, which was believed in none of 1,000 draws of the same size."""
    lost = causes_of_run(run(tmp_path, 1e4), least_stability=0.8)
    assert not lost.believed
    assert "noise" in lost.reason
    assert lost.to_json()["edges"] == []
    with pytest.raises(BadInput, match="nothing written"):
        write_causes(lost, tmp_path / "graph")
    assert not (tmp_path / "graph").exists()
    assert lost.private
    assert not lost.shortened


def test_a_run_without_noise_becomes_the_graph_of_all_rows(tmp_path: Path) -> None:
    """Oracle: contributions of every hospital's rows, summed here."""
    study = Study.read(EXAMPLE / "study.toml").with_mode_none()
    generated = {"records_per_hospital": 3000, "edges": 4}
    study = replace(study, task={**study.task, "generated": generated})
    with Workbench() as workbench:
        folder = begin(study, tmp_path / "runs", None, workbench, lambda draft: None)
        execute(folder, Stage(workbench=workbench))
    found = causes_of_run(folder.path, least_stability=0.8)
    settings = causal_config(study.task)
    names = tuple(variable.name for variable in settings.variable)
    records = read_rows(folder.path / folder.facts.probes, names)
    rows = settings.scaled(np.array([record.content for record in records]))
    total = contributions(rows).sum(axis=0)
    wanted = judge([total], [12_000], 4, 0.0, torch.Generator())
    assert found.order == wanted.order
    assert found.believed
    # Means travel as float32: 24 bits of a moment.
    own = settings.in_own_units(wanted.adjacency)
    np.testing.assert_allclose(found.adjacency, own, rtol=1e-3, atol=1e-4)


def test_a_run_of_another_task_is_refused(small_study: Path, tmp_path: Path) -> None:
    study = Study.read(small_study)
    with Workbench() as workbench:
        folder = begin(study, tmp_path / "runs", None, workbench)
    with pytest.raises(BadInput, match="needs task abs_lingam"):
        causes_of_run(folder.path, 0.8)


def test_a_file_becomes_files(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    uniform = torch.rand((1500, 2), generator=generator, dtype=torch.float64).numpy()
    noise = -np.log1p(-uniform) - 1
    path = tmp_path / "rows.csv"
    lines = [f"{a},{0.8 * a + b}" for a, b in noise]
    path.write_text("dose,stay\n" + "\n".join(lines) + "\n")
    out = tmp_path / "graph"
    command = ["causes", str(path), "--out", str(out), "--resamples", "3", "--json"]
    result = CliRunner().invoke(app, command)
    document = json.loads(result.stdout)
    assert document["causal_order"] == ["dose", "stay"]
    (edge,) = document["edges"]
    assert edge["weight"] == pytest.approx(0.8, abs=0.1)
    assert edge["firmness"] == 1
    assert not document["private"]
    assert {file.name for file in out.iterdir()} == {
        "edges.csv", "graph.graphml", "graph.dot", "graph.png",
    }  # fmt: skip
    shown = CliRunner().invoke(app, ["causes", str(path)])
    assert "dose" in shown.stdout


def test_a_file_with_pairs_goes_through_the_abstraction(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(2)
    uniform = torch.rand((900, 3), generator=generator, dtype=torch.float64).numpy()
    noise = -np.log1p(-uniform) - 1
    weights = np.array([[0, 0.4, 0.2], [0, 0, 0.5], [0, 0, 0]])
    values = noise @ np.linalg.inv(np.eye(3) - weights)
    tables = {"low": values, "few": values[:20], "high": values[:20] @ [[1, 0], [0, 1], [0, 1]]}
    for name, table in tables.items():
        header = ",".join(f"{name[0]}{place}" if name == "high" else f"x{place}"
                          for place in range(table.shape[1]))  # fmt: skip
        np.savetxt(tmp_path / f"{name}.csv", table, delimiter=",", header=header, comments="")
    found = causes_of_file(
        tmp_path / "low.csv", (tmp_path / "few.csv", tmp_path / "high.csv"), resamples=2
    )
    assert found.order == (0, 1, 2)
    assert found.adjacency[0].tolist() == [0, 0, 0]


def test_bad_headers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("a,a\n1,2\n")
    with pytest.raises(BadInput, match="names a column twice"):
        causes_of_file(path, None, 0)
    with pytest.raises(BadInput, match="cannot be read"):
        causes_of_file(tmp_path / "none.csv", None, 0)
