"""The resident relay: one process that answers every message a SuperNode has, and runs no bundle.

Flower's executor starts a process for each message and runs in it what the coordinator shipped.
This one compares the bundle's SHA-256 with the hospital's list and never unpacks it, so no
coordinator's code runs at the hospital. A reply is always pushed, an error where there is no
answer: a SuperNode that is told that a task is over and has no reply waits for ever. Where none can
be handed over, the SuperNode is told nothing: after a minute without heartbeats it replies itself.
Imports neither torch nor any code that reads data.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flwr.app import Context, Error, Message

from wardround.client.custody.runtime_api import Runtime, Task
from wardround.privacy.errors import BadInput, PolicyRefused, WardroundError

log = logging.getLogger("wardround.relay")

POLL_S = 0.2
RAISED = 2  # Flower's code for a ClientApp that raised
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Unanswered(WardroundError):
    """A SuperNode waits for a reply that will not come."""


App = Callable[[Message, Context], Message]


@dataclass
class Resident:
    """Answers tasks, one at a time.

    Attributes:
        runtime: Where tasks come from.
        app: Answers a message; may take as long as a round.
        allowed: SHA-256 of every bundle whose messages are answered.
        poll_s: Pause between two looks for a task.
    """

    runtime: Runtime
    app: App
    allowed: frozenset[str]
    poll_s: float = POLL_S

    def run(self, stop: threading.Event) -> None:
        """Answer until ``stop`` is set; the task at hand is then answered with an error.

        Raises:
            UntrustedPeer: The SuperNode does not accept this relay.
            Unanswered: A message could not be taken or its reply not handed over.
        """
        while not stop.is_set():
            task = self.runtime.acquire()
            if task is None:
                stop.wait(self.poll_s)
            else:
                self._answer(task, stop)

    def _answer(self, task: Task, stop: threading.Event) -> None:
        """One task from beginning to end; what the app fails with is in the log and the reply."""
        context: Context | None = None
        failure = "no message"
        try:
            message, context, bundle = task.pull()
            reply, failure = self._reply(message, context, bundle, stop)
            task.push(reply, context)
        except Exception as error:
            failure = type(error).__name__
            task.abandon()
            raise Unanswered(
                f"a message got no reply ({failure}); start this relay again: the SuperNode misses "
                "it within about a minute and says so to the coordinator, which asks again"
            ) from error
        try:
            task.finish(context, failure)
        except Exception:
            log.exception("the SuperNode was not told that the task is over")
        log.info("answered failure=%s", failure or "none")

    def _reply(
        self, message: Message, context: Context, bundle: str, stop: threading.Event
    ) -> tuple[Message, str]:
        """The reply, and what went wrong."""
        done = threading.Event()
        found: list[Message] = []
        failures: list[str] = []

        def work() -> None:
            try:
                if bundle not in self.allowed:
                    log.warning("refused bundle=%(bundle)s", {"bundle": bundle})
                    raise PolicyRefused(f"bundle {bundle} is not on this hospital's list")
                found.append(self.app(message, context))
            except Exception as error:
                log.exception("the message was not answered")
                failures.append(type(error).__name__)  # no more than that leaves the house
            finally:
                done.set()

        # A thread of its own, because a stop must be answered while the custodian trains.
        threading.Thread(target=work, daemon=True, name="answer").start()
        while not done.wait(0.05):
            if stop.is_set():
                return _error("the relay was stopped; ask again", message)
        if found:
            return found[0], ""
        return _error(failures[0], message)


def _error(reason: str, message: Message) -> tuple[Message, str]:
    return Message(Error(RAISED, reason), reply_to=message), reason


def read_allowed(path: Path) -> frozenset[str]:
    """The hospital's list: one SHA-256 a line, whatever follows it is a remark.

    Raises:
        BadInput: No such file, or a line that is neither.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from error
    words = [(i, line.split()[0]) for i, line in enumerate(lines, 1) if line.split()]
    entries = [(i, word) for i, word in words if not word.startswith("#")]
    for number, word in entries:
        if not _SHA256.fullmatch(word):
            raise BadInput(f"{path} line {number}: {word!r} is not a SHA-256, 64 digits 0-9 a-f")
    return frozenset(word for _, word in entries)
