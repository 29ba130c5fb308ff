"""What trains: a prompt's vectors and, for CoCoOp, a small net that shifts them picture by picture.

The model of images and texts stays frozen. Each picture gets its own copy of the vectors, so one
backward pass has each picture's own gradient, and what a picture's text features are never depends
on other pictures. Sources: Zhou et al. (2022), CoOp, section 3.2; Zhou et al. (2022), CoCoOp,
equation 3. Knows nothing of units, files or labels.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from wardround.client.engine import PerRow
from wardround.client.tasks.cocoop.config import Condition, Method, Position, PromptConfig
from wardround.client.tasks.cocoop.encoding import (
    Template,
    image_features,
    make_template,
    place_vectors,
    require_clip,
    text_features,
    word_ids,
)
from wardround.client.tasks.cocoop.images import Normalisation, decode
from wardround.client.tasks.cocoop.records import Picture
from wardround.client.trainable import Trainable
from wardround.privacy.errors import BadInput

PROMPTS_PER_PASS = 2048
PICTURES_PER_PASS = 64
MOST_CACHED = 1 << 16
CONTEXT, META_NET = "ctx", "meta_net"  # the published names


class PromptLearner(nn.Module):
    """A frozen CLIP model behind a prompt that is learnt.

    Args:
        clip: A ``CLIPModel``.
        tokenizer: Its tokenizer.
        settings: What is learnt.
        names: How many names are trained on; of meaning for class-specific vectors alone.
        generator: Public; draws first values.

    Privacy: features of pictures are kept in here, under the pictures' hashes; the learner must
    not leave the house that holds the pictures. They are no part of its state.
    """

    clip: Any
    meta_net: nn.Module

    def __init__(
        self,
        clip: nn.Module,
        tokenizer: Any,
        settings: PromptConfig,
        names: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        require_clip(clip)
        self.clip = clip
        self.settings = settings
        self.tokenizer = tokenizer
        first = _first_vectors(self.clip, tokenizer, settings, generator)
        if settings.class_specific:
            first = first.expand(names, *first.shape).clone()
        self.context = PerRow(first)
        if settings.method is Method.COCOOP:
            seen: int = self.clip.config.projection_dim
            self.meta_net = _meta_net(seen, settings.reduction, first, generator)
        self._templates: dict[tuple[str, ...], Template] = {}
        self._features: OrderedDict[tuple[str, int, Normalisation], Tensor] = OrderedDict()

    @torch.no_grad()
    def look(self, pictures: Sequence[Picture], image: Normalisation) -> Tensor:
        """Features of pictures, shape ``(pictures, features)``; each is computed once and kept."""
        keys = [(picture.sha256, picture.view, image) for picture in pictures]
        missing = {
            key: picture
            for key, picture in zip(keys, pictures, strict=True)
            if key not in self._features
        }
        side, some = self.clip.config.vision_config.image_size, self.clip.visual_projection.weight
        found = {key: self._features[key] for key in keys if key in self._features}
        fresh = list(missing.items())
        for start in range(0, len(fresh), PICTURES_PER_PASS):
            part = fresh[start : start + PICTURES_PER_PASS]
            pixels = torch.stack([decode(p.read(), side, p.view) for _, p in part])
            features = image_features(self.clip, image.apply(pixels).to(some))
            found |= {key: row for (key, _), row in zip(part, features, strict=True)}
        self._features |= found
        while len(self._features) > MOST_CACHED:
            self._features.popitem(last=False)
        return torch.stack([found[key] for key in keys])

    def seen(self, pictures: Sequence[Picture], features: Tensor) -> Tensor:
        """What the meta-net sees of each picture: its features, or a control's stand-in."""
        if self.settings.condition is Condition.IMAGE:
            return features
        if self.settings.condition is Condition.ZERO:
            return torch.zeros_like(features)
        width = features.shape[1]
        noise = torch.stack([_noise_of(picture, width) for picture in pictures])
        return functional.normalize(noise.to(features), dim=-1)

    def vectors(self, seen: Tensor) -> Tensor:
        """The prompt's vectors of each picture, shape ``(pictures, 1 or names, places, width)``."""
        context: Tensor = self.context(len(seen))
        if not self.settings.class_specific:
            context = context.unsqueeze(1)
        if self.settings.method is Method.COOP:
            return context
        shift: Tensor = self.meta_net(seen.to(context.dtype))
        return context + shift[:, None, None, :]

    def logits(self, features: Tensor, seen: Tensor, names: tuple[str, ...]) -> Tensor:
        """How well each name fits each picture, shape ``(pictures, names)``.

        Args:
            features: From ``look``.
            seen: From ``seen``; a single row where the prompts are the same for all pictures.
            names: Any names; class-specific vectors know those they were trained on alone.

        Raises:
            BadInput: Another number of names than class-specific vectors are for.
        """
        if self.settings.class_specific and len(names) != len(self.context.weight):
            raise BadInput(
                f"{len(names)} names; this prompt has vectors for {len(self.context.weight)}"
            )
        template = self._template(names)
        embedded = place_vectors(self.clip, template, self.vectors(seen))
        rows = len(embedded)
        texts = text_features(self.clip, embedded.flatten(0, 1), template.ends.repeat(rows))
        texts = texts.view(rows, len(names), -1).expand(len(features), -1, -1)
        scale = self.clip.logit_scale.exp().to(texts.dtype)
        found: Tensor = scale * torch.einsum("pf,pnf->pn", features.to(texts), texts)
        return found

    @torch.no_grad()
    def predict(
        self, pictures: Sequence[Picture], names: tuple[str, ...], image: Normalisation
    ) -> Tensor:
        """``logits`` of any number of pictures, without gradients."""
        features = self.look(pictures, image)
        seen = self.seen(pictures, features)
        if self.settings.method is Method.COOP:
            return self.logits(features, seen[:1], names)
        size = max(1, PROMPTS_PER_PASS // len(names))
        parts = zip(torch.split(features, size), torch.split(seen, size), strict=True)
        return torch.cat([self.logits(some, shown, names) for some, shown in parts])

    def wire_parameters(self) -> dict[str, nn.Parameter]:
        """What trains, by its published name."""
        own = {CONTEXT: self.context.weight}
        if self.settings.method is Method.COCOOP:
            net = self.meta_net.named_parameters()
            own |= {f"{META_NET}.{name}": parameter for name, parameter in net}
        return own

    def _template(self, names: tuple[str, ...]) -> Template:
        """The prompts of these names; put together once."""
        if names not in self._templates:
            places = self.context.weight.shape[-2]
            parts = [_parts(name, places, self.settings.position) for name in names]
            longest = self.clip.config.text_config.max_position_embeddings
            made = make_template(self.tokenizer, parts, longest)
            self._templates[names] = made.to(self.clip.device)
        return self._templates[names]


def attach_prompt(
    model: nn.Module,
    tokenizer: Any,
    settings: PromptConfig,
    names: int,
    generator: torch.Generator,
) -> Trainable:
    """A prompt before a frozen base; the base is left as it is."""
    learner = PromptLearner(model, tokenizer, settings, names, generator)
    return Trainable(learner, learner.wire_parameters(), detach=lambda: model)


def _parts(name: str, places: int, position: Position) -> list[str | int]:
    """A prompt's words and free places, in order."""
    free: list[str | int] = list(range(places))
    half = places // 2
    if position is Position.END:
        return [*free, f" {name}."]
    if position is Position.FRONT:
        return [f" {name}", *free, "."]
    return [*free[:half], f" {name}", *free[half:], "."]


def _first_vectors(
    clip: Any, tokenizer: Any, settings: PromptConfig, generator: torch.Generator
) -> Tensor:
    """Embeddings of words, or normal numbers of deviation 0.02; shape ``(places, width)``."""
    table = clip.text_model.embeddings.token_embedding.weight.detach()
    dtype = torch.promote_types(table.dtype, torch.float32)
    if settings.context:
        ids = torch.tensor(word_ids(tokenizer, settings.context), device=table.device)
        words: Tensor = table[ids].to(dtype, copy=True)
        return words
    drawn = torch.randn((settings.tokens, table.shape[1]), generator=generator)
    return (0.02 * drawn).to(table.device, dtype)


def _meta_net(seen: int, reduction: int, like: Tensor, generator: torch.Generator) -> nn.Sequential:
    """Two layers with a rectifier between them; PyTorch's usual first values, drawn in public."""
    inside, width = max(1, seen // reduction), like.shape[-1]
    # The layers draw from the global generator before we do; the fork leaves that as it was.
    with torch.random.fork_rng(devices=[]):
        first, second = nn.Linear(seen, inside), nn.Linear(inside, width)
    with torch.no_grad():
        for layer in (first, second):
            bound = layer.in_features**-0.5
            for parameter in (layer.weight, layer.bias):
                uniform = torch.rand(parameter.shape, generator=generator)
                parameter.copy_(bound * (2 * uniform - 1))
    return nn.Sequential(OrderedDict(linear1=first, relu=nn.ReLU(), linear2=second)).to(like)


def _noise_of(picture: Picture, width: int) -> Tensor:
    """Normal numbers that are always the same for the same picture."""
    generator = torch.Generator().manual_seed(int(picture.sha256[:15], 16))
    return torch.randn(width, generator=generator)
