"""A study from a public file of corrections: some that many records repeat, some that one has.

What the generated world does for made-up facts, for real ones: chosen corrections are copied into
records of all hospitals, others stand in one record, and the rest of the records restate what was
true before. Where a file names no old answers, as MedFE does, they give their own new ones instead.
Only for public files, which are being dealt out. Knows no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from wardround.client.tasks.base import Record
from wardround.client.tasks.draws import Draws
from wardround.client.tasks.editing.records import Edit, edit_record
from wardround.privacy.errors import BadInput


@dataclass(frozen=True)
class PublicShape:
    """How a public file becomes a study.

    Attributes:
        corroborated: Corrections that many records repeat; 0 deals every correction out once.
        support: How many records repeat each, over all hospitals.
        single: Corrections that one record in one hospital has.
        records_per_hospital: The same public number for all.
    """

    corroborated: int = 0
    support: int = 64
    single: int = 8
    records_per_hospital: int = 320

    def __post_init__(self) -> None:
        for each in fields(self):
            least = 0 if each.name in ("corroborated", "single") else 1
            if getattr(self, each.name) < least:
                raise ValueError(f"{each.name} is {getattr(self, each.name)}; at least {least}")


def deal_public(
    records: Sequence[Record], shape: PublicShape, hospitals: int, seed: int
) -> tuple[tuple[tuple[Record, ...], ...], tuple[Record, ...]]:
    """Each hospital's records, and the corrections to ask about afterwards.

    Args:
        records: Corrections that can all be applied together.
        shape: How large the study is.
        hospitals: How many there are.
        seed: Which corrections.

    Raises:
        BadInput: The file has too few corrections, or the hospitals too little room.
    """
    needed = shape.corroborated + shape.single
    if len(records) <= needed:
        raise BadInput(
            f"[task.public] asks for {needed} corrections and others to fill up with; the file "
            f"has {len(records)}"
        )
    order = Draws(seed, "editing/public").shuffled(records)
    chosen, rest = order[:needed], order[needed:]
    supports = [shape.support] * shape.corroborated + [1] * shape.single
    dealt: list[list[Edit]] = [[] for _ in range(hospitals)]
    for place, (record, support) in enumerate(zip(chosen, supports, strict=True)):
        for copy in range(support):
            dealt[(place + copy) % hospitals].append(_bare(record.content, restate=False))
    filled = tuple(
        _fill(edits, rest, shape.records_per_hospital, seed, number)
        for number, edits in enumerate(dealt)
    )
    return filled, tuple(
        replace(record, content=replace(record.content, support=_label(support)))
        for record, support in zip(chosen, supports, strict=True)
    )


def _label(support: int) -> str:
    return "single" if support == 1 else "corroborated"


def _bare(edit: Edit, restate: bool) -> Edit:
    """What a record says: one question and the new answer, or the old one where there is one."""
    answer = edit.ground_truth if restate and edit.ground_truth else edit.target_new
    return Edit(edit.prompt, edit.subject, answer)


def _fill(
    edits: Sequence[Edit], rest: Sequence[Record], size: int, seed: int, number: int
) -> tuple[Record, ...]:
    """One hospital's records in random order, filled up with what was true before."""
    if len(edits) > size:
        raise BadInput(
            f"[task.public] records_per_hospital is {size}; the corrections alone take {len(edits)}"
        )
    draws = Draws(seed, f"editing/public/{number}")
    filler = [_bare(draws.choice(rest).content, restate=True) for _ in range(size - len(edits))]
    return tuple(
        edit_record(f"h{number}-r{place:05d}", edit)
        for place, edit in enumerate(draws.shuffled([*edits, *filler]))
    )
