"""Ranking from one command to the run file, on made-up questions and on a BEIR folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ir_measures
import pytest

from wardround.client.bases.build_notes import NotesRecipe
from wardround.client.bases.making import Shape
from wardround.client.models import embedded_bases
from wardround.client.tasks.ranking.stage_one import StageOne
from wardround.study.bench.ranking import CONTENDERS, ranking_benchmark
from wardround.study.bench.ranking_study import ARMS, ranking_study
from wardround.study.config import Study

Command = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[3]


def test_the_embedded_study_is_the_example() -> None:
    for name in ("study.toml", "policy.toml"):
        example = ROOT / "examples" / "ranking" / name
        assert example.read_bytes() == (ROOT / "study/embedded/ranking" / name).read_bytes()
    study = Study.read(ROOT / "examples" / "ranking" / "study.toml")
    assert study.model.sha256 == embedded_bases()["notes"]


@pytest.mark.slow
def test_a_beir_folder_runs_end_to_end(
    wardround: Command, ranking_study: Path, beir: Path, tmp_path: Path
) -> None:
    ran = wardround("run", ranking_study, "--data", beir, "--runs", tmp_path / "runs", "--json")
    assert ran.code == 0, ran.err
    after = ran.document()["metrics"]["after"]
    assert after["queries"] == 2.0
    run = Path(ran.document()["run_dir"])
    assert (run / "adapter" / "adapter_model.safetensors").is_file()

    # The same probes again, with the ranking as a file; ir-measures' own readers are the oracle.
    again = wardround("evaluate", run, "--predictions", tmp_path / "run.trec", "--json")
    assert again.code == 0, again.err
    assert again.document()["metrics"] == pytest.approx(after, abs=1e-6)
    qrels = [ir_measures.Qrel(f"q{n}", f"d{n}-left", 1) for n in (6, 7)]
    oracle = ir_measures.calc_aggregate(
        [ir_measures.nDCG @ 10], qrels, list(ir_measures.read_trec_run(str(tmp_path / "run.trec")))
    )
    assert after["nDCG@10"] == pytest.approx(oracle[ir_measures.nDCG @ 10], abs=1e-9)

    # A house's own folder, looked through by its own first stage; and the untouched base.
    own = wardround("evaluate", run, "--data", beir, "--json").document()
    assert own["metrics"] == pytest.approx(after, abs=1e-6)
    base = wardround("evaluate", run, "--base", "--json").document()
    assert base["round"] == 0
    assert base["metrics"] == pytest.approx(ran.document()["metrics"]["before"], abs=1e-6)

    path = beir / "qrels" / "test.tsv"
    path.write_text(path.read_text().replace("\t1\n", "\tone\n", 1))
    broken = wardround("evaluate", run, "--data", beir)
    assert broken.code == 2
    assert f"{path}:2: the grade is not a whole number" in broken.err
    nowhere = wardround("evaluate", run, "--predictions", tmp_path / "none" / "run.trec")
    assert nowhere.code == 2
    assert "is not a folder" in nowhere.err


def test_coupling_is_refused_before_anything_is_written(
    wardround: Command, ranking_study: Path, tmp_path: Path
) -> None:
    text = ranking_study.read_text(encoding="utf-8")
    ranking_study.write_text(text.replace("[task]\n", '[task]\nnegatives = "in-batch"\n'))
    ended = wardround("run", ranking_study, "--runs", tmp_path / "runs")
    assert ended.code == 3
    assert "removing one record would change the gradients of others" in ended.err
    assert not (tmp_path / "runs").exists()


def test_all_contenders_give_the_same_scores() -> None:
    found = ranking_benchmark(candidates=3, queries=2, passage_words=(8,), repeats=1)
    for workload in ("own_lists_8_words", "shared_list_8_words"):
        assert found[workload]["pairs"] == 6
        assert found[workload]["pairs_per_second"].keys() == CONTENDERS.keys()
        # float32 log-probabilities of size 10.
        assert found[workload]["largest_difference_of_scores"] < 1e-4


@pytest.mark.slow
def test_study_writes_each_row_as_it_is_known(ranking_study: Path, tmp_path: Path) -> None:
    recipe = NotesRecipe(
        shape=Shape(hidden=16, layers=1, heads=2, mlp=24), texts=64, pairs=64,
        general=StageOne(1, 1e-3, batch=8), stage_one=StageOne(1, 1e-3, batch=8),
    )  # fmt: skip
    small = Study.read(ranking_study)
    arms = (ARMS[0], ARMS[1], ARMS[3])
    document = _ranking_study_of(small, arms, recipe, tmp_path / "rows.jsonl")
    methods = [row["method"] for row in document["rows"]]
    assert methods == ["BM25", "stage 1", arms[0].name, arms[1].name, "general text", arms[2].name]
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == len(methods)
    private = document["rows"][3]
    assert 7.9 < private["epsilon"] <= 8
    summary = document["summary"]
    gap = summary[arms[0].name]["nDCG@10"] - summary[arms[1].name]["nDCG@10"]
    assert summary[arms[1].name]["gap_to_not_private"] == pytest.approx(gap, abs=1e-4)


def _ranking_study_of(small: Study, arms: Any, recipe: NotesRecipe, rows: Path) -> dict[str, Any]:
    return ranking_study(
        seeds=(0,), arms=arms, rows_file=rows, recipe=recipe, shrink=lambda study: small
    )
