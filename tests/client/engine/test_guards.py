"""What an engine must refuse and how it leaves a model; each guard with the mistake it catches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from wardround.client.engine import FusedEngine, UnsupportedTrainable, choose_engine
from wardround.privacy.errors import BadInput

ENGINES = ["fused", "opacus"]
X = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(2))
EACH = torch.arange(4)


def dense(kit: Any, *layers: nn.Module) -> Any:
    net = nn.Sequential(*layers)
    kit.settle(net, torch.float32)
    return kit.named(net)


def fresh(make: Any) -> Any:
    with torch.random.fork_rng():
        return make()


def per_row(net: nn.Module) -> Tensor:
    return net(X).square().flatten(1).mean(1)


@pytest.fixture
def plain(kit: Any) -> Any:
    return dense(kit, fresh(lambda: nn.Linear(5, 4)), nn.Tanh(), fresh(lambda: nn.Linear(4, 2)))


@pytest.mark.parametrize("engine", ENGINES)
def test_no_units_run_nothing(plain: Any, engine: str) -> None:
    def never() -> Tensor:
        raise AssertionError("the forward pass ran for an empty batch")

    with choose_engine(plain, engine) as attached:
        found = attached.gradients(never, torch.zeros(0, dtype=torch.int64), 0)
    assert {name: rows.shape for name, rows in found.items()} == {
        name: (0, *shape) for name, shape in plain.shapes.items()
    }


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("unit_of_row", "units", "message"),
    [
        (torch.arange(4) - 1, 4, r"a unit in \[0, 4\)"),
        (torch.arange(4), 3, r"a unit in \[0, 3\)"),
        (torch.arange(4.0), 4, "one int64 a row"),
        (torch.zeros(4, 1, dtype=torch.int64), 4, "one int64 a row"),
        (torch.zeros(0, dtype=torch.int64), 4, r"a unit in \[0, 4\)"),
        (torch.tensor([0, 1, 2]), 4, "4 rows and unit_of_row names 3"),
    ],
)
def test_rows_that_do_not_fit(
    plain: Any, engine: str, unit_of_row: Tensor, units: int, message: str
) -> None:
    with choose_engine(plain, engine) as attached, pytest.raises(ValueError, match=message):
        attached.gradients(lambda: per_row(plain.model), unit_of_row, units)


@pytest.mark.parametrize("engine", ENGINES)
def test_losses_that_do_not_fit(plain: Any, engine: str) -> None:
    with choose_engine(plain, engine) as attached:
        with pytest.raises(ValueError, match=r"shape \(\); expected \(4,\)"):
            attached.gradients(lambda: per_row(plain.model).mean(), EACH, 4)
        with pytest.raises(ValueError, match="do not depend on any trainable"):
            attached.gradients(lambda: per_row(plain.model).detach(), EACH, 4)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_error_leaves_the_engine_usable(plain: Any, engine: str) -> None:
    def broken() -> Tensor:
        per_row(plain.model)
        raise KeyError("a task's own mistake")

    with choose_engine(plain, engine) as attached:
        before = attached.gradients(lambda: per_row(plain.model), EACH, 4)
        with pytest.raises(KeyError, match="own mistake"):
            attached.gradients(broken, EACH, 4)
        after = attached.gradients(lambda: per_row(plain.model), EACH, 4)
    for name, rows in before.items():
        torch.testing.assert_close(after[name], rows, rtol=0, atol=0)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_model_is_left_as_it_was(kit: Any, engine: str) -> None:
    case = kit.case("record", kit.lora("llama"))
    model = case.trainable.model
    names = [set(vars(module)) for module in model.modules()]
    flags = [module.training for module in model.modules()]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    with choose_engine(case.trainable, engine) as attached:
        attached.gradients(case.losses, case.unit_of_row, case.units)
    assert [set(vars(module)) for module in model.modules()] == names
    assert [module.training for module in model.modules()] == flags
    assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert all(p.grad is None and not vars(p) for p in model.parameters())


@pytest.mark.parametrize("engine", ENGINES)
def test_gradients_already_there_stay(plain: Any, engine: str) -> None:
    marks = {name: torch.full_like(p, 7.0) for name, p in plain.parameters.items()}
    for name, parameter in plain.parameters.items():
        parameter.grad = marks[name]
    with choose_engine(plain, engine) as attached:
        attached.gradients(lambda: per_row(plain.model), EACH, 4)
    assert all(p.grad is marks[name] for name, p in plain.parameters.items())


@pytest.mark.parametrize("engine", ENGINES)
def test_two_engines_at_once(plain: Any, engine: str) -> None:
    with (
        choose_engine(plain, engine),
        pytest.raises(RuntimeError, match=r"was replaced already|another engine"),
        choose_engine(plain, engine),
    ):
        pass
    with choose_engine(plain, engine) as attached:
        attached.gradients(lambda: per_row(plain.model), EACH, 4)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_use_the_engine_cannot_see(plain: Any, engine: str) -> None:
    def with_penalty() -> Tensor:
        return per_row(plain.model) + plain.model[0].weight.square().sum()

    with (
        choose_engine(plain, engine) as attached,
        pytest.raises(RuntimeError, match=r"outside its own module|do not add up"),
    ):
        attached.gradients(with_penalty, EACH, 4)


def test_an_engine_that_forgets_a_layer_is_caught(kit: Any) -> None:
    class Forgetful(FusedEngine):
        def __init__(self, trainable: Any) -> None:
            super().__init__(trainable)
            self._forwards.popitem()

    trainable = dense(kit, fresh(lambda: nn.Linear(5, 4)), fresh(lambda: nn.Linear(4, 2)))
    with (
        Forgetful(trainable) as attached,
        pytest.raises(RuntimeError, match=r"1\.weight is used outside"),
    ):
        attached.gradients(lambda: per_row(trainable.model), EACH, 4)


def test_a_backward_pass_outside_gradients(plain: Any) -> None:
    with (
        FusedEngine(plain),
        pytest.raises(RuntimeError, match="outside the engine's gradients"),
    ):
        per_row(plain.model).sum().backward()


def test_a_pass_inside_a_pass(plain: Any) -> None:
    with FusedEngine(plain) as attached:

        def nested() -> Tensor:
            attached.gradients(lambda: per_row(plain.model), EACH, 4)
            return per_row(plain.model)

        with pytest.raises(RuntimeError, match="already being collected"):
            attached.gradients(nested, EACH, 4)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_checkpointing_that_loses_a_gradient(kit: Any) -> None:
    """Reentrant checkpointing of inputs without gradients drops what is inside, with a warning."""
    trainable = dense(kit, fresh(lambda: nn.Linear(5, 4)), fresh(lambda: nn.Linear(4, 2)))
    first, second = trainable.model

    def losses() -> Tensor:
        return second(checkpoint(first, X, use_reentrant=True)).square().flatten(1).mean(1)

    with (
        FusedEngine(trainable) as attached,
        pytest.raises(RuntimeError, match="enable_input_require_grads"),
    ):
        attached.gradients(losses, EACH, 4)


def test_a_layer_the_losses_do_not_reach_gets_zeros(kit: Any) -> None:
    trainable = dense(kit, fresh(lambda: nn.Linear(5, 4)), fresh(lambda: nn.Linear(4, 2)))
    with FusedEngine(trainable) as attached:
        found = attached.gradients(lambda: per_row(trainable.model[0]), EACH, 4)
    assert found["0.weight"].any()
    assert found["1.weight"].shape == (4, 2, 4)
    assert not found["1.weight"].any()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("norm", [nn.BatchNorm1d(4), nn.BatchNorm1d(4, track_running_stats=False)])
def test_batch_norm_couples_units(kit: Any, engine: str, norm: nn.Module) -> None:
    norm.train()
    norm.requires_grad_(False)
    trainable = dense(kit, fresh(lambda: nn.Linear(5, 4)), norm)
    with pytest.raises(UnsupportedTrainable, match="couples units"):
        choose_engine(trainable, engine).__enter__()


def test_frozen_statistics_do_not_couple(kit: Any) -> None:
    norm = nn.BatchNorm1d(3).eval().requires_grad_(False)
    trainable = dense(kit, fresh(lambda: nn.Linear(5, 4)), norm)
    with FusedEngine(trainable) as attached:
        assert attached.gradients(lambda: per_row(trainable.model), EACH, 4)


def test_a_loss_over_the_batch_is_not_a_units_own(kit: Any) -> None:
    """The broken twin: dividing by the batch's tokens makes a unit's gradient depend on others."""
    case = kit.case("record", kit.lora("llama"))
    tokens = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], dtype=torch.float64)
    with FusedEngine(case.trainable) as attached:
        own = attached.gradients(case.losses, case.unit_of_row, case.units)
        coupled = attached.gradients(
            lambda: case.losses() * tokens / tokens.sum(), case.unit_of_row, case.units
        )
    alone = kit.one_by_one(
        case.trainable, lambda unit: case.losses(unit)[0] * tokens[unit] / tokens[unit], case.units
    )
    assert kit.worst(own, alone) < 1e-9
    assert kit.worst(coupled, alone) > 0.1


def test_opacus_under_checkpointing(kit: Any) -> None:
    reentrant = kit.case("record", kit.lora("llama", checkpointing=True))
    with choose_engine(reentrant.trainable, "opacus") as attached:
        found = attached.gradients(reentrant.losses, reentrant.unit_of_row, reentrant.units)
    assert kit.worst(found, reentrant.oracle()) < 1e-9
    other = kit.case("record", kit.lora("llama", checkpointing=False))
    with (
        choose_engine(other.trainable, "opacus") as attached,
        pytest.raises(RuntimeError, match="use_reentrant=True"),
    ):
        attached.gradients(other.losses, other.unit_of_row, other.units)


def test_dora_is_refused(kit: Any) -> None:
    """Its magnitudes train through the norm of the merged weight, which no forward shows."""
    trainable = kit.lora("llama", use_dora=True)
    with pytest.raises(UnsupportedTrainable, match="lora_magnitude_vector"):
        choose_engine(trainable, "fused")


def test_engines_by_name(plain: Any) -> None:
    assert choose_engine(plain).name == "fused"
    assert choose_engine(plain, "opacus").name == "opacus"
    with pytest.raises(BadInput, match="engine is 'fast'; it must be one of auto, fused, opacus"):
        choose_engine(plain, "fast")
