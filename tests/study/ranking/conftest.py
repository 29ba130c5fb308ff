"""The ranking example cut down to seconds, and a BEIR folder to deal out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SMALL = {
    "rounds = 3": "rounds = 1",
    "count = 4": "count = 2",
    "epsilon = 8.0 ": "noise_multiplier = 1.0 ",
    "sampling_rate = 0.0625": "sampling_rate = 0.5",
    "steps_per_round = 6": "steps_per_round = 1",
    "records_per_hospital = 1000": "records_per_hospital = 8",
    "probes = 150": "probes = 6",
}
TOPICS = ("cough", "fever", "rash", "thirst", "pain", "sleep", "hunger", "cold")


@pytest.fixture
def ranking_study(tmp_path: Path) -> Path:
    """The example: 2 hospitals of 8 records, 1 round of 1 step."""
    example = ROOT / "examples" / "ranking"
    text = (example / "study.toml").read_text(encoding="utf-8")
    policy = (example / "policy.toml").read_text(encoding="utf-8")
    for old, new in SMALL.items():
        assert old in text, f"the example no longer says {old!r}"
        text = text.replace(old, new)
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / "study.toml").write_text(text, encoding="utf-8")
    low = policy.replace("min_units = 50", "min_units = 3").replace(
        "epsilon = 8.0", "epsilon = 99.0"
    )
    (folder / "policy.toml").write_text(low, encoding="utf-8")
    return folder / "study.toml"


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    """Sixteen passages and eight queries, six to learn from and two to evaluate on."""
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    corpus = [
        {"_id": f"d{n}-{side}", "title": topic, "text": f"treated on the {side} side"}
        for n, topic in enumerate(TOPICS)
        for side in ("left", "right")
    ]
    queries = [{"_id": f"q{n}", "text": f"{topic} left"} for n, topic in enumerate(TOPICS)]
    for name, items in (("corpus", corpus), ("queries", queries)):
        text = "".join(json.dumps(item) + "\n" for item in items)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    for split, numbers in (("train", range(6)), ("test", (6, 7))):
        rows = [f"q{n}\td{n}-left\t1" for n in numbers]
        text = "\n".join(["query-id\tcorpus-id\tscore", *rows]) + "\n"
        (folder / "qrels" / f"{split}.tsv").write_text(text, encoding="utf-8")
    return folder
