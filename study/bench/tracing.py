"""How fast facts are traced, beside the plain loop of the reference code.

The plain loop runs the whole model once for every restored token, layer and kind, with the clean
run as row 0 and the noise samples after it, as Meng et al. (2022) released it. It shares nothing
with ``client.tasks.editing.tracing`` but the names of the parts, so it is the test's oracle too.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from wardround.client.models import load_base
from wardround.client.tasks.editing.anatomy import Anatomy, Kind, find_anatomy
from wardround.client.tasks.editing.subjects import place_subject
from wardround.client.tasks.editing.tracing import Rows, TraceConfig, subject_sigma, trace
from wardround.client.tasks.editing.world import World


@torch.no_grad()
def plain_trace(
    anatomy: Anatomy,
    ids: Sequence[int],
    subject: Sequence[int],
    tokens: Sequence[int],
    config: TraceConfig,
    sigma: float,
) -> dict[Kind, Tensor]:
    """Restored probabilities, shape ``(tokens, layers)`` by kind, one forward pass for each."""
    embed: Any = anatomy.model
    embed = embed.get_input_embeddings()
    batch = torch.tensor([list(ids)] * (config.samples + 1), device=embed.weight.device)
    generator = torch.Generator().manual_seed(config.seed)
    shape = (config.samples, len(subject), embed.weight.shape[1])
    noise = torch.randn(shape, generator=generator).to(embed.weight) * config.noise_factor * sigma

    def blur(module: nn.Module, args: object, output: Tensor) -> Tensor:
        blurred = output.clone()
        blurred[1:, subject[0] : subject[-1] + 1] += noise
        return blurred

    def run() -> Tensor:
        logits: Tensor = anatomy.model(input_ids=batch, use_cache=False).logits[:, -1]
        return logits.softmax(-1)

    handle = embed.register_forward_hook(blur)
    try:
        answer = int(run()[0].argmax())
        depth = len(anatomy.blocks)
        found = {kind: torch.zeros(len(tokens), depth) for kind in Kind}
        for kind in Kind:
            for row, token in enumerate(tokens):
                for layer in range(depth):
                    hooks = [
                        anatomy.part(kind, number).register_forward_hook(_restore(token))
                        for number in config.layers(layer, depth)
                    ]
                    found[kind][row, layer] = run()[1:, answer].mean()
                    for hook in hooks:
                        hook.remove()
        return found
    finally:
        handle.remove()


def _restore(token: int) -> Callable[[nn.Module, object, Any], Any]:
    """A hook that gives all rows the clean row's output at one token."""

    def patch(module: nn.Module, args: object, output: Any) -> Any:
        whole = (output[0] if isinstance(output, tuple) else output).clone()
        whole[1:, token] = whole[0, token]
        return (whole, *output[1:]) if isinstance(output, tuple) else whole

    return patch


def tracing_benchmark(facts: int, say: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Facts a second of both ways by processor time, one thread, taking turns, medians."""
    base = load_base("drugs")
    anatomy = find_anatomy(base.model)
    config = TraceConfig(rows=Rows.SUBJECT_AND_LAST)
    world = World().facts
    chosen = [world[place * len(world) // facts] for place in range(facts)]
    sigma = subject_sigma(base.model)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    seconds: dict[str, list[float]] = {"batched": [], "plain": []}
    furthest = 0.0
    try:
        for number, fact in enumerate(chosen):
            ids, at = place_subject(base.tokenizer, fact.prompt(number % 4), fact.drug)
            started = time.process_time()
            found = trace(anatomy, ids, at, config, sigma)
            between = time.process_time()
            plain = plain_trace(anatomy, ids, at, found.tokens, config, sigma)
            seconds["batched"].append(between - started)
            seconds["plain"].append(time.process_time() - between)
            gap = max(float((found.restored[kind] - plain[kind]).abs().max()) for kind in Kind)
            furthest = max(furthest, gap)
            say(f"{number + 1} of {facts} facts traced both ways")
    finally:
        torch.set_num_threads(threads)
    speed = {name: 1 / statistics.median(times[1:] or times) for name, times in seconds.items()}
    return {
        "facts_per_second": {name: round(value, 2) for name, value in speed.items()},
        "speed_up": round(speed["batched"] / speed["plain"], 2),
        "largest_difference": furthest,
        "settings": {"facts": facts, "samples": config.samples, "rows": config.rows.value},
    }
