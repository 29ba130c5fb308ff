"""Starts a hospital's isolated processes with a probe in the relay's place; run by a test as root.

``python probing.py FOLDER RECORDS NODE_PORT PREFIX PROBE TARGET...``: what the probe says comes on
standard output. Everything around the probe is as around the relay.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from wardround.study.deployment.hospital import HospitalPlace, isolated_services
from wardround.study.deployment.isolation import Users
from wardround.study.deployment.processes import PYTHON, Launcher
from wardround.study.deployment.supervision import Supervisor
from wardround.study.provisioning.hospital import HospitalFolder

folder, records, port, prefix, probe, *targets = sys.argv[1:]
home = HospitalFolder(Path(folder))
place = HospitalPlace(home, Path(folder) / "policy.toml", Path(records), int(port))
*others, relay = isolated_services(place, datetime.now(UTC), Users(prefix))
custodian, supernode = others[1].name, others[2].name
assert (custodian, supernode) == ("custodian", "supernode")
command = list(relay.command)
probing = replace(
    relay,
    command=[*command[: command.index(PYTHON)], PYTHON, "-P", probe, *targets],
    after=("custodian", "passage"),
    takes_down=(),
)
said = place.run / "relay.log"
supervisor = Supervisor([*others, probing], Launcher(place.run, place.run / "flower"))
supervisor.run(until=lambda: said.exists() and said.read_text().endswith("end\n"))
print(said.read_text().splitlines()[0])
