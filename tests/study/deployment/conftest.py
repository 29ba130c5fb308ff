"""Places for hospitals: folders every user may enter, a Python every user may run, hosts."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

# A Python below /root cannot be run by other users: in a mount namespace of its own, /root becomes
# a folder that everybody may enter and that holds nothing but that Python.
_OPEN_ROOT = """\
set -e
top=$(mktemp -d)
mount --bind {python} $top
mount -t tmpfs -o mode=755 tmpfs {private}
mkdir -p {python}
mount --bind $top {python}
exec "$@"
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder below which every user may be given something."""
    folder = Path(tempfile.mkdtemp(prefix="wardround-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


def require_namespaces() -> None:
    """Skip where users and namespaces cannot be made."""
    if os.geteuid() != 0:
        pytest.skip("needs root: users and namespaces are made")
    if subprocess.run(["unshare", "--mount", "--net", "--pid", "--fork", "true"]).returncode:
        pytest.skip("this machine makes no namespaces")


@pytest.fixture
def around() -> tuple[str, ...]:
    """What a command has to begin with so that other users can run our Python.

    Skips without root, or where processes cannot be isolated.
    """
    require_namespaces()
    python = Path(sys.base_prefix).resolve()
    private = next((p for p in reversed(python.parents) if not p.stat().st_mode & 0o001), None)
    if private is None:
        return ()
    script = _OPEN_ROOT.format(python=python, private=private)
    return ("unshare", "--mount", "--", "sh", "-c", script, "sh")


@pytest.fixture
def forget_users() -> Iterator[Callable[[str], None]]:
    """Removes, at the end, the users whose names begin so."""
    prefixes: list[str] = []
    yield prefixes.append
    for prefix in prefixes:
        for role in ("custodian", "node", "relay"):
            subprocess.run(["userdel", f"{prefix}-{role}"], capture_output=True, check=False)
        subprocess.run(["groupdel", f"{prefix}-socket"], capture_output=True, check=False)


def module(name: str) -> ModuleType:
    """A file of this folder that is not a test module."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[name] = loaded  # where dataclasses look for what annotations name
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture
def internet() -> Iterator[Callable[..., Any]]:
    """``internet("hospital-1", …)``: an ``Internet`` of ``hosts.py``; skips without root."""
    require_namespaces()
    made = []

    def make(*hospitals: str) -> Any:
        made.append(module("hosts").Internet(hospitals))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def together() -> ModuleType:
    """The module ``together.py``: a federation in the background."""
    return module("together")
