"""What every embedded base is made with: a byte-level tokenizer, a small Llama, a pinned folder.

What a base is taught is its own builder's matter. Nothing is private, so randomness is a public
generator.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wardround.client.models import quiet_transformers, weights_sha256

SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>")
MAX_LENGTH = 512


@dataclass(frozen=True)
class Shape:
    """How large a base is."""

    hidden: int
    layers: int
    heads: int
    mlp: int


def byte_level_tokenizer(
    corpus: Iterable[str],
    vocabulary: int,
    prefix_space: bool = False,
    special: Sequence[str] = SPECIAL_TOKENS,
) -> Any:
    """A byte-level BPE tokenizer trained on ``corpus``; its alphabet is all 256 bytes.

    With ``prefix_space`` a text's first word is spelt as it is in the middle of one. ``special``
    tokens get the first ids, in this order; those of ``SPECIAL_TOKENS`` must be among them.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(special),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", tokenizer.token_to_id("<bos>"))]
    )
    pad_token, bos_token, eos_token = SPECIAL_TOKENS
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad_token,
        bos_token=bos_token,
        eos_token=eos_token,
        padding_side="right",
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
    )


def new_llama(shape: Shape, tokenizer: Any, generator: torch.Generator) -> nn.Module:
    """An untrained Llama; matrices normal with deviation 0.02, norms one."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden,
        intermediate_size=shape.mlp,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=MAX_LENGTH,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=True,
    )
    # The library's own first values come from the global generator; the fork leaves that as it was.
    with torch.random.fork_rng(devices=[]):
        model: nn.Module = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 0.02, generator=generator)
            else:
                parameter.fill_(1.0)
    return model


def save_base(model: Any, tokenizer: Any, folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write a base that ``load_base`` reads, whole or not at all, in the place of an older one.

    Args:
        model: A transformers model.
        tokenizer: Its tokenizer.
        folder: The base's folder; its name is the base's.
        facts: What the manifest should say besides hash and size.

    Returns:
        The manifest, which is also written beside the weights.
    """
    home = folder.absolute().parent
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home, prefix=f".{folder.name}-") as scratch:
        fresh = Path(scratch) / folder.name
        with quiet_transformers():
            model.save_pretrained(fresh)
            tokenizer.save_pretrained(fresh)
        for path in fresh.iterdir():
            path.chmod(0o644)
        manifest = {
            "sha256": weights_sha256(fresh),
            "parameters": sum(p.numel() for p in model.parameters()),
            "vocabulary": len(tokenizer),
            **facts,
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
        }
        (fresh / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
        if folder.exists():
            folder.rename(Path(scratch) / "replaced")
        fresh.rename(folder)
    return manifest
