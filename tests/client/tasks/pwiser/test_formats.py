"""Click logs as csv: public layouts, the bucket, refusals with their line, real samples."""

from __future__ import annotations

from pathlib import Path

import pytest

from wardround.client.tasks.pwiser.columns import Columns
from wardround.client.tasks.pwiser.formats import read_log
from wardround.client.tasks.pwiser.generated import LogShape, make_log
from wardround.client.tasks.pwiser.task import PwiserTask
from wardround.privacy import Unit
from wardround.privacy.errors import BadInput

REAL = Path(__file__).parents[4] / "../shared/data"
COLUMNS = Columns(categorical={"kind": 3}, numerical=("age",), session="s", patient="p")
HEADER = "s,p,kind,age,click,conversion\n"


@pytest.fixture
def file(tmp_path):
    def write(text: str):
        path = tmp_path / "log.csv"
        path.write_text(text)
        return path

    return write


def test_rows_become_sessions_and_values_beyond_the_vocabulary_a_bucket(file) -> None:
    found = read_log(file(HEADER + "a,x,2,0.5,1,0\nb,x,7,1,0,0\na,x,0,-1,1,1\n"), COLUMNS, 4)
    assert [record.id for record in found] == ["a", "b"]
    assert [row.categorical for row in found[0].content.exposures] == [(2,), (0,)]
    assert found[1].content.exposures[0].categorical == (3,)
    assert found[0].owners[Unit.PATIENT] == "x"
    assert found[0].owners[Unit.LIST].startswith("block-")


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", "", "holds no header"),
        (HEADER, "", "holds no exposures"),
        (HEADER + "a,x,2,0.5,0,1\n", ":2", "conversion is 1 and click is 0"),
        (HEADER + "a,x,2,0.5,1,1\na,x,2,0.5,2,1\n", ":3", "click must be 0 or 1"),
        (HEADER + "a,x,-1,0.5,1,1\n", ":2", "kind must be a whole number"),
        (HEADER + "a,x,1.5,0.5,1,1\n", ":2", "kind must be a whole number"),
        (HEADER + "a,x,1,nan,1,1\n", ":2", "age must be a finite number"),
        (HEADER + "a,x,1,0.5,1\n", ":2", "5 columns; expected 6"),
        (HEADER + ",x,1,0.5,1,0\n", ":2", "s is empty"),
        (HEADER + "a,x,1,0.5,1,0\na,y,1,0.5,1,0\n", ":3", "two patients"),
        (HEADER.replace("age", "agee") + "a,x,1,0.5,1,0\n", ":1", "did you mean 'age'"),
        ("s,p,kind,click,conversion\n", ":1", "'age' is missing"),
        ("s,p,kind,age,click,click,conversion\n", ":1", "there twice"),
        (HEADER + 'a,"x,1,0.5,1,0\n', ":2", "not csv"),
    ],
)
def test_bad_rows_are_refused_by_line_and_never_repeated(file, text, line, message) -> None:
    path = file(text)
    with pytest.raises(BadInput, match=message) as caught:
        read_log(path, COLUMNS, 4)
    assert str(caught.value).startswith(f"{path}{line}")
    assert "0.5" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"categorical": {"kind": 0}}, "kind is 0"),
        ({"categorical": {"kind": "3"}}, "must be a whole number"),
        ({"categorical": {"kind": 3}, "numerical": ("kind",)}, "named twice"),
        ({"click": ""}, "must name columns"),
    ],
)
def test_columns_that_cannot_be_used(fields, message) -> None:
    with pytest.raises(ValueError, match=message):
        Columns(**fields)


def test_made_up_logs_go_to_a_file_and_back(tmp_path) -> None:
    task = PwiserTask()
    dealt = task.deal(None, tmp_path, 2, 3, {"generated": {"patients_per_hospital": 20}})
    made = make_log(LogShape(patients_per_hospital=20), "h1", 3)
    read = task.load(dealt.records[0], {})
    assert [(r.id, r.content, r.owners[Unit.PATIENT]) for r in read] == [
        (r.id, r.content, r.owners[Unit.PATIENT]) for r in made
    ]


@pytest.mark.parametrize("share", [0.0, 0.5, 0.8])
def test_the_knob_sets_the_share_of_clicks_by_chance(share) -> None:
    # Expected: meant / (1 - share) clicks without enrolment, each kept by its own coin; the log has
    # 6,000 rows, so four standard deviations are below a tenth of what is expected.
    def clicks(noise: float) -> int:
        log = make_log(LogShape(patients_per_hospital=600, noise_share=noise), "h1", 5)
        rows = [row for record in log for row in record.content.exposures]
        return sum(row.click and not row.conversion for row in rows)

    meant = clicks(0.0)
    assert clicks(share) == pytest.approx(meant / (1 - share), rel=0.1)


def test_layouts_without_a_generator_ask_for_a_file(tmp_path) -> None:
    with pytest.raises(BadInput, match="--data"):
        PwiserTask().deal(None, tmp_path, 2, 0, {"layout": "aliexpress"})


@pytest.mark.skipif(not REAL.is_dir(), reason="the optional data folder is not there")
@pytest.mark.parametrize(
    ("name", "layout", "sessions", "rows"),
    [
        ("aliexpress_train_sample.csv", "aliexpress", 41, 100),
        ("ali_ccp_train_sample.csv", "ali-ccp", 100, 100),
    ],
)
def test_real_samples_are_dealt_out_whole(tmp_path, name, layout, sessions, rows) -> None:
    task, config = PwiserTask(), {"layout": layout, "vocabulary": 50}
    found = task.load(REAL / name, config)
    assert len(found) == sessions
    assert sum(len(record.content.exposures) for record in found) == rows
    dealt = task.deal(REAL / name, tmp_path, 4, 0, config)
    files = [task.load(path, config) for path in (*dealt.records, dealt.probes)]
    assert sum(len(r.content.exposures) for records in files for r in records) == rows
    clicks = sum(row.click for record in found for row in record.content.exposures)
    again = sum(row.click for records in files for r in records for row in r.content.exposures)
    assert clicks == again
