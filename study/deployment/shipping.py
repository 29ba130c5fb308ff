"""The bundle that a coordinator ships: names in the installed package, and no code.

Flower makes the same bytes of the same files, so a hospital works out the SHA-256 of its own
release's bundle and lists that, instead of believing what it is told.
"""

from __future__ import annotations

import hashlib
import shutil
from importlib.resources import as_file, files
from pathlib import Path

from wardround.privacy.errors import BadInput


def bundle_sha256() -> str:
    """SHA-256 of this release's bundle as Flower ships it."""
    from flwr.cli.build import build_fab_from_disk

    with as_file(files("wardround.study.deployment") / "shipped") as folder:
        return hashlib.sha256(build_fab_from_disk(folder)).hexdigest()


def write_bundle(out: Path) -> None:
    """Write the bundle's folder, for ``flwr run``; ``BadInput`` when ``out`` exists."""
    if out.exists():
        raise BadInput(f"{out}: exists; nothing is overwritten")
    with as_file(files("wardround.study.deployment") / "shipped") as folder:
        shutil.copytree(folder, out)
