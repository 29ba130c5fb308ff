"""Hospitals and coordinators that cheat: what is noticed, by whom, and who is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from wardround.privacy.errors import BadMessage
from wardround.privacy.secagg import shares as sharing
from wardround.privacy.secagg.keys import public_key
from wardround.privacy.secagg.letters import Misconduct, pack, unpack, write_letter
from wardround.privacy.secagg.party import AGREE, REVEAL, Party
from wardround.privacy.secagg.shares import KEYS, SHARES, seed_hash
from wardround.privacy.secagg.tally import Tally
from wardround.privacy.signing import SigningKey

MakeSession = Callable[..., Any]
RowsOf = Callable[[Any], Any]
NAMES = [f"h{i}" for i in range(6)]


@pytest.fixture
def opened(make_session: MakeSession) -> Any:
    session = make_session()
    session.open()
    return session


@pytest.fixture
def masked(opened: Any, rows_of: RowsOf) -> Any:
    opened.mask(rows_of(opened))
    return opened


def keys_letter(session: Any, name: str, signer: SigningKey | None = None, **body: Any) -> bytes:
    """A letter of keys with some fields changed, or signed by somebody else."""
    secrets = session.parties[name]._secrets
    honest = {
        "envelope": public_key(secrets.envelope).hex(),
        "pairing": public_key(secrets.pairing).hex(),
        "blinding_sha256": seed_hash(session.terms, name, secrets.blinding),
    }
    return write_letter(session.terms, KEYS, name, honest | body, signer or session.keys[name])


def test_forged_keys_are_named_by_coordinator_and_hospital(make_session: MakeSession) -> None:
    """A relay or a coordinator that puts its own keys in h1's place must sign for h1."""
    session = make_session()
    forged = keys_letter(session, "h1", SigningKey.generate(), pairing=public_key(b"k" * 32).hex())
    with pytest.raises(Misconduct, match=r"'h1' did not sign .* forged or damaged") as caught:
        session.tally.take_keys("h1", forged)
    assert caught.value.hospital == "h1"
    keys = {name: party.advertise() for name, party in session.parties.items()}
    with pytest.raises(Misconduct, match="'h1' did not sign"):
        session.parties["h0"].share({**keys, "h1": forged})


@pytest.mark.parametrize(
    "change",
    [{"round": 2}, {"run": "run-2"}, {"attempt": "1"}, {"plans": dict.fromkeys(NAMES, "1" * 64)}],
)
def test_replays_are_named(make_session: MakeSession, change: dict[str, Any]) -> None:
    """A letter of another round, run, attempt or plan is validly signed, and of no use."""
    session, other = make_session(), make_session(**change)
    old = other.parties["h2"].advertise()
    with pytest.raises(Misconduct, match=r"'h2' sent a message .* of another session: replayed"):
        session.tally.take_keys("h2", old)
    keys = {name: party.advertise() for name, party in session.parties.items()}
    with pytest.raises(Misconduct, match=r"'h2' .* replayed"):
        session.parties["h0"].share({**keys, "h2": old})


def test_a_replay_at_every_later_stage_is_named(make_session: MakeSession, rows_of: RowsOf) -> None:
    session, other = make_session(), make_session(round=2)
    for each in (session, other):
        each.open()
    letters = session.tally.letters_for("h0") | {"h3": other.tally.letters_for("h0")["h3"]}
    with pytest.raises(Misconduct, match=r"'h3' .* replayed"):
        session.parties["h0"].mask(letters, rows_of(session)["h0"])
    with pytest.raises(Misconduct, match=r"'h3' .* replayed"):
        session.tally.take_shares("h3", pack(other.tally._dealt["h3"]))
    for each in (session, other):
        each.mask(rows_of(each))
        each.settle()
    with pytest.raises(Misconduct, match=r"'h3' .* replayed"):
        session.tally.take_agreement("h3", other.tally.agreements["h3"])
    session.tally._revealed.discard("h3")
    old = other.parties["h3"].reveal(other.tally.agreements)
    with pytest.raises(Misconduct, match=r"'h3' .* replayed"):
        session.tally.take_reveal("h3", old)


def test_a_signature_in_another_name_is_noticed(make_session: MakeSession) -> None:
    key = SigningKey.generate()
    terms = replace(make_session().terms, members=dict.fromkeys(NAMES, key.public))
    letter = write_letter(terms, KEYS, "h1", {}, key)
    with pytest.raises(Misconduct, match=r"'h2' signed a message .* in another hospital's name"):
        Tally(terms).take_keys("h2", letter)


def test_strangers_take_no_part(opened: Any) -> None:
    with pytest.raises(BadMessage, match="'south' takes no part"):
        opened.tally.take_keys("south", opened.tally.keys["h0"])


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"pairing": "00" * 32}, "nothing can be agreed with"),
        ({"envelope": "zz"}, "without a readable envelope"),
        ({"pairing": "00"}, "nothing can be agreed with"),
    ],
)
def test_unusable_keys_are_named(
    make_session: MakeSession, body: dict[str, str], says: str
) -> None:
    session = make_session()
    with pytest.raises(Misconduct, match=f"'h4' .*{says}"):
        session.tally.take_keys("h4", keys_letter(session, "h4", **body))


def test_a_hospital_is_not_shown_keys_that_are_not_its_own(make_session: MakeSession) -> None:
    session = make_session()
    keys = {name: party.advertise() for name, party in session.parties.items()}
    keys["h0"] = keys_letter(session, "h0", pairing=public_key(b"k" * 32).hex())
    with pytest.raises(Misconduct, match="not its own"):
        session.parties["h0"].share(keys)
    del keys["h0"]
    with pytest.raises(Misconduct, match="not its own"):
        session.parties["h0"].share(keys)


def test_nobody_deals_to_too_few(make_session: MakeSession) -> None:
    session = make_session()
    keys = {n: session.parties[n].advertise() for n in NAMES[:3]}
    with pytest.raises(BadMessage, match="3 hospitals advertised keys; the threshold is 4"):
        session.parties["h0"].share(keys)


def test_every_question_is_answered_once(opened: Any, rows_of: RowsOf) -> None:
    """Other keys, other shares or other survivors than before are refused; the same are not."""
    party, keys = opened.parties["h0"], dict(opened.tally.keys)
    assert party.share(keys) == party.share(keys)
    del keys["h5"]
    with pytest.raises(BadMessage, match="other keys than before"):
        party.share(keys)
    letters = opened.tally.letters_for("h0")
    party.accept(letters)
    party.accept(letters)
    with pytest.raises(BadMessage, match="other hospitals than before"):
        party.accept({n: letter for n, letter in letters.items() if n != "h5"})
    assert party.agree(NAMES) == party.agree(NAMES)
    with pytest.raises(BadMessage, match="other survivors than before"):
        party.agree(NAMES[:5])


def test_shares_before_keys_or_from_nowhere_are_refused(
    make_session: MakeSession, opened: Any
) -> None:
    letters = opened.tally.letters_for("h0")
    with pytest.raises(BadMessage, match="shares before keys"):
        make_session().parties["h0"].accept(letters)
    without_self = {n: letter for n, letter in letters.items() if n != "h0"}
    for bad in (without_self, letters | {"south": b""}):
        with pytest.raises(BadMessage, match="shares are missing, or come from"):
            opened.parties["h0"].accept(bad)
    with pytest.raises(BadMessage, match="3 hospitals dealt shares"):
        opened.parties["h0"].accept({n: letters[n] for n in NAMES[:3]})


def test_words_must_fit_the_terms(opened: Any) -> None:
    for bad in (np.zeros(7, np.uint32), np.zeros(50, np.uint64)):
        with pytest.raises(ValueError, match="do not fit"):
            opened.parties["h0"].mask(opened.tally.letters_for("h0"), bad)


def reseal(session: Any, dealer: str, holder: str, **body: Any) -> bytes:
    """A share letter of the dealer with some fields changed, signed by the dealer itself."""
    party = session.parties[dealer]
    dealt = {kind: party._polynomial(kind) for kind in sharing.KINDS}
    point = session.terms.points[holder]
    shares = {kind: dealt[kind][point] for kind in sharing.KINDS}
    key = party._envelope_key(dealer, holder)
    honest = sharing.write_share(session.terms, dealer, holder, shares, key)
    return write_letter(session.terms, SHARES, dealer, honest | body, session.keys[dealer])


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"sealed": "00" * 82}, "shares that do not open"),
        ({"hashes": {"blinding": "0", "pairing": "0"}}, "did not commit itself to"),
        ({"to": "h5"}, "not addressed to h0"),
        ({"hashes": "none"}, "not addressed to h0"),
    ],
)
def test_a_lying_dealer_is_named_by_the_holder(
    opened: Any, body: dict[str, Any], says: str
) -> None:
    letters = opened.tally.letters_for("h0") | {"h2": reseal(opened, "h2", "h0", **body)}
    with pytest.raises(Misconduct, match=f"'h2' .*{says}") as caught:
        opened.parties["h0"].accept(letters)
    assert caught.value.hospital == "h2"


def test_dealing_out_of_turn_is_named(make_session: MakeSession, opened: Any) -> None:
    tally = Tally(opened.terms)
    dealt = opened.tally._dealt["h1"]
    with pytest.raises(Misconduct, match="'h1' deals shares without having advertised"):
        tally.take_shares("h1", pack(dealt))
    for name in NAMES:
        tally.take_keys(name, opened.tally.keys[name])
    with pytest.raises(Misconduct, match="'h1' did not deal shares to exactly"):
        tally.take_shares("h1", pack({n: dealt[n] for n in NAMES[:4]}))
    with pytest.raises(BadMessage, match="0 hospitals dealt shares"):
        tally.letters_for("h0")


def test_rows_out_of_turn_are_named(masked: Any) -> None:
    row = np.zeros(50, np.uint32)
    with pytest.raises(Misconduct, match="second masked row"):
        masked.tally.take_masked("h1", row)
    masked.tally._masked.remove("h1")
    with pytest.raises(Misconduct, match="sends 7 words"):
        masked.tally.take_masked("h1", row[:7])
    del masked.tally._dealt["h1"]
    with pytest.raises(Misconduct, match="without having dealt shares"):
        masked.tally.take_masked("h1", row)


def test_two_lists_of_survivors_open_nothing(masked: Any) -> None:
    """A coordinator shows half of them another list, in order to have both secrets of h5."""
    parties, four = masked.parties, NAMES[:5]
    one = {n: parties[n].agree(NAMES) for n in NAMES[:3]}
    two = {n: parties[n].agree(four) for n in NAMES[3:5]}
    with pytest.raises(BadMessage, match="3 hospitals signed the list"):
        parties["h0"].reveal(one)
    with pytest.raises(Misconduct, match="'h3' signed another list"):
        parties["h0"].reveal(one | {"h3": two["h3"]})
    with pytest.raises(Misconduct, match="'h3' signed another list"):
        masked.tally.take_agreement("h3", two["h3"])


def test_no_party_shows_both_secrets_of_a_hospital(masked: Any) -> None:
    """Whatever it is asked, over all lists: for each hospital one kind of share, and one only."""
    party = masked.parties["h0"]
    first = party.agree(NAMES[:5])
    agreements = {"h0": first} | {n: masked.parties[n].agree(NAMES[:5]) for n in NAMES[1:5]}
    letter = party.reveal(agreements)
    assert letter == party.reveal(agreements)
    tally = masked.tally
    tally._masked.remove("h5")
    tally.agreements = agreements
    tally.take_reveal("h0", letter)
    assert tally._wanted() == dict.fromkeys(NAMES[:5], "blinding") | {"h5": "pairing"}
    for other in (NAMES, NAMES[:4], ["h0", "h1", "h2", "h5"]):
        with pytest.raises(BadMessage, match="other survivors than before"):
            party.agree(other)


@pytest.mark.parametrize(
    ("listed", "says"),
    [
        (["h1", "h2", "h3", "h4"], "not among the survivors"),
        (["h0", "h1", "h2"], "3 hospitals survived"),
        (["h1", "h0", "h2", "h3"], "not in order"),
        (["h0", "h1", "h2", "south"], "dealt no shares"),
        (["h0", "h0", "h1", "h2"], "not in order"),
    ],
)
def test_lists_nobody_signs(masked: Any, listed: list[str], says: str) -> None:
    with pytest.raises(BadMessage, match=says):
        masked.parties["h0"].agree(listed)


def test_nothing_is_shown_without_a_signed_list(masked: Any) -> None:
    with pytest.raises(BadMessage, match="this hospital has signed for"):
        masked.parties["h0"].reveal({})


def test_signers_must_be_survivors(masked: Any) -> None:
    agreements = {n: masked.parties[n].agree(NAMES[:5]) for n in NAMES[:5]}
    agreements["h5"] = agreements["h4"]
    with pytest.raises(BadMessage, match="'h5' signs a list it is not on"):
        masked.parties["h0"].reveal(agreements)


def test_a_list_that_is_none_is_named(masked: Any) -> None:
    letter = write_letter(masked.terms, AGREE, "h1", {"survivors": 5}, masked.keys["h1"])
    with pytest.raises(Misconduct, match="'h1' signed no list"):
        masked.tally.take_agreement("h1", letter)


def lie(session: Any, name: str, change: Callable[[dict[str, Any]], None]) -> bytes:
    """What h1 reveals, changed and signed by itself."""
    party = session.parties[name]
    body = {
        "kinds": session.tally._wanted(),
        "shares": {d: f"{held['blinding']:066x}" for d, held in party._held.items()},
    }
    change(body)
    return write_letter(session.terms, REVEAL, name, body, session.keys[name])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda body: body["shares"].update(h4="0" * 66), "lies about its share of h4's secret"),
        (lambda body: body["shares"].update(h4="none"), "lies about its share of h4's secret"),
        (lambda body: body["kinds"].update(h4="pairing"), "other shares than the survivors"),
        (lambda body: body["shares"].pop("h4"), "other shares than the survivors"),
        (lambda body: body.pop("shares"), "other shares than the survivors"),
    ],
)
def test_a_lying_holder_is_named_and_the_sum_is_still_right(
    masked: Any, rows_of: RowsOf, change: Callable[[dict[str, Any]], None], says: str
) -> None:
    tally = masked.tally
    for name in NAMES:
        tally.take_agreement(name, masked.parties[name].agree(NAMES))
    with pytest.raises(Misconduct, match=f"'h1' .*{says}") as caught:
        tally.take_reveal("h1", lie(masked, "h1", change))
    assert caught.value.hospital == "h1"
    for name in ("h0", "h2", "h3", "h4"):
        tally.take_reveal(name, masked.parties[name].reveal(tally.agreements))
    rows = rows_of(masked)
    assert np.array_equal(tally.total(), np.sum(list(rows.values()), axis=0, dtype=np.uint32))
    with pytest.raises(Misconduct, match="'h0' reveals shares out of turn"):
        tally.take_reveal("h0", masked.parties["h0"].reveal(tally.agreements))


def test_too_few_shares_open_nothing(masked: Any) -> None:
    tally = masked.tally
    for name in NAMES:
        tally.take_agreement(name, masked.parties[name].agree(NAMES))
    for name in NAMES[:3]:
        tally.take_reveal(name, masked.parties[name].reveal(tally.agreements))
    with pytest.raises(BadMessage, match="3 hospitals revealed their shares; the threshold is 4"):
        tally.total()


class Shifted(Party):
    """Deals shares of other secrets than it advertised, with hashes that fit the shares."""

    def _polynomial(self, kind: str) -> dict[int, int]:
        return {point: share + 1 for point, share in super()._polynomial(kind).items()}


@pytest.mark.parametrize(("silent", "says"), [((), "its seed"), (("h2",), "its key")])
def test_a_dealer_whose_shares_do_not_add_up_is_named(
    make_session: MakeSession, rows_of: RowsOf, silent: tuple[str, ...], says: str
) -> None:
    session = make_session()
    session.parties["h2"] = Shifted(session.terms, "h2", session.keys["h2"], session.seeds["h2"])
    session.open()
    rows = rows_of(session)
    session.mask({name: row for name, row in rows.items() if name not in silent})
    with pytest.raises(Misconduct, match=f"'h2' dealt shares that do not add up to {says}"):
        session.settle()


@pytest.mark.parametrize(
    "data", [b"", b"{}\n", b'{"parts":[["a",9]]}\nxx', b'{"parts":[["a",-1],["b",3]]}\nxx']
)
def test_packs_that_cannot_be_read(data: bytes) -> None:
    with pytest.raises(BadMessage, match="a pack"):
        unpack(data, "a pack")


def test_packs_come_back() -> None:
    parts = {"b": b"\n{", "a": b""}
    assert unpack(pack(parts), "a pack") == parts
