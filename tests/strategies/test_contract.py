"""What every registered strategy must do, whatever it is; a newcomer is tested by being listed."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from wardround.privacy.errors import BadInput
from wardround.strategies.base import SERVER, Update
from wardround.strategies.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from wardround.strategies.codec import encode
from wardround.strategies.registry import list_strategies, make_strategy

# Those that train nothing have tests of their own.
LISTINGS = {entry.name: entry for entry in list_strategies() if entry.traits.trains}
LORA = [name for name in LISTINGS if name not in ("fedavg",)]
EXACT = [name for name, entry in LISTINGS.items() if entry.traits.exact]
MIXED = [name for name, entry in LISTINGS.items() if entry.traits.mixed_ranks]
SUMMING = [name for name, entry in LISTINGS.items() if not entry.traits.needs_single_updates]
FLOAT32 = 1e-6  # relative: a few roundings of float32 factors


@pytest.fixture(params=sorted(LISTINGS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_is_called_what_it_is_listed_as(name: str) -> None:
    assert make_strategy(name).name == name


def test_an_unknown_setting_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match=r"study.toml \[strategy\]: unknown key 'evry'"):
        make_strategy(name, {"evry": 2}, "study.toml [strategy]")


@pytest.mark.parametrize("name", LORA)
def test_needs_lora(name: str) -> None:
    with pytest.raises(BadInput, match=f"'{name}', which needs LoRA"):
        make_strategy(name).start({"head.bias": torch.zeros(3)})


def test_the_start_changes_no_model(of: Any, name: str) -> None:
    """A fresh adapter has B zero and adds nothing; nor does what a strategy makes of it."""
    made = of(name)
    arrays = {n: a * 0 if ".lora_B." in n else a for n, a in made.initial().items()}
    made.state = made.strategy.start(arrays)
    assert all(not bool(product.any()) for product in made.deployed().values())


def test_a_state_is_all_there_is(of: Any, name: str, tmp_path: Path) -> None:
    """Saved and loaded, the next round is the same to the last bit."""
    made = of(name)
    made.round_error()
    save_checkpoint(tmp_path, Checkpoint(made.round, made.state, {}))
    updates = [made.update(hospital) for hospital in made.hospitals]
    again = of(name)
    again.state, again.round = dict(load_checkpoint(tmp_path).arrays), made.round
    for brief, other in zip(
        (made.brief("east"), again.brief("east")), (again.brief("east"), made.brief("east")),
        strict=True,
    ):  # fmt: skip
        assert encode({}, {**brief.arrays, **brief.background}) == encode(
            {}, {**other.arrays, **other.background}
        )
    made.run(updates)
    again.run(updates)
    assert encode({}, made.state) == encode({}, again.state)


def test_one_hospital_gets_its_own_model_back(of: Any, name: str) -> None:
    made = of(name, ("east",))
    for _ in range(3):
        assert made.round_error() < FLOAT32


def test_equal_hospitals_count_as_one(of: Any, name: str) -> None:
    made = of(name)
    one = made.update("east")
    wanted = made.ended(one)
    made.run([replace(one, hospital=hospital) for hospital in made.hospitals])
    for layer, found in made.deployed().items():
        torch.testing.assert_close(found, wanted[layer], rtol=FLOAT32, atol=FLOAT32)


def test_order_of_arrival_does_not_show(of: Any, name: str) -> None:
    made = of(name, ("east", "north", "west"))
    updates = [made.update(hospital) for hospital in made.hospitals]
    models = []
    for order in itertools.permutations(updates):
        again = of(name, ("east", "north", "west"))
        again.run(list(order))
        models.append(again.deployed())
    for model in models[1:]:
        for layer, found in model.items():
            torch.testing.assert_close(found, models[0][layer], rtol=FLOAT32, atol=1e-7)


def test_whoever_answers_counts(of: Any, name: str) -> None:
    """Two of five drop out: the aggregate is the other three's, for exact strategies exactly."""
    made = of(name)
    updates = [made.update(hospital) for hospital in made.hospitals[:3]]
    fewer = of(name, made.hospitals[:3])
    made.run(updates)
    fewer.run(updates)
    assert encode({}, made.state) == encode({}, fewer.state)


def test_nobody_is_an_error(of: Any, name: str) -> None:
    with pytest.raises(ValueError, match="no update"):
        of(name).run([])


def test_arrays_that_do_not_fit_are_refused(of: Any, name: str) -> None:
    made = of(name)
    good = made.update("east")
    first = next(n for n, array in good.change.items() if array.dim() == 2)
    without = {n: array for n, array in good.change.items() if n != first}
    for change, says in (
        (without, "missing or unknown"),
        ({**good.change, "more": torch.zeros(1)}, "'more' is missing or unknown"),
        ({**good.change, first: good.change[first][:1]}, "has shape"),
    ):
        aggregation = made.strategy.begin(made.state, 1)
        with pytest.raises(ValueError, match=says):
            aggregation.add(Update("east", change))


def test_briefs_hold_what_trains_and_nothing_of_the_server(of: Any, name: str) -> None:
    made = of(name)
    for _ in range(2):
        brief = made.brief("east")
        assert brief.trains
        assert set(brief.trains) <= set(brief.arrays)
        assert not set(brief.keeps) & set(brief.arrays)
        assert not any(n.startswith(SERVER) for n in (*brief.arrays, *brief.background))
        assert {a.dtype for a in brief.arrays.values()} == {torch.float32}
        made.round_error()


def test_only_the_moving_arrays_move(of: Any, name: str) -> None:
    """A frozen factor is the same to the last bit after the round, for averaging strategies."""
    made = of(name)
    before, brief = dict(made.state), made.brief("east")
    made.round_error()
    turned = name in ("fedsvd", *(n for n in LISTINGS if n not in SUMMING))
    for array in before.keys() - set(brief.trains):
        assert torch.equal(made.state[array], before[array]) != turned or array == "head.bias"


@pytest.mark.parametrize("name", EXACT)
def test_exact_strategies_are_exact_in_every_round(of: Any, name: str) -> None:
    """E1: below 1e-5 of the dense float64 mean of products, with factors adrift by a half."""
    made = of(name)
    assert max(made.round_error() for _ in range(4)) < 1e-5


@pytest.mark.parametrize("name", sorted(set(LISTINGS) - set(EXACT)))
def test_the_others_are_not(of: Any, name: str) -> None:
    """E1: averaging factors apart is off by more than 5 % here, so exactness is not for free."""
    assert of(name).round_error() > 0.05


@pytest.mark.parametrize("name", MIXED)
def test_mixed_ranks_are_exact(of: Any, name: str) -> None:
    """E3: ranks 2, 4, 8, 8, 16, against the dense mean of what the hospitals ended with."""
    ranks = dict(zip(("east", "north", "south", "west", "far-west"), (2, 4, 8, 8, 16), strict=True))
    made = of(name, ranks=ranks, rank=16)
    for hospital, rank in ranks.items():
        assert made.brief(hospital).arrays["down.lora_A.weight"].shape[0] == rank
    assert max(made.round_error() for _ in range(3)) < 1e-5


@pytest.mark.parametrize("name", SUMMING)
def test_the_sum_is_enough(of: Any, name: str) -> None:
    made, other = of(name), of(name)
    updates = [made.update(hospital) for hospital in made.hospitals]
    total = {n: sum(u.change[n].double() for u in updates) for n in updates[0].change}
    aggregation = made.strategy.begin(made.state, 1)
    aggregation.add_sum(total, len(updates))
    other.run(updates)
    found = aggregation.finish()
    for n, array in other.state.items():
        torch.testing.assert_close(found[n], array, rtol=FLOAT32, atol=1e-7)


@pytest.mark.parametrize("name", sorted(set(LISTINGS) - set(SUMMING)))
def test_the_others_take_no_sum(of: Any, name: str) -> None:
    made = of(name)
    assert not hasattr(made.strategy.begin(made.state, 1), "add_sum")


class Shapes(TorchDispatchMode):
    """Notes the shape of every array that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for made in result if isinstance(result, tuple | list) else (result,):
            if isinstance(made, torch.Tensor):
                self.seen.add(tuple(made.shape))
        return result


def test_the_server_never_makes_a_dense_matrix(of: Any, name: str) -> None:
    """No array of a layer's own m x n, in either orientation, in three rounds."""
    made = of(name, shapes={"down": (180, 150), "up": (140, 190)})
    with Shapes() as shapes:
        _ = torch.zeros(180, 4) @ torch.zeros(4, 150)
    assert (180, 150) in shapes.seen  # the watch sees what it should
    for _ in range(3):
        updates = [made.update(hospital) for hospital in made.hospitals]
        with Shapes() as shapes:
            made.run(updates)
            made.strategy.deploy(made.state)
            made.brief("east")
        assert shapes.seen
        largest = max(math.prod(shape) for shape in shapes.seen)
        assert largest <= 190 * 3 * len(made.hospitals) * 4  # three rounds of stacked factors
        assert not shapes.seen & {(180, 150), (150, 180), (140, 190), (190, 140)}
