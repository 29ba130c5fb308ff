"""Kills a ledger's owner with SIGKILL again and again; prints what it saw as one JSON document.

Run by ``test_kills.py`` in a process of its own, because it forks and must hold no other threads.
Usage: ``python kill_worker.py FOLDER KILLS``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from wardround.privacy.events import Gaussian, primitive_counts
from wardround.privacy.ledger import Charge, Ledger
from wardround.privacy.signing import SigningKey, sha256
from wardround.privacy.stream import SecureStream
from wardround.privacy.units import Unit

EVENT = Gaussian(2.0)


def charge(number: int) -> Charge:
    """The charge of one round."""
    return Charge("lab", "run", number, sha256(b"plan %d" % number), "ward", Unit.PATIENT, EVENT)


def serve(folder: Path, key: SigningKey, first: int, out: int) -> None:
    """Reserve and commit round after round until killed; tell the parent what was acknowledged."""
    ledger = Ledger(folder, key)
    number = first
    while True:
        if ledger.stored_reply("run", number, charge(number).plan_sha256) is None:
            reservation = ledger.reserve(charge(number))
            os.write(out, b"r%d\n" % number)
            reply = os.urandom(2000)
            ledger.commit(reservation, reply)
            os.write(out, b"c%d %s\n" % (number, sha256(reply).encode()))
        number += 1


def kill_once(folder: Path, key: SigningKey, first: int, lines: int, delay_s: float) -> list[str]:
    """What a child acknowledged before it was killed, a moment after that many lines."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            serve(folder, key, first, write)
        finally:
            os._exit(1)
    os.close(write)
    with os.fdopen(read) as pipe:
        seen = [pipe.readline() for _ in range(lines)]
        time.sleep(delay_s)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return [line.strip() for line in (*seen, *pipe.readlines())]


def main() -> None:
    """Kill, look, kill again; a fresh ledger from time to time, so that opening stays quick."""
    folder, kills = Path(sys.argv[1]), int(sys.argv[2])
    totals = [batch(folder / str(start), min(15, kills - start)) for start in range(0, kills, 15)]
    answered = sum(count for count, _ in totals)
    wrong = [what for _, found in totals for what in found]
    print(json.dumps({"kills": kills, "answered": answered, "wrong": wrong}))


def batch(folder: Path, kills: int) -> tuple[int, list[str]]:
    """How many rounds were answered while a ledger's owner was killed, and what went wrong."""
    key = SigningKey.generate()
    draws = SecureStream.from_os().uniform(2 * kills).reshape(kills, 2)
    charged: set[int] = set()
    answered: dict[int, str] = {}
    wrong: list[str] = []
    for when, delay in draws.tolist():
        first = max(charged, default=1)
        for line in kill_once(folder, key, first, int(7 * when), 0.003 * delay):
            number, _, digest = line[1:].partition(" ")
            charged.add(int(number))
            if digest and answered.setdefault(int(number), digest) != digest:
                wrong.append(f"round {number} was answered twice")
        ledger = Ledger(folder, key)
        spent = primitive_counts(ledger.spent("ward", Unit.PATIENT)).get(EVENT, 0)
        if not len(charged) <= spent <= len(charged) + 1:
            wrong.append(f"{spent} rounds charged, {len(charged)} acknowledged")
        for number in list(answered)[-2:]:
            reply = ledger.stored_reply("run", number, charge(number).plan_sha256)
            if reply is None or sha256(reply) != answered[number]:
                wrong.append(f"round {number} has another answer")
        ledger.close()
    return len(answered), wrong


if __name__ == "__main__":
    main()
