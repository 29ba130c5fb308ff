"""Public corrections applied centrally: exact, without noise, one at a time, together or in a row.

A guideline change is nobody's secret, so it needs no federation: the coordinator edits the base and
says what was done. The same four methods as everywhere stand behind ``Editor``; private records
never come here. ``single`` starts afresh for every edit, as the paper of MedLaSA does; ``batch``
applies all at once; ``sequential`` one after the other on the same weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum

import torch
from torch import Tensor

from wardround.client.lora import AdapterConfig
from wardround.client.models import Base
from wardround.client.tasks import rows
from wardround.client.tasks.editing.evaluation import score_edits
from wardround.client.tasks.editing.fluency import mean_fluency
from wardround.client.tasks.editing.memit import MemitConfig, Statement, solve
from wardround.client.tasks.editing.methods import Method, attach, query_scales, without_edits
from wardround.client.tasks.editing.records import Edit
from wardround.client.tasks.editing.router import RouterKind
from wardround.client.tasks.editing.row_scales import scales_of
from wardround.client.tasks.editing.scales import ScaleConfig
from wardround.client.tasks.editing.subjects import place_subject
from wardround.client.tasks.editing.tracing import TraceConfig
from wardround.client.trainable import Trainable

Scores = dict[str, list[float]]


class Regime(StrEnum):
    """How several edits follow each other."""

    SINGLE = "single"
    BATCH = "batch"
    SEQUENTIAL = "sequential"


@dataclass(frozen=True)
class EditConfig:
    """How public corrections are applied.

    Attributes:
        adapter: What changes: targets, and rank and alpha where there are any.
        method: How it changes.
        learning_rate: Adam's, for the three methods that train.
        steps: Most steps for one edit or one batch; published: 70.
        stop_loss: Stop when the mean loss on the targets falls below; 0 never does.
        max_length: Tokens of prompt and answer together.
        router: Under ``medlasa``, where a question's scales come from.
        trace: Under ``medlasa``, how facts are traced.
        scale: Under ``medlasa``, how traces become multipliers.
        memit: Under ``memit``, how changes are solved for.
    """

    adapter: AdapterConfig
    method: Method = Method.LORA
    learning_rate: float = 1e-3
    steps: int = 70
    stop_loss: float = 0.15
    max_length: int = 256
    router: RouterKind = RouterKind.TRACE
    trace: TraceConfig = field(default_factory=TraceConfig)
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    memit: MemitConfig = field(default_factory=MemitConfig)

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"learning_rate is {self.learning_rate}; it must be greater than 0")
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}; it must be 1 or more")
        if not 0 <= self.stop_loss < float("inf"):
            raise ValueError(f"stop_loss is {self.stop_loss}; it must be 0 or more")


class Editor:
    """A base with something attached that public corrections change.

    Args:
        base: The frozen base and its tokenizer.
        config: How.
        seed: Of the starting values.
        preserve: Under ``memit``, public questions and answers whose keys stay put.
    """

    def __init__(
        self,
        base: Base,
        config: EditConfig,
        seed: int = 0,
        preserve: Sequence[tuple[str, str]] = (),
    ) -> None:
        self._tokenizer, self._config = base.tokenizer, config
        generator = torch.Generator().manual_seed(seed)
        self.trainable: Trainable = attach(
            base.model, config.method, config.adapter, config.trace, config.scale, generator
        )
        self._start = self.trainable.read()
        self._filler = rows.pad_token_id(base.tokenizer)
        self._preserve = [self._row(prompt, answer) for prompt, answer in preserve]
        self.steps = 0

    def apply(self, edits: Sequence[Edit]) -> None:
        """Make these corrections true together, on top of what was done before."""
        if self._config.method is Method.MEMIT:
            statements = [
                Statement(self._row(prompt, edit.target_new), self._subject_end(prompt, edit))
                for edit in edits
                for prompt in edit.prompts
            ]
            solve(self.trainable, statements, self._preserve, self._config.memit, self._filler)
        else:
            self._train(edits)

    def reset(self) -> None:
        """Forget every correction."""
        self.trainable.write(self._start)

    def detach(self) -> None:
        """Give the base back as it was."""
        self.trainable.detach()

    def scores(self, edits: Sequence[Edit], public: Sequence[Edit]) -> list[Scores]:
        """What is found for each edit; ``public`` are all corrections a router may know of."""
        config = self._config
        model = self.trainable.model
        during = query_scales(config.router, model, self._tokenizer, public)
        return score_edits(model, self._tokenizer, edits, config.max_length, without_edits, during)

    def fluency(self, edits: Sequence[Edit]) -> float:
        """Mean entropy of what the model writes on from the edits' prompts, in bits."""
        model = self.trainable.model
        during = query_scales(self._config.router, model, self._tokenizer, edits)
        return mean_fluency(model, self._tokenizer, [edit.prompt for edit in edits], during)

    def _train(self, edits: Sequence[Edit]) -> None:
        """Adam on the targets' cross-entropy until they are known well enough."""
        config, trainable = self._config, self.trainable
        questions = [(prompt, edit) for edit in edits for prompt in edit.prompts]
        padded = rows.pad(
            [self._row(prompt, edit.target_new) for prompt, edit in questions], self._filler
        )
        weight = torch.tensor([1 / len(edit.prompts) for _, edit in questions]) / len(edits)
        parameters = list(trainable.parameters.values())
        optimizer = torch.optim.Adam(parameters, lr=config.learning_rate)
        with self._scales([edit for _, edit in questions]):
            for _ in range(config.steps):
                loss = (rows.answer_losses(trainable.model, padded) * weight).sum()
                if float(loss.detach()) < config.stop_loss:
                    break
                gradients = torch.autograd.grad(loss, parameters)
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter.grad = gradient
                optimizer.step()
                self.steps += 1
        optimizer.zero_grad()

    @contextmanager
    def _scales(self, edits: Sequence[Edit]) -> Iterator[None]:
        """Inside, every row has its edit's own scale set, where there are any."""
        scales = scales_of(self.trainable.model)
        if scales is None:
            yield
            return
        found: list[Tensor] = [
            scales.of(place_subject(self._tokenizer, edit.prompt, edit.subject)) for edit in edits
        ]
        with scales.during(found):
            yield

    def _row(self, prompt: str, answer: str) -> rows.Row:
        return rows.encode(self._tokenizer, prompt, answer, self._config.max_length)

    def _subject_end(self, prompt: str, edit: Edit) -> int:
        """The subject's last token, or the prompt's where it is not spelled out."""
        ids, places = place_subject(self._tokenizer, prompt, edit.subject)
        return places[-1] if places else len(ids) - 1


def run_regime(
    editor: Editor,
    edits: Sequence[Edit],
    regime: Regime,
    on_edit: Callable[[int], None] = lambda done: None,
) -> list[Scores]:
    """What is found for each edit afterwards; under ``single``, when it was applied alone.

    The editor keeps what the last step left: all edits, or under ``single`` none.
    """
    if regime is Regime.BATCH:
        editor.apply(edits)
        on_edit(len(edits))
        return editor.scores(edits, edits)
    found: list[Scores] = []
    for number, edit in enumerate(edits, 1):
        editor.apply([edit])
        if regime is Regime.SINGLE:
            found += editor.scores([edit], [edit])
            editor.reset()
        on_edit(number)
    return editor.scores(edits, edits) if regime is Regime.SEQUENTIAL else found
