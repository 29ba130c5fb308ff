"""A small public collection on disk, as BEIR and as MS MARCO lay it out."""

from __future__ import annotations

import json

import pytest

TOPICS = ("cough", "fever", "rash", "thirst", "pain", "sleep")
PASSAGES = {
    f"d{number}": f"{topic} of the {place} treated by {remedy}"
    for number, (topic, place, remedy) in enumerate(
        (topic, place, remedy)
        for topic in TOPICS
        for place in ("left", "right")
        for remedy in ("bato", "kiro", "sofa")
    )
}
QUERIES = {f"q{number}": f"who treats {topic}" for number, topic in enumerate(TOPICS * 2)}
QRELS = {
    name: {
        passage: 2 if "kiro" in text else 1
        for passage, text in PASSAGES.items()
        if text.startswith(query.rsplit(" ", 1)[1]) and ("kiro" in text or "left" in text)
    }
    for name, query in QUERIES.items()
}
TRAIN = tuple(QUERIES)[:8]
TEST = tuple(QUERIES)[8:]


def write_beir(folder, splits):
    """BEIR's files."""
    (folder / "qrels").mkdir(parents=True)
    corpus = [{"_id": name, "title": "", "text": text} for name, text in PASSAGES.items()]
    queries = [{"_id": name, "text": text} for name, text in QUERIES.items()]
    for name, items in (("corpus", corpus), ("queries", queries)):
        text = "".join(json.dumps(item) + "\n" for item in items)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    for split, names in splits.items():
        rows = [f"{q}\t{d}\t{g}" for q in names for d, g in QRELS[q].items()]
        text = "\n".join(["query-id\tcorpus-id\tscore", *rows]) + "\n"
        (folder / "qrels" / f"{split}.tsv").write_text(text, encoding="utf-8")
    return folder


def write_msmarco(folder, splits):
    """MS MARCO's files."""
    folder.mkdir(parents=True)
    rows = "".join(f"{name}\t{text}\n" for name, text in PASSAGES.items())
    (folder / "collection.tsv").write_text(rows, encoding="utf-8")
    for split, names in splits.items():
        queries = "".join(f"{name}\t{QUERIES[name]}\n" for name in names)
        (folder / f"queries.{split}.tsv").write_text(queries, encoding="utf-8")
        judged = "".join(f"{q}\t0\t{d}\t{g}\n" for q in names for d, g in QRELS[q].items())
        (folder / f"qrels.{split}.tsv").write_text(judged, encoding="utf-8")
    return folder


@pytest.fixture
def beir(tmp_path):
    return write_beir(tmp_path / "beir", {"train": TRAIN, "test": TEST})


@pytest.fixture
def msmarco(tmp_path):
    return write_msmarco(tmp_path / "msmarco", {"train": TRAIN, "dev": TEST})
