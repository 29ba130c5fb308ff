"""Parsers of what lies on disk: what people write, ledgers, checkpoints, runs, provisioning."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch

from wardround.client.memory import OptimizerMemory
from wardround.client.optimizers import Moments
from wardround.client.personal import Personal
from wardround.client.refusals import RefusalBook, read_refusals
from wardround.privacy.chain import LedgerHead, parse_chain, seal_entry
from wardround.privacy.disk import Disk
from wardround.privacy.envelope import parse_document
from wardround.privacy.errors import BadInput
from wardround.privacy.events import Gaussian, PoissonSampled, RandomisedResponse, Repeated
from wardround.privacy.label_book import LabelBook
from wardround.privacy.ledger import Charge, Ledger
from wardround.privacy.ledger_view import check_export, check_ledger, export_ledger, summarise
from wardround.privacy.policy import Policy
from wardround.privacy.signing import SigningKey, canonical
from wardround.privacy.stream import SecureStream
from wardround.privacy.units import Unit
from wardround.privacy.witness import Witness, read_witness
from wardround.server.book import HospitalAnswer, ReportBook, RoundRecord, read_book, read_history
from wardround.strategies.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from wardround.study.config import Study
from wardround.study.provisioning.authority import found, sign_request
from wardround.study.provisioning.consortium import Consortium
from wardround.study.provisioning.documents import (
    open_kit,
    open_request,
    read_document,
    sign_document,
)
from wardround.study.provisioning.hospital import HospitalFolder, request_kit
from wardround.study.provisioning.keys import (
    HospitalKeys,
    load_node_key,
    load_signing_key,
    load_tls_key,
    signing_key,
    write_private,
)
from wardround.study.provisioning.roster import (
    ConsortiumFolder,
    coordinator_key,
    read_certificate,
    read_roster,
)
from wardround.study.run_folder import RunFolder
from wardround.web.door import load_or_create_token

parsers = sys.modules["fuzz_parsers"]

Kind, Parser, key_of, in_file = parsers.Kind, parsers.Parser, parsers.key_of, parsers.in_file

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
KEY = key_of(2)
TERMS = """
[consortium]
name = "Hôpitaux du Nord"
[coordinator]
hosts = ["coordinator.example", "127.0.0.1"]
[[hospitals]]
name = "north"
[[hospitals]]
name = "south"
hosts = ["localhost"]
[validity]
certificate_days = 90
"""


def examples(pattern: str) -> Callable[[Path], Sequence[bytes]]:
    """The example files that match, as they are once the base's hash is filled in."""
    return lambda _: [
        path.read_bytes().replace(b"@SHA256@", b"0" * 64) for path in sorted(EXAMPLES.glob(pattern))
    ]


def ledger(folder: Path) -> Path:
    """A closed ledger of three rounds, two of them answered."""
    opened = Ledger(folder / "ledger", KEY, lambda: datetime(2030, 1, 1, tzinfo=UTC))
    event = Repeated(PoissonSampled(0.05, Gaussian(1.0)), 20)
    for number in (1, 2, 3):
        charge = Charge("lab", "run-1", number, f"{number:064x}", "ward", Unit.PATIENT, event)
        reservation = opened.reserve(charge)
        if number < 3:
            opened.commit(reservation, f"reply {number}".encode())
    opened.close()
    return folder / "ledger"


def refusals(folder: Path) -> list[bytes]:
    """What a hospital remembers of two refusals."""
    kept = RefusalBook(folder, lambda: datetime(2030, 1, 1, tzinfo=UTC))
    for number in (1, 2):
        kept.note(number, "PolicyRefused", "[allow] tasks does not list 'ranking'")
    return [(folder / "refusals.jsonl").read_bytes()]


def read_token(data: bytes, folder: Path) -> object:
    """A token file that its owner alone may read."""
    path = folder / "token"
    path.write_bytes(data)
    path.chmod(0o600)
    return load_or_create_token(path)


def read_ledger(data: bytes, folder: Path) -> object:
    """A damaged file beside the witness and replies of the sound one, at its owner's."""
    path = ledger(folder)
    (path / "ledger.jsonl").write_bytes(data)
    Ledger(path, KEY).close()
    return check_ledger(path)


def entries(folder: Path) -> Sequence[bytes]:
    """What a ledger's entries say, a line each."""
    lines = (ledger(folder) / "ledger.jsonl").read_bytes().splitlines()
    return [b"\n".join(canonical(json.loads(line)["entry"]) for line in lines)]


def read_entries(data: bytes, _: Path) -> object:
    """A ledger that its dishonest owner made up and truly signed; an auditor reads it."""
    lines, previous = [], "0" * 64
    for number, line in enumerate(data.split(b"\n"), 1):
        try:
            fields = json.loads(line)
            if isinstance(fields, dict):
                fields |= {"seq": number, "previous": previous}
            sealed, previous = seal_entry(fields, KEY)
        except (ValueError, RecursionError):
            sealed = line + b"\n"
        lines.append(sealed)
    return summarise(parse_chain(b"".join(lines), "ledger"), "ledger")


def read_exported(data: bytes, _: Path) -> object:
    """A ledger that was sent to an auditor."""
    return check_export(parse_document(data, "export"))


def witness(folder: Path) -> Sequence[bytes]:
    """Both slots of a witness file."""
    Witness(folder / "head", LedgerHead(7, "a" * 64), Disk()).close()
    return ((folder / "head").read_bytes(),)


def label_page(folder: Path) -> Sequence[bytes]:
    """One run's drawn labels."""
    event = RandomisedResponse(0.5, 2)
    opened = Ledger(folder / "ledger", KEY)
    charge = Charge("s", "run-1", 1, "0" * 64, "d", Unit.LABEL, event)
    stream = SecureStream(b"a key for tests and nothing else"[:32])
    labels = torch.tensor([0, 1, 1])
    LabelBook(folder / "labels").draw("abc", labels, event, opened.reserve(charge), stream)
    opened.close()
    return [path.read_bytes() for path in (folder / "labels").iterdir()]


def read_label_page(data: bytes, folder: Path) -> object:
    """A damaged page of the label book."""
    label_page(folder)
    next((folder / "labels").iterdir()).write_bytes(data)
    return LabelBook(folder / "labels").drawn_in("run-1")


MOMENTS = Moments({"a": torch.ones(2, 2)}, {"a": 3}, {"a": 0.5})


def moments(folder: Path) -> Sequence[bytes]:
    """What an optimizer remembers."""
    OptimizerMemory(folder / "optimizer").keep("run-1", 1, b"{}", MOMENTS)
    return [path.read_bytes() for path in (folder / "optimizer").iterdir()]


def read_moments(data: bytes, folder: Path) -> object:
    """A damaged file of moments."""
    moments(folder)
    next((folder / "optimizer").iterdir()).write_bytes(data)
    return OptimizerMemory(folder / "optimizer").recall("run-1", 2, b"{}")


def personal(folder: Path) -> Sequence[bytes]:
    """What never leaves a hospital."""
    Personal(folder / "personal").save("run-1", 1, {"a": torch.ones(2)})
    return [path.read_bytes() for path in (folder / "personal").rglob("*.safetensors")]


def read_personal(data: bytes, folder: Path) -> object:
    """A damaged file of it."""
    personal(folder)
    next((folder / "personal").rglob("*.safetensors")).write_bytes(data)
    return Personal(folder / "personal").load("run-1", 2)


def checkpoints(folder: Path) -> Sequence[bytes]:
    """A coordinator's checkpoint."""
    state = {"answered": ["north"], "kept": {"scores": [0.5]}}
    save_checkpoint(folder / "kept", Checkpoint(3, {"a": torch.ones(2, 2)}, state))
    return ((folder / "kept" / "round-0003.safetensors").read_bytes(),)


def book(folder: Path) -> Sequence[bytes]:
    """A signed round record."""
    answers = (HospitalAnswer("north", {"epsilon_study": 1.0}, "", 10), HospitalAnswer("south"))
    ReportBook(folder, KEY).write(RoundRecord("s", "run-1", 1, 2, answers, {"accuracy": 0.5}))
    return ((folder / "0001.json").read_bytes(),)


def records_of_book(folder: Path) -> Sequence[bytes]:
    """What a round record says, unsigned."""
    return [canonical(json.loads(one)["record"]) for one in book(folder)]


def read_signed_book(data: bytes, folder: Path) -> object:
    """A round record that its dishonest coordinator truly signed."""
    try:
        record = json.loads(data)
        signature = KEY.sign(canonical(record))
        data = canonical({"record": record, "key": KEY.public, "signature": signature})
    except (ValueError, RecursionError):
        pass  # what cannot be signed is read as it is
    (folder / "0001.json").write_bytes(data)
    return read_book(folder)


def run_facts(_: Path) -> Sequence[bytes]:
    """What is fixed when a run begins."""
    facts = {"run": "run-1", "noise_multiplier": 1.0, "probes": "data/probes.jsonl",
             "members": {"north": KEY.public}, "notes": []}  # fmt: skip
    return (canonical(facts),)


def read_run(data: bytes, folder: Path) -> object:
    """A run folder whose facts are damaged."""
    study = EXAMPLES / "medical-editing" / "study.toml"
    (folder / "study.toml").write_bytes(study.read_bytes())
    (folder / "run.json").write_bytes(data)
    return RunFolder.open(folder).facts.hospitals


TEXTS: dict[str, str] = {}  # private keys of the consortium made last


def consortium(root: Path) -> ConsortiumFolder:
    """A consortium of two hospitals, one of which is a member."""
    now = datetime.now(UTC).replace(microsecond=0)
    (root / "consortium.toml").write_text(TERMS, encoding="utf-8")
    folder, terms = ConsortiumFolder(root / "consortium"), Consortium.read(root / "consortium.toml")
    found(root / "consortium.toml", folder, now)
    asked = root / "north.request.json"
    told = request_kit(terms, "north", HospitalFolder(root / "north"), asked, now)
    sign_request(asked, folder, now, told)
    TEXTS["signing"] = folder.signing.read_text(encoding="ascii")
    TEXTS["north"] = HospitalFolder(root / "north").signing.read_text(encoding="ascii")
    return folder


def provisioned(root: Path, which: str, inner: bool) -> Sequence[bytes]:
    """The request, kit or roster; whole, or what it says alone."""
    folder = consortium(root)
    path = {"request": root / "north.request.json", "kit": folder.kit("north"),
            "roster": folder.roster}[which]  # fmt: skip
    whole = path.read_bytes()
    return (json.dumps(json.loads(whole)["document"]).encode() if inner else whole,)


def signed_again(data: bytes, kind: str, key: SigningKey) -> dict[str, Any]:
    """A document that whoever is dishonest truly signed."""
    fields = parse_document(data, kind)
    fields = {name: value for name, value in fields.items() if name not in ("schema", "kind")}
    try:
        return sign_document(kind, fields, key)
    except ValueError:
        return {"document": {"schema": 1, "kind": kind, **fields}, "signature": "0" * 128}


def read_roster_document(data: bytes, folder: Path, inner: bool) -> object:
    """A roster, damaged or signed anew by the coordinator's own key."""
    home = ConsortiumFolder(folder)
    write_private(home.signing, TEXTS["signing"])
    if inner:
        data = json.dumps(signed_again(data, "roster", coordinator_key(home))).encode()
    home.roster.write_bytes(data)
    return [member.certificate for member in read_roster(home).members]


def read_request_document(data: bytes, _: Path) -> object:
    """A request whose fields anybody may have signed with the key it names."""
    key = signing_key(TEXTS["north"], "key")
    fields = parse_document(data, "request") | {"signing": key.public}
    return open_request(signed_again(json.dumps(fields).encode(), "request", key), "r")


def read_kit_document(data: bytes, _: Path) -> object:
    """A kit signed by the coordinator that it names."""
    fields = parse_document(data, "kit") | {"coordinator": KEY.public}
    return open_kit(signed_again(json.dumps(fields).encode(), "kit", KEY), "kit")


def read_keys(data: bytes, _: Path) -> object:
    """A private key of some kind; what one refuses the next may read."""
    text = data.decode("utf-8", "replace")
    refusals = []
    for read in (load_signing_key, load_node_key, load_tls_key):
        try:
            return read(text, "key")
        except BadInput as error:
            refusals.append(str(error))
    raise BadInput("; ".join(refusals))


def pems(_: Path) -> Sequence[bytes]:
    """A private key of each kind."""
    keys = HospitalKeys.generate()
    return [keys.signing.encode(), keys.node.encode(), keys.tls.encode()]


PARSERS = (
    Parser("study", Kind.TOML, examples("*/*study.toml"), in_file("study.toml", Study.read)),
    Parser("policy", Kind.TOML, examples("*/*policy.toml"), in_file("policy.toml", Policy.read)),
    Parser(
        "consortium",
        Kind.TOML,
        lambda _: [TERMS.encode()],
        in_file("consortium.toml", Consortium.read),
    ),
    Parser(
        "ledger",
        Kind.LINES,
        lambda folder: [(ledger(folder) / "ledger.jsonl").read_bytes()],
        read_ledger,
    ),
    Parser("entries of a ledger", Kind.LINES, entries, read_entries),
    Parser(
        "exported ledger",
        Kind.JSON,
        lambda folder: [canonical(export_ledger(ledger(folder)))],
        read_exported,
    ),
    Parser("witness", Kind.BYTES, witness, in_file("head", read_witness)),
    Parser("label book", Kind.JSON, label_page, read_label_page),
    Parser("moments", Kind.BLOCK, moments, read_moments),
    Parser("personal arrays", Kind.BLOCK, personal, read_personal),
    Parser(
        "checkpoint",
        Kind.BLOCK,
        checkpoints,
        in_file("round-0003.safetensors", lambda path: load_checkpoint(path.parent)),
    ),
    Parser(
        "round record",
        Kind.JSON,
        book,
        in_file("0001.json", lambda path: read_book(path.parent)),
    ),
    Parser("signed round record", Kind.JSON, records_of_book, read_signed_book),
    Parser("run", Kind.JSON, run_facts, read_run),
    Parser(
        "scores of a run",
        Kind.LINES,
        lambda _: [b'{"round": 0, "accuracy": 0.5}\n{"round": 1, "accuracy": 0.6}\n'],
        in_file("metrics.jsonl", read_history),
    ),
    Parser(
        "refusals kept",
        Kind.LINES,
        refusals,
        in_file("refusals.jsonl", lambda path: read_refusals(path.parent)),
    ),
    Parser("login token", Kind.BYTES, lambda _: [b"k3yk3yk3yk3yk3yk3yk3yk3y\n"], read_token),
    Parser(
        "request",
        Kind.JSON,
        partial(provisioned, which="request", inner=False),
        in_file("r.json", lambda path: open_request(read_document(path), "r")),
    ),
    Parser(
        "signed request",
        Kind.JSON,
        partial(provisioned, which="request", inner=True),
        read_request_document,
    ),
    Parser(
        "kit",
        Kind.JSON,
        partial(provisioned, which="kit", inner=False),
        in_file("kit.json", lambda path: open_kit(read_document(path), "kit")),
    ),
    Parser(
        "signed kit", Kind.JSON, partial(provisioned, which="kit", inner=True), read_kit_document
    ),
    Parser(
        "roster",
        Kind.JSON,
        partial(provisioned, which="roster", inner=False),
        partial(read_roster_document, inner=False),
    ),
    Parser(
        "signed roster",
        Kind.JSON,
        partial(provisioned, which="roster", inner=True),
        partial(read_roster_document, inner=True),
    ),
    Parser("private key", Kind.BYTES, pems, read_keys),
    Parser(
        "certificate",
        Kind.BYTES,
        lambda folder: [consortium(folder).authority.read_bytes()],
        in_file("ca.crt", read_certificate),
    ),
)
