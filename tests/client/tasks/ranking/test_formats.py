"""Files people hold are read as they are, and what cannot be used is named by file and line."""

from __future__ import annotations

import hashlib
import json

import pytest

from wardround.client.tasks.ranking.formats import read_lists, write_lists
from wardround.client.tasks.ranking.records import Candidate, RankingQuery, ranking_record
from wardround.client.tasks.ranking.trec import read_qrels, read_run, write_run
from wardround.privacy import Unit
from wardround.privacy.errors import BadInput


def _file(tmp_path, *lines, name="lists.jsonl"):
    path = tmp_path / name
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def test_tevatron_lines(tmp_path):
    path = _file(
        tmp_path,
        {
            "query_id": 7,
            "query": "who coughs",
            "positive_passages": [{"docid": "d1", "title": "Bato", "text": "coughs"}],
            "negative_passages": [{"docid": "d2", "title": "", "text": "sleeps"}],
        },
    )
    (record,) = read_lists(path)
    assert record.id == "7"
    assert dict(record.owners) == {Unit.RECORD: "7"}
    assert record.content == RankingQuery(
        "who coughs", (Candidate("d1", "Bato coughs", 1), Candidate("d2", "sleeps", 0))
    )


def test_flag_embedding_lines(tmp_path):
    path = _file(
        tmp_path,
        {"query": "q", "pos": ["a"], "neg": ["b", "a", "b"], "prompt": "p", "pos_scores": [0.5]},
    )
    (record,) = read_lists(path)
    # A negative that is the positive's text, and a text given twice, count once.
    found = record.content.candidates
    assert [(c.text, c.grade) for c in found] == [("a", 1), ("b", 0)]
    assert found[0].id == hashlib.sha256(b"a").hexdigest()[:16]  # says nothing of the label
    assert record.id == "line-000001"


def test_pairs_are_collected_by_query(tmp_path):
    path = _file(
        tmp_path,
        *(
            {"qid": q, "pid": p, "query": f"query {q}", "passage": f"text {p}"}
            for q, p in ((1, 10), (2, 10), (1, 11))
        ),
    )
    records = read_lists(path)
    assert [record.id for record in records] == ["1", "2"]
    assert [c.id for c in records[0].content.candidates] == ["10", "11"]
    assert records[0].content.grades == {}


def test_written_lists_are_read_back_equal(tmp_path):
    first = RankingQuery(
        "wer hustet? µ",
        (
            Candidate("a", "x", 3, 0.5, "p1"),
            Candidate("b", "y", 0, -1.25, "p1"),
            Candidate("c", "z", None, 0.0, "p1"),
        ),
        missed={"d": 2, "e": 0},
    )
    second = RankingQuery("q", (Candidate("a", "x", -1),))
    records = [ranking_record("q1", first, "p1"), ranking_record("q2", second)]
    path = tmp_path / "out.jsonl"
    write_lists(records, path)
    assert read_lists(path) == records


def test_patient_owns_a_list_only_when_the_whole_chart_is_hers(tmp_path):
    def line(name, *patients):
        return {
            "query_id": name,
            "query": "q",
            "patient": "p1",
            "negative_passages": [
                {"docid": f"d{n}", "text": f"t{n}", "patient": patient}
                for n, patient in enumerate(patients)
            ],
        }

    path = _file(
        tmp_path, line("own", "p1", "p1"), line("mixed", "p1", "p2"), line("open", "p1", "")
    )
    own, mixed, unsaid = read_lists(path)
    assert own.owners[Unit.PATIENT] == "p1"
    assert Unit.PATIENT not in mixed.owners
    assert Unit.PATIENT not in unsaid.owners


GOOD = {"query_id": "q", "query": "x", "positive_passages": [{"docid": "a", "text": "t"}]}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"query_id": "q2", ', "not valid JSON"),
        ("[1]", "expected an object, found list"),
        ({**GOOD, "query": " "}, "field 'query' is empty"),
        ({"query_id": "q2", "positive_passages": []}, "field 'query' is missing"),
        ({**GOOD, "query_id": "q2", "positive_passages": []}, "no candidates"),
        ({**GOOD, "query_id": "q2", "positive_passage": []}, "did you mean 'positive_passages'"),
        (GOOD, "query_id occurs before, on line 1"),
        (
            {**GOOD, "query_id": "q2", "negative_passages": [{"docid": "a b", "text": "t"}]},
            "id is empty or holds a blank",
        ),
        (
            {
                **GOOD,
                "query_id": "q2",
                "negative_passages": [{"docid": "b", "text": "t", "grade": 1}],
            },
            "grade' does not fit negative_passages",
        ),
        (
            {
                **GOOD,
                "query_id": "q2",
                "negative_passages": [{"docid": "b", "text": "t", "score": "1"}],
            },
            "score' is a str; expected a number",
        ),
        ({**GOOD, "query_id": "q 2"}, "the query's id holds a blank"),
        ({"query": "q", "pos": "a"}, "field 'pos': expected a list of texts"),
        ({"qid": "1", "pid": "2", "query": "q", "passage": "p"}, "pairs and lists are mixed"),
        ({**GOOD, "query_id": "q2", "missed": {"z": 0.5}}, "field 'missed'"),
    ],
)
def test_bad_line_is_named_and_not_repeated(tmp_path, line, message):
    path = _file(tmp_path, GOOD, line)
    with pytest.raises(BadInput, match=message) as caught:
        read_lists(path)
    assert f"{path}:2:" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [("\n \n", "holds no queries"), (b"\xff\xfe", r":1: not UTF-8"), (None, "no such file")],
)
def test_file_that_cannot_be_read(tmp_path, text, message):
    path = tmp_path / "lists.jsonl"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BadInput, match=message):
        read_lists(path)


def test_folder_is_no_training_data(tmp_path):
    with pytest.raises(BadInput, match="would have to be mined"):
        read_lists(tmp_path)


def test_qrels_and_runs_with_blanks_and_tabs(tmp_path):
    qrels = _file(tmp_path, "q1 0 d1 1", "q1\t0\td2\t0", "q2 0 d1 3", "q2 0 d1 3", name="qrels")
    assert read_qrels(qrels) == {"q1": {"d1": 1, "d2": 0}, "q2": {"d1": 3}}
    run = _file(tmp_path, "q1 Q0 d1 1 2.5 tag", "q1\tQ0\td2\t2\t-1e-3\ttag", name="run")
    assert read_run(run) == {"q1": {"d1": 2.5, "d2": -1e-3}}


def test_run_file_is_ordered_as_trec_eval_reads_it(tmp_path):
    path = tmp_path / "run"
    run = {"q1": {"a": -1.5, "b": -0.5, "c": -1.5}, "q2": {"a": 1 / 3}}
    write_run(run, path, "tag")
    lines = path.read_text().splitlines()
    assert lines[:3] == [
        "q1 Q0 b 1 -0.5 tag",
        "q1 Q0 c 2 -1.5 tag",
        "q1 Q0 a 3 -1.5 tag",
    ]
    assert read_run(path) == run


@pytest.mark.parametrize(
    ("read", "line", "message"),
    [
        (read_qrels, "q1 0 d2", "3 columns; expected 4"),
        (read_qrels, "q1 0 d2 yes", "the grade is not a whole number"),
        (read_qrels, "q1 0 d1 0", "judged before, with another grade"),
        (read_run, "q1 Q0 d2 1 nan t", "the score is not finite"),
        (read_run, "q1 Q0 d2 1 high t", "the score is not a number"),
        (read_run, "q1 Q0 d1 1 0.5 t", "ranked before for the same query"),
        (read_run, "q1 Q0 d2 1 0.5", "5 columns; expected 6"),
    ],
)
def test_malformed_line_is_named_by_file_and_line(tmp_path, read, line, message):
    good = "q1 0 d1 1" if read is read_qrels else "q1 Q0 d1 1 0.5 t"
    path = _file(tmp_path, good, "", line, name="trec")
    with pytest.raises(BadInput, match=message) as caught:
        read(path)
    assert f"{path}:3:" in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("read", "what"), [(read_qrels, "judges"), (read_run, "ranks")])
def test_empty_trec_file_is_refused(tmp_path, read, what):
    path = _file(tmp_path, "", name="empty")
    with pytest.raises(BadInput, match=f"{what} nothing"):
        read(path)
