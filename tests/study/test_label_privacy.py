"""Label privacy from study file to report: drawn once, charged once, called what it is."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from wardround.privacy.events import RandomisedResponse, from_json
from wardround.privacy.labels import keep_probability
from wardround.server.book import read_book

EXAMPLE = Path(__file__).parents[2] / "examples" / "preference"


def labelled(folder: Path, *changes: tuple[str, str]) -> Path:
    """The example of label privacy, made small and changed."""
    folder.mkdir()
    for name in ("labels.toml", "labels-policy.toml"):
        shutil.copy(EXAMPLE / name, folder / name)
    for name, old, new in (
        ("labels.toml", "count = 4", "count = 2"),
        ("labels.toml", "rounds = 5", "rounds = 3"),
        ("labels.toml", "steps_per_round = 10", "steps_per_round = 2"),
        ("labels.toml", "records_per_hospital = 240", "records_per_hospital = 60\nprobes = 4"),
        ("labels.toml", "max_tokens = 48", "max_tokens = 8"),
        *(("labels.toml", old, new) for old, new in changes if "policy" not in old),
        *(("labels-policy.toml", old[7:], new) for old, new in changes if "policy" in old),
    ):
        text = (folder / name).read_text()
        assert old in text, old
        (folder / name).write_text(text.replace(old, new))
    return folder / "labels.toml"


def test_labels_are_paid_for_once_and_reported_as_labels(tmp_path: Path, wardround: Any) -> None:
    study = labelled(tmp_path / "one")
    found = wardround("run", study, "--json")
    assert found.code == 0, found.err
    run = tmp_path / found.document()["run_dir"]
    event = RandomisedResponse(keep_probability(2.0, 2), 2)
    for record in read_book(run / "rounds"):
        for answer in record.answers:
            report = answer.report
            assert report is not None
            # One draw, whatever the number of rounds; pure epsilon 2, a little less at delta 1e-5.
            assert from_json(report["events_study"]) == event
            assert report["epsilon_study"] == pytest.approx(2.0, abs=1e-3)
            assert (report["unit"], report["adjacency"]) == ("label", "replace-one")
            assert "everything but labels" in report["not_covered"][0]
    verified = wardround("report", run, "--verify")
    assert verified.code == 0, verified.err
    page = (run / "report.html").read_text()
    assert "Only labels are protected" in page
    assert "texts are used without clipping or noise" in page
    assert "NOTHING ELSE" in (run / "adapter" / "README.md").read_text()
    arrays = load_file(run / "adapter" / "adapter_model.safetensors")
    assert any(bool(array.any()) for name, array in arrays.items() if "lora_B" in name)


def test_a_lost_book_is_charged_again_and_breaks_the_budget(
    tmp_path: Path, wardround: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The broken twin of one draw a run: with no book every round is a draw, and 3 draws of 2 do
    # not fit into a budget of 4.
    from wardround.privacy.label_book import LabelBook

    monkeypatch.setattr(LabelBook, "_read", lambda self, run: None)
    refused = wardround("run", labelled(tmp_path / "one"))
    assert refused.code == 3
    assert "round 3 would bring it to" in refused.err


@pytest.mark.parametrize(
    ("change", "code", "what"),
    [
        (('policy mechanisms = ["label-response"]', ""), 3, "mechanisms does not list"),
        (('policy unit = "label"', 'unit = "record"'), 3, "the plan protects a label"),
        (('method = "robust"', 'method = "dpo"'), 2, "need 'robust'"),
        (("epsilon = 2.0", "noise_multiplier = 1.0"), 2, "label-response takes an epsilon"),
    ],
)
def test_what_would_not_be_label_privacy_is_refused(
    tmp_path: Path, wardround: Any, change: tuple[str, str], code: int, what: str
) -> None:
    refused = wardround("run", labelled(tmp_path / "one", change))
    assert refused.code == code, refused.err
    assert what in refused.err


def test_the_price_is_that_of_one_draw(tmp_path: Path, wardround: Any) -> None:
    found = wardround("price", labelled(tmp_path / "one"), "--json")
    assert found.code == 0, found.err
    for row in found.document()["hospitals"]:
        assert row["epsilon"] == pytest.approx(2.0, abs=1e-3)
        assert row["allowed"], row["reasons"]
