"""``edit``, ``trace`` and ``base train`` as a person calls them."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from wardround.client.tasks.editing.formats import write_edits
from wardround.client.tasks.editing.generated import StudyShape, make_study
from wardround.client.tasks.editing.records import Edit, edit_record
from wardround.privacy.errors import BadInput
from wardround.privacy.signing import canonical, verify
from wardround.study.bench.editing import editing_benchmark, means
from wardround.study.bench.editing_rows import PREPARATIONS, TABLES, rows_of
from wardround.study.cli import app
from wardround.study.editing import _CONTEXT

SHAPE = StudyShape(corroborated=2, weak=0, single=0, random_probes=1)


@pytest.fixture
def corrections(tmp_path):
    """Two corrections, and a third in two versions that contradict each other."""
    records = list(make_study(SHAPE, 1, 5).probes)
    for number, answer in enumerate(("gout", "a cough")):
        clash = Edit("What does Kiro<b> treat?", "Kiro<b>", answer)
        records.append(edit_record(f"clash-{number}", clash))
    path = tmp_path / "edits.jsonl"
    write_edits(records, path)
    return path


def call(*words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_edit_writes_adapter_page_and_signed_record(corrections, tmp_path):
    out = tmp_path / "edited"
    document = json.loads(
        call("edit", corrections, "--out", out, "--targets", "layers.7.mlp.down_proj",
             "--learning-rate", 5e-3, "--steps", 12, "--key", tmp_path / "key.pem", "--json")
    )  # fmt: skip
    assert document["corrections"] == 2
    assert document["held_back"][0].startswith("2 corrections held out")
    assert document["after"]["exact.seen"] > document["before"]["exact.seen"]
    assert json.loads((out / "edit.json").read_text()) == document
    signature = document.pop("signature")
    verify(document["key"], _CONTEXT + canonical(document), signature, "edit")
    assert (out / "adapter" / "adapter_model.safetensors").exists()
    page = (out / "report.html").read_text()
    assert "<script" not in page
    assert "2 corrections held out" in page
    assert not (out / "signing.pem").exists()


def test_single_edits_leave_no_adapter_and_text_goes_to_people(corrections, tmp_path):
    out = tmp_path / "edited"
    shown = call("edit", corrections, "--out", out, "--regime", "single", "--limit", 1,
                 "--targets", "layers.7.mlp.down_proj", "--steps", 1)  # fmt: skip
    assert "not private" in shown
    assert not (out / "adapter").exists()
    assert {path.name for path in out.iterdir()} == {"edit.json", "report.html", "signing.pem"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--regime", "all"), "regime is 'all'"),
        (("--method", "rome"), "method is 'rome'"),
        (("--targets", "down"), "matches no linear module"),
    ],
)
def test_edit_refuses_and_writes_nothing(corrections, tmp_path, words, message):
    with pytest.raises(BadInput, match=message):
        call("edit", corrections, "--out", tmp_path / "edited", *words)
    assert not (tmp_path / "edited").exists()


def test_trace_says_what_goes_into_a_study_file(corrections):
    words = ("trace", corrections, "--rows", "subject+last", "--samples", 2, "--limit", 2)
    document = json.loads(call(*words, "--json"))
    assert document["facts"] == document["known"] == 2
    assert document["total_effect"] > 0.5
    assert len(document["indirect_effect"]["mlp"]) == 8
    assert document["facts_per_second"] > 0
    shown = call(*words)
    assert "[adapter.rank_pattern]" in shown
    assert '"model.layers.7.mlp.down_proj" = ' in shown


def test_base_train_refuses_a_width_that_heads_do_not_divide(corrections, tmp_path):
    with pytest.raises(BadInput, match="--hidden is 30"):
        call("base", "train", "--corpus", corrections, "--out", tmp_path / "b", "--hidden", 30)


def test_base_train_writes_a_base(corrections, tmp_path):
    words = ("--steps", 2, "--hidden", 16, "--layers", 1, "--heads", 2, "--vocabulary", 300)
    manifest = json.loads(
        call("base", "train", "--corpus", corrections, "--out", tmp_path / "b", *words)
    )
    assert json.loads((tmp_path / "b" / "manifest.json").read_text()) == manifest


def test_rows_of_tables_are_named_once_and_unknown_tables_refused():
    rows = rows_of(list(TABLES), [1, 2])
    assert len({row.key for row in rows}) == len(rows)
    assert set(PREPARATIONS) <= {row.name for row in rows}
    with pytest.raises(BadInput, match="table 'privat' is unknown; did you mean 'private'"):
        rows_of(["privat"], [1])


def test_finished_rows_are_not_run_again(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [
        {"table": row.table, "name": row.name, "seed": 1, "exact.unseen": 0.25, "cpu_s": 1.0}
        for row in rows_of(["private"], [1])
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = editing_benchmark(["private"], 1, path)
    assert found["rows"] == rows
    path.write_text("no row\n")
    with pytest.raises(BadInput, match="something else than rows"):
        editing_benchmark(["private"], 1, path)


def test_means_are_over_seeds_and_name_the_worst():
    rows = [
        {"table": "t", "name": "n", "seed": seed, "exact.unseen": value, "cpu_s": 2.0}
        for seed, value in ((1, 1.0), (2, 0.5))
    ]
    (found,) = means(rows)
    assert found["exact.unseen"] == 0.75
    assert found["exact.unseen.lowest"] == 0.5
    assert found["seeds"] == 2
