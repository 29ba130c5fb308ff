"""Causal tracing: which layers of a model bring a fact back when its subject has been blurred.

Three kinds of runs, as Meng et al. (2022), "Locating and editing factual associations in GPT",
section 2, and Xu et al. (2024), "Editing factual knowledge and explanatory ability of medical LLMs"
(MedLaSA), section on causal tracing, do them: a clean one, corrupted ones with normal noise on the
subject's embeddings, and restored ones, in which one token's attention or MLP output in a window of
layers is put back to its clean value. One forward pass holds all tokens, kinds and noise samples of
a layer; it starts at the window's first layer, because nothing before that differs from the
corrupted run, and at the subject's first token, because nothing before that differs from the clean
run. Knows a model and token ids; nothing of adapters, records or privacy.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, nn

from wardround.client.tasks.editing.anatomy import Anatomy, Kind

REFERENCE_WINDOW, REFERENCE_LAYERS = 10, 32


class Rows(StrEnum):
    """Which tokens' outputs are restored, one at a time."""

    SUBJECT = "subject"
    SUBJECT_AND_LAST = "subject+last"
    LAST = "last"
    ALL_BUT_LAST = "all-but-last"


@dataclass(frozen=True)
class TraceConfig:
    """How a fact is traced; public, and the same everywhere.

    Attributes:
        rows: Which tokens are restored. Published: ``subject`` for scales, ``all-but-last`` for
            ranks. Small models recall at the last token of the prompt, which the other two see.
        window: Consecutive layers restored together; 0 for the published share of 10 in 32.
        noise_factor: Noise deviation in deviations of the embeddings.
        samples: Noise samples a mean is taken over.
        seed: Of the noise, which is public and the same for every fact.
        sigma: Deviation of the subjects' embeddings; 0 takes that of the whole embedding table.
    """

    rows: Rows = Rows.SUBJECT
    window: int = 0
    noise_factor: float = 3.0
    samples: int = 10
    seed: int = 1
    sigma: float = 0.0

    def __post_init__(self) -> None:
        if self.window < 0:
            raise ValueError(f"window is {self.window}; it must be 0 or more")
        for name in ("noise_factor", "sigma"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} is {value}; it must be 0 or more")
        if not 1 <= self.samples <= 1000:
            raise ValueError(f"samples is {self.samples}; it must be between 1 and 1000")

    def layers(self, layer: int, depth: int) -> range:
        """The layers restored together around ``layer``, clipped at the ends of the model."""
        window = self.window or math.ceil(depth * REFERENCE_WINDOW / REFERENCE_LAYERS)
        first = layer - window // 2
        return range(max(0, first), min(depth, first + window))


@dataclass(frozen=True)
class Trace:
    """What tracing found out about one fact.

    Attributes:
        answer: The token the model says first, before anything is changed.
        clean: Its probability.
        corrupted: Its probability with the subject blurred, mean over the samples.
        tokens: Places in the prompt whose outputs were restored.
        restored: By kind, its probability with that token's output in the window around that layer
            restored; shape ``(tokens, layers)``, mean over the samples.
    """

    answer: int
    clean: float
    corrupted: float
    tokens: tuple[int, ...]
    restored: Mapping[Kind, Tensor]

    @property
    def total_effect(self) -> float:
        """What blurring the subject costs."""
        return self.clean - self.corrupted

    def indirect_effect(self, kind: Kind) -> Tensor:
        """What restoring brings back, shape ``(tokens, layers)``."""
        return self.restored[kind] - self.corrupted

    def profile(self, kind: Kind) -> Tensor:
        """Restored probability by layer, mean over the restored tokens; shape ``(layers,)``."""
        return self.restored[kind].mean(0)


@dataclass(frozen=True)
class Restoration:
    """One thing to put back: outputs of these kinds, in these layers, at these tokens."""

    kinds: tuple[Kind, ...]
    layers: range
    tokens: tuple[int, ...]


def subject_sigma(model: nn.Module, subjects: Sequence[Sequence[int]] = ()) -> float:
    """Deviation over all entries of the embeddings of these tokens, or of the whole table.

    Args:
        model: A causal model.
        subjects: Token ids of public subjects, one sequence each.
    """
    embed = _embedding(model)
    ids = sorted({token for subject in subjects for token in subject})
    size = len(embed.weight)
    with torch.no_grad():
        found = embed(torch.tensor(ids or range(size), device=embed.weight.device))
    return float(found.float().std())


@torch.no_grad()
def trace(
    anatomy: Anatomy, ids: Sequence[int], subject: Sequence[int], config: TraceConfig, sigma: float
) -> Trace:
    """Trace one prompt.

    Args:
        anatomy: The model.
        ids: The prompt's tokens.
        subject: Places of the subject's tokens in it, consecutive.
        config: How.
        sigma: Deviation of the embeddings; noise is ``config.noise_factor`` times as large.

    Privacy: a function of the public model and this prompt alone; for a private prompt it stays at
    home.
    """
    subject = list(subject)
    last = len(ids) - 1
    tokens = {
        Rows.SUBJECT: subject,
        Rows.LAST: [last],
        Rows.SUBJECT_AND_LAST: [*subject, *({last} - set(subject))],
        Rows.ALL_BUT_LAST: list(range(max(1, last))),
    }[config.rows]
    depth = len(anatomy.blocks)
    bench = TracingBench(anatomy, ids, subject, config, sigma)
    # What stands before the subject was never blurred, so restoring it changes nothing.
    blurred = [place for place, token in enumerate(tokens) if token >= subject[0]]
    restored = {kind: torch.full((len(tokens), depth), bench.corrupted) for kind in Kind}
    for layer in range(depth):
        window = config.layers(layer, depth)
        plan = [Restoration((kind,), window, (tokens[at],)) for kind in Kind for at in blurred]
        found = bench.restore(plan).view(len(Kind), len(blurred))
        for kind, values in zip(Kind, found, strict=True):
            restored[kind][blurred, layer] = values
    return Trace(bench.answer, bench.clean, bench.corrupted, tuple(tokens), restored)


class TracingBench:
    """One prompt's clean and corrupted runs, kept so that restored ones start from them.

    Attributes:
        answer: The model's first choice after the prompt.
        clean: Its probability.
        corrupted: Its probability with the subject blurred.
    """

    def __init__(
        self,
        anatomy: Anatomy,
        ids: Sequence[int],
        subject: Sequence[int],
        config: TraceConfig,
        sigma: float,
    ) -> None:
        self._anatomy = anatomy
        self._samples = config.samples
        embed = _embedding(anatomy.model)
        self._device = embed.weight.device
        self._start = subject[0]
        self._ids = torch.tensor([list(ids)[self._start :]], device=self._device)
        self._past = self._run_past(list(ids)[: self._start])
        boxes: list[bool] = []
        watch = anatomy.blocks[0].register_forward_hook(
            lambda block, args, output: boxes.append(isinstance(output, tuple))
        )
        with _outputs(anatomy) as outputs:
            probabilities = self._run(1)[0]
        watch.remove()
        self._boxed = boxes[0]
        self._clean = {place: value[0] for place, value in outputs.items()}
        self.answer = int(probabilities.argmax())
        self.clean = float(probabilities[self.answer])
        generator = torch.Generator().manual_seed(config.seed)
        shape = (config.samples, len(subject), embed.weight.shape[1])
        noise = torch.randn(shape, generator=generator) * (config.noise_factor * sigma)
        places = [place - self._start for place in subject]
        with _noise_on(embed, noise.to(embed.weight), places), _inputs(anatomy) as inputs:
            corrupted = self._run(config.samples)[:, self.answer]
        self._hidden = inputs
        self.corrupted = float(corrupted.mean())

    def restore(self, plan: Sequence[Restoration]) -> Tensor:
        """The answer's mean probability under each restoration, shape ``(restorations,)``."""
        first = min(one.layers[0] for one in plan)
        rows = len(plan) * self._samples
        with ExitStack() as stack:
            stack.enter_context(
                _started_at(
                    self._anatomy, first, self._hidden[first].repeat(len(plan), 1, 1), self._boxed
                )
            )
            for place, rows_at, tokens_at in self._spots(plan):
                part = self._anatomy.part(*place)
                values = self._clean[place][tokens_at]
                stack.enter_context(_patched(part, rows_at, tokens_at, values))
            said = self._run(rows)[:, self.answer]
        return said.view(len(plan), self._samples).mean(1).float().cpu()

    def _spots(
        self, plan: Sequence[Restoration]
    ) -> Iterator[tuple[tuple[Kind, int], Tensor, Tensor]]:
        """For each part that something is put back into: which rows, and at which tokens."""
        spots: dict[tuple[Kind, int], list[tuple[int, int]]] = {}
        for number, one in enumerate(plan):
            rows = range(number * self._samples, (number + 1) * self._samples)
            for kind in one.kinds:
                for layer in one.layers:
                    spots.setdefault((kind, layer), []).extend(
                        (row, token - self._start) for row in rows for token in one.tokens
                    )
        for place, pairs in spots.items():
            rows_at, tokens_at = torch.tensor(pairs, device=self._device).unbind(1)
            yield place, rows_at, tokens_at

    def _run_past(self, ids: Sequence[int]) -> Any:
        """Keys and values of everything before the subject, which no noise reaches."""
        if not ids:
            return None
        past: Any = self._anatomy.model(
            input_ids=torch.tensor([ids], device=self._device), use_cache=True
        ).past_key_values
        return past

    def _run(self, rows: int) -> Tensor:
        """Next-token probabilities after the prompt, shape ``(rows, vocabulary)``."""
        past = copy.deepcopy(self._past)
        if past is not None:
            past.batch_repeat_interleave(rows)
        logits: Tensor = self._anatomy.model(
            input_ids=self._ids.expand(rows, -1),
            past_key_values=past,
            use_cache=past is not None,
            logits_to_keep=1,
        ).logits[:, -1]
        return logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(-1)


def _embedding(model: nn.Module) -> nn.Embedding:
    """The table that token ids are looked up in."""
    found: Any = model
    embedding: nn.Embedding = found.get_input_embeddings()
    return embedding


@contextmanager
def _noise_on(embed: nn.Module, noise: Tensor, places: Sequence[int]) -> Iterator[None]:
    """Inside, these places' embeddings are blurred."""

    def blur(module: nn.Module, args: object, output: Tensor) -> Tensor:
        blurred = output.clone()
        blurred[:, list(places)] += noise
        return blurred

    handle = embed.register_forward_hook(blur)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _outputs(anatomy: Anatomy) -> Iterator[dict[tuple[Kind, int], Tensor]]:
    """What every part puts out in the run inside."""
    kept: dict[tuple[Kind, int], Tensor] = {}
    handles = []
    for layer in range(len(anatomy.blocks)):
        for kind in Kind:

            def keep(_: nn.Module, args: object, output: Any, place: Any = (kind, layer)) -> None:
                kept[place] = output[0] if isinstance(output, tuple) else output

            handles.append(anatomy.part(kind, layer).register_forward_hook(keep))
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _inputs(anatomy: Anatomy) -> Iterator[dict[int, Tensor]]:
    """What every block is given in the run inside."""
    kept: dict[int, Tensor] = {}
    handles = []
    for layer, block in enumerate(anatomy.blocks):

        def keep(_: nn.Module, args: tuple[Any, ...], number: int = layer) -> None:
            kept[number] = args[0]

        handles.append(block.register_forward_pre_hook(keep))
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _started_at(anatomy: Anatomy, first: int, hidden: Tensor, boxed: bool) -> Iterator[None]:
    """Inside, blocks before ``first`` do nothing and ``first`` is given ``hidden``.

    ``boxed`` says that this model's blocks return tuples.
    """

    def give(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (hidden, *args[1:])

    handle = anatomy.blocks[first].register_forward_pre_hook(give)
    skipped = anatomy.blocks[:first]
    for block in skipped:
        block.forward = _pass_boxed if boxed else _pass_on
    try:
        yield
    finally:
        handle.remove()
        for block in skipped:
            del block.forward


def _pass_on(hidden: Tensor, *args: object, **kwargs: object) -> Tensor:
    """A block that does nothing."""
    return hidden


def _pass_boxed(hidden: Tensor, *args: object, **kwargs: object) -> tuple[Tensor]:
    """The same, of a model whose blocks return tuples."""
    return (hidden,)


@contextmanager
def _patched(part: nn.Module, rows: Tensor, tokens: Tensor, values: Tensor) -> Iterator[None]:
    """Inside, these rows' outputs at these tokens are ``values``."""

    def patch(_: nn.Module, args: object, output: Any) -> Any:
        whole = output[0] if isinstance(output, tuple) else output
        patched = whole.clone()
        patched[rows, tokens] = values
        return (patched, *output[1:]) if isinstance(output, tuple) else patched

    handle = part.register_forward_hook(patch)
    try:
        yield
    finally:
        handle.remove()
