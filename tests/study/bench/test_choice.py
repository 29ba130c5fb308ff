"""Tennessee under noise against published shares, and the timed matrix against its own counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wardround.strategies.choice.rules import DUEL_RULES
from wardround.study.bench.choice import choice_benchmark, tennessee_table, uniform_duels


@pytest.mark.statistical
def test_copelands_winner_is_as_firm_as_published() -> None:
    """2 000 draws of a second implementation: 0.9995, 0.952, 0.732, 0.424, 0.258.

    Both are shares of 2 000 draws, so their difference has a deviation of at most 0.016; 0.03 was
    asked for. False alarms over other seeds: under 1 in 10; this seed is fixed.
    """
    published = {5.0: 0.9995, 10.0: 0.952, 20.0: 0.732, 40.0: 0.424, 80.0: 0.258}
    generator = torch.Generator().manual_seed(20_262)
    rows = tennessee_table(tuple(published), 2000, generator, ["copeland"])
    for row in rows:
        assert row["copeland"] == pytest.approx(published[row["deviation"]], abs=0.03)


def test_every_voter_is_counted_in_every_duel() -> None:
    wins = uniform_duels(5, 40, torch.Generator().manual_seed(1))
    assert (np.diag(wins) == 0).all()
    assert ((wins + wins.T)[~np.eye(5, dtype=bool)] == 40).all()


def test_the_document_times_every_rule_on_duels() -> None:
    document = choice_benchmark(4, 9, 3, draws=2)
    assert [row["rule"] for row in document["times"]] == list(DUEL_RULES)
