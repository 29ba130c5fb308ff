"""The rings: who may import whom, and who may construct values that carry a guarantee."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAY_IMPORT = {
    "privacy": {"privacy"},
    "strategies": {"privacy", "strategies"},
    "web": {"privacy", "web"},
    "client": {"privacy", "strategies", "web", "client"},
    "server": {"privacy", "strategies", "web", "server"},
    "study": {"privacy", "strategies", "web", "client", "server", "study"},
}
MODULES = sorted(path for ring in MAY_IMPORT for path in (ROOT / ring).rglob("*.py"))
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def imported_names(path: Path) -> set[str]:
    """Every dotted name a module imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return names


def forbidden_imports(path: Path, ring: str) -> list[str]:
    """Imports of this module that leave its ring's allowance."""
    found = []
    for name in imported_names(path):
        parts = name.split(".")
        if parts[0] in MAY_IMPORT or (
            parts[0] == "wardround" and len(parts) > 1 and parts[1] not in MAY_IMPORT[ring]
        ):
            found.append(name)
    return sorted(found)


@pytest.mark.parametrize("ring", MAY_IMPORT)
def test_imports_stay_inside_the_rings(ring: str) -> None:
    broken = {
        str(path.relative_to(ROOT)): names
        for path in (ROOT / ring).rglob("*.py")
        if (names := forbidden_imports(path, ring))
    }
    assert not broken


def test_a_forbidden_import_is_seen(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(
        "def f():\n    from wardround.server.book import ReportBook\nimport privacy\n"
    )
    assert forbidden_imports(module, "client") == [
        "privacy",
        "wardround.server.book",
        "wardround.server.book.ReportBook",
    ]


def test_only_privacy_touches_the_seal() -> None:
    users = {
        str(path.relative_to(ROOT))
        for path in MODULES
        if any(name.startswith("wardround.privacy._seal") for name in imported_names(path))
    }
    assert users
    assert all(user.startswith("privacy/") for user in users)


def test_one_place_declares_what_came_from_the_coordinator() -> None:
    """``from_coordinator`` makes a Noised that costs nothing, so its callers are counted."""
    callers = [
        f"{path.relative_to(ROOT)}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "from_coordinator"
    ]
    assert callers == ["client/training.py"]


def test_every_package_is_in_the_wheel() -> None:
    folders = {
        "wardround." + ".".join(path.parent.relative_to(ROOT).parts)
        for path in MODULES
        if path.name == "__init__.py"
    }
    assert folders == set(PYPROJECT["tool"]["setuptools"]["packages"])


def test_no_module_is_longer_than_400_lines() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in MODULES
        if (lines := path.read_text(encoding="utf-8").count("\n")) > 400
    }
    assert not long


def test_no_module_uses_a_global_generator() -> None:
    """Law 7; the lint rules ban the imports, this finds calls the linter does not know."""
    banned = re.compile(
        r"np\.random\.|torch\.manual_seed\(|torch\.seed\(|random\.seed|"
        r"torch\.randn?\((?![^\n]*generator)|torch\.bernoulli\((?![^\n]*generator)"
    )
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in MODULES
        for match in banned.finditer(path.read_text(encoding="utf-8"))
    ]
    assert not found


def test_flwr_is_pinned_exactly() -> None:
    flwr = [d for d in PYPROJECT["project"]["dependencies"] if d.startswith("flwr")]
    assert len(flwr) == 1
    version = flwr[0].removeprefix("flwr==")
    assert f"flwr=={version}\n" in (ROOT / "constraints.txt").read_text(encoding="utf-8")
