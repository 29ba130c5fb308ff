"""A custodian as a process: opens the hospital's files, serves, and stops when asked to.

One model load serves all rounds. SIGTERM and SIGINT mean: take no more calls, give the running
round some time, exit with 0. A round that does not end in time is given up as by a power cut; its
charge is on disk, and the same plan is answered after the next start without another.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from wardround.client.custodian import Custodian, Surroundings
from wardround.client.custody.place import Place
from wardround.client.custody.serving import CustodianServer
from wardround.client.hospital import Hospital
from wardround.client.streams import Streams
from wardround.client.workbench import Workbench
from wardround.privacy.errors import BadInput
from wardround.study.garbage import spare_what_is_there

log = logging.getLogger("wardround.custodian")


@dataclass(frozen=True)
class Service:
    """How a custodian serves.

    Attributes:
        place: Where it answers.
        device: Where it trains.
        most_bytes: The longest request it takes.
        grace_s: How long a running round may go on after SIGTERM.
        seed: Repeats rounds of mode none, which protect nobody; None never repeats anything.
    """

    place: Place
    device: str
    most_bytes: int
    grace_s: float
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.most_bytes < 1:
            raise BadInput(f"most_bytes is {self.most_bytes}; it must be at least 1")
        if self.grace_s < 0:
            raise BadInput(f"grace_s is {self.grace_s}; it must be at least 0")


def serve_hospital(
    hospital: Hospital, service: Service, ready: Callable[[str], None] = lambda key: None
) -> None:
    """Serve until SIGTERM or SIGINT; ``ready`` is told the public key once calls are taken.

    Raises:
        BadInput: A file cannot be used, or nobody can listen at the place.
        LedgerError: The ledger is damaged or another process holds it.
    """
    if not hospital.records.exists():
        raise BadInput(f"{hospital.records}: no such file or folder")
    os.umask(0o077)
    asked = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked.set())
    with Workbench(device=service.device) as workbench:
        custodian = Custodian(hospital, Surroundings(workbench, Streams(service.seed)))
        # The ledger's lock is held from here on, so a socket file that is left over is nobody's.
        server = CustodianServer(custodian, service.place, service.most_bytes)
        spare_what_is_there()
        log.info("serving hospital=%s", hospital.name)
        ready(custodian.public_key)
        asked.wait()
        if not server.stop(service.grace_s):
            log.warning("stopped during a round; it is charged and will be done again when asked")
            logging.shutdown()
            sys.stdout.flush()
            os._exit(0)  # the thread that trains must not meet a closed ledger
        custodian.close()
        log.info("stopped")


def read_members(path: Path) -> Mapping[str, str]:
    """Public signing keys by hospital, from a JSON object.

    Raises:
        BadInput: Not a file of that form.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: not a file of public keys in JSON") from error
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found.values()):
        raise BadInput(f"{path}: expected an object of public keys by hospital")
    return found
