"""Small nets and soft prompts: every kind of layer against float64 autograd, unit by unit."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from wardround.client.engine import FusedEngine, PerRow, UnsupportedTrainable, choose_engine
from wardround.client.engine.kinds import register

EXACT = 1e-9
UNIT_OF_ROW = torch.tensor([1, 0, 2, 1, 1])


def numbers(*shape: int, seed: int = 3) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class WithPrompt(nn.Module):
    """A soft prompt in front of each row, mixed by a dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.prompt = PerRow(torch.zeros(3, 4))
        self.mix = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(torch.cat([self.prompt(len(x)), x], 1)).tanh()


class Tied(nn.Module):
    """One table for reading and for writing."""

    def __init__(self) -> None:
        super().__init__()
        self.read = nn.Embedding(7, 4)
        self.write = nn.Linear(4, 7)
        self.write.weight = self.read.weight

    def forward(self, entries: Tensor) -> Tensor:
        return self.write(self.read(entries).tanh())


class Scale(nn.Module):
    """A layer no engine has heard of."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def frozen_weight() -> nn.Module:
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
    net[0].weight.requires_grad_(False)
    net[2].bias.requires_grad_(False)
    return net


ENTRIES = torch.tensor([[0, 1, 1], [2, 3, 0], [6, 6, 6], [1, 0, 2], [5, 4, 0]])
NETS: dict[str, tuple[Any, Tensor]] = {
    "flat rows": (lambda: nn.Linear(4, 3), numbers(5, 4)),
    "positions": (lambda: nn.Linear(4, 3), numbers(5, 2, 3, 4)),
    "wide to narrow": (lambda: nn.Linear(9, 2), numbers(5, 3, 9)),
    "no bias": (lambda: nn.Sequential(nn.Linear(4, 3, bias=False), nn.Tanh()), numbers(5, 2, 4)),
    "partly frozen": (frozen_weight, numbers(5, 2, 4)),
    "layer norm": (lambda: nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6)), numbers(5, 3, 4)),
    "layer norm, no shift": (lambda: nn.LayerNorm(4, bias=False), numbers(5, 3, 4)),
    "layer norm, two axes": (lambda: nn.LayerNorm((3, 4)), numbers(5, 3, 4)),
    "rms norm": (lambda: nn.Sequential(nn.Linear(4, 6), nn.RMSNorm(6)), numbers(5, 3, 4)),
    "table": (lambda: nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 3)), ENTRIES),
    "padded table": (lambda: nn.Embedding(7, 4, padding_idx=0), ENTRIES),
    "tied table": (Tied, ENTRIES),
    "convolutions": (
        lambda: nn.Sequential(
            nn.Conv1d(3, 5, 3, stride=2, padding=1), nn.Tanh(), nn.Conv1d(5, 2, 2, dilation=2)
        ),
        numbers(5, 3, 10),
    ),
    "convolution, loose end": (lambda: nn.Conv1d(3, 4, 3, stride=3, bias=False), numbers(5, 3, 11)),
    "soft prompt": (WithPrompt, numbers(5, 2, 4)),
}


def losses_of(net: nn.Module, x: Tensor, unit_of_row: Tensor, units: int) -> Tensor:
    """Nonlinear in each unit's rows."""
    per_row = net(x).square().flatten(1).mean(1)
    return torch.zeros(units, dtype=per_row.dtype).index_add(0, unit_of_row, per_row).square()


def oracle(kit: Any, trainable: Any, x: Tensor) -> dict[str, Tensor]:
    def alone(unit: int) -> Tensor:
        rows = x[unit == UNIT_OF_ROW]
        return losses_of(trainable.model, rows, torch.zeros(len(rows), dtype=torch.int64), 1)[0]

    return kit.one_by_one(trainable, alone, 3)


def small_net(kit: Any, make: Any) -> Any:
    with torch.random.fork_rng():
        net = make()
    kit.settle(net, torch.float64)
    return kit.named(net)


BEYOND_OPACUS = {
    "soft prompt": (
        UnsupportedTrainable,
        "its hooks keep tensors, and this is called with a count",
    ),
    "padded table": (RuntimeError, "its sampler gives the padding entry a gradient"),
    "layer norm, no shift": (AttributeError, "its sampler expects a bias"),
}


def gradients(trainable: Any, x: Tensor, engine: str) -> dict[str, Tensor]:
    with choose_engine(trainable, engine) as attached:
        return attached.gradients(
            lambda: losses_of(trainable.model, x, UNIT_OF_ROW, 3), UNIT_OF_ROW, 3
        )


@pytest.mark.parametrize("net", NETS)
def test_fused(kit: Any, net: str) -> None:
    make, x = NETS[net]
    trainable = small_net(kit, make)
    assert kit.worst(gradients(trainable, x, "fused"), oracle(kit, trainable, x)) < EXACT


@pytest.mark.parametrize("net", sorted(NETS.keys() - BEYOND_OPACUS.keys()))
def test_opacus(kit: Any, net: str) -> None:
    make, x = NETS[net]
    trainable = small_net(kit, make)
    assert kit.worst(gradients(trainable, x, "opacus"), oracle(kit, trainable, x)) < EXACT


@pytest.mark.parametrize("net", BEYOND_OPACUS)
def test_what_opacus_cannot_do_is_loud(kit: Any, net: str) -> None:
    make, x = NETS[net]
    trainable = small_net(kit, make)
    with pytest.raises(BEYOND_OPACUS[net][0]):
        gradients(trainable, x, "opacus")


def test_prompt_tuning_of_peft_is_refused(kit: Any) -> None:
    """PEFT looks its prompt up for one row and copies the result, so no row has its own."""
    from peft import PromptTuningConfig, get_peft_model

    base = kit.lora("llama").model.unload()
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        settings = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
        model = get_peft_model(base, settings).double()
    trainable = kit.named(model)

    def losses() -> Tensor:
        logits = model(input_ids=ENTRIES, use_cache=False).logits
        return logits.square().mean((1, 2))

    with (
        FusedEngine(trainable) as attached,
        pytest.raises(ValueError, match="saw 1 rows and unit_of_row names 5"),
    ):
        attached.gradients(losses, torch.arange(5), 5)


def test_unknown_layers_go_to_opacus(kit: Any) -> None:
    x = numbers(5, 3, 4)
    trainable = small_net(kit, lambda: nn.Sequential(nn.Linear(4, 4), Scale()))
    with pytest.raises(UnsupportedTrainable, match="does not know Scale"):
        choose_engine(trainable, "fused")
    chosen = choose_engine(trainable)
    assert chosen.name == "opacus"
    assert kit.worst(gradients(trainable, x, "auto"), oracle(kit, trainable, x)) < EXACT


@pytest.mark.parametrize("engine", ["fused", "auto"])
def test_lora_prompt_and_head_together(kit: Any, engine: str) -> None:
    """LoRA on a language model, a soft prompt in front of it and a small head behind, as one."""

    class Prompted(nn.Module):
        def __init__(self, language_model: nn.Module) -> None:
            super().__init__()
            self.inner = language_model
            self.prompt = PerRow(torch.zeros(2, 32))
            self.head = nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 3))

        def forward(self, entries: Tensor) -> Tensor:
            words = self.inner.get_input_embeddings()(entries)
            rows = torch.cat([self.prompt(len(entries)), words], 1)
            decoder = self.inner.base_model.model.model
            return self.head(decoder(inputs_embeds=rows, use_cache=False).last_hidden_state)

    lora = kit.lora("llama")
    net = small_net(kit, lambda: Prompted(lora.model))
    ends = {name.split(".")[0] for name in net.parameters}
    assert ends == {"inner", "prompt", "head"}
    expected = oracle(kit, net, ENTRIES)
    assert kit.worst(gradients(net, ENTRIES, engine), expected) < EXACT
    assert choose_engine(net, engine).name == "fused"


def test_a_subclass_does_not_inherit_a_kind(kit: Any) -> None:
    class Shifted(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x + 1)

    with pytest.raises(UnsupportedTrainable, match="Shifted"):
        FusedEngine(small_net(kit, lambda: Shifted(4, 2)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Embedding(7, 4, scale_grad_by_freq=True),
        lambda: nn.Embedding(7, 4, max_norm=1.0),
        lambda: nn.Conv1d(4, 4, 3, groups=2),
        lambda: nn.Conv1d(4, 4, 3, padding="same"),
        lambda: nn.GRU(4, 4),
    ],
)
def test_layers_the_fused_engine_refuses(kit: Any, make: Any) -> None:
    with pytest.raises(UnsupportedTrainable):
        FusedEngine(small_net(kit, make))


def test_one_kind_a_type() -> None:
    with pytest.raises(ValueError, match="Linear has a kind already"):
        register(nn.Linear)(lambda module, sink: None)
