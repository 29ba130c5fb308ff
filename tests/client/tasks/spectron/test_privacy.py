"""A speaker counts once however often she speaks, and the base stays as it was."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from wardround.client.tasks.base import Record
from wardround.client.tasks.spectron.learner import attach
from wardround.client.tasks.spectron.rows import bounded
from wardround.privacy.errors import BadInput


def copies(record: Record, count: int) -> list[Record]:
    return [Record(f"{record.id}-{n}", record.owners, record.content) for n in range(count)]


def test_ten_copies_of_an_utterance_weigh_as_much_as_one(case) -> None:
    one = case("spectron")
    config = {**one.config, "max_utterances": 10}
    one = replace(one, config=config)
    trainable = one.adapted()
    single, many = one.units[0][0], copies(one.units[0][0], 10)
    found = one.gradients(trainable, [[single], many])
    for rows in found.values():
        torch.testing.assert_close(rows[0], rows[1], rtol=1e-6, atol=1e-7)


def test_a_sum_over_utterances_would_break_that(case) -> None:
    """The broken twin: a unit's loss as a sum makes a speaker with ten copies weigh ten times."""
    one = case("spectron")

    class Summed(type(one.task)):
        def losses(self, model, batch):
            return super().losses(model, batch) * torch.bincount(batch.unit_of_row)

    twin = replace(one, task=Summed(), config={**one.config, "max_utterances": 10})
    trainable = twin.adapted()
    single, many = one.units[0][0], copies(one.units[0][0], 10)
    found = twin.gradients(trainable, [[single], many])
    assert any(not torch.allclose(rows[0], rows[1], rtol=1e-2) for rows in found.values())


def test_utterances_are_bounded_by_a_choice_of_ones_own(case) -> None:
    records = [record for unit in case("spectron").units for record in unit]
    chosen = bounded(records, 3)
    assert len(chosen) == 3
    gone = next(record for record in records if record not in chosen)
    left = bounded([record for record in records if record is not gone], 3)
    assert [record.id for record in left] == [record.id for record in chosen]


def test_nets_that_train_are_copies(case) -> None:
    one = case("spectron")
    base = one.model()
    before = base.post_net[0].weight.clone()
    trainable = attach(base, one.adapter, torch.Generator().manual_seed(1))
    with torch.no_grad():
        trainable.parameters["post_net.0.weight"].add_(1.0)
    assert torch.equal(base.post_net[0].weight, before)
    assert not any(name.startswith("encoder") for name in trainable.parameters)


def test_another_kind_of_base_is_refused(case) -> None:
    with pytest.raises(BadInput, match="kind 'spectron'"):
        attach(torch.nn.Linear(1, 1), {"targets": ["x"]}, torch.Generator())
