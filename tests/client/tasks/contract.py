"""What every task must keep, whoever wrote it: one suite, run on a case of each registered task.

A case is a task with a model of two or three layers in float64, some units of different size and
length, and a file that must be refused. The oracle for gradients is autograd, one unit at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from wardround.client.engine import choose_engine
from wardround.client.tasks.base import Record, Task
from wardround.client.trainable import Trainable
from wardround.privacy import Unit
from wardround.privacy.clipping import ClippedSum
from wardround.privacy.errors import BadInput

# Padding changes the order of float64 additions over some hundred terms: far below 1e-10.
EXACT = {"rtol": 1e-10, "atol": 1e-10}


@dataclass
class TaskCase:
    """A task and what the suite needs to try it.

    Attributes:
        task: The task.
        model: Makes a new small base in float64.
        tokenizer: Its tokenizer.
        adapter: What trains.
        units: At least three units, of different numbers of records and different lengths.
        config: The task's settings.
        bad_file: A file's text that must be refused, and the line the message must name.
        typo: A setting whose name is misspelt, and the right name the message must suggest.
    """

    task: Task
    model: Callable[[], nn.Module]
    tokenizer: Any
    adapter: Mapping[str, Any]
    units: Sequence[Sequence[Record]]
    config: Mapping[str, Any] = field(default_factory=dict)
    bad_file: tuple[str, int] = ("", 1)
    typo: tuple[str, str] = ("", "")

    def adapted(self) -> Trainable:
        """A fresh base with an adapter whose values are away from zero."""
        generator = torch.Generator().manual_seed(3)
        trainable = self.task.adapt(
            self.model(), self.tokenizer, self.adapter, self.config, generator
        )
        with torch.no_grad():
            for parameter in trainable.parameters.values():
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.add_(0.1 * noise.to(parameter))
        return trainable

    def losses(self, trainable: Trainable, units: Sequence[Sequence[Record]]) -> Tensor:
        """The task's losses for these units together."""
        batch = self.task.collate(units, self.tokenizer, self.config)
        return self.task.losses(trainable.model, batch)

    def gradients(
        self, trainable: Trainable, units: Sequence[Sequence[Record]]
    ) -> dict[str, Tensor]:
        """Each unit's gradient out of one forward pass of all of them, by autograd."""
        losses = self.losses(trainable, units)
        parameters = list(trainable.parameters.values())
        rows = [torch.autograd.grad(loss, parameters, retain_graph=True) for loss in losses]
        return {
            name: torch.stack([row[place] for row in rows])
            for place, name in enumerate(trainable.parameters)
        }


def one_finite_loss_a_unit(case: TaskCase) -> None:
    losses = case.losses(case.adapted(), case.units)
    assert losses.shape == (len(case.units),)
    assert bool(torch.isfinite(losses).all())
    assert losses.requires_grad


def nothing_couples_units(case: TaskCase) -> None:
    trainable = case.adapted()
    together = case.losses(trainable, case.units)
    for gone in range(len(case.units)):
        left = [place for place in range(len(case.units)) if place != gone]
        without = case.losses(trainable, [case.units[place] for place in left])
        torch.testing.assert_close(without, together[left], **EXACT)


def order_of_units_does_not_matter(case: TaskCase) -> None:
    trainable = case.adapted()
    together = case.losses(trainable, case.units)
    backwards = case.losses(trainable, list(reversed(case.units)))
    torch.testing.assert_close(backwards.flip(0), together, **EXACT)


def gradients_are_those_of_single_units(case: TaskCase) -> None:
    trainable = case.adapted()
    together = case.gradients(trainable, case.units)
    for place, unit in enumerate(case.units):
        alone = case.gradients(trainable, [unit])
        for name, rows in together.items():
            torch.testing.assert_close(rows[place : place + 1], alone[name], **EXACT)


def engines_agree_with_autograd(case: TaskCase) -> None:
    trainable = case.adapted()
    batch = case.task.collate(case.units, case.tokenizer, case.config)
    wanted = case.gradients(trainable, case.units)
    with choose_engine(trainable, "auto") as engine:
        found = engine.gradients(
            lambda: case.task.losses(trainable.model, batch), batch.unit_of_row, batch.units
        )
    assert found.keys() == wanted.keys()
    for name, rows in found.items():
        torch.testing.assert_close(rows, wanted[name].to(rows), **EXACT)


def removing_a_unit_moves_the_clipped_sum_by_the_clip_norm_at_most(case: TaskCase) -> None:
    trainable = case.adapted()
    # Half the median norm clips some units and leaves others, whatever the task's scale.
    everything = case.gradients(trainable, case.units)
    norms = torch.stack([rows.flatten(1).norm(dim=1) for rows in everything.values()]).norm(dim=0)
    clip_norm = float(norms.median()) / 2

    def clipped(places: Sequence[int]) -> Mapping[str, Tensor]:
        total = ClippedSum(trainable.shapes, clip_norm, Unit.RECORD)
        rows = case.gradients(trainable, [case.units[place] for place in places])
        total.add({name: value.float() for name, value in rows.items()}, places)
        return total.close().value

    places = list(range(len(case.units)))
    whole = clipped(places)
    for gone in places:
        part = clipped([place for place in places if place != gone])
        moved = math.sqrt(sum(float((whole[n] - part[n]).square().sum()) for n in whole))
        # The difference of two float32 sums may exceed the bound by their rounding.
        assert moved <= clip_norm * (1 + 1e-5)


def records_that_are_said_to_add_up_do(case: TaskCase) -> None:
    if not getattr(case.task, "records_add_up", False):
        return
    trainable = case.adapted()
    apart = case.losses(trainable, case.units)
    (together,) = case.losses(trainable, [[record for unit in case.units for record in unit]])
    torch.testing.assert_close(together, apart.sum(), **EXACT)


def what_does_not_train_is_the_same_everywhere(case: TaskCase) -> None:
    """A coordinator and a hospital draw with other generators, and send what trains alone."""
    made = []
    for seed in (1, 2):
        generator = torch.Generator().manual_seed(seed)
        trainable = case.task.adapt(
            case.model(), case.tokenizer, case.adapter, case.config, generator
        )
        moving = {id(parameter) for parameter in trainable.parameters.values()}
        made.append(
            {
                name: value
                for name, value in trainable.model.named_parameters()
                if id(value) not in moving
            }
        )
    assert made[0].keys() == made[1].keys()
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])


def evaluation_looks_and_does_not_touch(case: TaskCase) -> None:
    trainable = case.adapted()
    before = {name: value.clone() for name, value in trainable.model.state_dict().items()}
    records = [record for unit in case.units for record in unit]
    metrics = case.task.evaluate(trainable.model, case.tokenizer, records, case.config)
    assert metrics
    assert all(math.isfinite(value) for value in metrics.values())
    after = trainable.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(parameter.requires_grad for parameter in trainable.parameters.values())


def adapter_comes_off_and_leaves_the_base_as_it_was(case: TaskCase) -> None:
    model = case.model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for seed in (1, 2):
        generator = torch.Generator().manual_seed(seed)
        trainable = case.task.adapt(model, case.tokenizer, case.adapter, case.config, generator)
        assert trainable.detach() is model
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())


def export_holds_the_values_it_was_given(case: TaskCase) -> None:
    from safetensors.torch import load_file

    trainable = case.adapted()
    arrays = trainable.read()
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) / "adapter"
        case.task.export(trainable, case.adapter, arrays, "some base", folder, "cost: epsilon 3")
        found = load_file(folder / "adapter_model.safetensors")
        assert "cost: epsilon 3" in (folder / "README.md").read_text()
    assert found.keys() == arrays.keys()
    assert all(torch.equal(found[name], value) for name, value in arrays.items())


def dealing_is_repeatable_and_readable(case: TaskCase) -> None:
    with TemporaryDirectory() as scratch:
        folders = [Path(scratch) / name for name in ("one", "two", "other")]
        seeds = (5, 5, 6)
        dealt = [
            case.task.deal(None, folder, 3, seed, case.config)
            for folder, seed in zip(folders, seeds, strict=True)
        ]
        contents = [[p.read_bytes() for p in (*d.records, d.probes)] for d in dealt]
        assert contents[0] == contents[1]
        assert contents[0] != contents[2]
        assert len(dealt[0].records) == 3
        loaded = [case.task.load(path, case.config) for path in dealt[0].records]
        assert tuple(map(len, loaded)) == dealt[0].units
        names = [record.id for records in loaded for record in records]
        assert len(set(names)) == len(names)
        default = case.task.units[0]
        assert all(default in record.owners for records in loaded for record in records)
        assert case.task.load(dealt[0].probes, case.config)


def bad_file_is_refused_with_its_line(case: TaskCase) -> None:
    text, line = case.bad_file
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / "bad"
        path.write_text(text)
        with pytest.raises(BadInput) as caught:
            case.task.load(path, case.config)
    assert f"{path}:{line}" in str(caught.value)
    assert caught.value.exit_code == 2


def misspelt_setting_is_refused_with_a_suggestion(case: TaskCase) -> None:
    wrong, right = case.typo
    with pytest.raises(BadInput, match=f"unknown key '{wrong}'.*{right}"):
        case.task.check({**case.config, wrong: 1})
    case.task.check(case.config)


CHECKS: tuple[Callable[[TaskCase], None], ...] = (
    one_finite_loss_a_unit,
    nothing_couples_units,
    order_of_units_does_not_matter,
    gradients_are_those_of_single_units,
    engines_agree_with_autograd,
    removing_a_unit_moves_the_clipped_sum_by_the_clip_norm_at_most,
    records_that_are_said_to_add_up_do,
    what_does_not_train_is_the_same_everywhere,
    evaluation_looks_and_does_not_touch,
    adapter_comes_off_and_leaves_the_base_as_it_was,
    export_holds_the_values_it_was_given,
    dealing_is_repeatable_and_readable,
    bad_file_is_refused_with_its_line,
    misspelt_setting_is_refused_with_a_suggestion,
)
