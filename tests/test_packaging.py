"""What the wheel must hold, read from its configuration; and the public command in it."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import entry_points, packages_distributions
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


def test_what_is_imported_is_declared() -> None:
    """A package that another one happens to bring is there today and may be gone tomorrow."""
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [line for lines in stated["optional-dependencies"].values() for line in lines]
    declared = {
        re.split(r"[^A-Za-z0-9._-]", line)[0].lower().replace("_", "-")
        for line in [*stated["dependencies"], *extras]
    }
    # Parts of a declared one that have names of their own.
    declared |= {"huggingface-hub", "tokenizers", "starlette"}
    providers = packages_distributions()
    missing = {}
    for ring in ("privacy", "strategies", "client", "server", "study", "web"):
        for path in (ROOT / ring).rglob("*.py"):
            for name in _imported(path) - sys.stdlib_module_names - {"wardround"}:
                names = {found.lower().replace("_", "-") for found in providers.get(name, ())}
                if names and not names & declared:  # what is absent here fails where it is used
                    missing[name] = str(path.relative_to(ROOT))
    assert not missing


def _imported(path: Path) -> set[str]:
    """Top names of what a module imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found
