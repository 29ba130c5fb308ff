"""From one public file of corrections to several hospitals: what must be held out, who gets what.

Benchmarks made for one edit at a time contradict themselves when all edits are applied together: an
edit's prompt is another item's locality probe, or one question gets two answers. Privacy: holding
out looks at several records at once, so it couples units; it is for public files that are being
dealt out, and a hospital that loads its own records never calls it. Source for the
overlaps in MedCF: "MedREK" (2025), arXiv 2510.13500.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from wardround.client.tasks.base import Record
from wardround.client.tasks.draws import Draws
from wardround.client.tasks.editing.records import Edit
from wardround.privacy.errors import BadInput


@dataclass(frozen=True)
class OverlapReport:
    """What a file of corrections said twice, or against itself.

    Attributes:
        found: Corrections in the file.
        kept: Corrections left.
        conflicts: Held out because another correction answers the same question differently, in
            whichever of its wordings.
        probed: Held out because a wording is a locality probe of another correction.
        duplicates: Held out because prompt and answer had occurred before.
        own_probes: Locality probes dropped because they ask their own correction's question.
    """

    found: int
    kept: int
    conflicts: int
    probed: int
    duplicates: int
    own_probes: int

    def notes(self) -> tuple[str, ...]:
        """A sentence for each thing held out; empty when the file does not contradict itself."""
        sentences = (
            (
                self.conflicts,
                "corrections held out: another one answers the same question otherwise",
            ),
            (self.probed, "corrections held out: they ask another one's locality probe"),
            (self.duplicates, "corrections held out: prompt and answer had occurred before"),
            (
                self.own_probes,
                "locality probes dropped: they ask what their own correction changes",
            ),
        )
        found = tuple(f"{count} {text}" for count, text in sentences if count)
        return (*found, f"{self.kept} of {self.found} corrections kept") if found else ()


def hold_out(records: Sequence[Record]) -> tuple[list[Record], OverlapReport]:
    """The corrections that can all be applied together, and a count of the others.

    Each correction is held out for the first reason that fits, in the order of ``OverlapReport``;
    the reasons are judged on the whole file, so its order does not matter except for which of
    several equal corrections stays.
    """
    answers: dict[str, set[str]] = {}
    probed_by: dict[str, set[int]] = {}
    for place, record in enumerate(records):
        edit: Edit = record.content
        for wording in edit.wordings:
            answers.setdefault(_same(wording), set()).add(_same(edit.target_new))
        for probes in edit.locality.values():
            for probe in probes:
                probed_by.setdefault(_same(probe.prompt), set()).add(place)
    kept: list[Record] = []
    seen: set[str] = set()
    conflicts = probed = duplicates = own_probes = 0
    for place, record in enumerate(records):
        prompt = _same(record.content.prompt)
        wordings = [_same(wording) for wording in record.content.wordings]
        if any(len(answers[wording]) > 1 for wording in wordings):
            conflicts += 1
        elif any(probed_by.get(wording, set()) - {place} for wording in wordings):
            probed += 1
        elif prompt in seen:
            duplicates += 1
        else:
            seen.add(prompt)
            record, dropped = _without_own_probes(record)
            own_probes += dropped
            kept.append(record)
    report = OverlapReport(len(records), len(kept), conflicts, probed, duplicates, own_probes)
    return kept, report


def split_over(
    records: Sequence[Record], hospitals: int, seed: int
) -> tuple[tuple[Record, ...], ...]:
    """The records shuffled and dealt out in turn, one hospital after the other.

    Raises:
        BadInput: There are fewer records than hospitals.
    """
    if not 1 <= hospitals <= len(records):
        raise BadInput(
            f"hospitals is {hospitals}; the data holds {len(records)} records to deal out"
        )
    shuffled = Draws(seed, "editing/split").shuffled(records)
    return tuple(tuple(shuffled[place::hospitals]) for place in range(hospitals))


def _same(text: str) -> str:
    """One spelling for texts that differ in case or blanks only."""
    return " ".join(text.casefold().split())


def _without_own_probes(record: Record) -> tuple[Record, int]:
    """The record without probes that ask what it corrects, and how many there were."""
    edit: Edit = record.content
    prompt = _same(edit.prompt)
    locality = {
        kind: tuple(probe for probe in probes if _same(probe.prompt) != prompt)
        for kind, probes in edit.locality.items()
    }
    dropped = sum(map(len, edit.locality.values())) - sum(map(len, locality.values()))
    if not dropped:
        return record, 0
    left = {kind: probes for kind, probes in locality.items() if probes}
    return replace(record, content=replace(edit, locality=left)), dropped
