"""The two encoders of a CLIP model, and prompts that are vectors instead of words.

``CLIPTextModel.forward`` takes ids only, so prompts go through its parts in the order it calls
them: embeddings, encoder under a causal mask, final norm, the place of the end token, projection.
With the words' own embeddings this is ``get_text_features`` to the bit. The end token's place is
known from how a prompt was put together, so a model's notion of pooling, which differs between
versions of its configuration, does not matter. Source: Radford et al. (2021), "Learning
transferable visual models from natural language supervision", figure 3. Knows nothing of learning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from wardround.privacy.errors import BadInput


@dataclass(frozen=True)
class Template:
    """Prompts of several names, with places kept free for vectors that are learnt.

    Attributes:
        ids: Shape ``(names, longest)``; padded after the end token, which a causal mask hides.
        slots: Shape ``(names, longest)``: which vector stands there, or -1 for the token itself.
        ends: Shape ``(names,)``: the end token's place.
    """

    ids: Tensor
    slots: Tensor
    ends: Tensor

    def to(self, device: torch.device) -> Template:
        """The same on a device."""
        return Template(self.ids.to(device), self.slots.to(device), self.ends.to(device))


def require_clip(model: nn.Module) -> None:
    """Refuse a base that is not a CLIP model.

    Raises:
        BadInput: Naming what it is.
    """
    from transformers import CLIPModel

    if not isinstance(model, CLIPModel):
        raise BadInput(f"[model] base is a {type(model).__name__}; this task needs a CLIPModel")


def word_ids(tokenizer: Any, text: str) -> list[int]:
    """The tokens of a text, without a begin or end token."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def make_template(tokenizer: Any, parts: Sequence[Sequence[str | int]], longest: int) -> Template:
    """Prompts from parts: texts, and numbers of vectors that are learnt.

    Args:
        tokenizer: Of the base.
        parts: One prompt each.
        longest: Places that the base has.

    Raises:
        BadInput: A prompt has more tokens than places, or the tokenizer no begin or end token.
    """
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    if begin is None or end is None:
        raise BadInput("[model] base: its tokenizer has no begin or end token")
    rows: list[tuple[list[int], list[int]]] = []
    for prompt in parts:
        ids, slots = [begin], [-1]
        for part in prompt:
            found = [begin] if isinstance(part, int) else word_ids(tokenizer, part)
            ids += found
            slots += [part] if isinstance(part, int) else [-1] * len(found)
        if len(ids) + 1 > longest:
            words = "".join(part for part in prompt if isinstance(part, str)).strip()
            raise BadInput(
                f"the prompt of {words!r} has {len(ids) + 1} tokens; the base reads {longest}"
            )
        rows.append(([*ids, end], [*slots, -1]))
    width = max(len(ids) for ids, _ in rows)
    return Template(
        torch.tensor([[*ids, *(end,) * (width - len(ids))] for ids, _ in rows]),
        torch.tensor([[*slots, *(-1,) * (width - len(slots))] for _, slots in rows]),
        torch.tensor([len(ids) - 1 for ids, _ in rows]),
    )


def place_vectors(clip: Any, template: Template, vectors: Tensor) -> Tensor:
    """Embedded prompts with vectors in their free places.

    Args:
        clip: A ``CLIPModel``.
        template: Of ``names`` names.
        vectors: Shape ``(rows, 1 or names, free places, width)``: one set for all names, or one
            for each.

    Returns:
        Shape ``(rows, names, longest, width)``.
    """
    words = clip.text_model.embeddings.token_embedding(template.ids)
    names, longest = template.ids.shape
    rows, _, places, width = vectors.shape
    vectors = vectors.to(words.dtype).expand(rows, names, places, width)
    index = template.slots.clamp(min=0).view(1, names, longest, 1)
    chosen = vectors.gather(2, index.expand(rows, names, longest, width))
    free = (template.slots >= 0).view(1, names, longest, 1)
    return torch.where(free, chosen, words)


def text_features(clip: Any, embedded: Tensor, ends: Tensor) -> Tensor:
    """Normalised projected features of embedded prompts.

    Args:
        clip: A ``CLIPModel``.
        embedded: Shape ``(prompts, longest, width)``, before positions are added.
        ends: Shape ``(prompts,)``: where the end token is.

    Returns:
        Shape ``(prompts, features)``.
    """
    from transformers.masking_utils import create_causal_mask

    text = clip.text_model
    hidden = text.embeddings(inputs_embeds=embedded)
    mask = create_causal_mask(
        config=text.config, inputs_embeds=hidden, attention_mask=None, past_key_values=None
    )
    states = text.encoder(inputs_embeds=hidden, attention_mask=mask, is_causal=True)
    last = text.final_layer_norm(states.last_hidden_state)
    pooled = last[torch.arange(len(last), device=last.device), ends]
    return normalised(clip.text_projection(pooled))


def word_features(clip: Any, template: Template) -> Tensor:
    """Normalised projected features of prompts of words alone, shape ``(names, features)``."""
    template = template.to(clip.device)
    words = clip.text_model.embeddings.token_embedding(template.ids)
    return text_features(clip, words, template.ends)


def image_features(clip: Any, pixels: Tensor) -> Tensor:
    """Normalised projected features of pictures, shape ``(pictures, features)``."""
    return normalised(clip.get_image_features(pixel_values=pixels).pooler_output)


def normalised(features: Tensor) -> Tensor:
    """Each row divided by its length; at least float32, because cosines are compared."""
    wide = features if features.dtype == torch.float64 else features.float()
    return functional.normalize(wide, dim=-1)
