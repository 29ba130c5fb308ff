"""What a study leaves: the soft prompt, or anchors, and a card that says how to use them.

PEFT's prompt tuning puts vectors before the very first token. Where the frame has nothing before
the prompt, that is the same place, and the prompt is written for PEFT too; elsewhere it is not,
because it would stand somewhere it was not trained for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wardround.client.pinned import WEIGHTS
from wardround.client.statistics import NAME, save_numbers
from wardround.client.tasks.dro.anchors import save_anchors
from wardround.client.tasks.dro.learning import NAME as PROMPT
from wardround.client.tasks.dro.moments import Moments, anchors_of_moments
from wardround.client.tasks.dro.splice import SoftPrompted
from wardround.client.trainable import Trainable, check_arrays


def save_prompt(
    trainable: Trainable, arrays: Mapping[str, Tensor], base: str, folder: Path, note: str
) -> None:
    """Write the vectors as ``soft_prompt``, and in PEFT's format where that is exact."""
    check_arrays(arrays, trainable.shapes)
    model = trainable.model
    assert isinstance(model, SoftPrompted)
    vectors = arrays[PROMPT].detach().cpu().contiguous()
    exact = not model.leading
    where = (
        "`peft/` holds the same for `PeftModel.from_pretrained`."
        if exact
        else f"{len(model.leading)} tokens stand before it, so there is no exact PEFT form."
    )
    told = (
        f"{note.strip()}\n\nBase model: `{base}`. {len(vectors)} vectors of {vectors.shape[1]} "
        f"numbers stand where the safety prompt's words stood in the template. {where}"
    )
    save_numbers({PROMPT: vectors}, folder, "Soft safety prompt", told)
    if exact:
        _save_for_peft(vectors, model.base, base, folder / "peft")


def save_moments(
    model: Moments, arrays: Mapping[str, Tensor], base: str, folder: Path, note: str
) -> None:
    """Write noised moments, and the anchors they make in the folder ``anchors``."""
    anchors = anchors_of_moments(arrays[NAME].flatten(), model.hidden, model.radius)
    save_numbers(arrays, folder, "Released moments", note)
    found = save_anchors(anchors, folder / "anchors", f"Of private queries to `{base}`. {note}")
    with (folder / "README.md").open("a", encoding="utf-8") as card:
        card.write(f"\nThe anchors they make are in `anchors/`, sha256 `{found}`.\n")


def _save_for_peft(vectors: Tensor, model: Any, base: str, folder: Path) -> None:
    """PEFT's prompt tuning, as its own ``save_pretrained`` lays it out."""
    from peft import PromptTuningConfig
    from safetensors.torch import save_file

    config = model.config
    settings = PromptTuningConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=len(vectors),
        token_dim=vectors.shape[1],
        num_transformer_submodules=1,
        num_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        base_model_name_or_path=base,
        inference_mode=True,
    )
    folder.mkdir(exist_ok=True)
    settings.save_pretrained(folder)
    save_file(
        {"prompt_embeddings": vectors.to(torch.float32)},
        folder / WEIGHTS,
        metadata={"format": "pt"},
    )
