"""The step benchmark: its counts against sums done by hand, and a short run of every contender."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from wardround.privacy.errors import BadInput
from wardround.study.bench.contenders import CONTENDERS
from wardround.study.bench.cost import measure_cost
from wardround.study.bench.shapes import SHAPES, make_subject
from wardround.study.bench.step import RATIOS, main, step_benchmark


def test_products_are_counted_once() -> None:
    """2 m n k for a product of (m, k) and (k, n); additions in place count like the others."""
    a, b, c = torch.ones(3, 5), torch.ones(5, 7), torch.ones(3, 7)
    batch = torch.ones(4, 3, 5)

    def step() -> None:
        a @ b
        torch.addmm(c, a, b)
        c.addmm_(a, b)
        batch @ b
        torch.bmm(batch, batch.transpose(1, 2))
        a @ torch.ones(5)
        torch.ones(3).addmv_(a, torch.ones(5))

    assert measure_cost(step).flops == 2 * (3 * 105 + 4 * 105 + 4 * 45 + 2 * 15)


def test_bytes_written_and_alive() -> None:
    """Float32 has 4 bytes; views write nothing; what is dropped is no longer alive."""
    start = torch.ones(1000)

    def step() -> None:
        first = start + 1
        first.view(10, 100).mul_(2)
        del first
        second = start + 1
        assert len(torch.cat([second, second])) == 2000

    cost = measure_cost(step)
    assert cost.bytes_written == 4 * (1000 + 1000 + 1000 + 2000)
    assert cost.peak_bytes == 4 * 3000


def test_twins_share_the_base_and_nothing_else() -> None:
    subject = make_subject("embedded-demo")
    twin = subject.twin()
    pairs = list(
        zip(subject.trainable.model.parameters(), twin.trainable.model.parameters(), strict=True)
    )
    assert all((a is b) != a.requires_grad for a, b in pairs)
    torch.testing.assert_close(twin.losses(), subject.losses())


@pytest.mark.slow
def test_all_contenders_run_and_report(monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(SHAPES["embedded-demo"], rows=6, tokens=32)
    monkeypatch.setitem(SHAPES, "small", small)
    found = step_benchmark(["small"], repeats=2)
    model: dict[str, Any] = found["models"]["small"]
    assert found["ratios"].keys() == RATIOS.keys()
    assert all(value > 0 for value in found["ratios"].values())
    assert model["trainable"] == 3 * 8 * (344 + 128)  # rank times both widths, three layers
    assert model["contenders"].keys() == CONTENDERS.keys()
    # Privacy needs no second pass: no product more than the ordinary step but the clipped sum.
    flops = {who: numbers["flops"] for who, numbers in model["contenders"].items()}
    assert flops["private"] - flops["fused"] == 2 * 6 * model["trainable"]
    assert model["memory_ratios"]["private_over_fused"] < 1.05
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("as_json", [False, True])
def test_command_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    found = {"models": {"gpt2": {"ratios": {"private_over_fused": 1.0234}}}}
    asked: list[Any] = []

    def record(models: list[str], repeats: int, *_: Any, **__: Any) -> dict[str, Any]:
        asked.extend([models, repeats])
        return found

    monkeypatch.setattr("wardround.study.bench.step.step_benchmark", record)
    main(["--models", "gpt2,qwen2", "--repeats", "3", *(["--json"] if as_json else [])])
    printed = capsys.readouterr().out
    assert asked == [["gpt2", "qwen2"], 3]
    if as_json:
        assert json.loads(printed) == found
    else:
        assert printed == "gpt2 private_over_fused=1.023\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"models": ["enormous"]}, "'enormous' is unknown"),
        ({"contenders": ["jax"]}, "'jax' is unknown"),
        ({"repeats": 1}, "repeats is 1"),
    ],
)
def test_wrong_questions(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        step_benchmark(**arguments)


def test_a_gpu_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BadInput, match=r"device is 'cuda'; .* finds no CUDA device here"):
        step_benchmark(device="cuda")
