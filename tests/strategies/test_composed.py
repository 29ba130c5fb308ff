"""Strategies with parts exchanged: what reaches the strategy, what is kept, what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from wardround.privacy.errors import BadInput
from wardround.strategies.base import Correcting, Update
from wardround.strategies.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from wardround.strategies.composed import Composed
from wardround.strategies.fedavg import FedAvg
from wardround.strategies.parts import (
    NoiseCorrection,
    Parts,
    Surrounding,
    read_parts,
    require_compatible,
)
from wardround.strategies.registry import StrategyListing, list_strategies, make_strategy
from wardround.strategies.robust.base import TooFewAnswers
from wardround.strategies.robust.geometric import GeometricMedian
from wardround.strategies.scaffold import Scaffold
from wardround.strategies.server_optimizers import Adam, Momentum

START = {"a": torch.zeros(3), "b": torch.ones(2, 2)}
AROUND = Surrounding(hospitals=8)


def change(value: float) -> dict[str, Tensor]:
    return {name: torch.full_like(array, value) for name, array in START.items()}


def run(strategy: Any, rounds: list[list[Update]], state: Any = None) -> dict[str, Tensor]:
    """The state after these rounds."""
    state = strategy.start(START) if state is None else state
    for number, updates in enumerate(rounds, 1):
        aggregation = strategy.begin(state, number)
        for update in updates:
            aggregation.add(update)
        state = aggregation.finish()
    return state


def made(**settings: Any) -> Any:
    return make_strategy("fedavg", settings, around=AROUND)


def test_without_parts_a_strategy_is_itself() -> None:
    assert isinstance(make_strategy("fedavg"), FedAvg)
    assert isinstance(make_strategy("fedavg", {"malicious": 2}), FedAvg)


def test_a_robust_rule_stands_in_for_the_mean() -> None:
    updates = [Update(f"h{i}", change(value)) for i, value in enumerate([1.0, 2.0, 4.0, -90.0])]
    state = run(made(robust="median"), [updates])
    assert torch.equal(state["a"], torch.full((3,), 1.5))
    assert torch.equal(state["b"], torch.full((2, 2), 2.5))
    assert state.keys() == START.keys()


def test_momentum_by_hand() -> None:
    """Changes 1 then 1 with momentum 1/2: steps 1 and 1.5."""
    strategy = made(server="momentum", server_momentum=0.5)
    state = run(strategy, [[Update("x", change(1.0))], [Update("x", change(1.0))]])
    assert torch.equal(state["a"], torch.full((3,), 2.5))
    assert strategy.deploy(state).arrays.keys() == START.keys()
    assert strategy.brief(state, 3).trains == tuple(START)


def test_a_killed_run_goes_on_with_the_same_bytes(tmp_path: Any) -> None:
    """All that parts keep is in the state, so a checkpoint holds it."""
    strategy = made(server="adam", server_learning_rate=0.1)
    rounds = [[Update("x", change(v), deviation=0.1)] for v in (1.0, -0.5, 0.25)]
    whole = run(strategy, rounds)
    save_checkpoint(tmp_path, Checkpoint(2, run(strategy, rounds[:2]), {}))
    state = run(strategy, rounds[2:], load_checkpoint(tmp_path).arrays)
    assert state.keys() == whole.keys()
    assert all(torch.equal(state[name], whole[name]) for name in whole)


def test_a_late_answer_weighs_less_and_the_count_stays() -> None:
    """FedBuff, section 5: age 3 counts (1 + 3) ** -1/2, the sum is divided by the buffer."""
    updates = [Update("x", change(1.0)), Update("y", change(4.0), age=3)]
    state = run(made(buffer=2), [updates])
    assert torch.equal(state["a"], torch.full((3,), (1.0 + 0.5 * 4.0) / 2))
    flat = run(made(buffer=2, staleness_power=0.0), [updates])
    assert torch.equal(flat["a"], torch.full((3,), 2.5))


def noise_seen(strategy: Composed, updates: list[Update], state: Any = None) -> float:
    """The variance that the optimiser was told of."""
    seen: list[Any] = []

    class Spy(Adam):
        def step(self, state: Any, change: Any, variance: Any) -> Any:
            seen.append(variance)
            return super().step(state, change, variance)

    run(replace(strategy, optimizer=Spy()), [updates], state)
    return float(seen[0]["a"])


def test_the_variance_that_is_taken_out() -> None:
    """Of a mean of n: sum of s² over n²; of a weighted sum: sum of (w s)²; late: (share s)²."""
    mean = Composed(FedAvg(), optimizer=Adam())
    updates = [Update("x", change(1.0), deviation=3.0), Update("y", change(1.1), deviation=4.0)]
    assert noise_seen(mean, updates) == pytest.approx(25.0 / 4)
    late = [updates[0], replace(updates[1], age=3)]
    assert noise_seen(mean, late) == pytest.approx((9.0 + 4.0) / 4)
    equal = [Update(f"h{i}", change(1.0), deviation=2.0) for i in range(4)]
    robust = Composed(FedAvg(), GeometricMedian(), Adam())
    assert noise_seen(robust, equal) == pytest.approx(4.0 / 4)


@pytest.mark.statistical
def test_the_variance_between_hospitals_is_that_of_their_mean() -> None:
    """Noise 2 at 6 hospitals: 4 / 6. 5 * 20000 squares fix it to 0.5 %; the bound is 6 of those."""
    generator = torch.Generator().manual_seed(9)
    updates = [
        Update(f"h{i}", {"a": 7 + 2 * torch.randn(20_000, generator=generator)}) for i in range(6)
    ]
    strategy = Composed(FedAvg(), optimizer=Adam(), correction=NoiseCorrection.BETWEEN)
    seen = noise_seen(strategy, updates, {"a": torch.zeros(20_000)})
    assert seen == pytest.approx(4 / 6, rel=0.03)
    with pytest.raises(TooFewAnswers, match="compares 2 answers"):
        run(strategy, [[Update("x", change(1.0))]])


def test_unknown_noise_is_never_taken_for_none() -> None:
    with pytest.raises(ValueError, match="noise in the changes is not known"):
        run(Composed(FedAvg(), optimizer=Adam()), [[Update("x", change(1.0))]])
    run(Composed(FedAvg(), optimizer=Momentum()), [[Update("x", change(1.0))]])


def test_a_sum_goes_with_a_mean_and_not_with_a_rule() -> None:
    strategy = made(server="momentum")
    aggregation = strategy.begin(strategy.start(START), 1)
    aggregation.add_sum(change(6.0), 3)
    assert torch.equal(aggregation.finish()["a"], torch.full((3,), 2.0))
    robust = made(robust="krum")
    with pytest.raises(TypeError, match="single updates"):
        robust.begin(robust.start(START), 1).add_sum(change(6.0), 3)


def test_controls_are_mean_gradients() -> None:
    """Option II, followed by hand over two rounds with two hospitals of constant gradients 1 and 5.

    A step moves by ``-rate (g + c - c_k)``; the control of a hospital is its own mean gradient, so
    from round 2 on both hospitals move along the mean gradient 3.
    """
    rate, steps = 0.1, 4
    strategy = Composed(FedAvg(), scaffold=Scaffold(2, rate * steps))
    assert isinstance(strategy, Correcting)
    gradients = {"x": 1.0, "y": 5.0}
    state = strategy.start(START)
    moves: dict[str, float] = {}
    for number in (1, 2, 3):
        aggregation = strategy.begin(state, number)
        for name, gradient in gradients.items():
            added = strategy.corrections(state, name)
            assert bool(added) is (number > 1)
            moves[name] = -rate * steps * (gradient + float(added["control/a"][0] if added else 0))
            aggregation.add(Update(name, change(moves[name])))
        state = aggregation.finish()
        assert float(state["server/control/x/a"][0]) == pytest.approx(1.0, abs=1e-6)
        assert float(state["server/control/y/b"][0, 0]) == pytest.approx(5.0, abs=1e-6)
    assert moves["x"] == pytest.approx(-rate * steps * 3.0, abs=1e-6)
    assert moves["y"] == pytest.approx(-rate * steps * 3.0, abs=1e-6)
    assert strategy.deploy(state).arrays.keys() == START.keys()


def test_who_never_answered_has_control_zero() -> None:
    strategy = Composed(FedAvg(), scaffold=Scaffold(4, 1.0))
    state = run(strategy, [[Update("x", change(-8.0))]])
    assert float(strategy.corrections(state, "x")["control/a"][0]) == 8.0 / 4 - 8.0
    assert float(strategy.corrections(state, "z")["control/a"][0]) == 8.0 / 4


@pytest.mark.parametrize(
    ("settings", "around", "says"),
    [
        ({"robust": "krum"}, {"secure_aggregation": True}, "'krum', which looks at single updates"),
        ({"robust": "krum"}, {"hospitals": 4}, "needs 5 answers; there are 4 hospitals"),
        ({"robust": "median", "malicious": 4}, {}, "needs 9 answers; there are 8 hospitals"),
        ({"robust": "krum", "buffer": 4}, {}, "needs 5 answers; there are 4 answers a buffer"),
        ({"server": "adam"}, {"noise_known": False}, "not known beforehand"),
        (
            {"server": "yogi", "noise_correction": "between"},
            {"secure_aggregation": True},
            "compares single updates",
        ),
        ({"server": "adam", "robust": "median"}, {}, "depends on the data"),
        ({"server": "adam", "noise_correction": "between", "robust": "krum"}, {}, "means only"),
        ({"buffer": 3}, {"secure_aggregation": True}, "a secure sum needs all of one round"),
        ({"buffer": 3}, {"alternates": "rounds"}, "late answers could not be counted"),
        ({"server": "momentum"}, {"alternates": "basis"}, "another basis"),
        ({"server": "yogi"}, {"alternates": "steps"}, "do not all carry the same noise"),
        ({"robust": "median"}, {"mixed_ranks": True}, r"\[hospitals\] ranks to be equal"),
        ({"buffer": 9}, {}, "only 8 hospitals"),
        ({"scaffold": True}, {"secure_aggregation": True}, "a secure sum does not give"),
        ({"scaffold": True}, {"linear_steps": False}, "optimizer = 'sgd'"),
        ({"scaffold": True, "robust": "median"}, {}, "would reach all others unchecked"),
        ({"scaffold": True, "buffer": 3}, {}, "this round's changes"),
        ({"scaffold": True}, {"alternates": "steps"}, "with the steps"),
        ({"server": "adam"}, {"needs_single_updates": "products"}, "average changes.*products"),
    ],
)
def test_what_does_not_go_together_is_refused(
    settings: dict[str, Any], around: dict[str, Any], says: str
) -> None:
    parts = read_parts(settings, "study.toml [strategy]")
    with pytest.raises(BadInput, match=rf"study\.toml \[strategy\] .*{says}"):
        require_compatible(parts, replace(AROUND, **around), "study.toml [strategy]")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"robust": "medain"}, r"robust is 'medain'; expected one of .*did you mean 'median'"),
        ({"weights": "records"}, "a weight tells how many records a hospital has"),
        ({"buffer": 0}, "buffer is 0; it must be 1 or more"),
        ({"malicious": -1}, "malicious is -1"),
        ({"staleness_power": -0.5}, r"staleness_power is -0\.5"),
        ({"norm_bound": 0.0}, r"norm_bound is 0\.0"),
        ({"server": "adam", "server_beta1": 1.0}, r"server_beta1 is 1\.0"),
        ({"server": "momentum", "server_momentum": -1.0}, r"server_momentum is -1\.0"),
        ({"servre": "adam"}, "unknown key 'servre'; did you mean 'server'"),
    ],
)
def test_bad_settings_name_field_value_and_bound(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        made(**settings)


@pytest.mark.parametrize("robust", ["median", "trimmed-mean", "norm-bounded-mean", "krum"])
@pytest.mark.parametrize("server", ["none", "momentum", "adam", "yogi"])
def test_every_pair_of_parts_runs(robust: str, server: str) -> None:
    settings = {"robust": robust, "server": server, "noise_correction": "none"}
    updates = [Update(f"h{i}", change(1.0 + i / 10), deviation=0.1) for i in range(5)]
    state = run(made(**settings), [updates, updates])
    assert bool((state["a"] > 0).all())


FACTORS = {"m.lora_A.weight": torch.ones(2, 6), "m.lora_B.weight": torch.zeros(5, 2)}
AVERAGING = [entry for entry in list_strategies() if not entry.traits.needs_single_updates]


@pytest.mark.parametrize("listing", AVERAGING, ids=lambda listing: str(listing.name))
def test_every_averaging_strategy_says_what_alternates(listing: StrategyListing) -> None:
    """Parts rely on it, so it is checked against what hospitals are told."""
    strategy = make_strategy(listing.name)
    state = strategy.start(FACTORS)
    one, two = strategy.brief(state, 1), strategy.brief(state, 2)
    expected = "steps" if one.turns else "rounds" if one.trains != two.trains else ""
    assert listing.traits.alternates in (expected, "basis")
    if listing.traits.alternates == "basis":
        aggregation = strategy.begin(state, 1)
        aggregation.add(Update("x", {n: torch.ones_like(a) for n, a in one.expects.items()}))
        after = strategy.brief(aggregation.finish(), 2).arrays
        frozen = [name for name in one.arrays if name not in one.trains]
        assert any(not torch.allclose(after[name], one.arrays[name]) for name in frozen)


@pytest.mark.parametrize("listing", AVERAGING, ids=lambda listing: str(listing.name))
def test_parts_go_with_every_averaging_strategy(listing: StrategyListing) -> None:
    """One of three hospitals sends nonsense; the model moves as the median says, and is finite."""
    settings: dict[str, Any] = {"robust": "median"}
    if listing.traits.alternates != "basis":
        settings["server"] = "momentum"
    strategy = make_strategy(listing.name, settings, around=AROUND)
    state = strategy.start(FACTORS)
    for number in (1, 2):
        brief = strategy.brief(state, number)
        aggregation = strategy.begin(state, number)
        for value in (0.1, 0.2, 1e9):
            change = {name: torch.full_like(a, value) for name, a in brief.expects.items()}
            aggregation.add(Update(f"h{value}", change))
        state = aggregation.finish()
        assert all(float(array.abs().max()) < 10 for array in state.values())
    assert strategy.deploy(state).arrays


def test_parts_default_to_nothing() -> None:
    assert not Parts().exchanged
    assert Parts().least == 1
