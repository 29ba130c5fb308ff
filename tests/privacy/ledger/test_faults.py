"""The ledger under fire: crashes, power loss, full disks, damage. Nothing ever counts for less.

What must hold after every fault, whichever it is: what was acknowledged as charged is still
charged; what was answered is answered by the same bytes; doing the work again charges no round
twice. Damage that no crash can cause is refused by name.
"""

from __future__ import annotations

import re
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

from wardround.privacy.errors import LedgerError
from wardround.privacy.events import primitive_counts
from wardround.privacy.ledger import Ledger
from wardround.privacy.stream import SecureStream
from wardround.privacy.units import Unit

pytestmark = pytest.mark.fault
ROUNDS = (1, 2, 3)
# What of each unsynced file survives, in turn; () when the process dies and the machine does not.
KEPT = ((), (0.0,), (0.5,), (0.0, 1.0), (1.0, 0.5))


@contextmanager
def closing(folder, key, clock, disk):
    """A ledger whose file handles are given up at the end, as happens to a dead process."""
    ledger = Ledger(folder, key, clock, disk)
    try:
        yield ledger
    finally:
        ledger.close()


def attempt(action):
    """What a ``LedgerError`` said, or nothing."""
    try:
        action()
    except LedgerError as error:
        return str(error)
    return ""


def rounds_charged(ledger, lab):
    """How many rounds of 20 steps the ledger has charged."""
    steps = primitive_counts(ledger.spent("ward", Unit.PATIENT)).get(lab.step, 0)
    assert steps % 20 == 0
    return steps // 20


def work(ledger, lab, charged, answered):
    """Three rounds, the last one left unanswered; notes what was acknowledged as it goes."""
    for number in ROUNDS:
        sha = lab.charge(number).plan_sha256
        if ledger.stored_reply("run-1", number, sha) is not None:
            continue
        reservation = ledger.reserve(lab.charge(number))
        charged.add(number)
        if number < 3:
            # Work done anew has fresh noise, hence other bytes: a second answer would show.
            fresh = lab.reply(number) + str(len(answered)).encode()
            answered[number] = ledger.commit(reservation, fresh)


def check_and_finish(folder, key, lab, clock, charged, answered):
    """Open after the fault: nothing acknowledged is missing, finishing charges nothing twice."""
    ledger = Ledger(folder, key, clock, lab.Disk(0, "before"))
    assert rounds_charged(ledger, lab) >= len(charged)
    for number, bytes_sent in answered.items():
        sha = lab.charge(number).plan_sha256
        assert ledger.stored_reply("run-1", number, sha) == bytes_sent
    seen = dict(answered)
    work(ledger, lab, charged, answered)
    assert rounds_charged(ledger, lab) == len(ROUNDS)
    assert all(answered[number] == bytes_sent for number, bytes_sent in seen.items())
    ledger.close()


def operations(tmp_path, key, lab, clock):
    """How many operations the whole scenario performs on the disk."""
    disk = lab.Disk(0, "before")
    ledger = Ledger(tmp_path / "count", key, clock, disk)
    work(ledger, lab, set(), {})
    ledger.close()
    return disk.count


@pytest.mark.slow
def test_every_crash_at_every_operation(tmp_path: Path, key, lab, clock):
    total, faults = operations(tmp_path, key, lab, clock), 0
    for fail_at in range(1, total + 1):
        for how in ("before", "torn", "after"):
            for kept in KEPT:
                folder = tmp_path / f"{fail_at}-{how}-{kept}"
                disk, charged, answered = lab.Disk(fail_at, how), set(), {}
                with pytest.raises(lab.Crash), closing(folder, key, clock, disk) as ledger:
                    work(ledger, lab, charged, answered)
                if kept:
                    disk.lose_power(*kept)
                check_and_finish(folder, key, lab, clock, charged, answered)
                shutil.rmtree(folder)
                faults += 1
    assert faults >= 500


@pytest.mark.parametrize("how", ["full", "dead"])
def test_disk_that_refuses_at_every_operation(tmp_path: Path, key, lab, clock, how):
    """Full: works again afterwards, in the same process. Dead: until the ledger is opened again."""
    for fail_at in range(1, operations(tmp_path, key, lab, clock) + 1):
        folder = tmp_path / str(fail_at)
        disk, charged, answered = lab.Disk(fail_at, how), set(), {}
        try:
            with closing(folder, key, clock, disk) as ledger:
                with pytest.raises(LedgerError) as refusal:
                    work(ledger, lab, charged, answered)
                assert "cannot be" in str(refusal.value)
                before = (len(charged), dict(answered))
                outcome = attempt(lambda: work(ledger, lab, charged, answered))  # noqa: B023
                if outcome:
                    assert re.search("open the ledger again|cannot be", outcome)
                    assert before == (len(charged), answered)
        except LedgerError:  # while opening
            assert not charged
        check_and_finish(folder, key, lab, clock, charged, answered)


def test_a_charge_refused_by_the_disk_draws_nothing_and_costs_nothing(tmp_path: Path, key, lab):
    disk = lab.Disk(0, "full")
    ledger = Ledger(tmp_path / "full", key, disk=disk)
    disk.fail_at = disk.count + 1
    size = (tmp_path / "full/ledger.jsonl").stat().st_size
    with pytest.raises(LedgerError, match=r"No space left on device.*nothing was charged, d"):
        ledger.reserve(lab.charge(1))
    assert rounds_charged(ledger, lab) == 0
    assert (tmp_path / "full/ledger.jsonl").stat().st_size == size
    ledger.reserve(lab.charge(1))
    assert rounds_charged(ledger, lab) == 1


def damaged(folder: Path, target: Path, name: str, change) -> Path:
    """A copy of the ledger in which one file was changed."""
    shutil.copytree(folder, target)
    file = target / name
    file.write_bytes(change(file.read_bytes()))
    return target


def flip(bit: int):
    """A change of one bit."""

    def change(data: bytes) -> bytes:
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        return bytes(changed)

    return change


def test_every_flipped_bit_is_refused_by_file_and_line(filled: Path, tmp_path, key, lab, clock):
    """400 bits spread over the file, the first and last of each line among them."""
    data = (filled / "ledger.jsonl").read_bytes()
    stream = SecureStream(bytes(32))
    bits = {int(u * 8 * len(data)) for u in stream.uniform(360)}
    bits |= {8 * i for i, byte in enumerate(data) if byte == 10} | {0, 8 * len(data) - 1}
    for bit in sorted(bits):
        copy = damaged(filled, tmp_path / str(bit), "ledger.jsonl", flip(bit))
        with pytest.raises(LedgerError, match=r"ledger\.jsonl"):
            Ledger(copy, key, clock)
        shutil.rmtree(copy)


def test_every_cut_is_refused(filled: Path, tmp_path, key, clock):
    size = (filled / "ledger.jsonl").stat().st_size
    for length in range(0, size, 29):
        copy = damaged(filled, tmp_path / str(length), "ledger.jsonl", lambda d, n=length: d[:n])
        with pytest.raises(LedgerError, match="its witness saw entry 6: it was cut"):
            Ledger(copy, key, clock)
        shutil.rmtree(copy)


def test_flipped_bits_of_the_witness_lose_nothing(filled: Path, tmp_path, key, lab, clock):
    """One sound slot will do where the ledger is longer; where it is not, its end is in doubt."""
    outcomes = []
    for bit in range(0, 8 * 256, 23):
        copy = damaged(filled, tmp_path / str(bit), "head", flip(bit))
        opened = []
        refusal = attempt(lambda: opened.append(Ledger(copy, key, clock)))  # noqa: B023
        outcomes.append(refusal.rpartition(": ")[2])
        for ledger in opened:
            assert ledger.notes == ["a slot of the witness was damaged and has been written again"]
            assert rounds_charged(ledger, lab) == 3
            ledger.close()
        shutil.rmtree(copy)
    doubt = "a slot of its witness is damaged, so the ledger's end cannot be confirmed"
    assert set(outcomes) == {"", doubt}


def test_an_unfinished_line_is_cut_off_and_noted(filled: Path, key, lab, clock):
    with (filled / "ledger.jsonl").open("ab") as file:
        file.write(b'{"entry":{"kind":"reserve"')
    ledger = Ledger(filled, key, clock)
    assert ledger.notes == ["cut off 26 bytes of an unfinished entry"]
    assert rounds_charged(ledger, lab) == 3
    assert ledger.entries[-1]["kind"] == "repair"
    ledger.close()
    assert Ledger(filled, key, clock).notes == []


def test_an_unfinished_line_is_not_cut_off_while_the_witness_is_in_doubt(filled, key, clock):
    with (filled / "ledger.jsonl").open("ab") as file:
        file.write(b"{")
    head = bytearray((filled / "head").read_bytes())
    head[130] ^= 1
    (filled / "head").write_bytes(head)
    with pytest.raises(LedgerError, match="cannot be confirmed"):
        Ledger(filled, key, clock)


@pytest.mark.parametrize("number", [1, 2])
def test_a_changed_or_lost_reply_is_refused_and_never_made_again(filled, key, lab, clock, number):
    path = sorted((filled / "replies").iterdir())[number - 1]
    good = path.read_bytes()
    lost = 1 if good == lab.reply(1) else 2
    sha = lab.charge(lost).plan_sha256
    ledger = Ledger(filled, key, clock)
    for bit in range(0, 8 * len(good), 97):
        path.write_bytes(flip(bit)(good))
        with pytest.raises(LedgerError, match="the stored reply was changed"):
            ledger.stored_reply("run-1", lost, sha)
    path.unlink()
    with pytest.raises(LedgerError, match="lost; it is not made again"):
        ledger.stored_reply("run-1", lost, sha)
    with pytest.raises(LedgerError, match="answered already"):
        ledger.reserve(lab.charge(lost))


def test_an_old_copy_is_refused_by_whatever_knows_more(tmp_path: Path, key, lab, clock):
    """Ledger alone: its witness. Ledger and witness: the replies. All of it: the coordinator."""
    folder, old = tmp_path / "now", tmp_path / "old"
    ledger = Ledger(folder, key, clock)
    ledger.commit(ledger.reserve(lab.charge(1)), lab.reply(1))
    shutil.copytree(folder, old)
    ledger.commit(ledger.reserve(lab.charge(2)), lab.reply(2))
    seen = ledger.head
    ledger.require_contains(seen)
    ledger.require_contains(None)
    ledger.close()

    shutil.copy(old / "ledger.jsonl", folder / "ledger.jsonl")
    with pytest.raises(LedgerError, match="ends after entry 3, but its witness saw entry 5"):
        Ledger(folder, key, clock)
    shutil.copy(old / "head", folder / "head")
    with pytest.raises(LedgerError, match="a reply to a round that the ledger does not hold"):
        Ledger(folder, key, clock)
    with pytest.raises(LedgerError, match="rolled back or restored from an old copy"):
        Ledger(old, key, clock).require_contains(seen)


def test_a_reply_stored_before_a_rollback_is_the_answer_that_stands(
    tmp_path: Path, key, lab, clock
):
    """Ledger and witness from before the commit, replies from after it: no second draw."""
    folder, old = tmp_path / "now", tmp_path / "old"
    ledger = Ledger(folder, key, clock)
    reservation = ledger.reserve(lab.charge(1))
    shutil.copytree(folder, old)
    ledger.commit(reservation, lab.reply(1))
    ledger.close()
    for name in ("ledger.jsonl", "head"):
        shutil.copy(old / name, folder / name)
    ledger = Ledger(folder, key, clock)
    with pytest.raises(LedgerError, match="answered already"):
        ledger.reserve(lab.charge(1))
    assert ledger.stored_reply("run-1", 1, lab.charge(1).plan_sha256) == lab.reply(1)
    assert ledger.entries[-1]["kind"] == "commit"


def test_a_clock_set_back_is_noted_and_changes_no_count(tmp_path: Path, key, lab, clock):
    ledger = Ledger(tmp_path / "clock", key, clock)
    ledger.reserve(lab.charge(1))
    clock.time = clock.time.replace(year=2020)
    ledger.reserve(lab.charge(2))
    ledger.close()
    ledger = Ledger(tmp_path / "clock", key, clock)
    assert ledger.notes == ["entry 3: the clock was behind the entry before"]
    assert rounds_charged(ledger, lab) == 2


def test_a_file_touched_under_the_running_process_stops_it(tmp_path: Path, key, lab, clock):
    def replaced(path):
        shutil.copy(path, path.with_suffix(".copy"))
        path.with_suffix(".copy").replace(path)

    def extended(path):
        path.write_bytes(path.read_bytes() + b"\n")

    for touch in (replaced, extended, Path.unlink):
        folder = tmp_path / touch.__name__
        ledger = Ledger(folder, key, clock)
        ledger.reserve(lab.charge(1))
        touch(folder / "ledger.jsonl")
        for _ in range(2):
            with pytest.raises(LedgerError, match="under the running process"):
                ledger.reserve(lab.charge(2))
        ledger.close()


def test_a_missing_witness_is_refused_until_someone_outside_confirms(filled, key, lab, clock):
    from wardround.privacy.ledger import rebuild_witness

    good = Ledger(filled, key, clock, lab.Disk(0, "before"))
    head = good.head
    good.close()
    (filled / "head").unlink()
    with pytest.raises(LedgerError, match="witness file is missing or damaged"):
        Ledger(filled, key, clock)
    with pytest.raises(LedgerError, match="does not hold entry 9"):
        rebuild_witness(filled, key, type(head)(9, head.sha256))
    rebuild_witness(filled, key, head)
    assert rounds_charged(Ledger(filled, key, clock), lab) == 3
