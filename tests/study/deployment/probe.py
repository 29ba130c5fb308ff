"""What a relay that was taken over would try: ``python probe.py PORT SOCKET FILE... HOST:PORT...``.

Prints one JSON document: by attempt, whether it worked.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path


def opens(path: Path) -> bool:
    try:
        if path.is_dir():
            return bool(os.listdir(path)) or True
        return bool(path.read_bytes()) or True
    except OSError:
        return False


def connects(family: int, address: object) -> bool:
    with socket.socket(family) as probe:
        probe.settimeout(3)
        try:
            probe.connect(address)
        except OSError:
            return False
        return True


port, custodian, *targets = sys.argv[1:]
processes = [int(name) for name in os.listdir("/proc") if name.isdigit()]
others = [pid for pid in processes if pid != os.getpid()]
lines = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in others]
status = dict(
    line.split(":\t")
    for line in Path("/proc/self/status").read_text().splitlines()
    if ":\t" in line
)
found: dict[str, object] = {
    "supernode": connects(socket.AF_INET, ("127.0.0.1", int(port))),
    "custodian": connects(socket.AF_UNIX, custodian),
    "processes": len(others),
    "of the custodian": sum(b"custodian" in line for line in lines),
    "environments": sum(opens(Path(f"/proc/{pid}/environ")) for pid in others),
    "memories": sum(opens(Path(f"/proc/{pid}/maps")) for pid in others),
    "capabilities": int(status["CapEff"], 16) | int(status["CapBnd"], 16),
    "new privileges": status["NoNewPrivs"] == "0",
    "interfaces": sorted(name for _, name in socket.if_nameindex()),
    "user": os.getuid(),
}
for target in targets:
    host, colon, number = target.rpartition(":")
    if colon and number.isdigit():
        found[target] = connects(socket.AF_INET, (host, int(number)))
    else:
        found[target] = opens(Path(target))
print(json.dumps(found), "end", sep="\n", flush=True)
