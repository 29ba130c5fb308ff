"""Stage 1 as a command: a base, a file of public weak pairs, and a new base for studies to name.

``python -m wardround.client.tasks.ranking.adapting --base BASE --pairs FILE --to FOLDER`` trains
every parameter and prints the hash that ``study.toml`` and policies name. Files: TSARankLLM's
(``query`` holds the prompt, ``response`` the query), or ``passage`` and ``query``, or lists, of
which the relevant passages are taken. Privacy: none; pairs must be public.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from wardround.client.bases.making import save_base
from wardround.client.models import load_base
from wardround.client.tasks.lines import json_lines
from wardround.client.tasks.ranking.formats import read_lists
from wardround.client.tasks.ranking.rows import encode, pad_token_id
from wardround.client.tasks.ranking.stage_one import StageOne, pretrain
from wardround.privacy.errors import BadInput, WardroundError

OPENING, CLOSING = "Document: ", " Query:"
PAIR_FIELDS = ({"query", "response"}, {"passage", "query"})


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """Passages and queries of a file.

    Raises:
        BadInput: Naming file, line and field.
    """
    first = next(json_lines(path), None)
    if first is None:
        raise BadInput(f"{path}: holds no pairs")
    if not isinstance(first[1], dict) or set(first[1]) not in PAIR_FIELDS:
        return [
            (candidate.text, record.content.text)
            for record in read_lists(path)
            for candidate in record.content.candidates
            if (candidate.grade or 0) > 0
        ]
    return [_pair(item, f"{path}:{line}") for line, item in json_lines(path)]


def adapt_base(
    base: str,
    pairs: Path,
    to: Path,
    settings: StageOne,
    max_length: int = 512,
    max_query: int = 64,
    seed: int = 0,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Run stage 1 and write the new base; returns its manifest.

    Args:
        base: An embedded base, a folder or a hub name.
        pairs: Public weak pairs.
        to: The new base's folder, which must not exist.
        settings: Steps, rate, batch.
        max_length: Tokens of prompt and query together.
        max_query: Tokens of a query.
        seed: Public; the order of the pairs.
        tell: Told the loss now and then.

    Raises:
        BadInput: Base or pairs cannot be read, or ``to`` is taken.
    """
    if to.exists() or not to.absolute().parent.is_dir():
        raise BadInput(f"--to {to}: must not exist, in a folder that does")
    texts = read_pairs(pairs)
    if not texts:
        raise BadInput(f"{pairs}: no list has a relevant passage")
    loaded = load_base(base)
    model = copy.deepcopy(loaded.model).requires_grad_(True)
    tokenizer = loaded.tokenizer
    rows = [encode(tokenizer, passage, query, max_length, max_query) for passage, query in texts]
    generator = torch.Generator().manual_seed(seed)
    pretrain(model, rows, settings, pad_token_id(tokenizer), generator, tell)
    facts = {"made_by": "stage 1 of ranking", "from": loaded.source, "from_sha256": loaded.sha256,
             "pairs": len(texts), "steps": settings.steps}  # fmt: skip
    return save_base(model, tokenizer, to, facts)


def _pair(item: object, where: str) -> tuple[str, str]:
    """Passage and query of one line."""
    if not isinstance(item, dict) or set(item) not in PAIR_FIELDS:
        raise BadInput(f"{where}: expected fields query and response, or passage and query")
    if not all(isinstance(value, str) and value.strip() for value in item.values()):
        raise BadInput(f"{where}: a field is empty or not text")
    if "passage" in item:
        return item["passage"].strip(), item["query"].strip()
    # The released files put the whole prompt into "query"; its frame is added again later.
    prompt = item["query"].strip().removeprefix(OPENING).removesuffix(CLOSING)
    return prompt.strip(), item["response"].strip()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from a command line."""
    parser = argparse.ArgumentParser(description="Stage 1 of ranking, on public weak pairs.")
    parser.add_argument("--base", required=True, help="an embedded base, a folder or a hub name")
    parser.add_argument("--pairs", required=True, type=Path, help="JSON lines, public")
    parser.add_argument("--to", required=True, type=Path, help="the new base's folder")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=256, help="pairs a step")
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--max-length", type=int, default=512)
    chosen = parser.parse_args(arguments)
    try:
        settings = StageOne(chosen.steps, chosen.learning_rate, chosen.batch)
        manifest = adapt_base(
            chosen.base,
            chosen.pairs,
            chosen.to,
            settings,
            chosen.max_length,
            tell=lambda line: print(line, file=sys.stderr),
        )
    except (WardroundError, ValueError) as error:
        print(f"adapting: {error}", file=sys.stderr)
        sys.exit(getattr(error, "exit_code", BadInput.exit_code))
    print(json.dumps(manifest, indent=2))


if __name__ == "__main__":
    main()
