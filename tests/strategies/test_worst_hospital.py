"""Hospitals that are fitted worst count more: weights by hand, and who is served in the end."""

from __future__ import annotations

import math

import pytest
import torch

from wardround.privacy.errors import BadInput
from wardround.privacy.loss_report import LOSS
from wardround.strategies.base import Update
from wardround.strategies.fedavg import FedAvg
from wardround.strategies.parts import Surrounding
from wardround.strategies.registry import make_strategy
from wardround.strategies.worst_hospital import WEIGHT, WorstHospital, logarithm

START = {"w": torch.zeros(2)}
AROUND = Surrounding(hospitals=2, losses=True)


def told(hospital: str, change: tuple[float, float], loss: float) -> Update:
    return Update(hospital, {"w": torch.tensor(change), LOSS: torch.tensor([loss])})


def after(strategy: WorstHospital, state: dict[str, torch.Tensor], *updates: Update) -> dict:
    round_ = strategy.begin(state, 1)
    for update in updates:
        round_.add(update)
    return round_.finish()


def test_weights_follow_the_losses_by_hand() -> None:
    strategy = WorstHospital(FedAvg(), 0.5)
    state = strategy.start(START)
    brief = strategy.brief(state, 1)
    assert brief.trains == ("w", LOSS)
    assert brief.expects[LOSS].tolist() == [0.0]
    north, south = told("north", (1.0, 0.0), 2.0), told("south", (0.0, 1.0), 1.0)
    state = after(strategy, state, north, south)
    # All count the same at first; then logarithms 0.5 * 2 and 0.5 * 1, the largest moved to 0.
    assert state["w"].tolist() == [0.5, 0.5]
    assert [logarithm(state, name) for name in ("north", "south", "new")] == [0.0, -0.5, 0.0]
    state = after(strategy, state, south, north)
    share = 1 / (1 + math.exp(-0.5))
    assert state["w"].tolist() == pytest.approx([0.5 + share, 1.5 - share])
    # Whoever is absent keeps its logarithm, and nobody's enters the model.
    state = after(strategy, state, told("south", (0.0, 0.0), 9.0))
    assert logarithm(state, "north") == pytest.approx(-3.5)
    assert strategy.deploy(state).arrays.keys() == {"w"}
    assert {name for name in state if name.startswith(WEIGHT)} == {
        f"{WEIGHT}north", f"{WEIGHT}south"
    }  # fmt: skip


def served(strategy: WorstHospital | FedAvg, rounds: int) -> list[float]:
    """Losses of two hospitals that want w at 0 and 1, the first sending steps thrice as long."""
    state = strategy.start({"w": torch.zeros(1)})
    wants = {"north": (0.0, 0.3), "south": (1.0, 0.1)}
    for number in range(1, rounds + 1):
        round_ = strategy.begin(state, number)
        for name, (want, length) in wants.items():
            off = float(want - state["w"])
            change = {"w": torch.tensor([length * off])}
            if isinstance(strategy, WorstHospital):
                change[LOSS] = torch.tensor([off * off])
            round_.add(Update(name, change))
        state = round_.finish()
    return [float((want - state["w"]) ** 2) for want, _ in wants.values()]


def test_the_worst_hospital_is_served_better_than_by_the_mean() -> None:
    # The mean settles where 0.3 w = 0.1 (1 - w): at 1/4, with losses 1/16 and 9/16. The minimax is
    # 1/2, with 1/4 for both.
    assert served(FedAvg(), 300) == pytest.approx([1 / 16, 9 / 16], abs=1e-3)
    assert max(served(WorstHospital(FedAvg(), 0.1), 600)) == pytest.approx(1 / 4, abs=0.02)


@pytest.mark.parametrize(
    ("name", "settings", "around", "what"),
    [
        ("fedavg", {"worst_hospital": 0.5}, Surrounding(2), r"say in \[privacy.losses\]"),
        ("fedavg", {}, AROUND, "worst_hospital is missing"),
        ("fedavg", {"worst_hospital": 0.0}, AROUND, "worst_hospital is 0"),
        ("fedavg", {"worst_hospital": 0.5, "server": "momentum"}, AROUND, "all want the weights"),
        ("flora", {"worst_hospital": 0.5}, AROUND, "average changes of equal rank"),
        ("tally", {"worst_hospital": 0.5}, AROUND, "average changes of equal rank"),
    ],
)
def test_what_does_not_go_together_is_refused(
    name: str, settings: dict, around: Surrounding, what: str
) -> None:
    with pytest.raises(BadInput, match=what):
        make_strategy(name, settings, "[strategy]", around)


def test_it_is_a_part_of_any_averaging_strategy() -> None:
    for name in ("fedavg", "ffa", "rolora"):
        made = make_strategy(name, {"worst_hospital": 0.5}, "[strategy]", AROUND)
        assert isinstance(made, WorstHospital)
        assert made.name == name
