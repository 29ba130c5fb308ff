"""A small study from command to files: what is printed, what is written, what loads again."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from wardround.client.models import BASES, load_base, quiet_transformers
from wardround.client.workbench import Workbench
from wardround.privacy.accountant import epsilon
from wardround.privacy.events import Gaussian, PoissonSampled, Repeated
from wardround.strategies.checkpoint import load_checkpoint
from wardround.strategies.registry import Traits
from wardround.study.run_folder import RunFolder
from wardround.study.runner import prepare

Command = Callable[..., Any]
TRAITS = {"secure_aggregation", *(field.name for field in fields(Traits))}


def test_a_run_prints_one_document_and_writes_everything(
    wardround: Command, small_study: Path, tmp_path: Path
) -> None:
    ended = wardround("run", small_study, "--json", "--runs", tmp_path / "runs")
    assert ended.code == 0, ended.err
    document = ended.document()
    assert document["private"]
    assert document["rounds"] == 2
    # The oracle is dp-accounting on the events this study must have caused: 2 rounds x 2 steps.
    expected = epsilon(Repeated(PoissonSampled(0.1, Gaussian(1.0)), 4), 1e-5)
    assert [h["epsilon"] for h in document["hospitals"]] == [expected, expected]
    assert {h["name"] for h in document["hospitals"]} == {"hospital-1", "hospital-2"}
    assert document["metrics"]["before"]["locality"] == 1.0
    run = Path(document["run_dir"])
    for name in ("report.html", "adapter", "rounds", "metrics.jsonl", "checkpoint", "study.toml"):
        assert (run / name).exists(), name
    # 3 layers x rank 8 x (344 + 128) float32 numbers, each way, two hospitals, two rounds.
    payload = 3 * 8 * (344 + 128) * 4
    for direction in ("up", "down"):
        assert payload * 4 < document["bytes"][direction] < payload * 4 * 1.1


def test_the_adapter_loads_with_peft_and_gives_the_run_s_own_logits(
    wardround: Command, small_study: Path, tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    run = Path(wardround("run", small_study, "--json", "--runs", tmp_path).document()["run_dir"])
    folder = RunFolder.open(run)
    final = load_checkpoint(run / "checkpoint")
    ids = load_base("drugs").tokenizer("Which disease is", return_tensors="pt")["input_ids"]
    with Workbench() as workbench, torch.no_grad():
        workload = prepare(folder.study, workbench)
        workload.trainable.write(final.arrays)
        ours = workload.trainable.model(input_ids=ids).logits
    with quiet_transformers():
        base = AutoModelForCausalLM.from_pretrained(BASES / "drugs", local_files_only=True)
    theirs = PeftModel.from_pretrained(base, run / "adapter").eval()
    with torch.no_grad():
        assert torch.equal(theirs(input_ids=ids).logits, ours)
        untouched = theirs.unload()(input_ids=ids).logits
    assert not torch.equal(untouched, ours)
    assert "epsilon at most" in (run / "adapter" / "README.md").read_text(encoding="utf-8")
    exported = wardround("export", run, "--to", tmp_path / "again", "--json")
    assert exported.document()["round"] == 2
    for name in ("adapter_model.safetensors", "adapter_config.json", "README.md"):
        assert (tmp_path / "again" / name).read_bytes() == (run / "adapter" / name).read_bytes()
    refused = wardround("export", run, "--to", tmp_path / "again")
    assert refused.code == 2
    assert "nothing is overwritten" in refused.err


def test_the_page_is_self_contained(wardround: Command, small_study: Path, tmp_path: Path) -> None:
    run = Path(wardround("run", small_study, "--json", "--runs", tmp_path).document()["run_dir"])
    page = (run / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") >= 2
    for outside in ("<script", "<link", "src=", "@import", "url("):
        assert outside not in page.replace("url(#", ""), outside
    assert not re.search(r'href="(?!#)', page.replace("xlink:href", ""))


def test_a_bare_run_says_so_everywhere(
    wardround: Command, small_study: Path, tmp_path: Path
) -> None:
    text = small_study.read_text(encoding="utf-8")
    text = re.sub(r"noise_multiplier = 1.0.*", 'mode = "none"', text)
    small_study.write_text(text, encoding="utf-8")
    ended = wardround("run", small_study, "--runs", tmp_path)
    assert ended.code == 0, ended.err
    assert "NOT PRIVATE" in ended.out
    run = next(path for path in tmp_path.iterdir() if (path / "run.json").exists())
    for name in ("report.html", "adapter/README.md"):
        assert "NOT PRIVATE" in (run / name).read_text(encoding="utf-8"), name
    signed = json.loads((run / "rounds" / "0001.json").read_text(encoding="utf-8"))
    assert signed["record"]["answers"][0]["report"]["epsilon_study"] is None


def test_private_data_is_never_used_bare(
    wardround: Command, small_study: Path, tmp_path: Path
) -> None:
    text = small_study.read_text(encoding="utf-8")
    small_study.write_text(re.sub(r"noise_multiplier = 1.0.*", 'mode = "none"', text), "utf-8")
    policy = small_study.parent / "policy.toml"
    strict = policy.read_text(encoding="utf-8").replace('"generated"', '"private"')
    policy.write_text(strict, encoding="utf-8")
    ended = wardround("run", small_study, "--runs", tmp_path / "runs")
    assert ended.code == 3
    assert "provenance is private" in ended.err
    assert not (tmp_path / "runs").exists()


def test_report_checks_signatures(wardround: Command, small_study: Path, tmp_path: Path) -> None:
    run = Path(wardround("run", small_study, "--json", "--runs", tmp_path).document()["run_dir"])
    assert wardround("report", run, "--json").document()["signatures"] == "verified"
    assert wardround("report", run, "--verify", "--json").document()["epsilons"] == "computed anew"
    first = run / "rounds" / "0001.json"
    text = first.read_text(encoding="utf-8")
    assert '"noise_multiplier":1.0' in text
    first.write_text(text.replace('"noise_multiplier":1.0', '"noise_multiplier":9.0', 1), "utf-8")
    ended = wardround("report", run)
    assert ended.code == 3
    assert "0001.json" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        ("tasks", {"name", "summary", "units"}),
        ("strategies", {"name", "summary", "paper", *TRAITS}),
    ],
)
def test_listings(wardround: Command, command: str, keys: set[str]) -> None:
    rows = wardround(command, "--json").document()[command]
    assert rows
    assert all(set(row) == keys for row in rows)
    assert rows[0]["name"] in wardround(command).out
