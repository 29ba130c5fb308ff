"""What the ledger promises while nothing goes wrong."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from wardround.privacy.chain import LedgerHead
from wardround.privacy.errors import LedgerError
from wardround.privacy.events import NOTHING, Gaussian, Repeated, compose
from wardround.privacy.ledger import Ledger
from wardround.privacy.signing import SigningKey
from wardround.privacy.units import Unit


@pytest.fixture
def ledger(tmp_path, key, clock, lab):
    ledger = Ledger(tmp_path / "ledger", key, clock, lab.Disk(0, "before"))
    yield ledger
    ledger.close()


def sha(lab, number):
    return lab.charge(number).plan_sha256


def test_an_answered_round_costs_once_and_always_says_the_same(ledger, lab):
    first = ledger.commit(ledger.reserve(lab.charge(1)), b"one")
    assert ledger.stored_reply("run-1", 1, sha(lab, 1)) == first == b"one"
    with pytest.raises(LedgerError, match="its stored reply is the only answer"):
        ledger.reserve(lab.charge(1))
    assert ledger.spent("ward", Unit.PATIENT) == Repeated(lab.step, 20)
    assert [entry["kind"] for entry in ledger.entries] == ["open", "reserve", "commit"]


def test_work_that_released_nothing_is_done_again_under_its_one_charge(ledger, lab):
    old = ledger.reserve(lab.charge(1))
    new = ledger.reserve(lab.charge(1))
    with pytest.raises(LedgerError, match="charged no more"):
        old.take(lab.step)
    with pytest.raises(LedgerError, match="this reservation was replaced"):
        ledger.commit(old, b"old")
    new.take(lab.step)
    assert ledger.commit(new, b"new") == b"new"
    assert ledger.spent("ward", Unit.PATIENT) == Repeated(lab.step, 20)


def test_committing_again_returns_the_same_bytes_or_refuses(ledger, lab):
    reservation = ledger.reserve(lab.charge(1))
    ledger.commit(reservation, b"one")
    assert ledger.commit(reservation, b"one") == b"one"
    with pytest.raises(LedgerError, match="has another answer already"):
        ledger.commit(reservation, b"two")


def test_another_plan_or_another_charge_for_the_same_round_is_refused(ledger, lab):
    ledger.reserve(lab.charge(1))
    with pytest.raises(LedgerError, match="charged under another plan"):
        ledger.reserve(lab.charge(1, plan_sha256="0" * 64))
    with pytest.raises(LedgerError, match="charged under another plan"):
        ledger.stored_reply("run-1", 1, "0" * 64)
    with pytest.raises(LedgerError, match="charged differently"):
        ledger.reserve(lab.charge(1, event=lab.step))


def test_nothing_known_of_a_round_that_was_never_charged(ledger, lab):
    assert ledger.stored_reply("run-1", 9, "0" * 64) is None
    assert ledger.spent("ward", Unit.PATIENT) == NOTHING


def test_spending_is_kept_apart_by_data_set_unit_and_run(ledger, lab):
    ledger.reserve(lab.charge(1))
    ledger.reserve(lab.charge(1, run="run-2", event=Gaussian(3.0)))
    ledger.reserve(lab.charge(2, dataset="lab"))
    ledger.reserve(lab.charge(3, unit=Unit.SITE))
    both = compose(Repeated(lab.step, 20), Gaussian(3.0))
    assert ledger.spent("ward", Unit.PATIENT) == both
    assert ledger.spent("ward", Unit.PATIENT, "run-2") == Gaussian(3.0)
    assert ledger.spent("lab", Unit.PATIENT) == ledger.spent("ward", Unit.SITE)


def test_a_second_process_is_refused(ledger, key):
    script = (
        "import sys; from pathlib import Path\n"
        "from wardround.privacy.ledger import Ledger\n"
        "from wardround.privacy.signing import SigningKey\n"
        "Ledger(Path(sys.argv[1]), SigningKey.generate())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(ledger.folder)], capture_output=True, text=True
    )
    assert "another process holds this ledger" in done.stderr


def test_a_second_owner_in_the_same_process_is_refused_too(ledger, key, lab):
    with pytest.raises(LedgerError, match="another process holds this ledger"):
        Ledger(ledger.folder, key)
    ledger.reserve(lab.charge(1))


def test_it_knows_which_rounds_were_charged(ledger, lab):
    ledger.reserve(lab.charge(1))
    assert ledger.charged("run-1", 1)
    assert not ledger.charged("run-1", 2)


def test_another_key_is_refused(ledger, clock):
    ledger.close()
    with pytest.raises(LedgerError, match="restore the hospital's signing key"):
        Ledger(ledger.folder, SigningKey.generate(), clock)


def test_a_closed_ledger_refuses(ledger, lab):
    ledger.close()
    ledger.close()
    with pytest.raises(LedgerError, match="closed; open the ledger again"):
        ledger.reserve(lab.charge(1))


def test_threads_asking_for_one_round_get_one_answer(ledger, lab):
    """Eight threads run the custodian's own sequence; the ledger alone keeps them apart."""
    answers, errors = [], []

    def ask(mine):
        try:
            reservation = ledger.reserve(lab.charge(1))
            answers.append(ledger.commit(reservation, mine))
        except LedgerError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=ask, args=(b"%d" % i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(answers)) == 1
    assert len(errors) == 7
    assert ledger.spent("ward", Unit.PATIENT) == Repeated(lab.step, 20)


def test_the_ledger_needs_no_torch():
    script = "import sys, wardround.privacy.ledger; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_head_names_its_bounds():
    with pytest.raises(ValueError, match="seq is 0"):
        LedgerHead(0, "0" * 64)
    with pytest.raises(ValueError, match="sha256 has 3 characters"):
        LedgerHead(1, "abc")
