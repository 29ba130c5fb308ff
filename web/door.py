"""The door: who may look. One token, kept in a file; sessions in memory; wrong tries are slowed.

Whoever has the token may look at everything and change nothing. The token is compared in constant
time, and what is kept of a session is a hash, so that a memory dump opens nothing. The clock is
passed in. Knows nothing of HTTP.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from collections import OrderedDict, deque
from collections.abc import Callable
from pathlib import Path

from wardround.privacy.errors import BadInput

_TOKEN_BYTES = 32
_LEAST_CHARACTERS = 24
_MOST_CHARACTERS = 512
_MOST_SESSIONS = 64
_MOST_ADDRESSES = 1024

Clock = Callable[[], float]


def load_or_create_token(path: Path) -> str:
    """The token in ``path``; a fresh one, readable by its owner only, when the file is absent.

    Blanks and newlines around it do not belong to it.

    Raises:
        BadInput: Others may read the file, or what it holds is no token.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _load_token(path)
    except OSError as error:
        raise BadInput(f"{path}: the token file cannot be made ({error.strerror})") from error
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(token + "\n")
    return token


def _load_token(path: Path) -> str:
    """What an existing file holds."""
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise BadInput(f"{path}: others may read this token; run chmod 600 on it")
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: the token file cannot be read") from error
    if not _LEAST_CHARACTERS <= len(token) <= _MOST_CHARACTERS or not token.isprintable():
        raise BadInput(
            f"{path}: holds {len(token)} characters; a token has {_LEAST_CHARACTERS} to "
            f"{_MOST_CHARACTERS}. Remove the file and a fresh one is made"
        )
    return token


class TooManyTries(Exception):
    """Somebody guesses; carries how many seconds to wait."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(f"wait {wait_s:.0f} s")
        self.wait_s = wait_s


class Door:
    """Lets in who knows the token, and remembers them for a while."""

    def __init__(
        self,
        token: str,
        clock: Clock,
        session_s: float = 12 * 3600.0,
        tries: int = 5,
        within_s: float = 60.0,
    ) -> None:
        """``tries`` wrong tokens from one address ``within_s`` are looked at; more are not."""
        self._token = _digest(token)
        self._clock = clock
        self._session_s = session_s
        self._tries = tries
        self._within_s = within_s
        self._sessions: OrderedDict[bytes, float] = OrderedDict()
        self._wrong: OrderedDict[str, deque[float]] = OrderedDict()

    def enter(self, token: str, address: str) -> str | None:
        """A session for whoever brings the right token; None for a wrong one.

        Raises:
            TooManyTries: This address has guessed too often; its token was not looked at.
        """
        if not self.knows(token, address):
            return None
        session = secrets.token_urlsafe(_TOKEN_BYTES)
        self._sessions[_digest(session)] = self._clock() + self._session_s
        while len(self._sessions) > _MOST_SESSIONS:
            self._sessions.popitem(last=False)
        return session

    def knows(self, token: str, address: str) -> bool:
        """Whether the token is right; a wrong one counts against ``address``.

        Raises:
            TooManyTries: As for ``enter``.
        """
        now = self._clock()
        wrong = self._wrong.get(address, deque())
        while wrong and now - wrong[0] >= self._within_s:
            wrong.popleft()
        if len(wrong) >= self._tries:
            raise TooManyTries(self._within_s - (now - wrong[0]))
        if hmac.compare_digest(_digest(token), self._token):
            return True
        wrong.append(now)
        self._wrong[address] = wrong
        self._wrong.move_to_end(address)
        while len(self._wrong) > _MOST_ADDRESSES:
            self._wrong.popitem(last=False)
        return False

    def admits(self, session: str) -> bool:
        """Whether this session was opened here and has not run out."""
        ends = self._sessions.get(_digest(session))
        return ends is not None and self._clock() < ends

    def leave(self, session: str) -> None:
        """End a session."""
        self._sessions.pop(_digest(session), None)


def _digest(secret: str) -> bytes:
    """Of equal length whatever the secret is, so that comparing tells nothing."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
