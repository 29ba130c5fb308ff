"""``coordinator rehearse`` overwrites nothing; what it starts is run by ``test_federation``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def test_a_folder_that_exists_is_left_alone(
    wardround: Callable[..., Any], small_study: Path, tmp_path: Path
) -> None:
    (tmp_path / "trial").mkdir()
    ended = wardround("coordinator", "rehearse", small_study, "--out", tmp_path / "trial")
    assert ended.code == 2
    assert "exists; nothing is overwritten" in ended.err
    assert not list((tmp_path / "trial").iterdir())
