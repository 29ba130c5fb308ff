"""Serves a custodian that kills itself: POINT COUNT and the words of a ``wardround`` command."""

from __future__ import annotations

import sys

from killed_run import arm

from wardround.study.cli import main

if __name__ == "__main__":
    _, point, count, *words = sys.argv
    arm(point, int(count))
    sys.argv = ["wardround", *words]
    main()
