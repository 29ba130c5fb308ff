"""Parsers of hospitals' records and of tasks' settings: rows for every registered task."""

from __future__ import annotations

import io
import json
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from wardround.client.tasks.cocoop.formats import split_names
from wardround.client.tasks.ranking.adapting import read_pairs
from wardround.client.tasks.ranking.trec import read_qrels, read_run
from wardround.client.tasks.registry import find_task
from wardround.client.tasks.spectron.audio import encode
from wardround.privacy.envelope import parse_document

parsers = sys.modules["fuzz_parsers"]
Kind, Parser, in_file = parsers.Kind, parsers.Parser, parsers.in_file


def lines(items: Iterable[object]) -> bytes:
    """JSON lines."""
    return "".join(json.dumps(item) + "\n" for item in items).encode()


def png() -> bytes:
    """A small picture."""
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (200, 10, 10)).save(buffer, "PNG")
    return buffer.getvalue()


VARIABLES = [{"name": "age", "centre": 50.0, "scale": 15.0}, {"name": "dose", "scale": 2.0}]
AGENDAS = [
    {"id": "a", "candidates": ["Rest", "Tea", "Honey"]},
    {"id": "b", "candidates": ["Yes", "No"]},
]
CONFIGS: dict[str, dict[str, Any]] = {
    "abs_lingam": {"variable": VARIABLES, "generated": {"records_per_hospital": 40, "edges": 1}},
    "ballots": {"agenda": AGENDAS, "generated": {"clinicians_per_hospital": 4}},
    "cocoop": {"names": ["red disc", "blue ring"], "shots": 2},
    "dro": {"anchors": {"folder": "a", "sha256": "0" * 64}, "generated": {"records": 12}},
    "editing": {"max_length": 64, "generated": {"records_per_hospital": 60, "weak_support": 4}},
    "pacit": {"max_length": 224, "weights": {"verdict": 2.0}, "generated": {"instances": 2}},
    "preference": {"method": "filtered-cloning", "generated": {"records_per_hospital": 20}},
    "pwiser": {
        "layout": "custom", "max_rows": 6,
        "columns": {
            "session": "session", "patient": "patient", "click": "click",
            "conversion": "conversion", "categorical": {"ward": 3}, "numerical": ["length"],
        },
    },
    "ranking": {"max_length": 64, "measures": ["nDCG@10"], "generated": {"probes": 4}},
    "spectron": {"limits": {"tokens": 4}, "generated": {"questions": 2, "probes": 1}},
    "reward": {"generated": {"records_per_hospital": 20, "probes": 4}},
}  # fmt: skip

PAIRS = lines(
    [
        {"id": "1", "clinician": "c", "prompt": "x", "chosen": "a", "rejected": "b"},
        {"id": "2", "clinician": "d", "prompt": [{"role": "user", "content": "x"}],
         "chosen": [{"role": "assistant", "content": "a"}], "rejected": "b",
         "ref_chosen_logps": -1.5, "ref_rejected_logps": -2},
    ]
)  # fmt: skip
RATED = lines(
    [
        {"prompt": "x", "replies": ["a", "b", "c"], "ratings": [1, 0.5, 0]},
        {"prompt": "y", "replies": ["a", "b"], "ranking": [1, 0], "reference_logps": [-1, -2]},
        {"chosen": "\n\nHuman: x\n\nAssistant: a", "rejected": "\n\nHuman: x\n\nAssistant: b"},
        {"prompt": "z", "completion": "a", "label": True},
    ]
)
QUERIES = lines(
    [
        {"id": "1", "query": "x", "label": "harmful", "good": "a", "bad": "b", "patient": "p"},
        {"id": "2", "query": "y", "label": "harmless", "patient": "q"},
    ]
)
WAVE = b64encode(encode(np.zeros(1200, np.float32))).decode()
EXCHANGES = lines(
    [
        {"id": "1", "speaker": "s", "patient": "p", "question": "a", "answer": "b",
         "question_data": WAVE, "answer_audio": "a.wav"},
        {"speaker": "s", "data": WAVE, "split_s": 0.05, "prompt_text": "a",
         "continuation_text": "b"},
    ]
)  # fmt: skip
EDITS = [
    {"id": "r1", "patient": "p", "prompt": "What is Bato for?", "subject": "Bato",
     "target_new": "a cough", "ground_truth": "fever", "paraphrases": ["Bato?"],
     "rephrase_prompt": "Bato is for", "support": "weak",
     "locality": {"textual": {"prompt": ["Kiro?"], "ground_truth": ["x"]}}},
    {"id": "r2", "patient": "q", "prompt": "Sofa binds", "subject": "Sofa", "target_new": "no",
     "locality_topic_prompt": "Lu", "locality_topic_ground_truth": "y", "case_id": 7},
]  # fmt: skip
TASK = {
    "Task": "drug", "Definition": ["Write the drug"], "Categories": ["x"],
    "Positive Examples": [{"input": "Bato 5 mg", "output": "Bato", "explanation": ""}],
    "Negative Examples": [{"input": "Lu", "output": "no", "source": "synthetic"}],
    "Exemplar Source": "synthetic",
    "Instances": [{"id": "1", "input": "y", "output": ["z"], "patient": "p"}],
}  # fmt: skip
OTHER_TASK = {**TASK, "Task": "other", "Instances": [{"input": "y", "output": "z", "patient": "p"}]}
LISTS = lines(
    [
        {"query_id": "q1", "query": "x", "patient": "p",
         "positive_passages": [{"docid": "a", "title": "t", "text": "u", "score": 0.5}],
         "negative_passages": [{"docid": "b", "text": "v", "grade": 0, "patient": "p"}],
         "missed": {"c": 2}},
        {"id": 3, "query": "y", "pos": ["a"], "neg": ["b", "c"], "pos_scores": [1.0]},
    ]
)  # fmt: skip
PASSAGES = lines(
    [
        {"qid": "1", "pid": "a", "query": "x", "passage": "u"},
        {"qid": "1", "pid": "b", "query": "x", "passage": "v"},
    ]
)
BALLOTS = lines(
    [
        {"id": "1", "agenda": "a", "clinician": "k", "ranking": [[2], [0, 1]]},
        {"agenda": "b", "clinician": "l", "ranking": [0, 1]},
    ]
)
PICTURES = lines(
    [
        {"id": "1", "name": "red_disc", "patient": "p", "data": b64encode(png()).decode()},
        {"id": "2", "name": "blue ring", "patient": "q", "image": "a.png"},
    ]
)
SPLIT = {"train": [["a.png", 0, "red_disc"]], "val": [], "test": [["a.png", 1, "blue_ring"]]}
LOG = (
    b"session,patient,ward,length,click,conversion\n"
    b"s1,p,1,0.5,1,0\ns1,p,2,0.25,0,0\ns2,q,0,-1.5,1,1\n"
)
# Name of the format, its task, how it is written, the file's name, and valid documents.
FORMATS: tuple[tuple[str, str, Any, str, Sequence[bytes]], ...] = (
    ("rows", "abs_lingam", Kind.CSV, "r.csv",
     (b"id,patient,age,dose\na,p,60,1.5\nb,q,50,0\n", b'dose,note,age\n1,"x, y",2\n')),
    ("ballots", "ballots", Kind.LINES, "r.jsonl", (BALLOTS,)),
    ("pictures", "cocoop", Kind.LINES, "r.jsonl", (PICTURES,)),
    ("split of pictures", "cocoop", Kind.JSON, "r.json", (json.dumps(SPLIT).encode(),)),
    ("queries", "dro", Kind.LINES, "r.jsonl", (QUERIES,)),
    ("edits", "editing", Kind.LINES, "r.jsonl", (lines(EDITS),)),
    ("list of edits", "editing", Kind.JSON, "r.json", (json.dumps(EDITS, indent=1).encode(),)),
    ("tasks", "pacit", Kind.LINES, "r.jsonl", (lines([TASK, OTHER_TASK]),)),
    ("task", "pacit", Kind.JSON, "r.json", (json.dumps(TASK, indent=1).encode(),)),
    ("preferences", "preference", Kind.LINES, "r.jsonl", (PAIRS, RATED)),
    ("click log", "pwiser", Kind.CSV, "r.csv", (LOG,)),
    ("lists", "ranking", Kind.LINES, "r.jsonl", (LISTS, PASSAGES)),
    ("exchanges", "spectron", Kind.LINES, "r.jsonl", (EXCHANGES,)),
    ("judged replies", "reward", Kind.LINES, "r.jsonl", (PAIRS, *RATED.splitlines()[:3])),
)  # fmt: skip


def read_records(data: bytes, folder: Path, task: str, name: str) -> object:
    """What a hospital does with its file; a picture and a wave beside it."""
    (folder / "a.png").write_bytes(png())
    (folder / "a.wav").write_bytes(b64decode(WAVE))
    (folder / name).write_bytes(data)
    return find_task(task).load(folder / name, CONFIGS[task])


def read_config(data: bytes, _: Path, task: str) -> object:
    """What a custodian does with a plan's ``task_config``."""
    return find_task(task).check(parse_document(data, "task_config"))


def _fixed(*documents: bytes) -> Callable[[Path], Sequence[bytes]]:
    return lambda _: documents


PARSERS = (
    *(
        Parser(
            f"{task} {name}",
            kind,
            _fixed(*documents),
            partial(read_records, task=task, name=file),
            task=task,
            private=True,
        )
        for name, task, kind, file, documents in FORMATS
    ),
    *(
        Parser(
            f"{task} settings",
            Kind.JSON,
            _fixed(json.dumps(config).encode()),
            partial(read_config, task=task),
        )
        for task, config in CONFIGS.items()
    ),
    Parser(
        "picture",
        Kind.BYTES,
        _fixed(png()),
        lambda data, folder: read_records(
            lines([{"name": "red disc", "data": b64encode(data).decode()}]),
            folder, "cocoop", "r.jsonl",
        ),
        private=True,
    ),
    Parser(
        "wave",
        Kind.BYTES,
        _fixed(b64decode(WAVE)),
        lambda data, folder: read_records(
            lines([{"speaker": "s", "question": "a", "answer": "b", "answer_data": WAVE,
                    "question_data": b64encode(data).decode()}]),
            folder, "spectron", "r.jsonl",
        ),
        private=True,
    ),
    Parser(
        "names of a split",
        Kind.JSON,
        _fixed(json.dumps(SPLIT).encode()),
        in_file("r.json", split_names),
    ),
    Parser(
        "qrels",
        Kind.BYTES,
        _fixed(b"q1 0 a 1\nq1 0 b 0\n"),
        in_file("qrels", read_qrels),
        private=True,
    ),
    Parser(
        "run of a search",
        Kind.BYTES,
        _fixed(b"q1 Q0 a 1 0.5 x\n"),
        in_file("run", read_run),
        private=True,
    ),
    Parser(
        "pairs to adapt with",
        Kind.LINES,
        _fixed(lines([{"query": "x", "passage": "u"}])),
        in_file("pairs.jsonl", read_pairs),
        private=True,
    ),
)  # fmt: skip
