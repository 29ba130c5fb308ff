"""A secure sum's session that was kept for a restart is read with care."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from wardround.privacy.errors import BadInput
from wardround.privacy.secagg.letters import pack
from wardround.privacy.signing import canonical
from wardround.server.secure_gathering import SecureGathering

TERMS = {
    "run": "r", "round": 1, "attempt": "a", "plans": {}, "threshold": 2, "bits": 32, "size": 1,
}  # fmt: skip


@pytest.mark.parametrize(
    "kept",
    [
        b"",
        b"{}",
        b"\xff\xfe",
        pack({}),
        pack({"parts": b"[]", "tally": b""}),
        pack({"parts": canonical({"terms": 3}), "tally": b""}),
        pack({"parts": canonical({"terms": TERMS}), "tally": pack({"keys": pack({"n": b"x"})})}),
    ],
)
def test_a_damaged_session_is_named_and_not_begun_again(tmp_path: Path, kept: bytes) -> None:
    """Beginning again by itself would ask hospitals for a second sum of a round they opened."""
    (tmp_path / "round-0001").write_bytes(kept)
    gathering = SecureGathering(tmp_path, lambda plan, size: 1.0)
    asking = cast("Any", SimpleNamespace(number=1, orders={}))
    with pytest.raises(BadInput, match=r"round-0001: holds no session of a secure sum"):
        gathering.gather(asking, cast("Any", None))
