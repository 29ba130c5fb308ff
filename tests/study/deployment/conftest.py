"""A place for isolated hospitals: every user may enter it, and every user may run our Python."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

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


@pytest.fixture
def around() -> tuple[str, ...]:
    """What a command has to begin with so that other users can run our Python.

    Skips without root, or where processes cannot be isolated.
    """
    if os.geteuid() != 0:
        pytest.skip("needs root: users and namespaces are made")
    if subprocess.run(["unshare", "--mount", "--net", "--pid", "--fork", "true"]).returncode:
        pytest.skip("this machine makes no namespaces")
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
