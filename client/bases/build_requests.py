"""Train the embedded base of safeguarding again, and fix its anchors, from generated requests.

``python -m wardround.client.bases.build_requests`` (or ``make bases``) writes
``client/bases/requests``: a Llama with a chat template whose replies refuse at planted rates, too
seldom without a safety prompt and too often under a long one. Beside the task it writes the anchors
of public requests. Nothing is private.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from wardround.client.bases.making import Shape, byte_level_tokenizer, new_llama, save_base
from wardround.client.bases.teaching import Course, teach
from wardround.client.tasks.dro.anchoring import anchors_of
from wardround.client.tasks.dro.anchors import EMBEDDED, save_anchors
from wardround.client.tasks.dro.frame import Framing, with_text, without_prompt
from wardround.client.tasks.dro.generated import RATES, corpus, public_queries
from wardround.client.tasks.rows import Row

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ message['role'].capitalize() + ': ' + message['content'].strip() + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


@dataclass(frozen=True)
class RequestsRecipe:
    """How base and anchors are made; the defaults are the shipped ones.

    Attributes:
        name: Folder of the base, and of the anchors.
        shape: How large the base is.
        vocabulary: Of its tokenizer.
        replies: It learns from.
        course: How it is taught.
        public: Requests that fix the anchors.
        samples: Replies to each of them in each condition.
        seed: Public.
    """

    name: str = "requests"
    shape: Shape = field(default_factory=lambda: Shape(hidden=64, layers=2, heads=4, mlp=128))
    vocabulary: int = 480
    replies: int = 16000
    course: Course = field(default_factory=lambda: Course(steps=600, batch=64))
    public: int = 96
    samples: int = 20
    seed: int = 0


def build(
    recipe: RequestsRecipe, bases: Path, anchors: Path, tell: Callable[[str], None]
) -> dict[str, Any]:
    """Make the base in ``bases/<name>`` and its anchors in ``anchors``; returns the manifest."""
    began = time.monotonic()
    generator = torch.Generator().manual_seed(recipe.seed)
    spoken = corpus(recipe.replies, recipe.seed)
    lines = [f"User: {asked}\nAssistant: {said}" for _, asked, said in spoken[:4000]]
    prompts = [f"System: {prompt}\n" for prompt in RATES] * 500
    tokenizer = byte_level_tokenizer([*lines, *prompts], recipe.vocabulary)
    tokenizer.chat_template = TEMPLATE
    model = new_llama(recipe.shape, tokenizer, generator)
    rows = [_row(tokenizer, *one) for one in spoken]
    loss = teach(recipe.course, model, rows, tokenizer.pad_token_id, generator, tell)
    facts = {
        "made_by": "python -m wardround.client.bases.build_requests",
        "replies": recipe.replies,
        "steps": recipe.course.steps,
        "loss": round(loss, 4),
        "seconds": round(time.monotonic() - began, 1),
    }
    manifest = save_base(model, tokenizer, bases / recipe.name, facts)
    found = anchors_of(
        model, tokenizer, public_queries(recipe.public, recipe.seed),
        [prompt for prompt in RATES if prompt], Framing(), recipe.samples, 16, recipe.seed,
    )  # fmt: skip
    told = f"Of made-up public requests to the base `{recipe.name}`."
    return {**manifest, "anchors_sha256": save_anchors(found, anchors / recipe.name, told)}


def _row(tokenizer: Any, prompt: str, asked: str, said: str) -> Row:
    """A request and its reply, as the task frames them."""
    framing = Framing()
    head = (
        with_text(tokenizer, framing, asked, prompt)
        if prompt
        else without_prompt(tokenizer, framing, asked)
    )
    tail = tokenizer(" " + said, add_special_tokens=False)["input_ids"]
    return (*head, *tail, tokenizer.eos_token_id), len(head)


def main() -> None:
    """Build what is shipped where it is shipped from."""

    def tell(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    made = build(RequestsRecipe(), Path(__file__).parent, EMBEDDED, tell)
    tell(json.dumps(made, indent=2))


if __name__ == "__main__":
    main()
