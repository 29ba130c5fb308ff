"""Arrays a study names by folder and hash: an adapter to start from, a reward learnt before.

The hash is in the plan, so a hospital loads what was agreed on or nothing. A refusal is the same
for a folder that is not there and for one that holds something else: a coordinator must not learn
from it what lies on a hospital's disk. Knows nothing of what the arrays mean.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from torch import Tensor

from wardround.privacy.errors import BadInput

WEIGHTS = "adapter_model.safetensors"  # as PEFT names it, and every export here
_SHA256 = re.compile(r"[0-9a-f]{64}")


def require_pin(folder: str, sha256: str, where: str) -> None:
    """Raise ``ValueError`` unless both are given, the hash as 64 hexadecimal digits, or neither."""
    if bool(folder) != bool(sha256):
        raise ValueError(f"{where}: a folder and its sha256 go together; give both or neither")
    if sha256 and not _SHA256.fullmatch(sha256):
        raise ValueError(f"{where}: sha256 is {sha256!r}; expected 64 hexadecimal digits")


@lru_cache(maxsize=4)
def pinned_arrays(folder: str, sha256: str) -> Mapping[str, Tensor]:
    """The arrays in a folder's ``adapter_model.safetensors``; read once.

    Raises:
        BadInput: There are none with this hash there.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = Path(folder).expanduser() / WEIGHTS
    found: dict[str, Tensor] | None = None
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() == sha256:
            found = load(content)
    except (OSError, SafetensorError):
        found = None  # must tell no more than another hash would
    if found is None:
        raise BadInput(f"{path}: holds no arrays with sha256 {sha256[:12]}…")
    return found
