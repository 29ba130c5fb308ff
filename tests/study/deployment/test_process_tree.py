"""What a process started is found, at any depth, and what has ended is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from wardround.study.deployment.process_tree import children_of, with_descendants


def test_a_child_that_ended_and_was_not_waited_for_does_not_run() -> None:
    """Flower's executor waits for none of its apps, so each stays behind as a zombie."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert child.pid in children_of(os.getpid())
        child.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert child.pid not in children_of(os.getpid())
    finally:
        child.kill()
        child.communicate()


def test_grandchildren_are_found() -> None:
    code = "import subprocess; print(subprocess.Popen(['cat'], stdout=2).pid, flush=True); input()"
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert child.stdout is not None
        grandchild = int(child.stdout.readline())
        assert {os.getpid(), child.pid, grandchild} <= set(with_descendants(os.getpid()))
        assert with_descendants(child.pid) == [child.pid, grandchild]
    finally:
        child.kill()
        child.communicate()
