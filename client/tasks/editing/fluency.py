"""What an edited model writes after a prompt, and whether it still makes sentences.

Greedy, at most 100 tokens, as the released evaluation of Xu et al. (2024) does it; an edit that
breaks a model shows here as text that repeats itself. Knows nothing of edits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch

from wardround.client.tasks.editing.metrics import fluency, mean

WRITTEN_TOKENS = 100


@torch.no_grad()
def write_on(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    during: Callable[[Sequence[str]], AbstractContextManager[None]],
    tokens: int = WRITTEN_TOKENS,
) -> list[str]:
    """What the model writes after each prompt, the prompt left out.

    ``during`` is entered with the prompts of the rows under way, one at a time.
    """
    device = next(model.parameters()).device
    written = []
    for prompt in prompts:
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"].to(device)
        with during([prompt]):
            whole = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=tokens,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
            )
        written.append(tokenizer.decode(whole[0, ids.shape[1] :], skip_special_tokens=True))
    return written


def mean_fluency(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    during: Callable[[Sequence[str]], AbstractContextManager[None]],
) -> float:
    """Mean n-gram entropy of what the model writes after these prompts, in bits."""
    return mean([fluency(text) for text in write_on(model, tokenizer, prompts, during)])
