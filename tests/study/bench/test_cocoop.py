"""The tables of prompts: rows kept in a file, what they add up to, and that a row can be run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wardround.client.tasks.cocoop.formats import TEST, read_pictures, split_names
from wardround.privacy.errors import BadInput
from wardround.study.bench.cocoop import ARMS, Size, cocoop_benchmark, summary
from wardround.study.bench.digits import NAMES, write_digits

ROOT = Path(__file__).resolve().parents[3]
ROW = {
    "world": "made-up", "method": "CoOp", "epsilon": 8.0, "seed": 4, "h": 0.6,
    "zero_shot_base": 0.5, "zero_shot_new": 0.5, "zero_shot_h": 0.5,
}  # fmt: skip


def test_the_embedded_study_is_the_example() -> None:
    for name in ("study.toml", "policy.toml"):
        example = ROOT / "examples" / "cocoop" / name
        assert example.read_bytes() == (ROOT / "study/embedded/cocoop" / name).read_bytes()


def test_rows_of_the_file_are_not_run_again(tmp_path: Path) -> None:
    """Nothing could be trained in no rounds: only the file can answer."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps(ROW | {"base": 0.9, "new": 0.45}) + "\n", encoding="utf-8")
    found = cocoop_benchmark([4], rows, ARMS[:1], [8.0], ["made-up"], Size(rounds=0))
    assert len(found["rows"]) == 1
    assert rows.read_text(encoding="utf-8").count("\n") == 1


def test_what_cannot_be_used_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text('{"a": 1}\n', encoding="utf-8")
    with pytest.raises(BadInput, match="holds something else"):
        cocoop_benchmark([0], other)
    with pytest.raises(BadInput, match="--worlds names 'digit'"):
        cocoop_benchmark([0], worlds=["digit"])


def test_the_summary_publishes_h_of_means_and_zero_shot_once() -> None:
    """Base 0.8 and 1.0, new 0.4 and 0.2: means 0.9 and 0.3, whose harmonic mean is 0.45."""
    rows = [
        ROW | {"seed": 0, "base": 0.8, "new": 0.4, "h": 0.5333},
        ROW | {"seed": 1, "base": 1.0, "new": 0.2, "h": 0.3333},
        ROW | {"method": "CoCoOp", "seed": 1, "base": 0.5, "new": 0.5, "h": 0.5},
    ]
    coop, plain, cocoop = summary(rows)
    assert (plain["method"], plain["seeds"], cocoop["method"]) == ("zero-shot", 2, "CoCoOp")
    assert coop["h"] == 0.45
    assert coop["mean_h"] == pytest.approx((0.5333 + 0.3333) / 2, abs=1e-4)
    assert coop["h_over_zero_shot"] == pytest.approx(-0.0667, abs=1e-4)
    assert cocoop["h_over_zero_shot"] == 0.0


def test_the_digits_are_scikit_learns(tmp_path: Path) -> None:
    """1,797 pictures, labels in order, seven of ten for training, pixels in sixteenths kept."""
    from sklearn.datasets import load_digits

    from wardround.client.tasks.cocoop.images import decode

    split = write_digits(tmp_path / "digits")
    assert split_names(split) == list(NAMES)
    train, test = (read_pictures(split, NAMES, part) for part in ("train", TEST))
    assert len(train) + len(test) == 1797
    assert not {r.id for r in train} & {r.id for r in test}
    record = train[0]
    place = int(record.id.split("-")[1].split(".")[0])
    theirs = load_digits().images[place] / 16
    ours = decode(record.content.read(), 8)[0].double().numpy()
    assert abs(ours - theirs).max() <= 0.5 / 255 + 1e-7


@pytest.mark.parametrize("world", ["made-up", "digits"])
def test_a_row_is_run_within_its_budget_and_written(tmp_path: Path, world: str) -> None:
    rows = tmp_path / "rows.jsonl"
    size = Size(1, 1, 0.01, names=8, probes_per_name=2, shots=30)
    found = cocoop_benchmark([5], rows, ARMS[1:2], [3.0], [world], size)
    (row,) = found["rows"]
    assert 0 < row["epsilon_spent"] <= 3.0
    assert 0 <= row["h"] <= 1
    assert json.loads(rows.read_text(encoding="utf-8")) == row
