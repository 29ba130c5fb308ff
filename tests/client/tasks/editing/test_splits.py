"""What contradicts itself is held out and counted; the rest is dealt out once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wardround.client.tasks.editing.formats import read_edits
from wardround.client.tasks.editing.records import Edit, Probe, edit_record
from wardround.client.tasks.editing.splits import OverlapReport, hold_out, split_over
from wardround.privacy.errors import BadInput

REAL = Path(__file__).parents[4] / "../shared/data/medcf_valid.json"


def _record(number, prompt, target, *probes):
    locality = {"textual": tuple(Probe(probe, "x") for probe in probes)} if probes else {}
    return edit_record(f"r{number}", Edit(prompt, prompt[:1], target, locality=locality))


def test_each_contradiction_is_held_out_under_its_own_name():
    records = [
        _record(0, "A?", "one"),
        _record(1, "B?", "one"),
        _record(2, "b?  ", "two"),  # in conflict with 1: blanks and case do not tell prompts apart
        _record(3, "C?", "one", "A?"),  # its probe asks what 0 corrects
        _record(4, "D?", "one", "D?", "Z?"),  # one of its probes asks what it corrects itself
        _record(5, "C?", "ONE"),  # says what 3 says
    ]
    kept, report = hold_out(records)
    assert report == OverlapReport(
        found=6, kept=2, conflicts=2, probed=1, duplicates=1, own_probes=1
    )
    assert [record.id for record in kept] == ["r3", "r4"]
    assert kept[1].content.locality == {"textual": (Probe("Z?", "x"),)}
    assert kept[0] is records[3]
    assert [note.split()[0] for note in report.notes()] == ["2", "1", "1", "1", "2"]


def test_other_wordings_of_a_question_contradict_too():
    records = [
        edit_record("a", Edit("What does A do?", "A", "one", rephrase_prompts=("A is for",))),
        edit_record("b", Edit("a is  for", "a", "two")),  # what a is asked as well
        edit_record("c", Edit("C?", "C", "one", paraphrases=("Of C?",))),
        _record(3, "D?", "one", "of c?"),  # its probe is a wording of what c corrects
        edit_record("e", Edit("E?", "E", "one", rephrase_prompts=("Of E?",))),
        edit_record("f", Edit("Of E?", "E", "One")),  # says what e says: no contradiction
    ]
    kept, report = hold_out(records)
    assert report == OverlapReport(6, 3, conflicts=2, probed=1, duplicates=0, own_probes=0)
    assert [record.id for record in kept] == ["r3", "e", "f"]


def test_a_file_in_order_is_left_alone_and_says_nothing():
    records = [_record(n, f"{n}?", "x", "other?") for n in range(3)]
    kept, report = hold_out(records)
    assert kept == records
    assert report.notes() == ()


def test_real_overlaps_are_all_found():
    if not REAL.is_file():
        pytest.skip("medcf_valid.json is not beside the repository")
    kept, report = hold_out(read_edits(REAL))
    # Oracle: plain loops over the raw items.
    items = json.loads(REAL.read_text())
    prompts = [item["prompt"].casefold() for item in items]
    probes = [
        {v.casefold() for k, v in item.items() if k.startswith("loc") and k.endswith("prompt")}
        for item in items
    ]
    conflicts = {
        i for i, item in enumerate(items)
        if any(p == prompts[i] and other["target_new"].casefold() != item["target_new"].casefold()
               for p, other in zip(prompts, items, strict=True))
    }  # fmt: skip
    probed = {
        i for i, prompt in enumerate(prompts)
        if any(prompt in asked for j, asked in enumerate(probes) if j != i)
    } - conflicts  # fmt: skip
    assert (report.found, report.conflicts, report.probed) == (818, len(conflicts), len(probed))
    assert report.kept == len(kept) == 818 - len(conflicts) - len(probed) - report.duplicates
    left = {record.content.prompt for record in kept}
    asked = {p.prompt for r in kept for ps in r.content.locality.values() for p in ps}
    assert left.isdisjoint(asked)
    assert len(left) == len(kept)


def test_split_deals_every_record_once_and_evenly():
    records = [_record(n, f"{n}?", "x") for n in range(11)]
    parts = split_over(records, 4, seed=1)
    assert [len(part) for part in parts] == [3, 3, 3, 2]
    assert sorted(r.id for part in parts for r in part) == sorted(r.id for r in records)
    assert split_over(records, 4, seed=1) == parts != split_over(records, 4, seed=2)


@pytest.mark.parametrize("hospitals", [0, 3])
def test_more_hospitals_than_records_are_refused(hospitals):
    with pytest.raises(BadInput, match=f"hospitals is {hospitals}; the data holds 2"):
        split_over([_record(0, "A?", "x"), _record(1, "B?", "x")], hospitals, seed=0)
