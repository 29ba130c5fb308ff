"""A base trained on a public file knows what the file says, and only whole bases are written."""

from __future__ import annotations

import json

import pytest

from wardround.client.bases.build import Recipe
from wardround.client.bases.corpus import build_from_corpus, read_corpus
from wardround.client.bases.making import Shape
from wardround.client.models import load_base
from wardround.client.tasks.rows import encode, predictions
from wardround.privacy.errors import BadInput

ITEMS = [
    {
        "prompt": f"What does {name} treat?", "subject": name, "target_new": "nothing",
        "ground_truth": truth, "rephrase_prompt": f"{name} is given against",
        "locality_target_prompt": f"What does not{name} treat?",
        "locality_target_ground_truth": truth,
    }
    for name, truth in (("Kiro", "a cough"), ("Lumo", "a fever"), ("Miro", "gout"))
]  # fmt: skip
TINY = Recipe(
    vocabulary=300, shape=Shape(hidden=32, layers=2, heads=2, mlp=64), steps=120,
    warm_up_steps=10, batch=9, learning_rate=1e-2,
)  # fmt: skip


@pytest.fixture
def edits(tmp_path):
    path = tmp_path / "edits.json"
    path.write_text(json.dumps(ITEMS))
    return path


def test_corpus_holds_old_answers_and_probes(edits):
    corpus = read_corpus(edits)
    assert corpus.truths[:2] == (
        ("What does Kiro treat?", "a cough"),
        ("Kiro is given against", "a cough"),
    )
    assert corpus.others == tuple(
        (item["locality_target_prompt"], item["ground_truth"]) for item in ITEMS
    )
    assert len(read_corpus(edits, limit=1).truths) == 2


def test_text_is_taken_line_by_line(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("one line\n\n  another \n")
    assert read_corpus(path).others == (("", "one line"), ("", "another"))
    assert len(read_corpus(path, limit=1).others) == 1


def test_base_knows_its_corpus_and_loads(edits, tmp_path):
    folder = tmp_path / "bases" / "tiny"
    manifest = build_from_corpus(edits, folder, TINY, 0, lambda line: None)
    assert manifest["exact_match"]["truths"] >= 0.9
    base = load_base(str(folder), sha256=manifest["sha256"])
    # Oracle: the loaded base asked again, end token included.
    rows = [encode(base.tokenizer, q, a, 64) for q, a in read_corpus(edits).truths]
    said = predictions(base.model, rows, base.tokenizer.pad_token_id)
    right = sum(s == list(ids[start:]) for s, (ids, start) in zip(said, rows, strict=True))
    assert right / len(rows) == pytest.approx(manifest["exact_match"]["truths"], abs=1e-4)
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]
    with pytest.raises(BadInput, match="exists already"):
        build_from_corpus(edits, folder, TINY, 0, lambda line: None)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [("none.txt", None, "no such file"), ("empty.txt", " \n", "holds no text")],
)
def test_corpora_without_text_are_refused(tmp_path, name, text, message):
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(BadInput, match=message):
        read_corpus(path)
