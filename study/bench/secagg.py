"""What a secure sum costs beside plain updates: bytes and processor time, at every party.

One round of the protocol in memory, with signed requests and answers as they would travel; the
plain round is the same update encoded, signed, verified and added up. Training is left out, as are
the arrays sent down, because both rounds have them in common.
"""

from __future__ import annotations

import secrets
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from wardround.privacy.envelope import open_bytes, seal_bytes
from wardround.privacy.secagg.lattice import (
    Words,
    from_words,
    lattice_for,
    read_words,
    to_words,
)
from wardround.privacy.secagg.letters import pack, read_letter, write_letter
from wardround.privacy.secagg.party import AGREE, MASKED, REVEAL, Party
from wardround.privacy.secagg.requests import read_request, write_request
from wardround.privacy.secagg.shares import KEYS, SHARES
from wardround.privacy.secagg.tally import Tally
from wardround.privacy.secagg.terms import Terms, least_threshold
from wardround.privacy.signing import SigningKey
from wardround.strategies.codec import decode, encode


def secagg_benchmark(hospitals: list[int], numbers: int, repeats: int) -> dict[str, Any]:
    """Bytes and milliseconds a hospital, milliseconds at the coordinator, for each size.

    Args:
        hospitals: Sizes of the consortium.
        numbers: Numbers in an update.
        repeats: Rounds timed; medians are given.
    """
    return {
        "rounds": [
            _compare(count, numbers, repeats, lost)
            for count in hospitals
            for lost in sorted({0, count - least_threshold(count)})
        ],
        "settings": {"numbers": numbers, "repeats": repeats, "word_bits": 32},
    }


def _compare(count: int, numbers: int, repeats: int, lost: int) -> dict[str, Any]:
    """One row: the secure round and the plain one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        secure = [_SecureRound(count, numbers, lost).run() for _ in range(repeats)]
        plain = [_plain_round(count, numbers) for _ in range(repeats)]
    finally:
        torch.set_num_threads(threads)
    rows = {"secure": _medians(secure), "plain": _medians(plain)}
    up = rows["secure"]["bytes_up"] / rows["plain"]["bytes_up"] - 1
    return {
        "hospitals": count,
        "threshold": least_threshold(count),
        "dropped_out": lost,
        **rows,
        "bytes_up_overhead": round(up, 4),
    }


def _medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of every figure."""
    return {name: round(statistics.median(r[name] for r in rounds), 2) for name in rounds[0]}


def _update(numbers: int) -> torch.Tensor:
    """Numbers as an update has them."""
    return torch.linspace(-0.1, 0.1, numbers)


class _Watch:
    """Adds up the processor time of the calls it is asked to make."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def time(self, function: Callable[..., Any], *args: Any) -> Any:
        """What the function returns."""
        started = time.process_time()
        try:
            return function(*args)
        finally:
            self.seconds += time.process_time() - started


class _SecureRound:
    """One round of the protocol; the first hospital's watch stands for all of them."""

    def __init__(self, count: int, numbers: int, lost: int) -> None:
        self.keys = {f"hospital-{i:03d}": SigningKey.generate() for i in range(count)}
        self.coordinator = SigningKey.generate()
        self.numbers = numbers
        self.terms = Terms(
            run="bench",
            round=1,
            attempt="0",
            threshold=least_threshold(count),
            bits=32,
            size=numbers,
            members={name: key.public for name, key in self.keys.items()},
            plans=dict.fromkeys(self.keys, "0" * 64),
        )
        self.lattice = lattice_for(8.0, 32, count)
        self.silent = set(list(self.keys)[count - lost :])
        self.first = next(iter(self.keys))
        self.hospital, self.server = _Watch(), _Watch()
        self.up = self.down = 0

    def run(self) -> dict[str, float]:
        """Bytes and milliseconds."""
        terms = self.terms
        parties = {n: Party(terms, n, k, secrets.token_bytes(32)) for n, k in self.keys.items()}
        tally = Tally(terms)
        self._stage(KEYS, parties, lambda n: {}, lambda p, parts: p.advertise(), tally.take_keys)
        self._stage(SHARES, parties, lambda n: tally.keys, Party.share, tally.take_shares)

        def mask(party: Party, parts: Mapping[str, bytes]) -> bytes:
            steps = self.lattice.round({"a": _update(self.numbers)})
            row = party.mask(parts, to_words(steps, 32)).tobytes()
            name = next(n for n, p in parties.items() if p is party)
            return write_letter(terms, MASKED, name, {}, self.keys[name], row)

        def take(name: str, letter: bytes) -> None:
            attached = read_letter(letter, terms, MASKED, name)[1]
            tally.take_masked(name, read_words(attached, terms.size, 32))

        alive = {n: p for n, p in parties.items() if n not in self.silent}
        self._stage(MASKED, alive, tally.letters_for, mask, take)
        listed = dict.fromkeys(tally.survivors, b"")
        self._stage(
            AGREE, alive, lambda n: listed, lambda p, s: p.agree(sorted(s)), tally.take_agreement
        )
        self._stage(REVEAL, alive, lambda n: tally.agreements, Party.reveal, tally.take_reveal)
        self._check(self.server.time(tally.total), len(alive))
        return {
            "bytes_up": self.up,
            "bytes_down": self.down,
            "hospital_ms": self.hospital.seconds * 1e3,
            "coordinator_ms": self.server.seconds * 1e3,
        }

    def _stage(
        self,
        stage: str,
        parties: Mapping[str, Party],
        parts: Callable[[str], Mapping[str, bytes]],
        answer: Callable[[Party, Mapping[str, bytes]], bytes],
        take: Callable[[str, bytes], None],
    ) -> None:
        """Ask every hospital; what the first one sends, gets and works is counted."""
        letters = {}
        for name, party in parties.items():
            watch = self.hospital if name == self.first else _Watch()
            sealed = self.server.time(
                write_request, self.terms, stage, parts(name), self.coordinator
            )
            _, _, read = watch.time(read_request, sealed, self.coordinator.public)
            letters[name] = watch.time(answer, party, read)
            if name == self.first:
                self.down += len(sealed)
                self.up += len(pack({"letter": letters[name]}))
        for name, letter in letters.items():
            self.server.time(take, name, letter)

    def _check(self, total: Words, alive: int) -> None:
        """The sum must be right, or the figures mean nothing."""
        found = from_words(total, {"a": torch.Size([self.numbers])}, 32)["a"].double()
        exact = _update(self.numbers).double() * alive
        off = float((found * self.lattice.step - exact).abs().max())
        if off > self.lattice.error(alive):
            raise AssertionError("the secure sum is off by more than its lattice says")


def _plain_round(count: int, numbers: int) -> dict[str, float]:
    """The same update by itself: encoded, signed, verified, decoded, added up."""
    key, hospital, server = SigningKey.generate(), _Watch(), _Watch()
    sealed = b""

    def send() -> bytes:
        return seal_bytes(encode({"kind": "update"}, {"a": _update(numbers)}), key, "reply")

    def take(sealed: bytes) -> None:
        _, arrays = decode(open_bytes(sealed, key.public, "reply"), "reply")
        total.add_(arrays["a"])

    total = torch.zeros(numbers, dtype=torch.float64)
    sealed = hospital.time(send)
    for _ in range(count):
        server.time(take, sealed)
    return {
        "bytes_up": len(sealed),
        "bytes_down": 0,
        "hospital_ms": hospital.seconds * 1e3,
        "coordinator_ms": server.seconds * 1e3,
    }
