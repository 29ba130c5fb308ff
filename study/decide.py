"""From a run of the task ``ballots`` to collective choices: what ``wardround decide`` does.

Reads the run's checkpoint and facts, nothing else: whatever is decided is post-processing of what
the hospitals released, and anybody with the run's folder can decide anew.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from wardround.client.tasks.ballots.agenda import (
    Agenda,
    Release,
    longest_ballot,
    margin_matrix,
    places,
)
from wardround.client.tasks.ballots.task import read_settings
from wardround.privacy.errors import BadInput
from wardround.privacy.plan import Mode
from wardround.privacy.tables import from_table
from wardround.strategies.checkpoint import write_atomically
from wardround.strategies.choice.collective import (
    ChoiceSettings,
    CollectiveChoice,
    decide,
    preference_pairs,
)
from wardround.strategies.choice.rules import APPROVAL
from wardround.strategies.choice.scored import decide_scores, site_of
from wardround.strategies.choice.sites import Site
from wardround.study.released import released_sums
from wardround.study.run_folder import RunFolder

RULES = {Release.DUELS: "split-cycle", Release.BORDA: "borda", Release.APPROVALS: APPROVAL}


@dataclass(frozen=True)
class Decision:
    """All agendas of a run, decided.

    Attributes:
        settings: How.
        prompts: What each agenda asked.
        choices: One an agenda.
        sites: How many hospitals released something.
        shortened: Whether the run's clip norm cut full ballots short.
    """

    settings: ChoiceSettings
    prompts: tuple[str, ...]
    choices: tuple[CollectiveChoice, ...]
    sites: int
    shortened: bool

    def pairs(self) -> list[dict[str, Any]]:
        """Collective preference pairs of all agendas."""
        return [
            pair
            for prompt, choice in zip(self.prompts, self.choices, strict=True)
            for pair in preference_pairs(choice, prompt, self.settings, self.sites)
        ]

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON."""
        return {
            "rule": self.settings.rule,
            "weighting": self.settings.weighting.value,
            "sites": self.sites,
            "ballots_shortened": self.shortened,
            "agendas": [choice.to_json() for choice in self.choices],
            "pairs": self.pairs(),
        }


def decide_run(
    run_dir: Path, rule: str, weighting: str, least_stability: float, seed: int = 0
) -> Decision:
    """Decide every agenda of a run.

    Args:
        run_dir: The run's folder.
        rule: Name of a rule on what was released; empty for split-cycle on duels, and the only one
            there is on anything else.
        weighting: ``voter``, ``site`` or ``square-root``.
        least_stability: Below it a choice is not called collective.
        seed: Public; of the noise that is drawn again.

    Raises:
        BadInput: Not a run of ``ballots``, no round is over, or a setting cannot be used.
    """
    folder = RunFolder.open(run_dir)
    study = folder.study
    if (study.study.task, study.strategy.name) != ("ballots", "tally"):
        raise BadInput(f"{run_dir}: a run of {study.study.task} with {study.strategy.name}; "
                       "decide needs task ballots and strategy tally")  # fmt: skip
    voted = read_settings(study.task)
    agendas, release = voted.agendas, voted.release
    rule = rule or RULES[release]
    if release is not Release.DUELS and rule != RULES[release]:
        raise BadInput(f"rule is {rule!r}: the run released {release.value}, which tell no more "
                       f"than {RULES[release]!r}")  # fmt: skip
    table = {"rule": rule, "weighting": weighting, "least_stability": least_stability}
    settings = from_table(ChoiceSettings, table, "decide")
    sums = released_sums(folder)
    generator = torch.Generator().manual_seed(seed)
    choices = []
    for agenda, place in zip(agendas, places(agendas, release).values(), strict=True):
        sites = [
            _site(agenda, release, name, one.total[list(place)], one.units, one.deviation)
            for name, one in sums.items()
        ]
        about = (agenda.id, agenda.candidates, sites, settings, generator)
        groups = [frozenset(group) for group in agenda.clones]
        choices.append(
            decide(*about, groups) if release is Release.DUELS else decide_scores(*about)
        )
    private = study.privacy.mode is not Mode.NONE
    return Decision(
        settings,
        tuple(agenda.prompt for agenda in agendas),
        tuple(choices),
        len(sums),
        private and study.privacy.clip_norm < longest_ballot(agendas, release) * (1 - 1e-6),
    )


def _site(
    agenda: Agenda,
    release: Release,
    name: str,
    numbers: torch.Tensor,
    voters: int,
    deviation: float,
) -> Site:
    """What one hospital released of one agenda."""
    if release is not Release.DUELS:
        return site_of(name, numbers.numpy(), float(voters), deviation)
    wins = margin_matrix(len(agenda.candidates), numbers).numpy() / 2
    return Site(name, wins, float(voters), deviation)


def write_pairs(decision: Decision, path: Path) -> None:
    """Write collective pairs as JSON lines, whole or not at all.

    Raises:
        BadInput: No pair is firm enough.
    """
    pairs = decision.pairs()
    if not pairs:
        raise BadInput(f"{path}: no pair is firm enough to be called collective; nothing written")
    lines = "".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lines.encode())


def show_decision(console: Console, decision: Decision) -> None:
    """Winners, how firm they are and what can be said against them, a row an agenda."""
    settings = decision.settings
    table = Table(
        "agenda", "winner", "stable", "collective", "other rules say", "violated here",
        title=f"{settings.rule}, counted by {settings.weighting}, {decision.sites} sites",
    )  # fmt: skip
    for choice in decision.choices:
        others = {w for w in choice.other_rules.values() if w != choice.winners}
        table.add_row(
            choice.agenda,
            _names(choice, choice.winners),
            f"{choice.stability:.0%}",
            "yes" if choice.collective else "no",
            "; ".join(sorted(_names(choice, w) for w in others)) or "the same",
            ", ".join(f.axiom for f in choice.findings if f.violated) or "none",
        )
    console.print(table)
    console.print(f"{len(decision.pairs())} collective pairs")
    if decision.shortened:
        console.print("clip_norm is below a full ballot's norm: long ballots counted for less")


def _names(choice: CollectiveChoice, winners: tuple[int, ...]) -> str:
    """Candidates by their texts."""
    return " = ".join(choice.candidates[place] for place in winners)
