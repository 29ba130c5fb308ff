"""A learnt prompt as files, and its use on pictures with any list of names.

What is written holds no names: the vectors stand before whatever name they are given, those of
training and others alike. Class-specific vectors are the exception. Knows nothing of units.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wardround.client.models import load_base
from wardround.client.tasks.cocoop.config import PromptConfig
from wardround.client.tasks.cocoop.formats import in_file
from wardround.client.tasks.cocoop.images import Normalisation
from wardround.client.tasks.cocoop.learner import CONTEXT, PromptLearner, attach_prompt
from wardround.client.trainable import Trainable, check_arrays
from wardround.privacy.errors import BadInput
from wardround.privacy.tables import from_table

WEIGHTS, SETTINGS = "adapter_model.safetensors", "prompt_config.json"
_CARD = """---
base_model: {base}
tags:
- wardround
---

# A learnt prompt

{note}

`{weights}` holds `ctx` and, for CoCoOp, `meta_net.*`; `{settings}` says how they are used:
`wardround.client.tasks.cocoop.inference.load_classifier(folder)`.
"""


@dataclass(frozen=True)
class Classifier:
    """Names pictures with a learnt prompt.

    Attributes:
        learner: Model and prompt.
        image: How pixels are normalised.
    """

    learner: PromptLearner
    image: Normalisation

    def name(self, files: Sequence[Path], names: Sequence[str]) -> list[dict[str, float]]:
        """Each picture's probability of each name, in the order of ``names``.

        Raises:
            BadInput: A file is no picture, or there are no names.
        """
        if not names:
            raise BadInput("names is empty; give one or more")
        try:
            pictures = [in_file("", file) for file in files]
        except ValueError as error:
            raise BadInput(f"{error}") from error
        if not pictures:
            return []
        shares = self.learner.predict(pictures, tuple(names), self.image).softmax(1)
        return [dict(zip(names, row, strict=True)) for row in shares.tolist()]


def save_prompt(
    trainable: Trainable,
    adapter: Mapping[str, Any],
    arrays: Mapping[str, Tensor],
    base: str,
    folder: Path,
    note: str,
) -> None:
    """Write weights, settings and a card."""
    from safetensors.torch import save_file

    check_arrays(arrays, trainable.shapes)
    folder.mkdir(parents=True, exist_ok=True)
    values = {name: value.detach().cpu().contiguous() for name, value in arrays.items()}
    save_file(values, folder / WEIGHTS, metadata={"format": "pt"})
    settings = {"base": base, "adapter": dict(adapter)}
    (folder / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    card = _CARD.format(base=base, note=note.strip(), weights=WEIGHTS, settings=SETTINGS)
    (folder / "README.md").write_text(card, encoding="utf-8")


def load_classifier(folder: Path, base: str = "", image: Normalisation | None = None) -> Classifier:
    """A learnt prompt, ready for pictures.

    Args:
        folder: What ``save_prompt`` wrote.
        base: Where the base is, if not where it was.
        image: How pixels are normalised, if not as OpenAI's models want it.

    Raises:
        BadInput: The folder holds no prompt.
        BadMessage: Its arrays do not fit the base.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        written = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        arrays = load_file(folder / WEIGHTS)
        table, source = written["adapter"], base or str(written["base"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise BadInput(f"{folder}: holds no learnt prompt ({error})") from error
    settings = from_table(PromptConfig, table, str(folder / SETTINGS))
    found = load_base(source)
    names = len(arrays[CONTEXT]) if settings.class_specific and CONTEXT in arrays else 1
    trainable = attach_prompt(found.model, found.tokenizer, settings, names, torch.Generator())
    trainable.write(arrays)
    learner = trainable.model
    assert isinstance(learner, PromptLearner)
    return Classifier(learner, image or Normalisation())
