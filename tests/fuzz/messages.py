"""Parsers of what comes over the wire: plans, arrays, secure sums, reports."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from wardround.client.custody.wire import read_parts, to_chunks
from wardround.client.lora import AdapterConfig
from wardround.client.models import Loading
from wardround.client.training import TrainingConfig
from wardround.privacy.chain import LedgerHead
from wardround.privacy.envelope import open_bytes, parse_document, seal_bytes
from wardround.privacy.events import (
    Composed,
    Gaussian,
    PoissonSampled,
    Repeated,
    from_json,
    to_json,
)
from wardround.privacy.plan import PrivacyPlan, RoundPlan, plan_from_json
from wardround.privacy.report import Standing, check_report, hospital_report, sign_report
from wardround.privacy.secagg.lattice import read_words
from wardround.privacy.secagg.letters import pack, unpack
from wardround.privacy.secagg.party import AGREE, MASKED, REVEAL, Party
from wardround.privacy.secagg.requests import REQUEST, read_request, write_request
from wardround.privacy.secagg.shares import KEYS, SHARES, read_keys, read_share
from wardround.privacy.secagg.tally import Tally
from wardround.privacy.secagg.terms import SecureSum, Terms
from wardround.privacy.signing import canonical
from wardround.privacy.stream import SecureStream
from wardround.privacy.tables import from_table
from wardround.privacy.units import Unit
from wardround.strategies.codec import decode, encode
from wardround.strategies.encoding import Encoding

parsers = sys.modules["fuzz_parsers"]
Kind, Parser, key_of = parsers.Kind, parsers.Parser, parsers.key_of

COORDINATOR = key_of(1)
NAMES = ("h0", "h1", "h2")
HEAD = LedgerHead(3, "a" * 64)
PLAN = RoundPlan(
    study="s", run="run-1", round=1, rounds=4, hospital="h0", task="editing", strategy="fedavg",
    base="drugs", base_sha256="0" * 64, arrays_sha256="1" * 64,
    privacy=PrivacyPlan(Unit.RECORD, 1.0, 1.0, 0.1, 2, 6.0),
    ledger_head=HEAD, trains=("a", "b"), turns=(("a",), ("b",)), secure=SecureSum(3, 3),
    adapter={"rank": 2, "targets": ["q_proj"]}, training={"optimizer": "adam"},
)  # fmt: skip
TERMS = Terms(
    run="run-1", round=1, attempt="0", threshold=3, bits=32, size=8,
    members={name: key_of(i + 10).public for i, name in enumerate(NAMES)},
    plans=dict.fromkeys(NAMES, "0" * 64),
)  # fmt: skip


def plans(_: Path) -> Sequence[bytes]:
    """A plan with every part, and a plain one."""
    return PLAN.to_bytes(), replace(PLAN, secure=None, ledger_head=None, turns=()).to_bytes()


def read_plan(data: bytes, _: Path) -> object:
    """What a custodian does with a plan that the coordinator truly signed."""
    sealed = seal_bytes(data, COORDINATOR, "plan")
    plan = plan_from_json(parse_document(open_bytes(sealed, COORDINATOR.public, "plan"), "plan"))
    return plan.sha256, plan.privacy.event


def read_settings(data: bytes, _: Path) -> object:
    """What a plan leaves to those it concerns."""
    document = parse_document(data, "settings")
    training = from_table(TrainingConfig, document.get("training"), "plan training")
    adapter = AdapterConfig.from_table(document.get("adapter"))
    return training, adapter, from_table(Loading, document.get("model"), "plan model")


def settings(_: Path) -> Sequence[bytes]:
    """Training, adapter and loading as a plan brings them."""
    document = {
        "training": {"optimizer": "adam", "learning_rate": 0.02, "micro_batch": "auto"},
        "adapter": {"rank": 2, "alpha": 4, "targets": ["layers.7.mlp.down_proj"]},
        "model": {"revision": "", "dtype": "bfloat16"},
    }
    return (canonical(document),)


def blocks(_: Path) -> Sequence[bytes]:
    """Arrays in every encoding, an empty array and a scalar among them."""
    arrays = {"a": torch.arange(6.0).view(2, 3), "b": torch.zeros(0, 4), "c": torch.tensor(1.5)}
    stream = SecureStream(b"a key for tests and nothing else"[:32])
    return [encode({"kind": "update", "round": 1}, arrays, kind, stream) for kind in Encoding]


def read_block(data: bytes, _: Path) -> object:
    """Header and arrays, decoded to the last value."""
    return decode(data, "arrays")


@lru_cache(maxsize=1)
def session() -> dict[str, Any]:
    """A secure sum of three hospitals up to its opening: every letter, by stage."""
    parties = {
        name: Party(TERMS, name, key_of(i + 10), bytes([i + 100]) * 32)
        for i, name in enumerate(NAMES)
    }
    keys = {name: party.advertise() for name, party in parties.items()}
    shares = {name: party.share(keys) for name, party in parties.items()}
    tally = Tally(TERMS)
    for name in NAMES:
        tally.take_keys(name, keys[name])
    for name in NAMES:
        tally.take_shares(name, shares[name])
    for name, party in parties.items():
        row = read_words(bytes(32), 8, 32)
        tally.take_masked(name, party.mask(tally.letters_for(name), row))
    key = parties["h0"]._envelope_key("h1", "h0")
    agreements = {name: party.agree(NAMES) for name, party in parties.items()}
    revealed = {name: party.reveal(agreements) for name, party in parties.items()}
    return {"keys": keys, "shares": shares, "key": key, "tally": tally.to_bytes(),
            "agreements": agreements, "revealed": revealed}  # fmt: skip


def body_of(letter: bytes) -> bytes:
    """What a letter says, without its signature."""
    return letter[64:].partition(b"\n")[0]


def signed_letter(body: bytes, stage: str, name: str) -> bytes:
    """A body as ``name`` would sign it."""
    return seal_bytes(body + b"\n", key_of(NAMES.index(name) + 10), f"secagg {stage}")


def read_advertised(data: bytes, _: Path) -> object:
    """A dishonest hospital's keys, truly signed."""
    return read_keys(signed_letter(data, KEYS, "h1"), TERMS, "h1")


def read_dealt(data: bytes, _: Path) -> object:
    """A dishonest hospital's shares, truly signed, at the coordinator and at their holder."""
    letter, dealt = signed_letter(data, SHARES, "h1"), unpack(session()["shares"]["h1"], "shares")
    tally = Tally(TERMS)
    for name in NAMES:
        tally.take_keys(name, session()["keys"][name])
    tally.take_shares("h1", pack({**dealt, "h0": letter}))
    return read_share(letter, TERMS, "h1", "h0", session()["key"])


def collected() -> Tally:
    """The coordinator's side of the secure sum, with every masked row."""
    return Tally.from_bytes(TERMS, session()["tally"])


def read_agreed(data: bytes, _: Path) -> object:
    """A dishonest hospital's list of survivors, truly signed."""
    return collected().take_agreement("h1", signed_letter(data, AGREE, "h1"))


def read_revealed(data: bytes, _: Path) -> object:
    """A dishonest hospital's revealed shares, truly signed."""
    tally = collected()
    for name, letter in session()["agreements"].items():
        tally.take_agreement(name, letter)
    return tally.take_reveal("h1", signed_letter(data, REVEAL, "h1"))


def requests(_: Path) -> Sequence[bytes]:
    """What a coordinator asks in several stages, unsigned."""
    parts = {KEYS: {}, SHARES: session()["keys"], MASKED: {"plan": b"p", "letters": pack({})}}
    return [write_request(TERMS, stage, part, COORDINATOR)[64:] for stage, part in parts.items()]


def read_asked(data: bytes, _: Path) -> object:
    """A request that the coordinator truly signed."""
    return read_request(seal_bytes(data, COORDINATOR, REQUEST), COORDINATOR.public)


def events(_: Path) -> Sequence[bytes]:
    """Events of every form."""
    step = Repeated(PoissonSampled(0.1, Gaussian(1.0)), 20)
    return [canonical(to_json(event)) for event in (Gaussian(2.0), step, Composed((step, step)))]


def read_event(data: bytes, _: Path) -> object:
    """An event, as a ledger and a report hold it."""
    return from_json(parse_document(data, "event"))


def reports(_: Path) -> Sequence[bytes]:
    """A hospital's report without its signature."""
    spent = Repeated(PoissonSampled(0.1, Gaussian(1.0)), 2)
    standing = Standing("h0", "notes", "private", 60, 8.0, 1e-5, spent, spent, HEAD)
    report = hospital_report(PLAN, standing, account=lambda event, delta: 1.0)
    return (canonical(report),)


def read_reported(data: bytes, _: Path) -> object:
    """A report that a dishonest hospital truly signed."""
    report = parse_document(data, "report")
    try:
        report = sign_report(report, COORDINATOR)
    except ValueError:
        report |= {"key": COORDINATOR.public, "signature": "0" * 128}
    check_report(report, COORDINATOR.public, recompute=False)
    return report


def packed(_: Path) -> Sequence[bytes]:
    """Several byte strings as one."""
    return pack({"letter": b"x" * 20, "plan": b"", "told": b"{}"}), pack({})


PARSERS = (
    Parser("plan", Kind.JSON, plans, read_plan),
    Parser(
        "sealed plan",
        Kind.BYTES,
        lambda _: [seal_bytes(PLAN.to_bytes(), COORDINATOR, "plan")],
        lambda data, _: open_bytes(data, COORDINATOR.public, "plan"),
    ),
    Parser(
        "parts of a request",
        Kind.BYTES,
        lambda _: [b"".join(to_chunks(b"plan", b"arrays" * 9)), b"".join(to_chunks(b"", b""))],
        lambda data, _: read_parts([data[:5], data[5:]], 2, most_bytes=4096),
    ),
    Parser("settings of a plan", Kind.JSON, settings, read_settings),
    Parser("block of arrays", Kind.BLOCK, blocks, read_block),
    Parser("event", Kind.JSON, events, read_event),
    Parser("report", Kind.JSON, reports, read_reported),
    Parser("packed parts", Kind.BYTES, packed, lambda data, _: unpack(data, "parts")),
    Parser(
        "letter of keys",
        Kind.JSON,
        lambda _: [body_of(session()["keys"]["h1"])],
        read_advertised,
    ),
    Parser(
        "letter of shares",
        Kind.JSON,
        lambda _: [body_of(unpack(session()["shares"]["h1"], "s")["h0"])],
        read_dealt,
    ),
    Parser(
        "letter of survivors",
        Kind.JSON,
        lambda _: [body_of(session()["agreements"]["h1"])],
        read_agreed,
    ),
    Parser(
        "letter that opens a sum",
        Kind.JSON,
        lambda _: [body_of(session()["revealed"]["h1"])],
        read_revealed,
    ),
    Parser("request of a secure sum", Kind.LINES, requests, read_asked),
    Parser(
        "kept tally",
        Kind.BYTES,
        lambda _: [session()["tally"]],
        lambda data, _: Tally.from_bytes(TERMS, data),
    ),
    Parser(
        "words", Kind.BYTES, lambda _: [bytes(range(32))], lambda data, _: read_words(data, 8, 32)
    ),
)
