"""Carries out the steps of the Dockerfile on this machine, without any container engine.

The base image is stood in for by this machine's own root: an overlay takes what the steps write, in
a mount namespace of its own, so nothing else is touched. Python is laid where the base image has
it. Packages come from wherever pip is configured to look. Needs root.

    python tests/study/deployment/plain/image.py FOLDER
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]
BASE_PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
KNOWN = ("FROM", "ARG", "ENV", "RUN", "COPY", "WORKDIR", "USER", "CMD")


@dataclass
class Image:
    """What a finished image says about itself.

    Attributes:
        env: Environment of every process.
        user: Default user, ``uid:gid``.
        workdir: Where processes start.
        command: What is run when nobody says.
    """

    env: dict[str, str] = field(default_factory=lambda: {"PATH": BASE_PATH})
    user: str = "0:0"
    workdir: str = "/"
    command: list[str] = field(default_factory=list)


def steps(text: str) -> list[tuple[str, str]]:
    """Instructions and their arguments, continued lines joined; what is not known is an error."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    found = []
    for line in joined.splitlines():
        word, _, rest = line.strip().partition(" ")
        if word not in KNOWN:
            raise ValueError(f"{word}: not an instruction that this script carries out")
        found.append((word, rest.strip()))
    return found


def mounts(folder: Path) -> Path:
    """The image as a tree, this machine below it; in this mount namespace only."""
    merged = folder / "merged"
    for name in ("layer", "work", "merged"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    below = f"lowerdir=/,upperdir={folder / 'layer'},workdir={folder / 'work'}"
    call("mount", "-t", "overlay", "overlay", "-o", below, str(merged))
    hide(merged)
    return merged


def hide(root: Path) -> None:
    """Cover what the base image would not have, and lay Python where it has it."""
    for path in ("/tmp", "/root", str(ROOT)):
        (root / path[1:]).mkdir(parents=True, exist_ok=True)
        call("mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", str(root / path[1:]))
    (root / "tmp").chmod(0o1777)
    call("mount", "--rbind", "/dev", str(root / "dev"))
    call("mount", "-t", "proc", "proc", str(root / "proc"))
    if sys.base_prefix != "/usr":
        call("mount", "--bind", sys.base_prefix, str(root / "usr/local"))


def call(*command: str) -> None:
    """Run a command that must succeed."""
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def entering(root: Path, image: Image, locked: bool) -> list[str]:
    """The words before a command that put it into ``root`` as the image's user."""
    user, _, group = image.user.partition(":")
    who = [f"--reuid={user}", f"--regid={group or user}", "--clear-groups"]
    if locked:
        who += ["--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]
    settings = [f"{name}={value}" for name, value in image.env.items()]
    inside = ["env", "-i", "--chdir", image.workdir, *settings]
    return ["chroot", str(root), "setpriv", *who, *inside]


def expand(text: str, known: dict[str, str]) -> str:
    """``text`` with ``$NAME`` and ``${NAME}`` filled in."""
    return re.sub(r"\$\{?(\w+)\}?", lambda match: known.get(match[1], ""), text)


def copy(words: list[str], root: Path, image: Image) -> None:
    """``COPY``: only what ``.dockerignore`` lets through."""
    *sources, target = words
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    never = [line.removeprefix("**/").rstrip("/") for line in ignored if line.startswith("**/")]
    into = root / os.path.join(image.workdir, target).lstrip("/")
    for source in sources:
        if f"!{source}" not in ignored:
            raise ValueError(f"COPY {source}: .dockerignore does not let it through")
        if (ROOT / source).is_dir():
            shutil.copytree(
                ROOT / source, into, ignore=shutil.ignore_patterns(*never), dirs_exist_ok=True
            )
        else:
            shutil.copy(ROOT / source, into)


def build(folder: Path) -> Image:
    """Carry out every step; what came of it is in ``folder``."""
    root = mounts(folder)
    call("chroot", str(root), "ldconfig")  # the interpreter's library is in a new place
    image = Image()
    outside = {k: v for k, v in os.environ.items() if k.startswith("PIP_")}
    arguments: dict[str, str] = {}
    for word, rest in steps((ROOT / "Dockerfile").read_text(encoding="utf-8")):
        began = time.monotonic()
        if word == "ARG":
            name, _, value = rest.partition("=")
            arguments[name] = os.environ.get(name, value.strip('"'))
        elif word == "ENV":
            for pair in shlex.split(rest):
                name, _, value = pair.partition("=")
                image.env[name] = expand(value, image.env)
        elif word == "RUN":
            known = Image({**outside, **arguments, **image.env}, image.user, image.workdir)
            call(*entering(root, known, locked=False), "/bin/sh", "-e", "-c", rest)
        elif word == "COPY":
            copy(shlex.split(rest), root, image)
        elif word == "WORKDIR":
            image.workdir = rest
            (root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif word == "USER":
            image.user = rest
        elif word == "CMD":
            image.command = json.loads(rest)
        print(f"{time.monotonic() - began:6.1f} s  {word} {rest[:90]}", flush=True)
    (folder / "image.json").write_text(json.dumps(vars(image), indent=1), encoding="utf-8")
    return image


def check(folder: Path, image: Image) -> None:
    """Its command runs as its user, without rights, on a root that cannot be written."""
    root = folder / "merged"
    call("mount", "-o", "remount,ro", str(root))
    inside = entering(root, image, locked=True)
    call(*inside, *image.command)
    seen = subprocess.run([*inside, "touch", "/here"], capture_output=True, text=True, check=False)
    if "Read-only file system" not in seen.stderr:
        raise ValueError(f"the root can be written: {seen}")


def main() -> None:
    """Enter a namespace, then build."""
    folder = Path(sys.argv[1]).resolve()
    if "--inside" not in sys.argv:
        with_us = ["setpriv", "--pdeathsig", "KILL"]  # however this process ends
        inside = [*with_us, "unshare", "--mount", "--pid", "--fork", "--kill-child"]
        sys.exit(subprocess.call([*inside, sys.executable, __file__, str(folder), "--inside"]))
    began = time.monotonic()
    image = build(folder)
    check(folder, image)
    print(f"{time.monotonic() - began:6.1f} s  all steps, user {image.user}, read-only root")


if __name__ == "__main__":
    main()
