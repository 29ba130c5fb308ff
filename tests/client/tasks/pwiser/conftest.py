"""Scores and labels laid out as the losses take them."""

from __future__ import annotations

import pytest
import torch

from wardround.client.tasks.pwiser.rows import Kinds


@pytest.fixture(scope="session")
def kinds_of():
    """Masks from outcomes: 2 taken up, 1 only looked at, 0 not even that."""

    def make(outcomes):
        found = torch.tensor(outcomes)
        return Kinds(found == 2, found == 1, found == 0)

    return make
