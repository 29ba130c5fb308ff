"""Pairs of passage and query scored in a second: one at a time, in batches, with kept prompts.

Every contender gives the same scores; they differ in how often a passage is read and in how many
places the vocabulary's softmax is taken. Knows nothing of training.
"""

from __future__ import annotations

import gc
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from wardround.client.models import load_base
from wardround.client.tasks.draws import Draws
from wardround.client.tasks.ranking.cached import score_pairs
from wardround.client.tasks.ranking.likelihood import mean_log_likelihood, query_logits
from wardround.client.tasks.ranking.rows import Row, encode, pad, pad_token_id
from wardround.client.tasks.ranking.world import RankingWorld

MAX_LENGTH, MAX_QUERY, ROWS = 256, 32, 16
Scorer = Callable[[nn.Module, Sequence[Row], int], list[float]]


@torch.no_grad()
def one_at_a_time(model: nn.Module, pairs: Sequence[Row], filler: int) -> list[float]:
    """The naive loop: a forward pass a pair, logits at every place."""
    found = []
    for prompt, query in pairs:
        ids = torch.tensor([[*prompt, *query]])
        logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
        found.append(-float(functional.cross_entropy(logits.float(), torch.tensor(query))))
    return found


@torch.no_grad()
def in_batches(model: nn.Module, pairs: Sequence[Row], filler: int) -> list[float]:
    """Whole rows in batches, as in training; no prompt is kept."""
    found: list[float] = []
    for start in range(0, len(pairs), ROWS):
        inputs = pad(pairs[start : start + ROWS], filler)
        found += mean_log_likelihood(query_logits(model, inputs), inputs["labels"]).tolist()
    return found


CONTENDERS: dict[str, Scorer] = {
    "one_at_a_time": one_at_a_time,
    "in_batches": in_batches,
    "wardround": score_pairs,
}


def ranking_benchmark(
    candidates: int = 50,
    queries: int = 4,
    passage_words: Sequence[int] = (10, 60),
    repeats: int = 5,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Pairs a second and ratios, in four workloads.

    ``own_lists``: every query has candidates of its own, so each passage is read for one query.
    ``shared_list``: all queries are asked of the same candidates, as in a patient's chart. Both
    with passages as short as the generated notes, and with long ones.

    Args:
        candidates: Of each query.
        queries: In one timed turn.
        passage_words: Words in a passage, by workload; notes are joined to have so many.
        repeats: Timed turns after one that is not timed; contenders take turns.
        say: Told what is being timed.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        base = load_base("notes")
        filler = pad_token_id(base.tokenizer)
        found = {}
        for words in passage_words:
            for name, shared in (("own_lists", False), ("shared_list", True)):
                say(f"{name}, {words} words: {repeats} turns of {len(CONTENDERS)} contenders")
                pairs = _pairs(base.tokenizer, candidates, queries, words, shared)
                found[f"{name}_{words}_words"] = _timed(base.model, pairs, filler, repeats)
    finally:
        torch.set_num_threads(before)
    return {
        "settings": {
            "candidates": candidates,
            "queries": queries,
            "repeats": repeats,
            "base": "notes",
            "threads": 1,
            "cores": os.cpu_count(),
            "load_average": [round(load, 2) for load in os.getloadavg()],
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        **found,
    }


def _pairs(tokenizer: Any, candidates: int, queries: int, words: int, shared: bool) -> list[Row]:
    """Rows of a workload, a query's candidates one after the other."""
    world, draws = RankingWorld(), Draws(0, "bench/ranking")

    def passage() -> str:
        text: list[str] = []
        while len(text) < words:
            text += world.note(draws.choice(world.pairs), draws).text.split()
        return " ".join(text[:words])

    chart = [passage() for _ in range(candidates)]
    rows = []
    for _ in range(queries):
        question = world.question(draws.choice(world.pairs), draws, public=False)
        passages = chart if shared else [passage() for _ in range(candidates)]
        rows += [encode(tokenizer, text, question, MAX_LENGTH, MAX_QUERY) for text in passages]
    return rows


def _timed(model: nn.Module, pairs: Sequence[Row], filler: int, repeats: int) -> dict[str, Any]:
    """Processor seconds of each contender, by turns; and how far their scores differ."""
    seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    scores: dict[str, list[float]] = {}
    for turn in range(-1, repeats):
        for name, contender in CONTENDERS.items():
            gc.collect()
            started = time.process_time()
            scores[name] = contender(model, pairs, filler)
            if turn >= 0:
                seconds[name].append(time.process_time() - started)
    middle = {name: statistics.median(spent) for name, spent in seconds.items()}
    naive = scores["one_at_a_time"]
    return {
        "pairs": len(pairs),
        "tokens_a_pair": round(sum(len(p) + len(q) for p, q in pairs) / len(pairs), 1),
        "pairs_per_second": {name: round(len(pairs) / spent, 1) for name, spent in middle.items()},
        "times_faster": {
            name: round(middle["one_at_a_time"] / middle[name], 2)
            for name in ("in_batches", "wardround")
        },
        "largest_difference_of_scores": max(
            abs(a - b) for name in scores for a, b in zip(naive, scores[name], strict=True)
        ),
    }
