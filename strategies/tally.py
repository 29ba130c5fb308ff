"""Tally: every site's released statistics are kept apart, because whose voice counts is a choice.

For tasks that send statistics instead of weights. Each round asks for them from zero; several
rounds are averaged, which is what a second noised look is worth. Nothing is trained, so a hospital
takes one plain step of length 1 whatever the study's optimizer is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from wardround.strategies.base import SERVER, Arrays, Brief, Model, State, Update
from wardround.strategies.factors import adapter

SITE = f"{SERVER}site/"
COUNT = f"{SERVER}count/"


@dataclass(frozen=True)
class Tally:
    """The mean over rounds of what each site released."""

    name: ClassVar[str] = "tally"

    def start(self, arrays: Arrays) -> State:
        """No site has released anything."""
        return dict(arrays)

    def brief(self, state: Arrays, round_number: int, rank: int | None = None) -> Brief:
        """Statistics at zero, to be filled."""
        arrays = {name: torch.zeros_like(a) for name, a in adapter(dict(state)).items()}
        plain = {"optimizer": "sgd", "learning_rate": 1.0, "momentum": 0.0}
        return Brief(arrays, tuple(arrays), training=plain)

    def begin(self, state: Arrays, round_number: int) -> SitesApart:
        """The sites' statistics so far."""
        return SitesApart(state)

    def deploy(self, state: Arrays) -> Model:
        """The mean over sites, each counting the same."""
        return Model(adapter(dict(state)))


class SitesApart:
    """Keeps what each site released, by name of the site."""

    def __init__(self, state: Arrays) -> None:
        self._state = dict(state)
        self._added = 0

    def add(self, update: Update) -> None:
        """One site's statistics, averaged with those it released before."""
        counted = f"{COUNT}{update.hospital}"
        before = self._state.get(counted, torch.zeros(1))
        for name, value in update.change.items():
            kept = f"{SITE}{update.hospital}/{name}"
            total = self._state.get(kept, torch.zeros_like(value)) * before
            self._state[kept] = (total + value) / (before + 1)
        self._state[counted] = before + 1
        self._added += 1

    def finish(self) -> State:
        """The next state.

        Raises:
            ValueError: Nobody sent anything.
        """
        if not self._added:
            raise ValueError("no update to aggregate")
        sites = released(self._state)
        for name in adapter(self._state):
            self._state[name] = torch.stack([arrays[name] for arrays in sites.values()]).mean(0)
        return self._state


def released(state: Arrays) -> dict[str, State]:
    """What each site released, by name of the site."""
    sites: dict[str, State] = {}
    for name, array in state.items():
        if name.startswith(SITE):
            site, _, statistic = name.removeprefix(SITE).partition("/")
            sites.setdefault(site, {})[statistic] = array
    return sites
