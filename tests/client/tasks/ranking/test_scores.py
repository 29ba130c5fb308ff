"""The score is the mean log-probability of the query's tokens, however it is computed."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import BloomConfig, BloomForCausalLM, GPT2Config, GPT2LMHeadModel

from wardround.client.models import load_base
from wardround.client.tasks.ranking import cached
from wardround.client.tasks.ranking.cached import score_pairs
from wardround.client.tasks.ranking.config import RankingConfig
from wardround.client.tasks.ranking.likelihood import mean_log_likelihood, query_logits
from wardround.client.tasks.ranking.rows import encode, encode_passage, pad, pad_token_id
from wardround.client.tasks.ranking.task import score_texts

PASSAGES = ("Bato coughs.", "Kirume sleeps well, and has done so for many days now.", "x")
QUERIES = ("Who coughs?", "y", "Has Kirume slept at all, or been awake?")
# float64, but BLOOM takes the softmax of its attention in float32.
TOLERANCE = 1e-7
PAIRS = [(passage, query) for passage in PASSAGES for query in QUERIES]


def _other_families():
    """Learnt positions, and none but a bias on attention: what position ids must not break."""
    gpt2 = GPT2Config(vocab_size=800, n_positions=128, n_embd=16, n_layer=2, n_head=2,
                      resid_pdrop=0, embd_pdrop=0, attn_pdrop=0)  # fmt: skip
    bloom = BloomConfig(vocab_size=800, hidden_size=16, n_layer=2, n_head=2)
    return {"gpt2": lambda: GPT2LMHeadModel(gpt2), "bloom": lambda: BloomForCausalLM(bloom)}


@pytest.fixture(params=["llama", "gpt2", "bloom"])
def model(request, case):
    if request.param == "llama":
        return case("ranking").model()
    with torch.random.fork_rng(devices=[]):
        made = _other_families()[request.param]().double().eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
    return made.requires_grad_(False)


def _rows(case, pairs=PAIRS):
    return [encode(case("ranking").tokenizer, p, q, 96, 24) for p, q in pairs]


def _by_hand(model, row):
    """The oracle: one token at a time, log-softmax by its definition."""
    prompt, query = row
    total = 0.0
    for place, token in enumerate(query):
        ids = torch.tensor([[*prompt, *query[:place]]])
        logits = model(input_ids=ids, use_cache=False).logits[0, -1].tolist()
        top = max(logits)
        total += logits[token] - top - math.log(sum(math.exp(x - top) for x in logits))
    return total / len(query)


def test_scores_are_those_of_a_loop_over_tokens(model, case):
    rows = _rows(case)
    wanted = [_by_hand(model, row) for row in rows]
    inputs = pad(rows, 0)
    together = mean_log_likelihood(query_logits(model, inputs), inputs["labels"])
    assert together.tolist() == pytest.approx(wanted, abs=TOLERANCE)
    assert score_pairs(model, rows, 0) == pytest.approx(wanted, abs=TOLERANCE)


@pytest.mark.parametrize("tokens_per_pass", [1, 60, 1536])
def test_kept_prompts_change_nothing(model, case, tokens_per_pass):
    rows = _rows(case)
    alone = [score for row in rows for score in score_pairs(model, [row], 0)]
    assert score_pairs(model, rows, 0, tokens_per_pass) == pytest.approx(alone, abs=TOLERANCE)


@pytest.mark.parametrize("name", ["drugs", "notes"])
def test_shipped_bases_score_the_same_with_and_without_a_kept_prompt(name):
    base = load_base(name)
    config = RankingConfig(max_length=128)
    together = score_texts(base.model, base.tokenizer, PAIRS, config)
    alone = [
        score for pair in PAIRS for score in score_texts(base.model, base.tokenizer, [pair], config)
    ]
    assert together == pytest.approx(alone, abs=2e-5)  # float32 logits of size 10


@pytest.mark.parametrize(
    ("pairs", "prompts"),
    [
        ([(PASSAGES[1], query) for query in QUERIES], 1),  # many queries, one passage
        ([(p, q) for q in QUERIES[:2] for p in PASSAGES], 3),  # many passages, two queries
    ],
)
def test_each_passage_is_read_once(case, pairs, prompts, monkeypatch):
    read = []
    real = cached.prompt_block
    monkeypatch.setattr(cached, "prompt_block", lambda p, f: read.append(len(p)) or real(p, f))
    score_pairs(case("ranking").model(), _rows(case, pairs), 0)
    assert sum(read) == prompts


def test_prompt_is_the_published_one(case):
    tokenizer = case("ranking").tokenizer
    ids, query = encode(tokenizer, "Bato coughs.", "Who?", 96, 24)
    assert tokenizer.decode(ids) == "<bos>Document: Bato coughs. Query:"
    assert tokenizer.decode(query) == "Who?"


def test_long_passage_loses_its_end_and_keeps_the_frame(case):
    tokenizer = case("ranking").tokenizer
    long = " ".join(["word"] * 200)
    ids, query = encode(tokenizer, long, "why " * 50, 64, 20)
    assert (len(ids), len(query)) == (44, 20)
    whole = tokenizer(f"Document: {long} Query:")["input_ids"]
    closing = len(whole) - len(tokenizer(f"Document: {long}")["input_ids"])
    assert list(ids) == whole[: 44 - closing] + whole[-closing:]
    assert tokenizer.decode(ids).endswith(" Query:")
    assert encode_passage(tokenizer, "short", 64) == tuple(
        tokenizer("Document: short Query:").input_ids
    )


def test_tokenizer_without_padding_token_still_pads(case):
    class Bare:
        pad_token_id = None
        eos_token_id = None

    assert pad_token_id(Bare()) == 0
    assert pad_token_id(case("ranking").tokenizer) == 0
