"""Profiles of the literature, and random ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from wardround.strategies.choice.ballots import Profile


def _spelled(ballots: str) -> Profile:
    pairs = [part.split() for part in ballots.split(",")]
    return Profile.of(
        max(len(order) for _, order in pairs),
        [(int(count), [[ord(letter) - ord("A")] for letter in order]) for count, order in pairs],
    )


def _drawn(candidates: int, voters: int, seed: int) -> Profile:
    generator = torch.Generator().manual_seed(seed)
    ranks = torch.stack([torch.randperm(candidates, generator=generator) for _ in range(voters)])
    return Profile(ranks.numpy(), np.ones(voters), np.ones((voters, candidates), dtype=np.bool_))


@pytest.fixture
def spelled() -> Callable[[str], Profile]:
    """From ``"3 ABC, 2 BCA"``: voters, then their ranking; candidate A is 0."""
    return _spelled


@pytest.fixture
def drawn() -> Callable[[int, int, int], Profile]:
    """(candidates, voters, seed): every voter's order is drawn evenly from all."""
    return _drawn


@pytest.fixture
def tennessee() -> Profile:
    """Memphis 0, Nashville 1, Knoxville 2, Chattanooga 3: the textbook's capital election."""
    return _spelled("42 ABDC, 26 BDCA, 15 DCBA, 17 CDBA")
