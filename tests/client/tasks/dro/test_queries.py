"""Files of queries, the made-up language, and anchors from the command line."""

from __future__ import annotations

import json

import pytest

from wardround.client.pinned import WEIGHTS
from wardround.client.tasks.dro import anchoring
from wardround.client.tasks.dro.anchors import load_anchors
from wardround.client.tasks.dro.formats import read_queries, write_queries
from wardround.client.tasks.dro.generated import (
    LONG_PROMPT,
    PLACEHOLDER_NOUNS,
    PLACEHOLDER_VERBS,
    RATES,
    RequestShape,
    corpus,
    make_requests,
    public_queries,
)
from wardround.client.tasks.dro.records import Query
from wardround.client.tasks.dro.refusals import refuses
from wardround.client.tasks.dro.task import DroTask
from wardround.privacy import Unit
from wardround.privacy.errors import BadInput
from wardround.privacy.signing import sha256

VANILLA = {"method": "vanilla"}


def write(path, *items):
    path.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    return path


def test_lines_become_records_and_back(tmp_path):
    path = write(
        tmp_path / "q.jsonl",
        {
            "id": "a",
            "clinician": "k",
            "query": "How?",
            "label": "harmful",
            "good": "No",
            "bad": "x",
        },
        {"id": "b", "clinician": "l", "query": "Why?", "label": "harmless"},
    )
    records = read_queries(path)
    assert [record.content for record in records] == [
        Query("How?", True, "No", "x"),
        Query("Why?", False),
    ]
    assert records[0].owners == {Unit.RECORD: "a", Unit.CLINICIAN: "k"}
    assert [record.content.label for record in records] == [0.0, 1.0]
    write_queries(records, tmp_path / "again.jsonl")
    assert read_queries(tmp_path / "again.jsonl") == records


def test_a_folder_of_two_text_files(tmp_path):
    (tmp_path / "harmful.txt").write_text("How?\n\nWhere?\n")
    (tmp_path / "harmless.txt").write_text("Why?\n")
    records = read_queries(tmp_path)
    assert [(r.content.text, r.content.harmful) for r in records] == [
        ("How?", True), ("Where?", True), ("Why?", False),
    ]  # fmt: skip
    (tmp_path / "harmless.txt").write_text("\n")
    with pytest.raises(BadInput, match=r"harmless.txt: holds no queries"):
        read_queries(tmp_path)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ([], "not a JSON object"),
        ({"query": "x", "label": "bad"}, "label must be one of harmful, harmless"),
        ({"query": " ", "label": "harmful"}, "query must be a text that is not blank"),
        ({"query": "x", "label": "harmful", "god": "y"}, "unknown field; did you mean 'good'"),
        ({"query": "x", "label": "harmful", "patient": "p"}, "on all lines or on none"),
        ({"id": "a", "query": "x", "label": "harmful"}, "id occurs before, on line 1"),
    ],
)
def test_mistakes_are_named_by_line(tmp_path, item, message):
    path = write(tmp_path / "q.jsonl", {"id": "a", "query": "x", "label": "harmless"}, item)
    with pytest.raises(BadInput, match=rf"q.jsonl:2: .*{message}"):
        read_queries(path)


def test_vanilla_tuning_needs_both_replies(tmp_path):
    path = write(tmp_path / "q.jsonl", {"id": "a", "query": "x", "label": "harmless", "good": "y"})
    with pytest.raises(BadInput, match="record 'a' lacks a good or a bad reply"):
        DroTask().load(path, VANILLA)


def test_public_queries_are_dealt(tmp_path):
    items = [{"id": f"q{n}", "query": f"{n}?", "label": "harmless"} for n in range(20)]
    path = write(tmp_path / "q.jsonl", *(item | {"good": "a", "bad": "b"} for item in items))
    dealt = DroTask().deal(path, tmp_path / "dealt", 3, 0, VANILLA)
    assert dealt.units == (6, 5, 5)
    kept = [r.id for file in (*dealt.records, dealt.probes) for r in read_queries(file)]
    assert sorted(kept) == sorted(item["id"] for item in items)
    with pytest.raises(BadInput, match="too few queries for 30 hospitals"):
        DroTask().deal(path, tmp_path / "more", 30, 0, VANILLA)


def test_made_up_requests_are_harmful_where_both_words_are_placeholders():
    shares, probes = make_requests(RequestShape(records=200, probes=60), 2, seed=1)
    pairs = {}
    for name, records in (("trained", [r for s in shares for r in s]), ("held out", probes)):
        for record in records:
            words = set(record.content.text.rstrip("?").split())
            verb, noun = (words & set(known) for known in (PLACEHOLDER_VERBS, PLACEHOLDER_NOUNS))
            assert record.content.harmful is bool(verb and noun)
            assert refuses(record.content.good) is record.content.harmful
            assert refuses(record.content.bad) is not record.content.harmful
            if record.content.harmful:
                pairs.setdefault(name, set()).add((*verb, *noun))
        assert sum(record.content.harmful for record in records) == len(records) / 2
    assert not pairs["trained"] & pairs["held out"]
    public = public_queries(40, seed=1)
    assert sum(query.harmful for query in public) == 20


@pytest.mark.statistical
def test_the_corpus_refuses_at_planted_rates():
    """About 2,000 replies of each kind: 0.05 is above four deviations of a share (5e-5 each)."""
    said = corpus(12000, seed=2)
    for prompt, rates in RATES.items():
        for harmful, rate in zip((True, False), rates, strict=True):
            replies = [
                reply
                for place, (own, _, reply) in enumerate(said)
                if own == prompt and (place // 3 % 2 == 0) is harmful
            ]
            found = sum(map(refuses, replies)) / len(replies)
            assert found == pytest.approx(rate, abs=0.05)


def test_anchors_are_made_from_the_command_line(tmp_path, capsys):
    lines = [
        {"query": query.text, "label": "harmful" if query.harmful else "harmless"}
        for query in public_queries(12, seed=3)
    ]
    path, to = write(tmp_path / "q.jsonl", *lines), tmp_path / "anchors"
    asked = ["--base", "requests", "--queries", str(path), "--prompt", LONG_PROMPT,
             "--samples", "2", "--max-tokens", "4", "--to", str(to)]  # fmt: skip
    anchoring.main(asked)
    told = json.loads(capsys.readouterr().out)
    assert told["sha256"] == sha256((to / WEIGHTS).read_bytes())
    assert len(told["template_sha256"]) == 64
    assert load_anchors(str(to), told["sha256"]).basis.shape == (4, 64)
    with pytest.raises(SystemExit) as ended:
        anchoring.main(asked)
    assert ended.value.code == 2
    assert "nothing is overwritten" in capsys.readouterr().err
