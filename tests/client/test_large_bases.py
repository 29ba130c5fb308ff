"""Bases in short types, quantised or spread over devices: what loads, and what is said if not."""

from __future__ import annotations

import importlib.util
import logging
from typing import Any

import pytest
import torch

from wardround.client import models
from wardround.client.models import Loading, load_base
from wardround.client.workbench import Workbench
from wardround.privacy.errors import BadInput
from wardround.study.config import ModelSection

QUANTISED = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="the extra 'large' is not installed"
)
ADAPTER = {"rank": 2, "alpha": 4, "targets": ["layers.7.mlp.down_proj"]}


@pytest.mark.parametrize("quantise", ["4bit", "8bit"])
def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, quantise: str) -> None:
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"needs bitsandbytes: pip install 'wardround\[large\]'"):
        load_base("drugs", quantise=quantise)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("quantise", "3bit", "quantise is '3bit'; expected one of 4bit, 8bit"),
        ("device_map", "balanced", "device_map is 'balanced'; expected one of auto"),
        ("dtype", "float8", "dtype is 'float8'; expected one of float32, bfloat16, float16"),
    ],
)
def test_settings_name_field_value_and_choices(field: str, value: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        load_base("drugs", **{field: value})
    with pytest.raises(ValueError, match=says):
        ModelSection("drugs", "0" * 64, **{field: value})


def test_a_bfloat16_base_trains_float32_factors(setting: Any) -> None:
    """End to end at a custodian; what leaves is float32 and the base stays short."""
    custodian = setting.open()
    header, arrays = setting.ask(custodian, model={"dtype": "bfloat16"})
    assert header["kind"] == "update", header
    assert {name: array.shape for name, array in arrays.items()} == setting.shapes
    workload = setting.surroundings.workbench._workload
    assert {p.dtype for p in workload.trainable.parameters.values()} == {torch.float32}
    frozen = {p.dtype for p in workload.trainable.model.parameters() if not p.requires_grad}
    assert frozen == {torch.bfloat16}
    assert workload.engine.name == "fused"
    custodian.close()


def test_an_unknown_setting_in_a_plan_is_refused(setting: Any) -> None:
    custodian = setting.open()
    header, _ = setting.ask(custodian, model={"quantize": "4bit"})
    assert "plan model: unknown key 'quantize'; did you mean 'quantise'?" in header["reason"]
    custodian.close()


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BadInput, match="device is 'cuda'"):
        Workbench(device="cuda")


def test_a_base_spread_by_accelerate_trains_all_the_same(setting: Any) -> None:
    """On one CPU there is nothing to spread, but dispatch is there and nothing may move it away."""
    custodian = setting.open()
    header, _ = setting.ask(custodian, model={"device_map": "auto"})
    assert header["kind"] == "update", header
    custodian.close()


@QUANTISED
@pytest.mark.slow
@pytest.mark.parametrize("quantise", ["4bit", "8bit"])
def test_a_quantised_base_in_the_fused_engine(
    setting: Any, quantise: str, caplog: pytest.LogCaptureFixture
) -> None:
    """bitsandbytes' own CPU kernels: the fused layer calls them, and a round runs."""
    from peft.tuners.lora import bnb

    caplog.set_level(logging.ERROR)
    custodian = setting.open()
    header, arrays = setting.ask(custodian, model={"quantise": quantise, "dtype": "bfloat16"})
    assert header["kind"] == "update", header
    assert all(bool(array.any()) for array in arrays.values())
    workload = setting.surroundings.workbench._workload
    kind = bnb.Linear4bit if quantise == "4bit" else bnb.Linear8bitLt
    layers = [m for m in workload.trainable.model.modules() if type(m) is kind]
    assert len(layers) == 1
    assert workload.engine.name == "fused"
    with workload.engine:
        assert "forward" in vars(layers[0])
    custodian.close()


@QUANTISED
def test_a_quantised_base_is_small(setting: Any) -> None:
    """Four bits a weight in linear layers; embeddings stay as they are."""
    whole: Any = load_base("drugs").model
    small: Any = load_base("drugs", **vars(Loading(quantise="4bit"))).model
    assert small.get_memory_footprint() < 0.3 * whole.get_memory_footprint()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_round_on_a_gpu(setting: Any) -> None:
    from dataclasses import replace

    with Workbench(device="cuda") as workbench:
        custodian = setting.open(replace(setting.surroundings, workbench=workbench))
        header, arrays = setting.ask(custodian)
        assert header["kind"] == "update", header
        assert {array.device.type for array in arrays.values()} == {"cpu"}
        custodian.close()
