"""Serves a custodian that ends itself: POINT COUNT and the words of a ``wardround`` command.

At the point ``stop in training`` it sends itself SIGTERM and trains on for ever; at any other it
kills itself.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

from killed_run import arm

from wardround.client import training
from wardround.study.cli import main


def stop_in_training(*args: Any, **kwargs: Any) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait()


if __name__ == "__main__":
    _, point, count, *words = sys.argv
    if point == "stop in training":
        training.clipped_sum = stop_in_training  # type: ignore[assignment]
    else:
        arm(point, int(count))
    sys.argv = ["wardround", *words]
    main()
