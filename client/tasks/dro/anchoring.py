"""Anchors from queries that may be looked at: principal directions of states, and two probes.

States are those of every query without a prompt and under each prompt of words. The refusal probe
is fitted to how often a query is answered in a condition, the other to its label, both by
cross-entropy on soft targets. ``python -m wardround.client.tasks.dro.anchoring`` does it for a base
and a public file. Source: Zheng et al. (2024), section 4.1 and released ``estimate.py``; probes are
fitted to convergence with a little weight decay, not stopped early over ten folds.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from wardround.client.models import load_base
from wardround.client.tasks.dro.anchors import COMPONENTS, Anchors, save_anchors
from wardround.client.tasks.dro.formats import read_queries
from wardround.client.tasks.dro.frame import (
    Framing,
    Ids,
    template_sha256,
    with_text,
    without_prompt,
)
from wardround.client.tasks.dro.records import Query
from wardround.client.tasks.dro.refusals import refuses
from wardround.client.tasks.dro.splice import last_states
from wardround.client.tasks.rows import pad, pad_token_id
from wardround.client.tasks.sampling import continue_rows
from wardround.privacy.errors import BadInput, WardroundError

ROWS_PER_PASS = 128
DECAY = 1e-4


def fit_anchors(states: Tensor, answered: Tensor, harmless: Tensor, components: int) -> Anchors:
    """Anchors of states.

    Args:
        states: Shape ``(rows, hidden)``.
        answered: How often each row's query was answered, in [0, 1], shape ``(rows,)``.
        harmless: 1 where it is harmless, likewise.
        components: Principal directions.

    Raises:
        ValueError: Fewer rows than directions, or only one kind of query.
    """
    if len(states) <= components:
        raise ValueError(f"{len(states)} states; more than {components} are needed")
    if bool((harmless == harmless[0]).all()):
        raise ValueError("queries are all harmful or all harmless; both kinds are needed")
    states = states.double()
    mean = states.mean(0)
    basis = torch.linalg.svd(states - mean, full_matrices=False).Vh[:components]
    inside = (states - mean) @ basis.T
    probes = [fit_probe(inside, target.double()) for target in (answered, harmless)]
    weights, biases = (torch.stack(parts) for parts in zip(*probes, strict=True))
    return Anchors(mean, basis, weights, biases)


def fit_probe(inputs: Tensor, targets: Tensor, decay: float = DECAY) -> tuple[Tensor, Tensor]:
    """Logistic regression on soft targets: weights and bias, by Newton-like steps to the end.

    Args:
        inputs: Shape ``(rows, width)``, float64.
        targets: In [0, 1], shape ``(rows,)``.
        decay: Of the weights' squares, so that separable classes have an end.
    """
    scale = inputs.std().clamp(min=1e-12)  # one number: directions keep their lengths
    weights = torch.zeros(inputs.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    padded = torch.cat([inputs / scale, inputs.new_ones(len(inputs), 1)], dim=1)
    optimizer = torch.optim.LBFGS(
        [weights], max_iter=500, tolerance_grad=1e-10, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        found = functional.binary_cross_entropy_with_logits(padded @ weights, targets)
        found = found + decay * weights[:-1].square().sum()
        found.backward()  # type: ignore[no-untyped-call]
        return found

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    done = weights.detach()
    return done[:-1] / scale, done[-1]


def conditions(tokenizer: Any, framing: Framing, query: str, prompts: Sequence[str]) -> list[Ids]:
    """A query without a prompt, then under each of these."""
    bare = without_prompt(tokenizer, framing, query)
    return [bare, *(with_text(tokenizer, framing, query, prompt) for prompt in prompts)]


@torch.no_grad()
def states_of(model: nn.Module, tokenizer: Any, rows: Sequence[Ids]) -> Tensor:
    """Top-layer states at the rows' last tokens, shape ``(rows, hidden)``, on the CPU."""
    device, found = next(model.parameters()).device, []
    for start in range(0, len(rows), ROWS_PER_PASS):
        part = [(ids, len(ids)) for ids in rows[start : start + ROWS_PER_PASS]]
        inputs = {name: x.to(device) for name, x in pad(part, pad_token_id(tokenizer)).items()}
        found.append(last_states(model, inputs).cpu())
    return torch.cat(found)


def sample(
    model: nn.Module,
    tokenizer: Any,
    rows: Sequence[Ids],
    samples: int,
    max_tokens: int,
    generator: torch.Generator,
) -> list[list[str]]:
    """So many replies to each row, at temperature 1."""
    repeated = [ids for ids in rows for _ in range(samples)]
    said: list[str] = []
    for start in range(0, len(repeated), ROWS_PER_PASS):
        part = repeated[start : start + ROWS_PER_PASS]
        spoken = continue_rows(model, tokenizer, part, generator, max_tokens, temperature=1.0)
        said += [tokenizer.decode(ids, skip_special_tokens=True) for ids in spoken]
    return [said[start : start + samples] for start in range(0, len(said), samples)]


def anchors_of(
    model: nn.Module,
    tokenizer: Any,
    queries: Sequence[Query],
    prompts: Sequence[str],
    framing: Framing,
    samples: int = 20,
    max_tokens: int = 64,
    seed: int = 0,
) -> Anchors:
    """Anchors of a base on public queries.

    Privacy: none; mean, directions and probes all tell of the queries.
    """
    rows = [ids for query in queries for ids in conditions(tokenizer, framing, query.text, prompts)]
    generator = torch.Generator().manual_seed(seed)
    replies = sample(model, tokenizer, rows, samples, max_tokens, generator)
    answered = [1 - sum(map(refuses, said)) / samples for said in replies]
    harmless = [query.label for query in queries for _ in range(len(prompts) + 1)]
    return fit_anchors(
        states_of(model, tokenizer, rows),
        torch.tensor(answered, dtype=torch.float64),
        torch.tensor(harmless, dtype=torch.float64),
        COMPONENTS,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from a command line."""
    parser = argparse.ArgumentParser(description="Anchors of a base, on public queries.")
    parser.add_argument("--base", required=True, help="an embedded base, a folder or a hub name")
    parser.add_argument("--queries", required=True, type=Path, help="labelled queries, public")
    parser.add_argument("--prompt", required=True, action="append", help="may be given often")
    parser.add_argument("--template", default="", help="the base's own chat template by default")
    parser.add_argument("--role", default="system", help="system or user")
    parser.add_argument("--samples", type=int, default=20, help="replies a query and prompt")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--to", required=True, type=Path, help="a new folder")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.to.exists():
            raise BadInput(f"--to {chosen.to}: exists; nothing is overwritten")
        base = load_base(chosen.base)
        anchors = anchors_of(
            base.model,
            base.tokenizer,
            [record.content for record in read_queries(chosen.queries)],
            chosen.prompt,
            Framing(chosen.template, role=chosen.role),
            chosen.samples,
            chosen.max_tokens,
            chosen.seed,
        )
        told = f"Of `{chosen.queries.name}` to `{base.source}` (sha256 `{base.sha256}`)."
        found = save_anchors(anchors, chosen.to, told)
        template = template_sha256(base.tokenizer)
    except (WardroundError, ValueError) as error:
        print(f"anchoring: {error}", file=sys.stderr)
        sys.exit(getattr(error, "exit_code", BadInput.exit_code))
    print(
        json.dumps(
            {"folder": str(chosen.to), "sha256": found, "template_sha256": template}, indent=2
        )
    )


if __name__ == "__main__":
    main()
