"""Records with one owner, with two, and with one too many."""

from __future__ import annotations

import pytest

from wardround.privacy.errors import BadInput
from wardround.privacy.ownership import group_records
from wardround.privacy.units import Unit


def visits(*pairs):
    return [{Unit.PATIENT: patient, Unit.CLINICIAN: clinician} for patient, clinician in pairs]


DATA = visits(("p1", "c1"), ("p2", "c1"), ("p1", "c1"), ("p3", "c2"))


def test_one_kind_of_owner_groups_and_names_who_is_left_out():
    grouping = group_records(DATA, [Unit.PATIENT])
    assert grouping.members == ((0, 2), (1,), (3,))
    assert grouping.not_covered == (Unit.CLINICIAN,)
    assert grouping.assumption == ""


def test_both_owners_make_one_unit_of_everybody_linked():
    grouping = group_records(DATA, [Unit.PATIENT, Unit.CLINICIAN], most_share=0.8)
    assert grouping.members == ((0, 1, 2), (3,))
    assert grouping.not_covered == ()
    assert "counts as known" in grouping.assumption


def test_links_run_through_any_number_of_people():
    chain = visits(("a", "1"), ("b", "2"), ("a", "3"), ("b", "3"), ("c", "2"), ("d", "9"))
    grouping = group_records(chain, [Unit.PATIENT, Unit.CLINICIAN], most_share=1.0)
    assert grouping.members == ((0, 1, 2, 3, 4), (5,))


def test_a_unit_that_would_swallow_the_data_is_refused_with_the_reason():
    with pytest.raises(BadInput, match=r"over patient and clinician would hold more than 10%"):
        group_records(DATA, [Unit.PATIENT, Unit.CLINICIAN])


def test_a_record_without_its_owner_is_refused():
    with pytest.raises(BadInput, match="record 1 names no patient"):
        group_records([{Unit.PATIENT: "p"}, {Unit.PATIENT: ""}], [Unit.PATIENT])
    with pytest.raises(BadInput, match="protect is empty"):
        group_records(DATA, [])


def test_no_records_make_no_units():
    assert group_records([], [Unit.PATIENT, Unit.CLINICIAN]).members == ()
