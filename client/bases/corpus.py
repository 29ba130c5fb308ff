"""A small base that knows what a public file says: an editing file's old answers, or plain text.

Editing real facts shows little on a model that never knew the old ones, so this trains one that
does: on every question of a MedCF, MedFE or EasyEdit file with the answer that is true before the
edit, rephrasings and locality probes included, or on the lines of a text file. Tokenizer and model
are made as the shipped base is. Nothing is private: the file must be public.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from wardround.client.bases.build import Recipe, exact_match, train
from wardround.client.bases.making import (
    MAX_LENGTH,
    byte_level_tokenizer,
    new_llama,
    save_base,
)
from wardround.client.tasks.editing.formats import read_edits
from wardround.client.tasks.editing.records import Edit
from wardround.client.tasks.editing.splits import hold_out
from wardround.client.tasks.rows import encode
from wardround.privacy.errors import BadInput

EDIT_SUFFIXES = (".json", ".jsonl")


@dataclass(frozen=True)
class Corpus:
    """What a base is to know.

    Attributes:
        truths: Questions about facts that edits will change, with the answers before.
        others: Other questions with their answers; plain text has an empty question.
    """

    truths: tuple[tuple[str, str], ...]
    others: tuple[tuple[str, str], ...]


def read_corpus(path: Path, limit: int = 0) -> Corpus:
    """The corpus in a file: corrections by their ending, else one text a line.

    Args:
        path: A public file.
        limit: At most this many corrections or lines; 0 takes all.

    Raises:
        BadInput: The file cannot be read, or says nothing to learn.
    """
    found = _edits(path, limit) if path.suffix in EDIT_SUFFIXES else _lines(path, limit)
    if not found.truths and not found.others:
        raise BadInput(f"{path}: holds no text and no question with an answer")
    return found


def _edits(path: Path, limit: int) -> Corpus:
    """Questions and true answers; corrections that clash with others are held out as in a study.

    A question asked twice keeps its first answer, and one about a corrected fact comes first.
    """
    kept, _ = hold_out(read_edits(path))
    edits: list[Edit] = [record.content for record in (kept[:limit] if limit else kept)]
    truths: dict[str, str] = {}
    for edit in edits:
        for prompt in edit.wordings:
            if edit.ground_truth:
                truths.setdefault(prompt, edit.ground_truth)
    others: dict[str, str] = {}
    for edit in edits:
        for probes in edit.locality.values():
            for probe in probes:
                if probe.prompt not in truths:
                    others.setdefault(probe.prompt, probe.answer)
    return Corpus(tuple(truths.items()), tuple(others.items()))


def _lines(path: Path, limit: int) -> Corpus:
    """The lines of a text file that are not blank."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise BadInput(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read ({error})") from error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return Corpus((), tuple(("", line) for line in (lines[:limit] if limit else lines)))


def build_from_corpus(
    path: Path, folder: Path, recipe: Recipe, limit: int, tell: Callable[[str], None]
) -> dict[str, Any]:
    """Train a base on a corpus and write it to ``folder``, which must not exist.

    Returns:
        The manifest, also written beside the weights: hash, size, and what the base knows.

    Raises:
        BadInput: The corpus cannot be used, or the folder exists.
    """
    if folder.exists():
        raise BadInput(f"{folder}: exists already; name a folder that does not")
    corpus = read_corpus(path, limit)
    began = time.monotonic()
    generator = torch.Generator().manual_seed(recipe.seed)
    pairs = [*corpus.truths, *corpus.others]
    texts = [f"{q} {a}".strip() for q, a in pairs]
    tokenizer = byte_level_tokenizer(texts, recipe.vocabulary)
    model: Any = new_llama(recipe.shape, tokenizer, generator)
    truths = [encode(tokenizer, q, a, MAX_LENGTH) for q, a in corpus.truths]
    others = [encode(tokenizer, q, a, MAX_LENGTH) for q, a in corpus.others]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    tell(f"{len(truths) + len(others)} sentences, {parameters} parameters")
    train(recipe, model, [*truths, *others], tokenizer.pad_token_id, generator, tell)
    facts = {
        "made_by": "wardround base train",
        "corpus_sha256": sha256(path.read_bytes()).hexdigest(),
        "steps": recipe.steps,
        "sentences": {"truths": len(truths), "others": len(others)},
        "exact_match": {
            name: round(exact_match(model, rows, tokenizer.pad_token_id), 4)
            for name, rows in (("truths", truths), ("others", others))
            if rows
        },
        "seconds": round(time.monotonic() - began, 1),
    }
    return save_base(model, tokenizer, folder, facts)
