"""Base models: embedded, from a folder or from a model hub, pinned by the hash of their weights.

Weights are safetensors only and code that comes with a model is never run. A base is shared,
frozen and the same for every hospital; what trains is attached to it (``lora.py``). Knows nothing
of tasks, data or privacy. Importing this module does not import torch.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wardround.privacy.errors import BadInput, PolicyRefused
from wardround.privacy.tables import nearest

if TYPE_CHECKING:
    from torch import nn

BASES = Path(__file__).parent / "bases"
NO_BASE = "none"  # for tasks that send statistics; its hash is that of no bytes at all
DTYPES = ("float32", "bfloat16", "float16")
QUANTISED = ("", "4bit", "8bit")
DEVICE_MAPS = ("", "auto")
# What a base may be: a language model, or an encoder of images beside one of texts, as CLIP is.
AUTO_CLASSES = ("AutoModelForCausalLM", "AutoModelForZeroShotImageClassification")
HUB_FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "tokenizer.model", "merges.txt",
             "vocab.txt")  # fmt: skip
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class WrongBase(PolicyRefused):
    """A base's weights are not the ones a study or a policy names."""


@dataclass(frozen=True)
class Loading:
    """How a base is put into memory; part of a study, because it changes what the model computes.

    Attributes:
        revision: Branch, tag or commit on the hub; no meaning elsewhere.
        dtype: One of ``DTYPES``. Whatever it is, what trains is float32.
        quantise: ``4bit`` or ``8bit`` for frozen weights in bitsandbytes' formats; needs the extra
            ``wardround[large]``.
        device_map: ``auto`` spreads a base over several GPUs, and the CPU when they are too small.
    """

    revision: str = ""
    dtype: str = "float32"
    quantise: str = ""
    device_map: str = ""

    def __post_init__(self) -> None:
        for name, known in (
            ("dtype", DTYPES),
            ("quantise", QUANTISED),
            ("device_map", DEVICE_MAPS),
        ):
            value = getattr(self, name)
            if value not in known:
                choices = ", ".join(choice for choice in known if choice)
                raise ValueError(f"{name} is {value!r}; expected one of {choices}")

    def require_extras(self) -> None:
        """Refuse to go on without the packages that this needs.

        Raises:
            BadInput: Naming what to install.
        """
        missing = [
            package
            for package in ("bitsandbytes",)
            if self.quantise and importlib.util.find_spec(package) is None
        ]
        if missing:
            raise BadInput(
                f"[model] quantise is {self.quantise!r} and needs {missing[0]}: "
                "pip install 'wardround[large]'"
            )


@dataclass(frozen=True)
class Base:
    """A frozen base model, ready for an adapter.

    Attributes:
        model: In evaluation mode; no parameter requires a gradient.
        tokenizer: Pads on the right.
        sha256: Of the weights, as ``weights_sha256`` computes it.
        source: ``embedded:name``, a folder, or ``organisation/name@commit``.
    """

    model: nn.Module
    tokenizer: Any
    sha256: str
    source: str


def embedded_bases() -> Mapping[str, str]:
    """Names of the bases that are shipped, and the hashes of their weights."""
    return {
        manifest.parent.name: str(json.loads(manifest.read_text(encoding="utf-8"))["sha256"])
        for manifest in sorted(BASES.glob("*/manifest.json"))
    }


def load_base(
    name_or_path: str,
    revision: str = "",
    sha256: str = "",
    dtype: str = "float32",
    device: str = "cpu",
    quantise: str = "",
    device_map: str = "",
) -> Base:
    """A frozen base and its tokenizer; loaded once per folder, type and device, then shared.

    Args:
        name_or_path: An embedded base's name, a folder, ``organisation/name`` on the hub, or
            ``none`` for tasks that need no model.
        revision: Branch, tag or commit on the hub; no meaning elsewhere.
        sha256: What the weights must hash to; empty accepts any.
        dtype: One of ``DTYPES``.
        device: Where PyTorch puts the model.
        quantise: See ``Loading``.
        device_map: See ``Loading``; with ``auto``, ``device`` has no meaning.

    Raises:
        BadInput: There is no such base, it holds no safetensors, it cannot be loaded or an extra is
            missing.
        WrongBase: Its weights do not have this hash.
    """
    try:
        loading = Loading(revision, dtype, quantise, device_map)
    except ValueError as error:
        raise BadInput(f"base {name_or_path}: {error}") from error
    loading.require_extras()
    if sha256 and not _SHA256.fullmatch(sha256):
        raise BadInput(f"base {name_or_path}: sha256 is {sha256!r}; expected 64 hexadecimal digits")
    if name_or_path == NO_BASE:
        found, folder, source = hashlib.sha256().hexdigest(), None, NO_BASE
    else:
        folder, source = _locate(name_or_path, revision)
        found = weights_sha256(folder)
    if sha256 and sha256 != found:
        raise WrongBase(
            f"base {name_or_path}: its weights hash to {found[:12]}; {sha256[:12]} was asked for"
        )
    if folder is None:
        from torch import nn

        return Base(nn.Module(), None, found, source)
    model, tokenizer = _load(folder, found, loading, device)
    return Base(model, tokenizer, found, source)


def weights_sha256(folder: Path) -> str:
    """SHA-256 over all safetensors files of a folder, in the order of their names.

    For a base in one file this is what ``sha256sum model.safetensors`` prints.
    """
    files = sorted(folder.glob("*.safetensors"), key=lambda path: path.name)
    if not files:
        raise BadInput(f"base {folder}: holds no .safetensors file; other formats are not loaded")
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _locate(name: str, revision: str) -> tuple[Path, str]:
    """The folder that holds a base, fetched from the hub where needed, and how to call it."""
    shipped = embedded_bases()
    if name in shipped:
        return BASES / name, f"embedded:{name}"
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder.resolve(), str(folder)
    looks_local = name.startswith((".", "/", "~")) or not _HUB_NAME.fullmatch(name)
    if looks_local:
        raise BadInput(
            f"base {name!r}: neither a folder nor an embedded base{nearest(name, list(shipped))}"
        )
    return _fetch(name, revision)


def _fetch(name: str, revision: str) -> tuple[Path, str]:
    """A snapshot from the model hub, and its name with the commit it was taken at."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = Path(
            snapshot_download(name, revision=revision or None, allow_patterns=list(HUB_FILES))
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise BadInput(f"base {name!r}: not a folder, and the hub says: {reason}") from error
    return folder, f"{name}@{folder.name}"


@lru_cache(maxsize=4)
def _load(folder: Path, sha256: str, loading: Loading, device: str) -> tuple[nn.Module, Any]:
    """Model and tokenizer from local files; ``sha256`` keeps changed weights apart in the cache."""
    import torch
    from safetensors import SafetensorError
    from transformers import AutoTokenizer

    try:
        with quiet_transformers():
            model = _auto_class(folder).from_pretrained(
                folder,
                dtype=getattr(torch, loading.dtype),
                **_placement(loading, device),
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
            )
            tokenizer = AutoTokenizer.from_pretrained(
                folder, trust_remote_code=False, local_files_only=True, padding_side="right"
            )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise BadInput(f"base {folder}: cannot be loaded ({reason})") from error
    model.requires_grad_(False)
    frozen: nn.Module = model.eval()
    placed = loading.quantise or loading.device_map
    return frozen if placed else frozen.to(device), tokenizer


def _auto_class(folder: Path) -> Any:
    """The first of ``AUTO_CLASSES`` that knows the folder's kind of model, or the first of all."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(
        folder, trust_remote_code=False, local_files_only=True
    )
    classes = [getattr(transformers, name) for name in AUTO_CLASSES]
    return next((known for known in classes if type(config) in known._model_mapping), classes[0])


def _placement(loading: Loading, device: str) -> dict[str, Any]:
    """What transformers must know to put weights where they stay, in the form they stay in."""
    if not (loading.quantise or loading.device_map):
        return {}
    places: dict[str, Any] = {"device_map": loading.device_map or {"": device}}
    if loading.quantise:
        import torch
        from transformers import BitsAndBytesConfig

        places["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=loading.quantise == "4bit",
            load_in_8bit=loading.quantise == "8bit",
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=getattr(torch, loading.dtype),
        )
    return places


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars and no advice on standard error while a base is read or written."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
