"""Every registered task keeps the contract, and tasks that break it are found out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from wardround.client.tasks.editing import EditingTask
from wardround.client.tasks.registry import tasks


def test_every_registered_task_has_a_case(all_cases):
    assert set(all_cases) == {listing.name for listing in tasks()}


def test_task_keeps_the_contract(check, case_name, case):
    check(case(case_name))


class BatchMean(EditingTask):
    """Broken on purpose: losses are shares of the batch's mean, as in ordinary fine-tuning."""

    def losses(self, model, batch):
        return super().losses(model, batch) / batch.units


class BatchCentred(EditingTask):
    """Broken on purpose: each loss is compared with the others, as in-batch negatives do."""

    def losses(self, model, batch):
        losses = super().losses(model, batch)
        return losses * losses.mean()


class Squared(EditingTask):
    """Broken on purpose: says that records add up, and takes the square of their sum."""

    def losses(self, model, batch):
        return super().losses(model, batch).square()


class LeftPadded(EditingTask):
    """Broken on purpose: padding on the left without position ids shifts what a row means."""

    def collate(self, units, tokenizer, config):
        batch = super().collate(units, tokenizer, config)
        lengths = batch.inputs["attention_mask"].sum(1)
        longest = batch.inputs["input_ids"].shape[1]
        inputs = dict(batch.inputs)
        for name in ("input_ids", "labels"):
            rows = [
                row.roll(longest - int(length))
                for row, length in zip(inputs[name], lengths, strict=True)
            ]
            inputs[name] = inputs[name].new_empty(0) if not rows else _stack(rows)
        inputs["attention_mask"] = inputs["attention_mask"].new_ones(inputs["input_ids"].shape)
        return replace(batch, inputs=inputs)


def _stack(rows):
    import torch

    return torch.stack(rows)


@pytest.mark.parametrize(
    ("broken", "caught_by"),
    [
        (BatchMean, "nothing_couples_units"),
        (BatchMean, "gradients_are_those_of_single_units"),
        (BatchCentred, "nothing_couples_units"),
        (BatchCentred, "removing_a_unit_moves_the_clipped_sum_by_the_clip_norm_at_most"),
        (LeftPadded, "nothing_couples_units"),
        (Squared, "records_that_are_said_to_add_up_do"),
    ],
)
def test_broken_twin_fails_the_suite(broken, caught_by, case, all_checks):
    twin = replace(case("editing"), task=broken())
    with pytest.raises(AssertionError):
        all_checks[caught_by](twin)
