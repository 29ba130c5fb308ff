"""Bad input: one line that says what to mend, exit code 2 or 3, nothing written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]


CASES = {
    "unknown key": ("rounds = 2", "runds = 2", 2, r"study.toml \[study\].*'runds'.*'rounds'"),
    "unknown table": ("[strategy]", "[stratgy]", 2, r"'stratgy'; did you mean 'strategy'"),
    "no rounds": ("rounds = 2", "rounds = 0", 2, r"\[study\] rounds is 0; it must be 1 or more"),
    "epsilon 0": (
        "noise_multiplier = 1.0",
        "epsilon = 0.0",
        2,
        r"\[privacy\] epsilon is 0.0; it must be greater than 0",
    ),
    "epsilon below 0": ("noise_multiplier = 1.0", "epsilon = -1", 2, r"epsilon is -1.0"),
    "no noise": ("noise_multiplier = 1.0", "# none", 2, r"either epsilon or noise_multiplier"),
    "wrong type": ("rounds = 2", 'rounds = "2"', 2, r"\[study\] rounds is '2'; expected int"),
    "no such task": ('task = "editing"', 'task = "editng"', 2, r"'editng'.*'editing'"),
    "no such strategy": ('name = "fedavg"', 'name = "fedavgg"', 2, r"'fedavgg'.*'fedavg'"),
    "no such base": ('base = "drugs"', 'base = "drug"', 2, r"'drug'.*'drugs'"),
    "another base": ('sha256 = "', 'sha256 = "00', 2, r"sha256"),
    "wrong hash": (re.compile('sha256 = "[0-9a-f]{4}'), 'sha256 = "0000', 3, r"0000.*asked for"),
    "no such layer": ("layers.5.mlp", "layers.9.mlp", 2, r"layers.9.mlp.down_proj"),
    "wrong unit": ('unit = "record"', 'unit = "speaker"', 2, r"unit is 'speaker'"),
    "odd training key": ("learning_rate", "learning_rat", 2, r"\[training\].*'learning_rate'"),
    "odd task key": ("filler_facts", "filler_fact", 2, r"'filler_facts'"),
    "too few records": ("records_per_hospital = 60", "records_per_hospital = 40", 3, "min_units"),
    "not TOML": ("[study]", "[study", 2, r"not valid TOML"),
}


@pytest.mark.parametrize("case", CASES)
def test_study_file(wardround: Command, small_study: Path, tmp_path: Path, case: str) -> None:
    old, new, code, says = CASES[case]
    text = small_study.read_text(encoding="utf-8")
    changed = old.sub(new, text) if isinstance(old, re.Pattern) else text.replace(old, new, 1)
    assert changed != text
    small_study.write_text(changed, encoding="utf-8")
    expect_refusal(wardround, tmp_path, code, says, "run", small_study)


def test_missing_files(wardround: Command, small_study: Path, tmp_path: Path) -> None:
    expect_refusal(wardround, tmp_path, 2, "nowhere.toml: no such file", "run", "nowhere.toml")
    expect_refusal(
        wardround, tmp_path, 2, "no.json: no such file", "run", small_study, "--data", "no.json"
    )
    expect_refusal(
        wardround, tmp_path, 2, "not a run folder", "run", small_study, "--resume", "nowhere"
    )
    expect_refusal(wardround, tmp_path, 2, "not a run folder", "report", "nowhere")
    (small_study.parent / "policy.toml").unlink()
    expect_refusal(wardround, tmp_path, 2, "policy.toml: no such file", "run", small_study)


def test_data_with_a_wrong_field(wardround: Command, small_study: Path, tmp_path: Path) -> None:
    good = {"prompt": "Which drug is X?", "subject": "X", "target_new": "Y", "ground_truth": "Z"}
    bad = {**good, "target_nw": "Y"}
    del bad["target_new"]
    data = tmp_path / "edits.jsonl"
    data.write_text("\n".join(map(json.dumps, (good, bad))) + "\n", encoding="utf-8")
    words = ("run", small_study, "--data", data)
    expect_refusal(wardround, tmp_path, 2, r"edits.jsonl:2.*target_n", *words)


def test_unknown_engine(wardround: Command, small_study: Path, tmp_path: Path) -> None:
    words = ("run", small_study, "--engine", "rey")
    expect_refusal(wardround, tmp_path, 2, "'rey'; expected one of in-process, ray", *words)


POLICY_CASES = {
    "empty allow": ('tasks = ["editing"]', "tasks = []", 2, r"\[allow\] tasks is empty"),
    "other task": ('tasks = ["editing"]', 'tasks = ["ranking"]', 3, r"tasks does not list"),
    "more noise": ("min_noise_multiplier = 0.5", "min_noise_multiplier = 5", 3, "min_noise"),
    "fewer rounds": ("max_rounds = 100", "max_rounds = 1", 3, r"max_rounds is 1"),
    "small budget": ("epsilon = 8.0", "epsilon = 0.01", 3, r"\[budget\] epsilon allows 0.01"),
    "unknown key": ("min_units", "min_unit", 2, r"policy.toml \[allow\].*'min_units'"),
}


@pytest.mark.parametrize("case", POLICY_CASES)
def test_policy_file(wardround: Command, small_study: Path, tmp_path: Path, case: str) -> None:
    old, new, code, says = POLICY_CASES[case]
    policy = small_study.parent / "policy.toml"
    text = policy.read_text(encoding="utf-8")
    assert old in text
    policy.write_text(text.replace(old, new), encoding="utf-8")
    expect_refusal(wardround, tmp_path, code, says, "run", small_study)


def expect_refusal(
    wardround: Command, tmp_path: Path, code: int, says: str, *words: object
) -> None:
    """The command must refuse in one line and leave no trace."""
    before = sorted(path for path in tmp_path.rglob("*"))
    ended = wardround(*words)
    assert ended.code == code, (ended.code, ended.err)
    assert ended.out == ""
    assert len(ended.err.strip().splitlines()) == 1, ended.err
    assert re.search(says, ended.err), ended.err
    assert sorted(path for path in tmp_path.rglob("*")) == before
