"""What the wheel must hold, read from its configuration; and the public command in it."""

from __future__ import annotations

import tomllib
from importlib.metadata import entry_points
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOL = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]


def test_data_files_are_packed() -> None:
    """Every file that is not Python, inside a package, matches a package-data pattern."""
    rings = {name.split(".")[1]: name for name in TOOL["packages"]}
    packed = {
        path
        for package, patterns in TOOL["package-data"].items()
        for ring in rings
        for pattern in patterns
        for path in (
            (ROOT / ring).glob(f"**/{pattern}")
            if package == "*"
            else (ROOT / "/".join(package.split(".")[1:])).glob(pattern)
        )
    }
    others = {
        path
        for ring in rings
        for path in (ROOT / ring).rglob("*")
        if path.is_file() and path.suffix != ".py" and "__pycache__" not in path.parts
    }
    assert others - packed == set()


def test_bases_together_stay_small() -> None:
    """The repository ships at most 15 MB of base models."""
    sizes = [path.stat().st_size for path in (ROOT / "client" / "bases").rglob("*.safetensors")]
    assert 0 < sum(sizes) <= 15e6


def test_the_command_is_installed() -> None:
    (found,) = entry_points(group="console_scripts", name="wardround")
    assert found.value == "wardround.study.cli:main"
