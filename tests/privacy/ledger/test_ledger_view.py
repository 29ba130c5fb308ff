"""Looking at a ledger: what verify, show and export say, and that they change nothing."""

from __future__ import annotations

import json
import shutil

import pytest

from wardround.privacy.chain import LedgerHead, seal_entry
from wardround.privacy.errors import BadInput, BadMessage, LedgerError
from wardround.privacy.events import Repeated
from wardround.privacy.ledger import Ledger
from wardround.privacy.ledger_view import check_export, check_ledger, export_ledger
from wardround.privacy.signing import SigningKey


def test_the_summary_names_what_was_charged(filled, key, lab):
    before = {path: path.read_bytes() for path in filled.rglob("*") if path.is_file()}
    summary = check_ledger(filled, key.public)
    (account,) = summary.accounts
    assert (account.dataset, account.unit, account.rounds, account.answered) == (
        "ward", "patient", 3, 2,
    )  # fmt: skip
    assert account.event == Repeated(lab.step, 60)
    assert (summary.entries, summary.notes, summary.public_key) == (6, (), key.public)
    assert before == {path: path.read_bytes() for path in filled.rglob("*") if path.is_file()}
    json.dumps(summary.to_json())


def test_it_may_look_while_the_ledger_is_in_use(filled, key, lab, clock):
    ledger = Ledger(filled, key, clock)
    assert check_ledger(filled).head == ledger.head
    with (filled / "ledger.jsonl").open("ab") as file:
        file.write(b'{"entry"')  # an append caught half-way
    assert check_ledger(filled).notes == ("8 bytes of an unfinished entry at the end",)
    ledger.close()


def test_it_notes_clocks_and_crashes(filled, key, lab, clock):
    clock.time = clock.time.replace(year=2001)
    with (filled / "ledger.jsonl").open("ab") as file:
        file.write(b"{")
    Ledger(filled, key, clock).close()
    assert check_ledger(filled).notes == (
        "entry 7: the clock was behind the entry before",
        "entry 7: an unfinished entry was cut off after a crash",
    )


def test_it_refuses_what_the_ledger_itself_refuses(filled, key):
    with pytest.raises(BadInput, match="no such ledger"):
        check_ledger(filled / "nowhere")
    with pytest.raises(LedgerError, match="does not hold entry 2"):
        check_ledger(filled, seen=LedgerHead(2, "0" * 64))
    with pytest.raises(LedgerError, match="kept with key"):
        check_ledger(filled, SigningKey.generate().public)
    stored = next((filled / "replies").iterdir())
    stored.write_bytes(b"changed")
    with pytest.raises(LedgerError, match="was changed"):
        check_ledger(filled)


def test_an_export_is_checked_elsewhere_and_shows_any_change(filled, key):
    document = json.loads(json.dumps(export_ledger(filled)))
    assert check_export(document, key.public) == check_ledger(filled)
    shorter = document | {"records": document["records"][:-1]}
    with pytest.raises(LedgerError, match="does not hold entry 6"):
        check_export(shorter, seen=check_ledger(filled).head)
    document["records"][1]["entry"]["event"]["count"] = 1
    with pytest.raises(LedgerError, match="export:2: the entry does not match its hash"):
        check_export(document)
    with pytest.raises(BadMessage, match="not an exported ledger"):
        check_export({"schema": 1, "records": None})


def test_an_empty_export_sums_up_to_nothing():
    summary = check_export({"schema": 1, "records": []})
    assert (summary.head, summary.entries, summary.accounts) == (None, 0, ())
    assert summary.to_json()["head"] is None


def rewritten(filled, key, change):
    """The ledger with one entry changed and signed again by its own key, the chain mended."""
    previous, lines = "0" * 64, []
    for line in (filled / "ledger.jsonl").read_bytes().splitlines():
        fields = json.loads(line)["entry"] | {"previous": previous}
        change(fields)
        sealed, previous = seal_entry(fields, key)
        lines.append(sealed)
    (filled / "ledger.jsonl").write_bytes(b"".join(lines))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.update(kind="refund") if f["seq"] == 4 else None, "unknown kind"),
        (lambda f: f.update(schema=2) if f["seq"] == 1 else None, "not the opening entry"),
        (
            lambda f: f.update(event={"kind": "free"}) if f["seq"] == 2 else None,
            "unreadable charge",
        ),
        (lambda f: f.update(seq=9) if f["seq"] == 3 else None, "does not follow"),
        (lambda f: f.update(note="x") if f["seq"] == 3 else None, "not the one its witness saw"),
    ],
)
def test_even_its_own_key_cannot_rewrite_it_unseen(filled, key, change, message):
    rewritten(filled, key, change)
    with pytest.raises(LedgerError, match=message):
        check_ledger(filled)


def test_another_keys_signature_is_not_taken(filled, key, tmp_path):
    copy = shutil.copytree(filled, tmp_path / "copy")
    rewritten(copy, SigningKey.generate(), lambda fields: None)
    with pytest.raises(LedgerError, match="does not verify"):
        check_ledger(copy)


@pytest.mark.parametrize(
    "line",
    [
        b"not json\n", b"[]\n", b"{}\n", b'{"entry":[],"hash":"","signature":""}\n',
        b'{"entry":1,"hash":2,"signature":3}\n', b"\xff\n", b"[" * 5000 + b"\n", b"\n",
    ],
)  # fmt: skip
def test_what_is_not_an_entry_is_refused_by_line(tmp_path, line):
    (tmp_path / "ledger.jsonl").write_bytes(line)
    with pytest.raises(LedgerError, match=r"ledger\.jsonl:1: "):
        check_ledger(tmp_path)


def test_a_signature_in_capitals_is_a_flipped_bit(filled):
    lines = (filled / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    record = json.loads(lines[-1])
    capital = record["signature"].upper().encode()
    lines[-1] = lines[-1].replace(record["signature"].encode(), capital)
    (filled / "ledger.jsonl").write_bytes(b"".join(lines))
    with pytest.raises(LedgerError, match="the signature is damaged"):
        check_ledger(filled)


def test_two_replies_to_one_request_are_refused(filled, key, lab, clock):
    first = next(path for path in (filled / "replies").iterdir())
    ledger = Ledger(filled, key, clock)
    ledger.reserve(lab.charge(4))
    for number in (1, 2):
        stem = first.name.partition(".")[0]
        (first.parent / f"{stem}.{number}").write_bytes(b"x")
    replies = ledger._replies
    asked = 1 if replies.find(("run-1", 2)) is not None else 2
    with pytest.raises(LedgerError, match="a second reply to the same request"):
        replies.find(("run-1", asked))
