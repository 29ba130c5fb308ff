"""Processes of a federation are found, and those that have ended are not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from wardround.study.deployment.rehearsal import children_of


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
