"""Round records in TensorBoard and MLflow: what goes out, and what is said when one is absent."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from wardround.privacy.errors import BadInput
from wardround.server.book import read_book
from wardround.server.sinks import curves, send_to


def test_curves_hold_public_figures_only(run: Any) -> None:
    second = curves(read_book(run.info.folder / "rounds")[1])
    assert second["round/answered"] == 2
    assert second["score/kept"] == 0.98
    assert second["epsilon_life/north"] == run.report("north", 2)["epsilon_life"]
    assert "epsilon_life/harbour" not in second
    assert {name.partition("/")[0] for name in second} == {
        "score", "round", "epsilon_study", "epsilon_life",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "module"), [("tensorboard", "torch.utils.tensorboard"), ("mlflow", "mlflow")]
)
def test_an_absent_sink_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BadInput, match=rf"{kind} is not installed; run pip install"):
        send_to(kind, str(tmp_path), "r", [])


def test_an_unknown_sink_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="expected one of tensorboard, mlflow"):
        send_to("wandb", str(tmp_path), "r", [])


def test_tensorboard_reads_what_was_written(run: Any, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    records = read_book(run.info.folder / "rounds")
    assert send_to("tensorboard", str(tmp_path / "tb"), "r", records) == 4
    events = EventAccumulator(str(tmp_path / "tb" / "r")).Reload()
    kept = [(e.step, e.value) for e in events.Scalars("score/kept")]
    expected = [(n, 1 - 0.01 * n) for n in range(1, 5)]
    assert kept == [(n, pytest.approx(v, rel=1e-6)) for n, v in expected]  # float32 on disk


def test_mlflow_is_told_every_point(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a stand-in with MLflow's own method names; the package itself is not a dependency."""
    told: list[tuple[Any, ...]] = []

    class Client:
        def __init__(self, tracking_uri: str) -> None:
            told.append(("address", tracking_uri))

        def get_experiment_by_name(self, name: str) -> None:
            return None

        def create_experiment(self, name: str) -> str:
            return f"{name}-id"

        def create_run(self, experiment: str, run_name: str) -> Any:
            assert experiment == "wardround-id"
            return SimpleNamespace(info=SimpleNamespace(run_id=run_name))

        def log_metric(self, run_id: str, key: str, value: float, step: int) -> None:
            told.append((run_id, key, value, step))

        def set_terminated(self, run_id: str) -> None:
            told.append(("ended", run_id))

    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(MlflowClient=Client))
    records = read_book(run.info.folder / "rounds")
    assert send_to("mlflow", "file:runs", "letters", records) == 4
    assert told[0] == ("address", "file:runs")
    assert told[-1] == ("ended", "letters")
    assert told[1:-1] == [
        ("letters", name, value, record.round)
        for record in records
        for name, value in curves(record).items()
    ]
