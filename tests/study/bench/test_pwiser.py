"""The table of click logs on a study of seconds, and what it says about seeds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from wardround.study.bench.pwiser import ahead, pwiser_benchmark
from wardround.study.config import Study
from wardround.study.local import run_study
from wardround.study.runner import check_study

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = ROOT / "examples" / "pwiser"
REAL = ROOT / "../shared/data"


def small(study: Study) -> Study:
    shape = {"patients_per_hospital": 60, "probes": 60, "exposures": 6}
    return replace(
        study,
        study=replace(study.study, rounds=1),
        hospitals=replace(study.hospitals, count=2),
        privacy=replace(study.privacy, steps_per_round=2),
        task={**study.task, "generated": {**study.task["generated"], **shape}},
    )


def test_rows_are_kept_and_not_run_again(tmp_path) -> None:
    out = tmp_path / "rows.jsonl"
    found = pwiser_benchmark((0,), out, noise_shares=(0.3,), epsilons=(4.0,), shrink=small)
    assert [row["method"] for row in found["rows"]] == ["BCE, noise 0.3", "PWiseR, noise 0.3"]
    assert found["rows"][0]["click_auc"] != found["rows"][1]["click_auc"]
    (line,) = found["ahead"]
    assert line["seeds"] == 1

    def never(study: Study) -> Study:
        raise AssertionError("run again")

    again = pwiser_benchmark((0,), out, noise_shares=(0.3,), epsilons=(4.0,), shrink=never)
    assert again == found


def test_ahead_counts_seeds_that_both_losses_ran() -> None:
    def row(loss: str, seed: int, score: float) -> dict:
        name = {"method": f"{loss}, noise 0.3", "epsilon": None, "seed": seed}
        scores = ("click_auc", "conversion_auc", "cvr_auc", "conversion_session_auc")
        return name | dict.fromkeys(scores, score)

    rows = [row("BCE", 0, 0.6), row("PWiseR", 0, 0.7), row("BCE", 1, 0.6), row("PWiseR", 1, 0.5),
            row("BCE", 2, 0.9)]  # fmt: skip
    (line,) = ahead(rows, (0.3,))
    assert line["seeds"] == 2
    assert line["click_auc"] == 1


def test_the_embedded_study_is_the_example() -> None:
    for name in ("study.toml", "policy.toml"):
        embedded = ROOT / "study" / "embedded" / "pwiser" / name
        assert embedded.read_bytes() == (EXAMPLES / name).read_bytes()


@pytest.mark.parametrize("name", ["study.toml", "aliexpress.toml", "ali-ccp.toml"])
def test_examples_can_run(name) -> None:
    check_study(Study.read(EXAMPLES / name))


@pytest.mark.skipif(not REAL.is_dir(), reason="the optional data folder is not there")
@pytest.mark.parametrize(
    ("study", "data"),
    [
        ("aliexpress.toml", "aliexpress_train_sample.csv"),
        ("ali-ccp.toml", "ali_ccp_train_sample.csv"),
    ],
)
def test_published_samples_run_from_end_to_end(tmp_path, study, data) -> None:
    from rich.console import Console

    outcome = run_study(Console(quiet=True), EXAMPLES / study, tmp_path, REAL / data)
    assert not outcome.private
    assert outcome.after["exposures"] > 0
    assert (outcome.folder / "adapter" / "settings.json").exists()
