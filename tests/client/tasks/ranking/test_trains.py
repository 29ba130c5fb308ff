"""What trains besides LoRA: whole last blocks, and a head; both come off and are written whole."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from wardround.client.tasks.ranking.likelihood import query_logits
from wardround.client.tasks.ranking.rows import encode, pad
from wardround.client.tasks.ranking.trains import as_reference, attach
from wardround.privacy.errors import BadInput

BLOCKS = {"last_blocks": 1}
CHECKS = (
    "nothing_couples_units",
    "engines_agree_with_autograd",
    "adapter_comes_off_and_leaves_the_base_as_it_was",
    "evaluation_looks_and_does_not_touch",
)


def _generator():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("name", CHECKS[:1] + CHECKS[2:])
def test_last_blocks_keep_the_contract(case, all_checks, name):
    all_checks[name](replace(case("ranking"), adapter=BLOCKS))


@pytest.mark.parametrize("name", CHECKS[2:])
def test_head_keeps_the_contract(case, all_checks, name):
    config = {"max_length": 64, "max_query": 12, "scorer": "head", "measures": ["RR@10"]}
    all_checks[name](replace(case("ranking"), config=config))


def test_only_the_last_blocks_train(case):
    trainable = attach(case("ranking").model(), BLOCKS, False, _generator())
    assert all(name.startswith("model.layers.1.") for name in trainable.parameters)
    assert len(trainable.parameters) == 9  # seven matrices and two norms of a Llama block


def test_too_many_blocks_are_refused(case):
    with pytest.raises(BadInput, match="last_blocks is 3; the base has 2 blocks"):
        attach(case("ranking").model(), {"last_blocks": 3}, False, _generator())
    with pytest.raises(BadInput, match="last_blocks is 0"):
        attach(case("ranking").model(), {"last_blocks": 0}, False, _generator())
    with pytest.raises(BadInput, match="has no list of blocks"):
        attach(torch.nn.Linear(2, 2), BLOCKS, False, _generator())


@pytest.mark.parametrize("adapter", [BLOCKS, {"targets": ["mlp.down_proj"], "rank": 2}])
def test_reference_is_the_frozen_base(case, adapter):
    case = replace(case("ranking"), adapter=adapter)
    inputs = pad([encode(case.tokenizer, "Bato coughs.", "Who?", 64, 12)], 0)
    wanted = query_logits(case.model(), inputs)
    trainable = case.adapted()
    with torch.no_grad():
        moved = query_logits(trainable.model, inputs)
        with as_reference(trainable.model):
            found = query_logits(trainable.model, inputs)
        after = query_logits(trainable.model, inputs)
    torch.testing.assert_close(found, wanted)
    assert float((moved - wanted).abs().max()) > 1e-3
    assert torch.equal(after, moved)


def test_blocks_and_head_are_written_whole(case, tmp_path):
    blocks = replace(case("ranking"), adapter=BLOCKS)
    trainable = blocks.adapted()
    arrays = trainable.read()
    blocks.task.export(trainable, BLOCKS, arrays, "a base", tmp_path / "blocks", "cost: epsilon 3")
    found = load_file(tmp_path / "blocks" / "blocks.safetensors")
    assert found.keys() == arrays.keys()
    assert all(torch.equal(found[name], value) for name, value in arrays.items())
    assert "cost: epsilon 3" in (tmp_path / "blocks" / "README.md").read_text()
    headed = replace(case("ranking"), config={"scorer": "head"})
    trainable = headed.adapted()
    arrays = trainable.read()
    headed.task.export(trainable, headed.adapter, arrays, "a base", tmp_path / "head", "note")
    head = load_file(tmp_path / "head" / "head.safetensors")
    rest = load_file(tmp_path / "head" / "adapter_model.safetensors")
    assert torch.equal(head["head.weight"], arrays["head.weight"])
    assert {**head, **rest}.keys() == arrays.keys()
