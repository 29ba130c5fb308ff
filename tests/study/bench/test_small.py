"""The benchmarks that run whole studies: that they run, add up, and refuse what they must."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

from wardround.client.tasks.registry import find_task
from wardround.privacy.errors import BadInput
from wardround.privacy.units import Unit
from wardround.study.bench.cli import bench_app
from wardround.study.bench.rivals import RIVALS_TASKS, RivalsTask, rivals_benchmark
from wardround.study.bench.scale import scale_benchmark
from wardround.study.bench.start import start_benchmark
from wardround.study.bench.tiny import make_net, make_rows, register_tiny_task


def test_the_rivals_tasks_are_the_ones_others_were_measured_with():
    """64-64-2 and 4,290 parameters; 4 x 256 rows by 20 full steps, 50 x 50 rows by 5 of ten."""
    net = make_net(torch.Generator().manual_seed(0))
    assert sum(p.numel() for p in net.parameters()) == 4290
    a, b = RIVALS_TASKS["A"], RIVALS_TASKS["B"]
    assert (a.hospitals, a.rows, a.steps, a.batch) == (4, 256, 20, 256)
    assert (b.hospitals, b.rows, b.steps, b.batch) == (50, 50, 5, 10)


@pytest.mark.slow
def test_a_tiny_study_runs_the_real_path_beside_a_plain_loop(monkeypatch):
    monkeypatch.setitem(RIVALS_TASKS, "A", RivalsTask(2, 12, 3, 4, 3))
    done = CliRunner().invoke(bench_app, ["round", "--rivals-task", "A", "--json"])
    found = json.loads(done.stdout)
    for who in ("ours", "plain_loop"):
        assert found[who]["round_s"] == pytest.approx(2e-3 * found[who]["client_ms"], rel=1e-2)
        assert found[who]["processor_round_s"] > 0
    assert found["ours"]["round_s"] > found["plain_loop"]["round_s"]


def test_the_tiny_task_deals_the_same_rows_again_and_keeps_them_apart(tmp_path):
    register_tiny_task()
    register_tiny_task()
    task, config = find_task("bench-tiny"), {"rows": 5}
    dealt = [task.deal(None, tmp_path / name, 2, 7, config) for name in ("a", "b")]
    one, again = (task.load(deal.records[0], config) for deal in dealt)
    other = task.load(dealt[0].records[1], config)
    batches = [task.collate([[r] for r in rows], None, config) for rows in (one, again, other)]
    assert torch.equal(batches[0].inputs["features"], batches[1].inputs["features"])
    assert not torch.equal(batches[0].inputs["features"], batches[2].inputs["features"])
    assert [record.owners[Unit.RECORD] for record in one] == list("01234")
    assert make_rows(100, torch.Generator().manual_seed(0)).labels.unique().tolist() == [0, 1]


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(BadInput, match="--rivals-task is 'C'; expected one of A, B"):
        rivals_benchmark("C")
    with pytest.raises(BadInput, match="expected numbers of 1 or more"):
        scale_benchmark([4, 0])
    with pytest.raises(BadInput, match="--engines names 'rey'"):
        start_benchmark(("rey",))


@pytest.mark.slow
def test_each_size_is_measured_in_a_process_of_its_own():
    found = scale_benchmark([1, 2])
    assert found["hospitals"].keys() == {"1", "2"}
    assert found["peak_memory_bytes"] < 2 * 2**30
    assert found["flatness"]["wall"] >= 0
