"""How many units at once: changes no result, and follows from nothing private."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from wardround.client import custodian as custodian_module
from wardround.client import workbench as workbench_module
from wardround.client.engine import FusedEngine
from wardround.client.gradients import Workload, clipped_sum, mean_gradient
from wardround.client.micro_batch import MOST_UNITS, ROOM, SHARE, bytes_per_unit, units_at_once
from wardround.client.sampling import Sample
from wardround.client.tasks.base import Dealt
from wardround.client.training import TrainingConfig
from wardround.privacy.errors import BadInput
from wardround.privacy.plan import PrivacyPlan
from wardround.privacy.tables import from_table
from wardround.privacy.units import Unit

Records = Callable[..., Any]
PLAN = PrivacyPlan(Unit.PATIENT, 0.5, 1.0, 0.5, 3, 10.0)


def sample_of(units: Any) -> Sample:
    return Sample(tuple(map(tuple, units)), tuple(range(len(units))))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 19, 20, 64])
def test_any_size_gives_the_same_gradient(lab: Any, make_records: Records, size: int) -> None:
    """float32 gradients of other batch shapes round differently: 1e-6 of the whole."""
    sample = sample_of(make_records(20, 3))
    lab.trainable.write(lab.start)
    with lab.workload.engine:
        whole = clipped_sum(lab.workload, sample, PLAN, 64).value
        parts = clipped_sum(lab.workload, sample, PLAN, size).value
    mean = mean_gradient(lab.workload, sample, 64)
    for name, array in whole.items():
        assert float((parts[name] - array).norm()) <= 1e-6 * float(array.norm())
    for name, array in mean_gradient(lab.workload, sample, size).items():
        assert float((array - mean[name]).norm()) <= 1e-6 * float(mean[name].norm())


@pytest.mark.parametrize("size", [1, 2, 3, 5, 11])
def test_a_unit_of_many_records_is_clipped_once(lab: Any, make_records: Records, size: int) -> None:
    """Pieces of a patient are added up first. Clipped one by one they would count several times."""
    units = [*make_records(3), make_records(1, 11)[0], *make_records(2, 2)]
    sample = sample_of(units)
    lab.trainable.write(lab.start)
    with lab.workload.engine:
        whole = clipped_sum(lab.workload, sample, PLAN, 64).value
        lab.task.records_add_up = True
        parts = clipped_sum(lab.workload, sample, PLAN, size).value
        apart = [clipped_sum(lab.workload, sample_of([[record]]), PLAN, 1).value
                 for record in units[3]]  # fmt: skip
        alone = clipped_sum(lab.workload, sample_of([units[3]]), PLAN, size).value
    lab.task.records_add_up = False
    mean = mean_gradient(lab.workload, sample, 64)
    lab.task.records_add_up = True
    for found, expected in ((parts, whole), (mean_gradient(lab.workload, sample, size), mean)):
        for name, array in expected.items():
            assert float((found[name] - array).norm()) <= 1e-6 * float(array.norm())

    def length(value: Any) -> float:
        return sum(float(array.square().sum()) for array in value.values()) ** 0.5

    assert length(alone) <= PLAN.clip_norm
    twin = {name: sum(value[name] for value in apart) for name in whole}
    assert length(twin) > 2 * PLAN.clip_norm


def test_pieces_are_no_larger_than_agreed(lab: Any, make_records: Records) -> None:
    """And a task that does not say its records add up is never cut."""
    units = [*make_records(3), make_records(1, 11)[0]]
    lab.trainable.write(lab.start)
    with lab.workload.engine:
        clipped_sum(lab.workload, sample_of(units), PLAN, 4)
        assert lab.task.seen == [[1, 1, 1, 11]]
        lab.task.seen.clear()
        lab.task.records_add_up = True
        clipped_sum(lab.workload, sample_of(units), PLAN, 4)
        assert lab.task.seen == [[1, 1, 1], [4], [4], [3]]


@pytest.mark.parametrize("free", [0, 1, 10**6, 10**9, 10**12])
@pytest.mark.parametrize("cost", [0, 1, 1000, 10**7])
def test_what_fits_fits(cost: int, free: int) -> None:
    units = units_at_once(cost, free)
    assert units & (units - 1) == 0
    assert 1 <= units <= MOST_UNITS
    fits = units * ROOM * cost <= SHARE * free
    assert fits or units == 1
    assert units == MOST_UNITS or 2 * units * ROOM * max(1, cost) > SHARE * free


# --- measuring ----------------------------------------------------------------------------------


class Wide:
    """A task whose cost a unit is known: ``rows`` rows of ``width`` numbers through one layer."""

    name = "wide"
    units = (Unit.RECORD,)

    def __init__(self, inner: Any, rows: int, width: int, made_up: bool = True) -> None:
        self.inner, self.rows, self.width, self.made_up = inner, rows, width, made_up

    def deal(self, source: Any, folder: Path, hospitals: int, seed: int, config: Any) -> Dealt:
        if not self.made_up:
            raise BadInput("[task] there is no generator")
        assert (source, hospitals, seed) == (None, 1, 0)
        return Dealt((folder,), (3,), folder)

    def load(self, source: Path, config: Any) -> list[Any]:
        from wardround.client.tasks.base import Record

        return [Record(str(i), {Unit.RECORD: str(i)}, None) for i in range(3)]

    def collate(self, units: Any, tokenizer: Any, config: Any) -> Any:
        from wardround.client.tasks.base import Batch

        rows = len(units) * self.rows
        index = torch.arange(len(units)).repeat_interleave(self.rows)
        return Batch({"x": torch.ones(rows, self.width)}, index, len(units))

    def losses(self, model: nn.Module, batch: Any) -> torch.Tensor:
        out = model(batch.inputs["x"]).square().mean(1)
        return out.new_zeros(batch.units).index_add(0, batch.unit_of_row, out)


def wide(lab: Any, rows: int, width: int, **changes: Any) -> Workload:
    with torch.random.fork_rng():
        net = nn.Sequential(nn.Linear(width, 2), nn.Tanh(), nn.Linear(2, 2))
    from wardround.client.trainable import Trainable

    trainable = Trainable(net, dict(net.named_parameters()))
    task: Any = Wide(lab.task, rows, width, **changes)
    return Workload(task, {}, trainable, FusedEngine(trainable), None)


@pytest.mark.parametrize(("rows", "width"), [(10, 400), (40, 400), (10, 1600)])
def test_a_unit_s_cost_is_its_own(lab: Any, rows: int, width: int) -> None:
    """Input, tanh's output (twice kept), the last layer's output: 4 (width + 2 + 2) bytes a row.

    Twice that for the backward pass, and two gradients of float32; what else autograd keeps for a
    loss a row is below 100 bytes a row.
    """
    workload = wide(lab, rows, width)
    numbers = sum(p.numel() for p in workload.trainable.parameters.values())
    least = 2 * rows * 4 * (width + 4) + 8 * numbers
    assert least <= bytes_per_unit(workload, Unit.RECORD) <= least + 200 * rows


def test_measuring_leaves_no_trace(lab: Any) -> None:
    workload = wide(lab, 5, 8)
    before = {n: p.detach().clone() for n, p in workload.trainable.parameters.items()}
    state = torch.get_rng_state()
    bytes_per_unit(workload, Unit.RECORD)
    assert torch.equal(torch.get_rng_state(), state)
    for name, parameter in workload.trainable.parameters.items():
        assert parameter.grad is None
        assert torch.equal(parameter, before[name])


def test_a_task_that_makes_nothing_up(lab: Any) -> None:
    says = "task 'wide' makes up no records of a record to measure with; give a number"
    with pytest.raises(BadInput, match=says):
        bytes_per_unit(wide(lab, 5, 8, made_up=False), Unit.RECORD)
    with pytest.raises(BadInput, match="no records of a patient"):
        bytes_per_unit(wide(lab, 5, 8), Unit.PATIENT)


def test_a_round_wants_a_number(lab: Any) -> None:
    auto = TrainingConfig(learning_rate=0.1, micro_batch="auto")
    with pytest.raises(ValueError, match="micro_batch is still 'auto'"):
        lab.train(replace(PLAN, unit=Unit.RECORD), training=auto)


@pytest.mark.parametrize(
    ("value", "says"),
    [(0, "micro_batch is 0; it must be 1 or more"), ("all", "expected int or 'auto'"),
     (2.5, "expected int or 'auto'")],
)  # fmt: skip
def test_settings(value: Any, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        from_table(TrainingConfig, {"learning_rate": 0.1, "micro_batch": value}, "t")


def test_a_custodian_measures_once_and_before_its_records_are_read(
    setting: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The size is the same for any records, because they are not there yet when it is found."""
    order: list[str] = []
    used: list[int] = []
    real_cost, real_train = workbench_module.bytes_per_unit, custodian_module.train_round

    def cost(*words: Any) -> int:
        order.append("measured")
        return real_cost(*words)

    def train(round_: Any, arrays: Any) -> Any:
        used.append(round_.micro_batch)
        return real_train(round_, arrays)

    monkeypatch.setattr(workbench_module, "bytes_per_unit", cost)
    monkeypatch.setattr(workbench_module, "free_bytes", lambda device: 600_000_000)
    monkeypatch.setattr(custodian_module, "train_round", train)
    opened = setting.open()
    real_units = opened._records.units

    def units(plan: Any) -> Any:
        order.append("read")
        return real_units(plan)

    monkeypatch.setattr(opened._records, "units", units)
    auto = {"learning_rate": 0.02, "micro_batch": "auto"}
    for number in (1, 2):
        header, _ = setting.ask(opened, round=number, training=auto)
        assert header["kind"] == "update", header
    assert order == ["measured", "read", "read"]
    assert used[0] == used[1]
    assert 1 <= used[0] < 1024
    opened.close()
