"""SuperNI files: what is read, what is refused, and whose exemplars prompts may show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from wardround.client.hospital import group_units
from wardround.client.tasks.base import grouping_unit
from wardround.client.tasks.pacit.formats import read_tasks, write_tasks
from wardround.client.tasks.pacit.generated import (
    HELD_IN,
    HELD_OUT,
    HELD_OUT_TASKS,
    HOSPITAL_TASKS,
    PUBLIC_TASKS,
    PackShape,
    make_pack,
)
from wardround.client.tasks.pacit.records import Exemplar, Instance, Instructions, Source
from wardround.client.tasks.pacit.task import PacitTask
from wardround.privacy import Unit
from wardround.privacy.errors import BadInput

TASK = PacitTask()
PUBLISHED: dict[str, Any] = {
    "Contributors": ["A. Person"],
    "Source": ["somewhere"],
    "Categories": ["Information Extraction"],
    "Definition": ["Write the drug.", "Another wording."],
    "Positive Examples": [{"input": "a", "output": "b", "explanation": "because"}],
    "Negative Examples": [{"input": "c", "output": "d", "source": "public"}],
    "Instances": [
        {"id": "t-1", "input": "e", "output": ["f", "g"]},
        {"id": "t-2", "input": "h", "output": "i"},
    ],
    "Instance License": ["MIT"],
}


def write(path: Path, *tasks: Any, **dumps: Any) -> Path:
    path.write_text("".join(json.dumps(task, **dumps) + "\n" for task in tasks), encoding="utf-8")
    return path


def test_a_published_file_is_one_task(tmp_path):
    records = read_tasks(write(tmp_path / "task1.json", PUBLISHED, indent=1))
    task = Instructions(
        "task1",
        "Write the drug.",
        (Exemplar("a", "b", Source.PRIVATE),),
        (Exemplar("c", "d", Source.PUBLIC),),
        "Information Extraction",
    )
    assert [record.content for record in records] == [
        Instance(task, "e", ("f", "g")),
        Instance(task, "h", ("i",)),
    ]
    # Nobody said whose the first exemplar is, so no row can be protected by itself.
    assert [record.owners for record in records] == [{Unit.TASK: "task1"}] * 2


def test_a_folder_is_its_files_by_name(tmp_path):
    for name in ("task2", "task1"):
        instances = [{"input": f"{name} x", "output": ["y"]}]
        write(tmp_path / f"{name}.json", PUBLISHED | {"Instances": instances}, indent=1)
    assert [record.id for record in read_tasks(tmp_path)] == ["task1-000000", "task2-000000"]


def test_owners_where_exemplars_are_public(tmp_path):
    instances = [{"id": "r", "input": "e", "output": ["f"], "patient": "p"}]
    task = PUBLISHED | {"Exemplar Source": "synthetic", "Instances": instances, "Task": "drug"}
    (record,) = read_tasks(write(tmp_path / "x.jsonl", task))
    assert record.owners == {Unit.TASK: "drug", Unit.RECORD: "r", Unit.PATIENT: "p"}
    again = tmp_path / "again.jsonl"
    write_tasks([record], again)
    assert read_tasks(again) == [record]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Definitions": "x"}, r"unknown field; did you mean 'Definition'\?"),
        ({"Definition": []}, "Definition must be a text that is not blank"),
        ({"Positive Examples": [{"input": "a"}]}, r"Positive Examples\[0\].output must be a text"),
        (
            {"Negative Examples": [{"input": "a", "output": "b", "source": "mine"}]},
            r"Negative Examples\[0\].source must be one of public, synthetic, private",
        ),
        ({"Negative Examples": ["a"]}, r"Negative Examples\[0\] must be an object"),
        ({"Instances": []}, "Instances must be a list that is not empty"),
        ({"Instances": [{"input": "a", "output": []}]}, r"Instances\[0\].output must be a text"),
        (
            {"Instances": [{"input": "a", "output": "b", "inputs": "c"}]},
            r"Instances\[0\]: unknown field; did you mean 'input'",
        ),
        ({"Categories": "one"}, "Categories must be a list of texts"),
        ({"Instances": PUBLISHED["Instances"][:1] * 2}, None),
    ],
)
def test_mistakes_are_named_by_line_and_field(tmp_path, change, message):
    fine = PUBLISHED | {"Task": "other", "Instances": [{"input": "a", "output": "b"}]}
    path = write(tmp_path / "x.jsonl", fine, PUBLISHED | change)
    with pytest.raises(BadInput, match=rf"x.jsonl:2: {message or 'an id occurs before'}"):
        read_tasks(path) if message else read_tasks(write(path, fine, fine))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no tasks"),
        ('{\n"Definition": ["x"],\n}', "x.json:3: not valid JSON"),
        ("[1]", "x.json:1: not a JSON object"),
        ("{}", "x.json:1: Definition is missing"),
        ("[" * 100_000, "x.json:1: not usable JSON: nested too deeply"),
    ],
)
def test_what_is_no_task_is_refused(tmp_path, text, message):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(BadInput, match=message):
        read_tasks(path)


def test_patients_are_named_by_all_instances_or_none(tmp_path):
    instances = [{"input": "a", "output": "b", "patient": "p"}, {"input": "c", "output": "d"}]
    task = PUBLISHED | {"Exemplar Source": "public", "Instances": instances}
    task["Positive Examples"] = []
    with pytest.raises(BadInput, match="patient must be given for all instances or for none"):
        read_tasks(write(tmp_path / "x.jsonl", task))


@pytest.mark.parametrize("source", [None, "private"])
def test_private_exemplars_are_refused_with_rows_as_units(tmp_path, source):
    """A clip of rows bounds no exemplar that many rows show; only the whole task may hold it."""
    task = dict(PUBLISHED) if source is None else PUBLISHED | {"Exemplar Source": source}
    path = write(tmp_path / "x.jsonl", task)
    with pytest.raises(BadInput, match=r"'x' has private exemplars.*unit = 'task'"):
        TASK.load(path, {})
    records = TASK.load(path, {"exemplar_source": "private"})
    with pytest.raises(BadInput, match="names no record"):
        group_units(records, Unit.RECORD)
    assert len(group_units(records, Unit.TASK)) == 1
    with pytest.raises(BadInput, match=r"unit is 'record'; task 'pacit'.*protects: task"):
        grouping_unit(TASK, {"exemplar_source": "private"}, Unit.RECORD)
    assert grouping_unit(TASK, {"exemplar_source": "private"}, Unit.SITE) is Unit.TASK
    assert grouping_unit(TASK, {}, Unit.RECORD) is Unit.RECORD


def test_synthetic_exemplars_where_public_ones_were_promised(tmp_path):
    path = write(tmp_path / "x.jsonl", PUBLISHED | {"Exemplar Source": "synthetic"})
    with pytest.raises(BadInput, match=r"synthetic exemplars.*exemplar_source is 'public'"):
        TASK.load(path, {"exemplar_source": "public"})


def test_generated_tasks_do_not_overlap_and_negatives_are_wrong():
    assert not set(HOSPITAL_TASKS) & set(HELD_OUT_TASKS)
    assert not set(PUBLIC_TASKS) & {*HOSPITAL_TASKS, *HELD_OUT_TASKS}
    shares, probes = make_pack(PackShape(instances=2, exemplars=3, probes=2), 2, seed=1)
    assert [len(share) for share in shares] == [20, 20]
    assert {record.content.task.category for record in probes} == {HELD_IN, HELD_OUT}
    shown = {e.input for share in shares for r in share for e in r.content.task.positives}
    assert len(shown) > 50
    for record in [*shares[0], *probes]:
        task = record.content.task
        fields = task.name.split("-then-")
        for pool, right in ((task.positives, True), (task.negatives, False)):
            for exemplar in pool:
                assert exemplar.source is Source.SYNTHETIC
                assert (exemplar.output == _answer(exemplar.input, fields)) is right
        assert record.content.outputs == (_answer(record.content.input, fields),)


def _answer(order: str, fields: list[str]) -> str:
    """The fields, found in the written order by their places."""
    words, ward = order.split(", ")
    drug, amount, measure, times, route = words.split()
    found = {"drug": drug, "dose": f"{amount} {measure}", "times": times, "route": route,
             "ward": ward}  # fmt: skip
    return ", ".join(found[name] for name in fields)


def test_a_public_pack_is_dealt_by_tasks_and_instances(tmp_path):
    tasks = [
        PUBLISHED
        | {"Task": f"t{n}", "Instances": [{"input": f"{n} {i}", "output": "y"} for i in range(30)]}
        for n in range(10)
    ]
    path = write(tmp_path / "pack.jsonl", *tasks)
    dealt = TASK.deal(path, tmp_path / "dealt", 3, 0, {"per_task": 12, "max_probes": 20})
    assert dealt.units == (32, 32, 32)  # 8 tasks of 12, a third each
    probes = TASK.load(dealt.probes, {})
    trained = [record for file in dealt.records for record in TASK.load(file, {})]
    held_out = {r.content.task.name for r in probes if r.content.task.category == HELD_OUT}
    names = {record.content.task.name for record in trained}
    assert len(names) == 8
    assert not names & held_out
    assert not {record.id for record in probes} & {record.id for record in trained}
    assert len(probes) == 20
    assert all(r.content.task.most_delicate is Source.PUBLIC for r in [*probes, *trained])
    with pytest.raises(BadInput, match="too few instances for 400 hospitals"):
        TASK.deal(path, tmp_path / "other", 400, 0, {})
