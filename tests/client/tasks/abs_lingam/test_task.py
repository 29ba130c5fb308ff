"""Rows as contributions: files, bounds, patients, and what a study's sums add up to."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround.client.statistics import NAME
from wardround.client.tasks.abs_lingam.config import causal_config
from wardround.client.tasks.abs_lingam.formats import read_rows, write_rows
from wardround.client.tasks.abs_lingam.task import AbsLingamTask
from wardround.client.tasks.base import Record
from wardround.privacy import Unit
from wardround.privacy.errors import BadInput
from wardround.strategies.causal.moments import contributions

TASK = AbsLingamTask()
CONFIG = {
    "variable": [
        {"name": "age", "centre": 50.0, "scale": 15.0},
        {"name": "dose", "scale": 2.0},
        {"name": "stay", "centre": 5.0, "scale": 3.0},
    ],
    "generated": {"records_per_hospital": 300, "edges": 2},
}


def record(name, values, patient=""):
    owners = {Unit.RECORD: name} | ({Unit.PATIENT: patient} if patient else {})
    return Record(name, owners, values)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(*[st.floats(-1e6, 1e6)] * 3), min_size=1, max_size=4))
def test_a_unit_moves_the_sum_by_the_root_of_three_at_most(rows):
    """However many rows a patient has and whatever they say."""
    units = [[record(str(n), row) for n, row in enumerate(rows)]]
    (found,) = TASK.collate(units, None, CONFIG).inputs["contributions"]
    assert float(found.norm()) <= math.sqrt(3) * (1 + 1e-12)


def test_a_patients_rows_are_averaged():
    rows = [record("a", (60.0, 1.0, 5.0), "p"), record("b", (20.0, 0.0, 9.0), "p")]
    (both,) = TASK.collate([rows], None, CONFIG).inputs["contributions"]
    each = TASK.collate([rows[:1], rows[1:]], None, CONFIG).inputs["contributions"]
    torch.testing.assert_close(both, each.mean(0))


def test_centres_scales_and_radius_are_public_numbers():
    scaled = causal_config({**CONFIG, "radius": 2.0}).scaled(np.array([[65.0, 2.0, 8.0]]))
    np.testing.assert_allclose(scaled, np.full((1, 3), 0.5))
    far = causal_config(CONFIG).scaled(np.array([[1e9, 0.0, 5.0]]))
    np.testing.assert_allclose(far, [[1.0, 0.0, 0.0]])


def test_abstract_variables_are_sums_of_columns():
    table = {**CONFIG, "abstract": {"load": {"age": 1.0, "dose": -2.0}, "stay": {"stay": 1.0}}}
    config = causal_config({**table, "radius": 10.0})
    assert config.names == ("load", "stay")
    # (65 - 50) / 15 - 2 * 3 / 2 = -2 and (8 - 5) / 3 = 1, over the radius.
    np.testing.assert_allclose(config.scaled(np.array([[65.0, 3.0, 8.0]])), [[-0.2, 0.1]])
    generator = torch.Generator()
    trainable = TASK.adapt(torch.nn.Module(), None, {}, table, generator)
    assert trainable.parameters[NAME].shape == (1, 2 + 3 + 4)


def test_weights_come_back_in_the_columns_units():
    """Half a scale of stay for each scale of age: 0.5 * 3 / 15 days a year."""
    adjacency = np.zeros((3, 3))
    adjacency[2, 0] = 0.5
    assert causal_config(CONFIG).in_own_units(adjacency)[2, 0] == pytest.approx(0.1)


def test_rows_come_back_as_they_were(tmp_path):
    rows = [record("a", (1.5, -2.0, 1e-9), "p"), record("b", (0.1, 3.0, 4.0), "p")]
    path = tmp_path / "rows.csv"
    write_rows(rows, path, ("age", "dose", "stay"))
    assert read_rows(path, ("age", "dose", "stay")) == rows
    turned = read_rows(path, ("stay", "age"))
    assert turned[0].content == (1e-9, 1.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("age,dose\n1,2\n", ":1: column 'stay' is missing"),
        ("age,dose,stay\n1,2\n", ":2: 2 cells; expected 3"),
        ("age,dose,stay\n1,2,secret\n", ":2: column 'stay' is not a number"),
        ("age,dose,stay\n1,2,inf\n", ":2: column 'stay' is not finite"),
        ("id,age,dose,stay\na,1,2,3\na,1,2,3\n", ":3: id occurs before"),
        ("patient,age,dose,stay\n,1,2,3\n", ":2: patient is empty"),
        ("age,dose,stay\n", "holds no rows"),
        ("", ":1: column 'age' is missing"),
    ],
)
def test_bad_files_are_refused_by_line_and_never_repeated(tmp_path, text, message):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(BadInput) as caught:
        TASK.load(path, CONFIG)
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)
    with pytest.raises(BadInput, match="no such file"):
        TASK.load(tmp_path / "none.csv", CONFIG)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variable": CONFIG["variable"][:1]}, "it must have 2 to 12"),
        ({"variable": CONFIG["variable"] * 2}, "a name stands there twice"),
        ({"variable": [{"name": "id"}]}, "name is 'id'"),
        ({"variable": [{"name": "a", "scale": 0.0}]}, "scale is 0.0"),
        ({"abstract": {"a": {"nobody": 1.0}}}, "names 'nobody'"),
        ({"abstract": {"a": 3}}, "must be a table of weights"),
        ({"radius": -1.0}, "radius is -1.0"),
        ({"generated": {"edges": -1}}, "edges is -1"),
    ],
)
def test_settings_name_what_is_wrong(change, message):
    with pytest.raises(BadInput, match=message):
        TASK.check({**CONFIG, **change})


def test_evaluation_compares_with_the_rows_themselves(tmp_path):
    dealt = TASK.deal(None, tmp_path, 2, 1, CONFIG)
    records = TASK.load(dealt.probes, CONFIG)
    trainable = TASK.adapt(torch.nn.Module(), None, {}, CONFIG, torch.Generator())
    rows = np.array([one.content for one in records])
    exact = contributions(causal_config(CONFIG).scaled(rows)).mean(axis=0)
    trainable.write({NAME: torch.from_numpy(exact)[None]})
    found = TASK.evaluate(trainable.model, None, records, CONFIG)
    assert found["directions"] == 1
    assert found["moment_error"] < 1e-15


def test_a_public_file_is_dealt_out_once(tmp_path):
    rows = [record(str(n), (n, n % 7, n % 5)) for n in range(20)]
    write_rows(rows, tmp_path / "public.csv", ("age", "dose", "stay"))
    dealt = TASK.deal(tmp_path / "public.csv", tmp_path / "dealt", 3, 0, CONFIG)
    names = [r.id for path in dealt.records for r in TASK.load(path, CONFIG)]
    assert sorted(names) == sorted(r.id for r in rows)
    with pytest.raises(BadInput, match="20 rows, 21 hospitals"):
        TASK.deal(tmp_path / "public.csv", tmp_path / "more", 21, 0, CONFIG)
