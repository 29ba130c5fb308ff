"""Public collections become lists; a file that cannot be used is named with its line."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from wardround.client.tasks.ranking import dealing
from wardround.client.tasks.ranking.config import PublicLists
from wardround.client.tasks.ranking.dealing import deal_public, probes_of
from wardround.client.tasks.ranking.first_stage import FirstStage
from wardround.client.tasks.ranking.public import Collection
from wardround.client.tasks.registry import find_task
from wardround.privacy.errors import BadInput

LISTS = PublicLists(depth=5, negatives=4, probe_share=25)


@pytest.fixture(params=["beir", "msmarco"])
def folder(request):
    return request.getfixturevalue(request.param)


def _facts(folder):
    """What the fixture wrote, read by the standard library alone."""
    if (folder / "corpus.jsonl").exists():
        lines = (folder / "corpus.jsonl").read_text().splitlines()
        return {(item := json.loads(line))["_id"]: item["text"] for line in lines}
    return dict(line.split("\t") for line in (folder / "collection.tsv").read_text().splitlines())


def test_training_lists_hold_one_answer_and_passages_that_are_none(folder):
    ward = deal_public(folder, 2, 3, LISTS, 100)
    collection = Collection.open(folder)
    grades, texts = collection.qrels("train"), _facts(folder)
    records = [record for part in ward.hospitals for record in part]
    assert {record.id for record in records} == set(grades)
    assert [len(part) for part in ward.hospitals] == [4, 4]
    for record in records:
        first, *rest = record.content.candidates
        assert grades[record.id][first.id] == max(grades[record.id].values())
        assert len(rest) == LISTS.negatives
        assert not {c.id for c in rest} & grades[record.id].keys()
        assert all(c.text == texts[c.id] for c in (first, *rest))
        assert record.content.training_list(3)[0] == first


def test_probes_are_what_the_first_stage_finds_and_nothing_more(folder):
    ward = deal_public(folder, 2, 3, LISTS, 100)
    collection = Collection.open(folder)
    grades = collection.qrels(collection.splits()[1])
    index = FirstStage(collection.passages())
    assert {record.id for record in ward.probes} == set(grades)
    for record in ward.probes:
        found = index.retrieve(record.content.text, LISTS.depth)
        assert [(c.id, c.score) for c in record.content.candidates] == found
        assert record.content.grades == grades[record.id]  # found or missed, nothing is lost
    assert any("first stage missed" in note for note in ward.notes)


def test_one_split_is_shared_between_training_and_probes(beir):
    (beir / "qrels" / "train.tsv").unlink()
    ward = deal_public(beir, 2, 3, LISTS, 100)
    trained = {record.id for part in ward.hospitals for record in part}
    probed = {record.id for record in ward.probes}
    assert trained | probed == set(Collection.open(beir).qrels("test"))
    assert not trained & probed
    assert len(probed) == 1  # 25 percent of four


def test_a_run_file_stands_in_for_the_index(beir, monkeypatch):
    """As for millions of passages: nothing is indexed, and lists come from the runs."""
    monkeypatch.setattr(dealing, "FirstStage", None)
    (beir / "runs").mkdir()
    for split in ("train", "test"):
        names = Collection.open(beir).qrels(split)
        lines = [f"{q} Q0 d{n} 1 {30 - n} x\n" for q in names for n in range(0, 30, 3)]
        (beir / "runs" / f"{split}.trec").write_text("".join(lines))
    ward = deal_public(beir, 2, 3, LISTS, 100)
    for record in ward.probes:
        assert [c.id for c in record.content.candidates] == ["d0", "d3", "d6", "d9", "d12"]
        assert record.content.candidates[0].score == 30.0
    named = {f"d{n}" for n in range(0, 30, 3)}
    for record in (record for part in ward.hospitals for record in part):
        assert {c.id for c in record.content.candidates[1:]} <= named
    assert probes_of(beir, 5, 100)[0].content.candidates[1].id == "d3"


def test_dealing_repeats(beir):
    assert deal_public(beir, 2, 3, LISTS, 100) == deal_public(beir, 2, 3, LISTS, 100)
    assert deal_public(beir, 2, 3, LISTS, 100) != deal_public(beir, 2, 4, LISTS, 100)


def test_a_file_of_lists_is_dealt_out_too(tmp_path, beir):
    task = find_task("ranking")
    dealt = task.deal(beir, tmp_path / "one", 1, 0, {})
    again = task.deal(dealt.records[0], tmp_path / "two", 2, 0, {"lists": {"probe_share": 25}})
    records = [r for path in (*again.records, again.probes) for r in task.load(path, {})]
    assert sorted(r.id for r in records) == sorted(r.id for r in task.load(dealt.records[0], {}))
    assert len(task.load(again.probes, {})) == 2


def test_too_few_queries_for_the_hospitals(beir):
    with pytest.raises(BadInput, match="8 queries to deal out; 9 hospitals"):
        deal_public(beir, 9, 0, LISTS, 100)


def test_probes_of_a_folder_are_never_training_data(beir):
    task = find_task("ranking")
    records = task.read_probes(beir, {"lists": {"depth": 5}})
    assert records == probes_of(beir, 5, 200)
    with pytest.raises(BadInput, match="would have to be mined"):
        task.load(beir, {})


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("qrels/train.tsv", "q1\td1", "2 columns; expected 3, parted by tabs"),
        ("qrels/train.tsv", "q1\td1\tgood", "the grade is not a whole number"),
        ("qrels/test.tsv", "q1 d1 1", "1 columns; expected 3"),
        ("corpus.jsonl", '{"_id": 3}', "field '_id' is missing or not text"),
        ("corpus.jsonl", '{"_id": "a b"}', "the id is empty or holds a blank"),
        ("corpus.jsonl", '{"_id": "x", "text": 3}', "field 'text' is not text"),
        ("queries.jsonl", "{", "not valid JSON"),
    ],
)
def test_malformed_line_of_a_folder_is_named(beir, file, line, message):
    path = beir / file
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], line, *lines[2:]]) + "\n")
    with pytest.raises(BadInput, match=re.escape(message)) as caught:
        deal_public(beir, 2, 0, LISTS, 100)
    assert f"{path}:3:" in str(caught.value)


def test_nothing_found_for_any_probe(beir):
    path = beir / "queries.jsonl"
    path.write_text(path.read_text().replace("who treats", "quo vadis").replace("rash", "x"))
    for topic in ("cough", "fever", "thirst", "pain", "sleep"):
        path.write_text(path.read_text().replace(topic, "x"))
    with pytest.raises(BadInput, match="finds nothing for any query to evaluate on"):
        deal_public(beir, 2, 0, LISTS, 100)
    with pytest.raises(BadInput, match="finds nothing for any query"):
        probes_of(beir, 5, 10)


def test_header_of_judgements_is_needed(beir):
    path = beir / "qrels" / "train.tsv"
    path.write_text("\n".join(path.read_text().splitlines()[1:]))
    with pytest.raises(BadInput, match=re.escape(f"{path}:1: expected the header query-id")):
        deal_public(beir, 2, 0, LISTS, 100)


def test_judged_passage_that_is_not_there(beir):
    path = beir / "qrels" / "train.tsv"
    path.write_text(path.read_text() + "q0\tnowhere\t3\n")
    with pytest.raises(BadInput, match="'nowhere' is judged or ranked but not there"):
        deal_public(beir, 2, 0, LISTS, 100)


def test_folder_without_judgements_or_passages(beir, tmp_path):
    shutil.rmtree(beir / "qrels")
    with pytest.raises(BadInput, match="holds no judgements; looked for"):
        deal_public(beir, 2, 0, LISTS, 100)
    with pytest.raises(BadInput, match="neither corpus"):
        deal_public(tmp_path, 2, 0, LISTS, 100)


def test_first_stage_scores_are_those_of_bm25():
    passages = [("a", "cough cough syrup"), ("b", "fever"), ("c", "syrup sold here")]
    index = FirstStage(passages)
    # Lucene's BM25 by hand: idf = ln(1 + (N - n + 0.5) / (n + 0.5)), k1 = 1.5, b = 0.75, and
    # a mean length of 7/3 words ("here" is a stop word in no list of bm25s).
    from math import log

    lengths = {"a": 3, "b": 1, "c": 3}
    mean = sum(lengths.values()) / 3

    def weight(frequency, found_in, length):
        idf = log(1 + (3 - found_in + 0.5) / (found_in + 0.5))
        return idf * frequency / (frequency + 1.5 * (1 - 0.75 + 0.75 * length / mean))

    wanted = {"a": weight(2, 1, 3) + weight(1, 2, 3), "b": 0.0, "c": weight(1, 2, 3)}
    assert index.scores("cough syrup", ["a", "b", "c"]) == pytest.approx(
        list(wanted.values()), rel=1e-5
    )
    assert [name for name, _ in index.retrieve("cough syrup", 3)] == ["a", "c"]
    assert index.retrieve("unheard", 3) == []
    assert index.scores("of the", ["a"]) == [0.0]


def test_empty_collection_cannot_be_indexed():
    with pytest.raises(BadInput, match="no passages"):
        FirstStage([])
