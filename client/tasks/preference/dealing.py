"""Judged replies: what every task on them is told, and how they are dealt out to hospitals."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from wardround.client.tasks.base import Dealt
from wardround.client.tasks.draws import Draws
from wardround.client.tasks.preference.advice import AdviceShape, make_study
from wardround.client.tasks.preference.formats import read_judged, write_judged


@dataclass(frozen=True)
class JudgedConfig:
    """What the ``[task]`` tables on judged replies share.

    Attributes:
        max_length: Tokens of prompt and reply together.
        least_gap: Prompts whose best and worst reply score closer than this teach nothing.
        max_probes: Prompts of a file to evaluate on.
        generated: How large a generated study is.
    """

    max_length: int = 256
    least_gap: float = 0.0
    max_probes: int = 100
    generated: AdviceShape = field(default_factory=AdviceShape)

    def __post_init__(self) -> None:
        if not 8 <= self.max_length <= 32768:
            raise ValueError(f"max_length is {self.max_length}; it must be between 8 and 32768")
        if not self.least_gap >= 0:
            raise ValueError(f"least_gap is {self.least_gap}; it must be 0 or more")
        if self.max_probes < 1:
            raise ValueError(f"max_probes is {self.max_probes}; it must be 1 or more")


def deal_judged(
    source: Path | None, folder: Path, hospitals: int, seed: int, config: JudgedConfig
) -> Dealt:
    """Write one file a hospital and one of probes.

    Args:
        source: A public file; made-up advice when None.
        folder: Made when it is not there.
        hospitals: How many files of records.
        seed: Public; the same arguments give the same files.
        config: How large made-up advice is; how many prompts of a file are held back to evaluate
            on, a tenth of it at most.

    Privacy: ``source`` must be public.
    """
    if source is None:
        shares, probes = make_study(config.generated, hospitals, seed)
    else:
        records = Draws(seed, "preference/deal").shuffled(read_judged(source))
        held = min(config.max_probes, max(1, len(records) // 10))
        probes, kept = records[:held], records[held:]
        shares = [kept[number::hospitals] for number in range(hospitals)]
    folder.mkdir(parents=True, exist_ok=True)
    files = tuple(folder / f"hospital-{number}.jsonl" for number in range(hospitals))
    for path, share in zip(files, shares, strict=True):
        write_judged(share, path)
    write_judged(probes, folder / "probes.jsonl")
    return Dealt(files, tuple(map(len, shares)), folder / "probes.jsonl")
