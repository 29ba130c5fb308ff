"""Every strategy from the command to an adapter that PEFT loads with the run's own logits."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from wardround.client.layers import background
from wardround.client.models import BASES, load_base, quiet_transformers
from wardround.client.workbench import Workbench
from wardround.strategies.checkpoint import load_checkpoint
from wardround.strategies.registry import list_strategies
from wardround.study.audit import AuditSetup, audit_study
from wardround.study.config import Study
from wardround.study.run_folder import RunFolder
from wardround.study.runner import prepare, strategy_of

Command = Callable[..., Any]
NAMES = [entry.name for entry in list_strategies() if entry.traits.trains]
NUMBERS = 3 * 8 * (344 + 128)  # the study's layers, rank and widths
UP = {  # numbers that leave a hospital in rounds 1 and 2, of layers 128 x 344 at rank 8
    "ffa": 2 * 3 * 8 * 128,
    "fedsvd": 2 * 3 * 8 * 128,
    "rolora": 3 * 8 * (128 + 344),
    "fedsa": 2 * 3 * 8 * 344,
    "fed_sb": 2 * 3 * 8 * 8,
}
HEADERS = 4096  # bytes: names, report and signature of one answer, at most


def with_strategy(study: Path, name: str, *lines: str) -> None:
    """Let study and policy name another strategy."""
    text = study.read_text(encoding="utf-8")
    text = text.replace('name = "fedavg"', "\n".join([f'name = "{name}"', *lines]))
    study.write_text(text, encoding="utf-8")
    policy = study.parent / "policy.toml"
    listed = re.sub(r"strategies = \[.*\]", f'strategies = ["{name}"]', policy.read_text("utf-8"))
    policy.write_text(listed, encoding="utf-8")


def with_ranks(study: Path, ranks: list[int], rank: int) -> None:
    """Let hospitals have ranks of their own."""
    text = study.read_text(encoding="utf-8")
    text = text.replace("count = 2", f"count = {len(ranks)}\nranks = {ranks}")
    study.write_text(text.replace("rank = 8", f"rank = {rank}"), encoding="utf-8")


def logits_of_run(folder: RunFolder, ids: torch.Tensor) -> torch.Tensor:
    """What the deployed model says, put together as the coordinator does."""
    model = strategy_of(folder.study).deploy(load_checkpoint(folder.path / "checkpoint").arrays)
    with Workbench() as workbench, torch.no_grad():
        trainable = prepare(folder.study, workbench).trainable
        trainable.write(model.arrays)
        with background(trainable.model, model.background):
            said: torch.Tensor = trainable.model(input_ids=ids).logits
        return said


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_runs_and_its_adapter_loads_with_peft(
    wardround: Command, small_study: Path, tmp_path: Path, name: str
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    with_strategy(small_study, name)
    ended = wardround("run", small_study, "--json", "--runs", tmp_path / "runs")
    assert ended.code == 0, ended.err
    document = ended.document()
    assert document["metrics"]["before"]["locality"] == 1.0
    payload = 4 * UP.get(name, 2 * NUMBERS)
    each = document["bytes"]["up"] / 2  # hospitals
    assert payload < each < payload + 2 * HEADERS
    run = Path(document["run_dir"])
    ids = load_base("drugs").tokenizer("Which disease is", return_tensors="pt")["input_ids"]
    ours = logits_of_run(RunFolder.open(run), ids)
    with quiet_transformers():
        base = AutoModelForCausalLM.from_pretrained(BASES / "drugs", local_files_only=True)
    theirs = PeftModel.from_pretrained(base, run / "adapter").eval()
    with torch.no_grad():
        # Logits are sums of a few hundred float32 products, in another order with a background.
        torch.testing.assert_close(theirs(input_ids=ids).logits, ours, rtol=1e-4, atol=1e-5)
        untouched = theirs.unload()(input_ids=ids).logits
    personal = name == "fedsa"  # A with B at zero is the base
    assert torch.equal(untouched, ours) == personal


@pytest.mark.slow
@pytest.mark.parametrize("name", ["flora", "flexlora", "rolora"])
def test_mixed_ranks_from_end_to_end(
    wardround: Command, small_study: Path, tmp_path: Path, name: str
) -> None:
    """Ranks 4, 8 and 16: each hospital sends as many numbers as its own rank has."""
    with_strategy(small_study, name)
    with_ranks(small_study, [4, 8, 16], 16)
    ended = wardround("run", small_study, "--json", "--runs", tmp_path / "runs")
    assert ended.code == 0, ended.err
    run = Path(ended.document()["run_dir"])
    for number in (1, 2):
        signed = json.loads((run / "rounds" / f"000{number}.json").read_text(encoding="utf-8"))
        width = 128 + 344 if name != "rolora" else (128 if number == 1 else 344)
        for answer, rank in zip(signed["record"]["answers"], (4, 8, 16), strict=True):
            payload = 3 * rank * width * 4
            assert payload < answer["bytes_up"] < payload + HEADERS
    adapters = [p for p in (run / "adapter").iterdir() if p.name == "adapter_config.json"]
    assert len(adapters) == 1


@pytest.mark.parametrize(
    ("name", "ranks", "rank", "says"),
    [
        ("fedavg", [4, 8], 8, r"'fedavg' needs equal ranks; use one of .*flora"),
        ("flora", [4, 16], 8, r"ranks holds 16; \[adapter\] rank is 8"),
        ("flora", [4], 8, r"count|one rank for each of 2 hospitals"),
        ("flora", [0, 4], 8, r"ranks of 1 or more"),
    ],
)
def test_ranks_that_cannot_be_are_refused(
    wardround: Command,
    small_study: Path,
    tmp_path: Path,
    name: str,
    ranks: list[int],
    rank: int,
    says: str,
) -> None:
    with_strategy(small_study, name)
    text = small_study.read_text(encoding="utf-8")
    text = text.replace("count = 2", f"count = 2\nranks = {ranks}")
    small_study.write_text(text.replace("rank = 8", f"rank = {rank}"), encoding="utf-8")
    ended = wardround("run", small_study, "--runs", tmp_path / "runs")
    assert ended.code == 2
    assert re.search(says, ended.err), ended.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["every = 0"], r"\[strategy\] every is 0; it must be 1 or more"),
        (["evry = 2"], r"\[strategy\]: unknown key 'evry'; did you mean 'every'"),
        (['every = "2"'], r"\[strategy\] every is '2'; expected int"),
    ],
)
def test_settings_of_a_strategy_are_checked(
    wardround: Command, small_study: Path, tmp_path: Path, lines: list[str], says: str
) -> None:
    with_strategy(small_study, "fedsvd", *lines)
    ended = wardround("run", small_study, "--runs", tmp_path / "runs")
    assert ended.code == 2
    assert re.search(says, ended.err), ended.err


def test_a_study_that_names_no_strategy_gets_that_of_its_mode(small_study: Path) -> None:
    text = small_study.read_text(encoding="utf-8").replace('name = "fedavg"', "")
    small_study.write_text(text, encoding="utf-8")
    assert Study.read(small_study).strategy.name == "rolora"
    bare = re.sub(r"noise_multiplier = 1.0.*", 'mode = "none"', text)
    small_study.write_text(bare, encoding="utf-8")
    assert Study.read(small_study).strategy.name == "fedavg"


def test_a_core_is_for_strategies_to_set(
    wardround: Command, small_study: Path, tmp_path: Path
) -> None:
    text = small_study.read_text(encoding="utf-8").replace("rank = 8", "rank = 8\ncore = true")
    small_study.write_text(text, encoding="utf-8")
    ended = wardround("run", small_study, "--runs", tmp_path / "runs")
    assert ended.code == 2
    assert "core is for strategies to set" in ended.err


@pytest.mark.parametrize(
    ("name", "ranks", "says"),
    [
        ("flora", None, "'flora', which does not work under secure aggregation: products"),
        ("fedsa", None, "'fedsa', which does not work .* stay at home"),
        ("la_lora", None, "'la_lora', which moves arrays in turn within a round"),
        ("rolora", [4, 8, 8], "a secure sum needs updates of one size"),
    ],
)
def test_what_a_secure_sum_cannot_hold_is_refused(
    wardround: Command,
    small_study: Path,
    tmp_path: Path,
    name: str,
    ranks: list[int] | None,
    says: str,
) -> None:
    with_strategy(small_study, name)
    if ranks is not None:
        with_ranks(small_study, ranks, 8)
    text = small_study.read_text(encoding="utf-8").replace("count = 2", "count = 3")
    small_study.write_text(text, encoding="utf-8")
    text = small_study.read_text(encoding="utf-8")
    shared = 'mode = "distributed"\nsecure_aggregation = true\nthreshold = 3\nhonest_hospitals = 1'
    text = text.replace("[privacy]", f"[privacy]\n{shared}")
    text = text.replace("count = 2", "count = 3")
    text = text.replace("steps_per_round = 2", "steps_per_round = 1")
    small_study.write_text(text, encoding="utf-8")
    ended = wardround("run", small_study, "--runs", tmp_path / "runs")
    assert ended.code == 2
    assert re.search(says, ended.err), ended.err


def test_the_audit_says_which_strategies_it_knows(
    wardround: Command, small_study: Path, tmp_path: Path
) -> None:
    with_strategy(small_study, "fed_sb")
    ended = wardround("audit", small_study)
    assert ended.code == 2
    assert "audit the study with 'fedavg' or 'rolora'" in ended.err


def test_the_audit_follows_what_moves(small_study: Path) -> None:
    """Under RoLoRA a round's answer is one factor, and the guesser scores that factor."""
    with_strategy(small_study, "rolora")
    document = audit_study(small_study, AuditSetup(canaries=12, ordinary=10, steps=2, seed=3))
    assert document["with_privacy"]["holds"]
