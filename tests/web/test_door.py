"""The door: tokens in files, wrong tries, sessions that end; the clock is the test's."""

from __future__ import annotations

from pathlib import Path

import pytest

from wardround.privacy.errors import BadInput
from wardround.web.door import Door, TooManyTries, load_or_create_token
from wardround.web.serving import Listening

TOKEN = "a-token-for-tests-and-nothing-else"


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_token_file_is_made_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "token"
    token = load_or_create_token(path)
    assert len(token) >= 43  # 256 bits in base64
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_or_create_token(path) == token


def test_a_token_may_have_been_written_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(f"  {TOKEN}\r\n\n")
    path.chmod(0o600)
    assert load_or_create_token(path) == TOKEN


@pytest.mark.parametrize(
    ("content", "mode", "says"),
    [
        (TOKEN, 0o640, "chmod 600"),
        (TOKEN, 0o604, "chmod 600"),
        ("", 0o600, "holds 0 characters"),
        ("short", 0o600, "holds 5 characters"),
        ("x" * 600, 0o600, "holds 600 characters"),
        ("ä" * 30, 0o600, "cannot be read"),
        ("a\0" * 20, 0o600, "characters"),
    ],
)
def test_a_token_file_others_can_use_is_refused(
    tmp_path: Path, content: str, mode: int, says: str
) -> None:
    path = tmp_path / "token"
    path.write_text(content, encoding="utf-8")
    path.chmod(mode)
    with pytest.raises(BadInput, match=says) as caught:
        load_or_create_token(path)
    assert not content or content not in str(caught.value)


def test_five_wrong_tries_close_the_door_for_a_minute() -> None:
    clock = Clock()
    door = Door(TOKEN, clock)
    for _ in range(5):
        assert door.enter("wrong", "10.0.0.1") is None
        clock.now += 1
    with pytest.raises(TooManyTries) as caught:
        door.enter(TOKEN, "10.0.0.1")  # the right one is not looked at either
    assert caught.value.wait_s == 55
    assert door.enter(TOKEN, "10.0.0.2")  # others are not locked out
    clock.now = 60
    assert door.enter(TOKEN, "10.0.0.1")


def test_guessing_from_many_addresses_needs_no_more_memory() -> None:
    door = Door(TOKEN, Clock())
    for number in range(3000):
        door.enter("wrong", str(number))
    assert len(door._wrong) == 1024


def test_sessions_end_by_time_by_leaving_and_with_too_many_others() -> None:
    clock = Clock()
    door = Door(TOKEN, clock, session_s=100)
    first = door.enter(TOKEN, "a")
    assert first
    assert door.admits(first)
    assert not door.admits(first + "x")
    assert not door.admits("")
    clock.now = 100
    assert not door.admits(first)
    second = door.enter(TOKEN, "a")
    assert second
    door.leave(second)
    assert not door.admits(second)
    third = door.enter(TOKEN, "a")
    assert third
    for _ in range(64):
        door.enter(TOKEN, "a")
    assert not door.admits(third)


def test_a_wide_open_address_needs_tls(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="plain HTTP can be read"):
        Listening(tmp_path / "token", host="0.0.0.0")
    with pytest.raises(BadInput, match="go together"):
        Listening(tmp_path / "token", certificate=tmp_path)
    assert Listening(tmp_path / "token", host="0.0.0.0", behind_proxy=True).secure
    assert Listening(tmp_path / "token", host="::1").address == "http://[::1]:8050/"
