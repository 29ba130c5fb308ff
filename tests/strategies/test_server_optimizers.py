"""Server optimisers: Flower's own as oracle without noise, closed forms with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdam, FedAvgM, FedYogi
from torch import Tensor

from wardround.strategies.server_optimizers import Adam, Momentum, ServerOptimizer, Yogi

SHAPE = (4, 5)


def changes(rounds: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(SHAPE, generator=generator) * 0.1 for _ in range(rounds)]


def follow(optimizer: ServerOptimizer, rounds: list[Tensor], variance: float | None = None):
    """The model after each round, from zero."""
    model, state, path = torch.zeros(SHAPE, dtype=torch.float64), {}, []
    for change in rounds:
        known = None if variance is None else {"a": variance}
        step, state = optimizer.step(state, {"a": change}, known)
        model = model + step["a"]
        path.append(model)
    return path


class Reply:
    """As much of a reply as Flower's aggregation looks at."""

    def __init__(self, array: np.ndarray) -> None:
        arrays = ArrayRecord({"a": Array(array)})
        self.content = RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})})
        self.metadata = type("Metadata", (), {"src_node_id": 1})()

    def has_error(self) -> bool:
        return False


def follow_flower(strategy: Any, rounds: list[Tensor], first_round: int) -> list[np.ndarray]:
    """The same rounds through one of Flower's strategies, which is told of whole models."""
    model, path = np.zeros(SHAPE), []
    for number, change in enumerate(rounds, first_round):
        record = ArrayRecord({"a": Array(model)})
        if isinstance(strategy, FedAvgM):
            strategy.current_arrays = record
        else:
            strategy.current_arrays = {"a": model}
        replies: list[Message] = [Reply(model + change.double().numpy())]  # type: ignore[list-item]
        arrays, _ = strategy.aggregate_train(number, replies)
        model = arrays["a"].numpy()
        path.append(model)
    return path


@pytest.mark.parametrize(
    ("ours", "flowers", "first_round"),
    [
        # Flower corrects Adam's start with one round more than have happened; counted from 0 it
        # is Kingma and Ba's own.
        (Adam(0.02, 0.8, 0.95, 1e-3), FedAdam(eta=0.02, beta_1=0.8, beta_2=0.95, tau=1e-3), 0),
        (Yogi(0.02, 0.8, 0.95, 1e-3), FedYogi(eta=0.02, beta_1=0.8, beta_2=0.95, tau=1e-3), 1),
        (Momentum(0.5, 0.9), FedAvgM(server_learning_rate=0.5, server_momentum=0.9), 1),
    ],
)
def test_follows_flower_without_noise(
    ours: ServerOptimizer, flowers: Any, first_round: int
) -> None:
    rounds = changes(12)
    for there, here in zip(
        follow_flower(flowers, rounds, first_round), follow(ours, rounds), strict=True
    ):
        # Our state is kept in float32 between rounds.
        assert np.allclose(here.numpy(), there, rtol=1e-5, atol=1e-7)


def second_moment(optimizer: Adam | Yogi, signal: float, noise: float, corrected: bool) -> float:
    """Mean second moment after 150 rounds of a constant change under noise, 4000 numbers."""
    generator = torch.Generator().manual_seed(7)
    state: dict[str, Tensor] = {}
    for _ in range(150):
        change = signal + noise * torch.randn(4000, generator=generator)
        variance = {"a": noise**2} if corrected else None
        _, state = optimizer.step(state, {"a": change}, variance)
    return float(state["second/a"].mean())


@pytest.mark.statistical
def test_adams_second_moment_is_free_of_noise() -> None:
    """Expected s² (1 - beta2^t); its error is 2 s⁴ / 4000 numbers over 10 effective rounds.

    With noise 1 and signal 0.5 a number varies by sqrt(2 + 4/4) and the mean of a round by 0.0274;
    over 1 / (1 - 0.9) = 10 rounds by 0.0064. Ten times that: false alarms below 1e-22.
    """
    adam = Adam(beta2=0.9)
    assert abs(second_moment(adam, 0.5, 1.0, corrected=True) - 0.25) < 0.064
    assert abs(second_moment(adam, 0.5, 1.0, corrected=False) - 1.25) < 0.064  # the broken twin


@pytest.mark.statistical
def test_yogis_second_moment_is_nearer_without_the_noise() -> None:
    """Yogi moves by signs, so it does not tend to the mean square, with noise or without.

    Uncorrected it tends to where ``E[sign(x² - v) x²] = 0``, which halves the mass of x²: for x
    normal with mean 0.5 and variance 1 beyond 2.37, the median of chi-square with 3 degrees of
    freedom, which is the value for mean 0. 4000 numbers fix the mean to 0.05.
    """
    yogi = Yogi(beta2=0.9)
    corrected = second_moment(yogi, 0.5, 1.0, corrected=True)
    uncorrected = second_moment(yogi, 0.5, 1.0, corrected=False)
    assert uncorrected > 2.37
    assert corrected < 0.6 * uncorrected


@pytest.mark.parametrize("kind", [Adam, Yogi])
def test_equal_signals_get_steps_of_one_size(kind: type[Adam | Yogi]) -> None:
    """What adaptivity is for: arrays whose signals differ by 30 take steps of about one length.

    Without the correction the weak array's steps are shorter by its signal over the noise.
    """
    generator = torch.Generator().manual_seed(3)
    optimizer = kind(beta1=0.98, beta2=0.98, damping=1e-6)

    def ratio(corrected: bool) -> float:
        """Mean step of the weak array over that of the strong one, after 300 rounds."""
        state: dict[str, Tensor] = {}
        for _ in range(300):
            weak = 0.3 + torch.randn(2000, generator=generator)
            strong = 9.0 + torch.randn(2000, generator=generator)
            known = {"weak": 1.0, "strong": 1.0} if corrected else None
            step, state = optimizer.step(state, {"weak": weak, "strong": strong}, known)
        return float(step["weak"].mean() / step["strong"].mean())

    with_correction, without = ratio(True), ratio(False)
    assert without < 0.4  # 0.3 / sqrt(1.09) = 0.29 for Adam
    assert with_correction > 1.7 * without


def test_noise_alone_moves_the_model_little() -> None:
    """A second moment that fell below its own error counts as that error, never as zero.

    For noise alone of variance 1 the floor is sqrt(2 (1 - beta2) / (1 + beta2)) = 0.1 in the long
    run; the steps then are at most 1 / sqrt(0.1) = 3.2 times those without correction.
    """
    optimizer = Adam(learning_rate=1.0, beta2=0.99, damping=1e-9)
    generator = torch.Generator().manual_seed(1)
    plain: dict[str, Tensor] = {}
    state: dict[str, Tensor] = {}
    for _ in range(1000):
        change = {"a": torch.randn(500, generator=generator)}
        step, state = optimizer.step(state, change, {"a": 1.0})
        reference, plain = optimizer.step(plain, change, None)
    floor = (2 * 0.01 / 1.99) ** 0.5
    assert float(state["noise/a"][1]) == pytest.approx(floor, rel=1e-5)
    ratio = (step["a"] / reference["a"]).abs()
    # The uncorrected moment is 1 but for its own fluctuation of floor: 3.2 within 5 of those.
    assert float(ratio.max()) < (1 + 5 * floor) ** 0.5 / floor**0.5


def test_arrays_that_rest_keep_their_state() -> None:
    """Strategies that move A and B in turn give every other round to each."""
    optimizer = Adam()
    first, second = changes(2)
    _, state = optimizer.step({}, {"a": first}, None)
    _, both = optimizer.step(state, {"b": second}, None)
    assert torch.equal(both["first/a"], state["first/a"])
    assert both["noise/b"][0] == 1
    _, again = optimizer.step(both, {"a": second}, None)
    assert again["noise/a"][0] == 2


@pytest.mark.parametrize("optimizer", [Momentum(), Adam(), Yogi()])
def test_the_state_survives_a_checkpoint(optimizer: ServerOptimizer) -> None:
    """All of it is float32 arrays, so a run goes on with the same bytes."""
    from wardround.strategies.codec import decode, encode

    first, second = changes(2)
    _, state = optimizer.step({}, {"a": first}, {"a": 1e-9})
    _, kept = decode(encode({}, state), "state")
    there, _ = optimizer.step(state, {"a": second}, {"a": 1e-9})
    back, _ = optimizer.step(kept, {"a": second}, {"a": 1e-9})
    assert torch.equal(there["a"], back["a"])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Momentum(momentum=1.0), r"momentum is 1\.0; it must lie in \[0, 1\)"),
        (lambda: Adam(learning_rate=0), "learning_rate is 0"),
        (lambda: Adam(beta2=1.5), r"beta2 is 1\.5"),
        (lambda: Yogi(damping=0), "damping is 0"),
    ],
)
def test_bounds(make: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()
