"""The resident relay as a process: between one SuperNode and one custodian, until SIGTERM.

Imports neither torch nor any code that reads data.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from pathlib import Path

from wardround.client.custody.calling import RemoteCustodian
from wardround.client.custody.place import Place
from wardround.client.custody.resident import Resident, read_allowed
from wardround.client.custody.runtime_api import SuperNode
from wardround.client.relay import make_relay


def run_relay(
    place: Place,
    supernode: SuperNode,
    allow: Path,
    deadline_s: float,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Answer until SIGTERM or SIGINT; a message at hand is then answered with an error.

    Raises:
        BadInput: A file cannot be used.
        FlowerChanged: Flower's internals are not those this was written against.
        UntrustedPeer: The SuperNode does not accept the secret.
    """
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for every look, otherwise
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with RemoteCustodian(place, deadline_s) as custodian:
        app = make_relay(lambda context: custodian)
        resident = Resident(supernode.connect(), app, read_allowed(allow))
        ready()
        resident.run(stop)
