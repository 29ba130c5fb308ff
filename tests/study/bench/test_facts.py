"""The real-facts benchmark end to end on a file made up here, small enough for a test."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from wardround.client.tasks.editing.public import PublicShape
from wardround.study.bench.facts import FactsSetup, facts_benchmark, means_of
from wardround.study.config import Study

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = ROOT / "examples" / "medical-editing"


@pytest.fixture
def edits(tmp_path):
    items = [
        {
            "prompt": f"What does Drug{n} treat?", "subject": f"Drug{n}",
            "target_new": f"illness {n + 1}", "ground_truth": f"illness {n}",
            "rephrase_prompt": f"Drug{n} is given against",
            "locality_target_prompt": f"What does Other{n} treat?",
            "locality_target_ground_truth": f"illness {n}",
        }
        for n in range(8)
    ]  # fmt: skip
    path = tmp_path / "edits.json"
    path.write_text(json.dumps(items))
    return path


@pytest.mark.slow
def test_benchmark_says_what_was_known_and_what_changed(edits):
    shape = PublicShape(corroborated=1, support=8, single=1, records_per_hospital=50)
    setup = FactsSetup(base_steps=3, traced=2, rounds=1, shape=shape)
    found = facts_benchmark(edits, setup)
    assert [row["privacy"] for row in found["studies"]] == ["epsilon 8", "none"]
    for row in found["studies"]:
        assert row["before"].keys() == row["after"].keys()
        assert "exact.unseen.corroborated" in row["after"]
    assert found["base"]["sentences"] == {"truths": 16, "others": 8}
    assert found["facts_traced_per_second"] > 0
    assert len(found["indirect_effect_at_last_token"]["mlp"]) == 4
    json.dumps(found, allow_nan=False)


def test_means_are_over_seeds_and_apart_by_privacy():
    rows = [
        {"privacy": privacy, "before": {"a": 0.0}, "after": {"a": value}}
        for privacy, value in (("epsilon 8", 0.5), ("none", 1.0), ("epsilon 8", 0.75))
    ]
    found = means_of(rows)
    assert found["epsilon 8"] == {"before": {"a": 0.0}, "after": {"a": 0.625}}
    assert found["none"]["after"] == {"a": 1.0}


@pytest.mark.parametrize("name", ["medcf", "medfe"])
def test_example_studies_are_whole_once_base_and_hash_are_filled_in(name, tmp_path):
    for part in ("study", "policy"):
        text = (EXAMPLE / f"{name}.{part}.toml").read_text()
        text = text.replace("@SHA256@", "0" * 64).replace("@BASE@", "base")
        (tmp_path / f"{name}.{part}.toml").write_text(text)
    study = Study.read(tmp_path / f"{name}.study.toml")
    assert study.policy.is_file()
    assert study.hospitals.count == 4


def test_example_script_says_which_file_is_missing(tmp_path):
    shell = shutil.which("sh")
    script = EXAMPLE / "real-facts.sh"
    done = subprocess.run(
        [shell, script, tmp_path, tmp_path / "out"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "medcf_valid.json" in done.stderr
    assert not (tmp_path / "out").exists()
