"""Files in all shapes are read, and what cannot be used is refused with file, line and field."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wardround.client.tasks.editing.formats import read_edits, write_edits
from wardround.client.tasks.editing.generated import StudyShape, make_study
from wardround.client.tasks.editing.records import Edit, Probe
from wardround.privacy import Unit
from wardround.privacy.errors import BadInput

REAL = Path(__file__).parents[4] / "../shared/data"
GOOD = {"prompt": "What is Bato for?", "subject": "Bato", "target_new": "cough"}
MEDCF = {
    **GOOD,
    "ground_truth": "fever",
    "rephrase_prompt": "Bato is for what?",
    "locality_target_prompt": "What is Kiro for?",
    "locality_target_ground_truth": "fever",
    "locality_mapping_prompt": "What does Bato cause?",
    "locality_mapping_ground_truth": "sleep",
    "locality_struc_prompt": "What is Lumo for?",
    "locality_struc_ground_truth": "rash",
    "locality_tokenSem_prompt": "What is Bata for?",
    "locality_tokenSem_ground_truth": "itch",
}


def _file(tmp_path, text):
    path = tmp_path / "edits.json"
    path.write_text(text, encoding="utf-8")
    return path


def test_medcf_item(tmp_path):
    record = read_edits(_file(tmp_path, json.dumps([MEDCF], indent=4)))[0]
    assert record.content == Edit(
        prompt="What is Bato for?",
        subject="Bato",
        target_new="cough",
        ground_truth="fever",
        rephrase_prompts=("Bato is for what?",),
        locality={
            "target_distribution": (Probe("What is Kiro for?", "fever"),),
            "entity_mapping": (Probe("What does Bato cause?", "sleep"),),
            "structural": (Probe("What is Lumo for?", "rash"),),
            "textual": (Probe("What is Bata for?", "itch"),),
        },
    )
    assert record.owners == {Unit.RECORD: record.id}


def test_easyedit_request_as_json_lines(tmp_path):
    request = {
        **GOOD,
        "rephrase_prompt": ["Bato is for what?", "Why Bato?"],
        "locality": {
            "neighborhood": {"prompt": ["What is Kiro for?", "And Lumo?"],
                             "ground_truth": ["fever", "rash"]},
            "distracting": {"prompt": "Sky?", "ground_truth": "blue"},
        },
        "portability": {},
    }  # fmt: skip
    text = json.dumps(request) + "\n\n" + json.dumps(GOOD) + "\n"
    first, second = (record.content for record in read_edits(_file(tmp_path, text)))
    assert first.rephrase_prompts == ("Bato is for what?", "Why Bato?")
    assert first.locality == {
        "neighborhood": (Probe("What is Kiro for?", "fever"), Probe("And Lumo?", "rash")),
        "distracting": (Probe("Sky?", "blue"),),
    }
    assert second == Edit(**GOOD)


def test_patients_and_clinicians_become_owners(tmp_path):
    items = [{**GOOD, "id": f"r{i}", "patient": "p1", "clinician": f"c{i}"} for i in range(2)]
    records = read_edits(_file(tmp_path, json.dumps(items)))
    assert [record.owners for record in records] == [
        {Unit.RECORD: f"r{i}", Unit.PATIENT: "p1", Unit.CLINICIAN: f"c{i}"} for i in range(2)
    ]


def test_written_records_are_read_back_equal(tmp_path):
    study = make_study(StudyShape(phrasings_per_record=2), 2, seed=3)
    for records in (study.hospitals[0], study.probes):
        write_edits(records, tmp_path / "edits.jsonl")
        assert tuple(read_edits(tmp_path / "edits.jsonl")) == records


def _without(field):
    return {name: value for name, value in GOOD.items() if name != field}


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (_without("target_new"), "field 'target_new' is missing"),
        ({**GOOD, "target_new": " "}, "target_new is empty"),
        ({**GOOD, "target_new": 3}, "field 'target_new' is a int; expected text"),
        ({**GOOD, "targt_new": "x"}, "unknown field; did you mean 'target_new'"),
        ({**GOOD, "subject": "Kiro"}, "subject does not occur in prompt"),
        ({**GOOD, "rephrase_prompt": [1]}, "field 'rephrase_prompt': expected text or a list"),
        ({**GOOD, "paraphrases": ["x", ""]}, "paraphrases holds an empty text"),
        ({**GOOD, "locality_struc_prompt": "x"}, "'locality_struc_ground_truth' is missing"),
        ({**GOOD, "locality": []}, "field 'locality' is a list; expected an object"),
        ({**GOOD, "locality": {"k": {"prompt": "x"}}}, "'locality[0]': expected an object with"),
        ({**GOOD, "locality": {"k": {"prompt": ["x", "y"], "ground_truth": ["z"]}}}, "2 prompts"),
        (
            {**GOOD, "locality": {"k": {"prompt": "x", "ground_truth": ""}}},
            "'locality[0]': a local",
        ),
        ({**GOOD, "id": "twice"}, "id occurs before, on line 2"),
        ({**GOOD, "patient": "p"}, "patient and clinician must be given for all items or for none"),
        (["not", "an", "object"], "expected an object, found list"),
    ],
)
@pytest.mark.parametrize("as_lines", [True, False])
def test_unusable_item_is_refused_with_line_item_and_field(tmp_path, item, message, as_lines):
    items = [json.dumps({**GOOD, "id": "twice"}), json.dumps(item)]
    text = "\n" + "\n".join(items) if as_lines else "[\n" + ",\n".join(items) + "\n]"
    path = _file(tmp_path, text)
    with pytest.raises(BadInput) as caught:
        read_edits(path)
    assert str(caught.value).startswith(f"{path}:3: item 1: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no corrections"),
        ("[]", "holds no corrections"),
        ('[\n{"prompt": \n}]', ":3: not valid JSON"),
        ("[\n{}\n{}]", ":2: item 0: field 'prompt' is missing"),
        (f"[\n{json.dumps(GOOD)}\n{json.dumps(GOOD)}]", ":3: not valid JSON: expected ',' or ']'"),
        (f"[\n{json.dumps(GOOD)}]\nmore", ":2: text after the end of the list"),
        (f"[\n{json.dumps(GOOD)}", ":2: not valid JSON: expected ',' or ']'"),
        (json.dumps(GOOD, indent=1), ":1: one JSON object a line"),
        ("[" * 100_000, ":1: not usable JSON: nested too deeply"),
    ],
)
def test_damaged_file_is_refused(tmp_path, text, message):
    with pytest.raises(BadInput) as caught:
        read_edits(_file(tmp_path, text))
    assert message in str(caught.value)


def test_missing_and_undecodable_files_are_refused(tmp_path):
    with pytest.raises(BadInput, match="no such file"):
        read_edits(tmp_path / "absent.json")
    (tmp_path / "latin.json").write_bytes(b'[{"prompt": "\xe9"}]')
    with pytest.raises(BadInput, match="cannot be read"):
        read_edits(tmp_path / "latin.json")


def test_refusals_never_repeat_what_a_record_says(tmp_path):
    secret = {**GOOD, "subject": "Kiro", "target_new": "syphilis"}
    with pytest.raises(BadInput) as caught:
        read_edits(_file(tmp_path, json.dumps([secret])))
    assert not {"Kiro", "Bato", "syphilis"} & set(str(caught.value).replace(":", " ").split())


@pytest.mark.parametrize(
    ("name", "count", "kinds"),
    [
        # Counts: the README beside the files; kinds: the released benchmark.
        (
            "medcf_valid.json",
            818,
            {"target_distribution", "entity_mapping", "structural", "textual"},
        ),
        ("medfe_valid.json", 852, {"consistent_topic", "textual"}),
    ],
)
def test_published_files_are_read_whole(name, count, kinds):
    if not (REAL / name).is_file():
        pytest.skip(f"{name} is not beside the repository")
    records = read_edits(REAL / name)
    assert len(records) == count
    assert {kind for record in records for kind in record.content.locality} == kinds
    assert all(record.content.rephrase_prompts for record in records)
