"""A list is clipped as one, a patient with all her lists as one, and the wrong ways are caught."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from wardround.client.hospital import group_units
from wardround.client.tasks.ranking.first_stage import FirstStage
from wardround.client.tasks.ranking.formats import read_lists, write_lists
from wardround.client.tasks.ranking.lists import ListBatch
from wardround.client.tasks.ranking.negatives import add_public_negatives, main
from wardround.client.tasks.ranking.public import Collection
from wardround.client.tasks.ranking.records import Candidate, RankingQuery, ranking_record
from wardround.client.tasks.ranking.task import RankingTask
from wardround.privacy import Unit
from wardround.privacy.clipping import ClippedSum
from wardround.privacy.errors import BadInput


class InBatch(RankingTask):
    """Broken on purpose: every list's softmax also runs over the other lists' passages."""

    def collate(self, units, tokenizer, config):
        batch = super().collate(units, tokenizer, config)
        lists = batch.inputs["list_of_row"]
        inputs = dict(batch.inputs)
        place = torch.arange(len(lists))
        inputs["place"] = torch.where(inputs["place"] == 0, 0, place)
        inputs["weight"] = torch.ones_like(inputs["weight"])
        kept = lists.clone()
        kept[inputs["place"] != 0] = 0
        inputs["list_of_row"] = kept
        return replace(batch, inputs=inputs)


def test_in_batch_negatives_fail_the_contract(case, all_checks):
    twin = replace(case("ranking"), task=InBatch())
    with pytest.raises(AssertionError):
        all_checks["nothing_couples_units"](twin)


def test_rows_clipped_one_by_one_break_the_bound(case):
    """The refused way, done on purpose: each row of a list is clipped as if it stood alone."""
    case = case("ranking")
    trainable = case.adapted()
    unit = case.units[3]
    batch = case.task.collate([unit], case.tokenizer, {**case.config, "loss": "pointwise"})
    assert isinstance(batch, ListBatch)
    rows = len(batch.unit_of_row)
    parameters = list(trainable.parameters.values())

    def of_row(row):
        inputs = {name: value[row : row + 1] for name, value in batch.inputs.items()}
        inputs |= {
            "list_of_row": torch.zeros(1, dtype=torch.long),
            "place": torch.zeros(1, dtype=torch.long),
        }
        alone = ListBatch(inputs, torch.zeros(1, dtype=torch.long), 1, batch.config)
        return torch.autograd.grad(case.task.losses(trainable.model, alone).sum(), parameters)

    gradients = [of_row(row) for row in range(rows)]
    norms = [torch.cat([g.flatten() for g in row]).norm() for row in gradients]
    clip_norm = float(min(norms)) / 2

    def moved_by(contributions):
        total = ClippedSum(trainable.shapes, clip_norm, Unit.RECORD)
        stacked = {
            name: torch.stack([row[n] for row in contributions]).float()
            for n, name in enumerate(trainable.parameters)
        }
        total.add(stacked, list(range(len(contributions))))
        return sum(float(v.square().sum()) for v in total.close().value.values()) ** 0.5

    whole = [torch.stack(parts).sum(0) for parts in zip(*gradients, strict=True)]
    assert moved_by([whole]) <= clip_norm * (1 + 1e-5)
    assert moved_by(gradients) > clip_norm * 1.05


def _list(name, patient, *owners):
    candidates = tuple(
        Candidate(f"{name}-{n}", f"note {n} of {name}", int(n == 0), None, owner)
        for n, owner in enumerate(owners)
    )
    return ranking_record(name, RankingQuery(f"query {name}", candidates), patient)


def test_a_patient_is_one_unit_with_all_her_lists(case):
    case = case("ranking")
    records = [
        _list("a", "p1", "p1", "p1"),
        _list("b", "p2", "p2", "p2"),
        _list("c", "p1", "p1", "p1"),
    ]
    units = group_units(records, Unit.PATIENT)
    assert [[record.id for record in unit] for unit in units] == [["a", "c"], ["b"]]
    trainable = case.adapted()
    together = case.losses(trainable, units)
    apart = case.losses(trainable, [[record] for record in records])
    torch.testing.assert_close(together, torch.stack([apart[0] + apart[2], apart[1]]))


def test_a_list_over_two_charts_has_no_patient_to_protect():
    records = [_list("a", "p1", "p1", "p2")]
    with pytest.raises(BadInput, match="names no patient"):
        group_units(records, Unit.PATIENT)


def test_foreign_batch_is_refused(case):
    from wardround.client.tasks.base import Batch

    with pytest.raises(TypeError, match="this task's collate"):
        RankingTask().losses(case("ranking").model(), Batch({}, torch.zeros(0), 0))


def test_public_negatives_depend_on_the_record_and_public_things_alone(beir, tmp_path):
    own = [
        _list("a", "p1", "p1", "p1"),
        ranking_record("b", RankingQuery("who treats fever", (Candidate("b-0", "note", 1),))),
    ]
    collection = Collection.open(beir)
    together = add_public_negatives(own, collection, 3)
    assert [add_public_negatives([record], collection, 3)[0] for record in own] == together
    index = FirstStage(collection.passages())
    nearest = [f"public-{name}" for name, _ in index.retrieve("who treats fever", 3)]
    assert [c.id for c in together[1].content.candidates] == ["b-0", *nearest]
    assert [record.owners for record in together] == [record.owners for record in own]
    write_lists(own, tmp_path / "own.jsonl")
    words = ["--lists", tmp_path / "own.jsonl", "--public", beir, "--to", tmp_path / "longer.jsonl",
             "--count", "3"]  # fmt: skip
    main([str(word) for word in words])
    assert read_lists(tmp_path / "longer.jsonl") == together
    with pytest.raises(SystemExit):  # never over a file that is there
        main([str(word) for word in words])
