"""Preference studies that need another step before them: a reward, a reference, likelihoods."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from wardround.client.tasks.preference.rewards import WEIGHTS
from wardround.study.config import Study
from wardround.study.run_folder import RunFolder
from wardround.study.runner import check_study

EXAMPLE = Path(__file__).parents[2] / "examples" / "preference"
ARRAYS = "adapter_model.safetensors"
SMALL = (
    ("epsilon = 4.0 ", "noise_multiplier = 1.0 "),
    ("count = 4", "count = 2"),
    ("records_per_hospital = 240", "records_per_hospital = 60\nprobes = 6"),
    ("max_tokens = 48", "max_tokens = 8"),
)


def written(folder: Path, name: str, *changes: tuple[str, str]) -> Path:
    """An example's study file, made small and changed, with its policy beside it."""
    folder.mkdir(exist_ok=True)
    shutil.copy(EXAMPLE / "policy.toml", folder / "policy.toml")
    text = (EXAMPLE / name).read_text()
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    for old, new in SMALL:
        text = text.replace(old, new)
    (folder / "study.toml").write_text(text)
    return folder / "study.toml"


def ran(wardround: Any, study: Path, *options: object) -> tuple[Path, dict[str, Any]]:
    """Folder and document of a run."""
    found = wardround("run", study, "--json", *options)
    assert found.code == 0, found.err
    document = found.document()
    return Path(study.parent.parent / document["run_dir"]), document


def pinned(folder: Path) -> str:
    return hashlib.sha256((folder / ARRAYS).read_bytes()).hexdigest()


def test_a_reward_learnt_together_scores_what_the_model_writes(
    tmp_path: Path, wardround: Any
) -> None:
    learnt, document = ran(wardround, written(tmp_path / "one", "reward.toml"))
    assert document["metrics"]["before"]["accuracy"] == 0.5
    assert load_file(learnt / "adapter" / ARRAYS)[WEIGHTS].shape == (1, 80)
    digest = pinned(learnt / "adapter")
    named = (("@FOLDER@", str(learnt / "adapter")), ("@SHA256@", digest))
    short = (("rounds = 3", "rounds = 1"), ("steps_per_round = 5", "steps_per_round = 1"))
    study = written(tmp_path / "two", "tuned.toml", *named, *short)
    tuned, document = ran(wardround, study)
    # Evaluation goes by the rule everybody can read, not by the reward that was trained on: of
    # the six probes' replies each is worth a multiple of a half.
    total = 6 * document["metrics"]["after"]["reward"]
    assert 2 * total == pytest.approx(round(2 * total), abs=1e-3)
    # Every plan carries the reward's hash: another reward is another plan.
    config = RunFolder.open(tuned).study.task
    assert config["reward_model"]["sha256"] == digest
    other = written(tmp_path / "three", "tuned.toml", named[0], ("@SHA256@", "0" * 64), *short)
    refused = wardround("run", other)
    assert refused.code == 3
    assert "holds no arrays with sha256 000000000000" in refused.err


def bare(*more: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    """The example without noise, for one round of three steps."""
    return (
        ("epsilon = 8.0\ndelta = 1e-5", 'mode = "none"'),
        ("rounds = 10", "rounds = 1"),
        ("steps_per_round = 10", "steps_per_round = 3"),
        *more,
    )


def test_recorded_likelihoods_train_the_same_model(tmp_path: Path, wardround: Any) -> None:
    asked, _ = ran(wardround, written(tmp_path / "one", "study.toml", *bare()))
    raw = tmp_path / "raw.jsonl"
    shares = sorted((asked / "hospitals").glob("*/records.jsonl"))
    raw.write_text("".join(path.read_text() for path in shares))
    study = written(
        tmp_path / "two",
        "study.toml",
        *bare(("[task.loss]", "[task.reference]\nrecorded = true\n\n[task.loss]")),
    )
    found = wardround(
        "precompute", study, "--data", raw, "--out", tmp_path / "with.jsonl", "--json"
    )
    assert found.code == 0, found.err
    assert found.document()["records"] == 120
    again = wardround("precompute", study, "--data", raw, "--out", tmp_path / "with.jsonl")
    assert again.code == 2
    assert "nothing is overwritten" in again.err
    runs = [
        ran(wardround, path, "--data", data)[0]
        for path, data in ((tmp_path / "one" / "study.toml", raw), (study, tmp_path / "with.jsonl"))
    ]
    one, other = (load_file(run / "adapter" / ARRAYS) for run in runs)
    for name, array in one.items():
        # Adam divides by the gradient's size; float32 likelihoods agree to about 1e-6.
        assert torch.allclose(array, other[name], atol=1e-4), name


def test_a_study_goes_on_from_the_adapter_of_another(tmp_path: Path, wardround: Any) -> None:
    first, _ = ran(wardround, written(tmp_path / "one", "study.toml", *bare()))
    folder = first / "adapter"
    named = f'[task.reference]\nadapter = "{folder}"\nsha256 = "{pinned(folder)}"\n\n[task.loss]'
    study = written(tmp_path / "two", "study.toml", *bare(("[task.loss]", named)))
    second, document = ran(wardround, study)
    before, after = document["metrics"]["before"], document["metrics"]["after"]
    # The policy starts as its own reference, whatever the first study taught it.
    assert (before["kl"], before["margin"], before["win_rate"]) == (0.0, 0.0, 0.5)
    assert after["margin"] != 0.0
    one, other = (load_file(run / "adapter" / ARRAYS) for run in (first, second))
    assert any(not torch.equal(array, other[name]) for name, array in one.items())
    lost = written(
        tmp_path / "three",
        "study.toml",
        *bare(("[task.loss]", named), ('name = "fedavg"', 'name = "fedsa"')),
    )
    policy = lost.parent / "policy.toml"
    policy.write_text(policy.read_text().replace('["fedavg"]', '["fedavg", "fedsa"]'))
    refused = wardround("run", lost)
    assert refused.code == 2
    assert "starts from factors of its own" in refused.err


def test_the_examples_are_studies() -> None:
    """``tuned.toml`` waits for a reward; everything else of it is checked here."""
    check_study(Study.read(EXAMPLE / "reward.toml"))
    study = Study.read(EXAMPLE / "tuned.toml")
    assert study.task["sampling"]["reward"] == "federated"
    assert (study.task["reward_model"]["folder"], study.privacy.epsilon) == ("@FOLDER@", 4.0)
