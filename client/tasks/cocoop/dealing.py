"""Deals pictures out to hospitals, each of which has some of the names.

From the made-up world, or from a public folder or split. Which hospital has which names follows
from the seed; together they have all that are trained on. Knows nothing of models.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from wardround.client.tasks.base import Record
from wardround.client.tasks.cocoop.config import CocoopConfig
from wardround.client.tasks.cocoop.formats import (
    TEST,
    TRAIN,
    in_memory,
    picture_record,
    read_pictures,
    split_names,
)
from wardround.client.tasks.cocoop.world import draw
from wardround.client.tasks.draws import Draws
from wardround.privacy.errors import BadInput

HELD_OUT = 30  # in percent, of a folder's pictures of a name


@dataclass(frozen=True)
class Share:
    """Hospitals' pictures and public ones to evaluate on."""

    hospitals: list[list[Record]]
    probes: list[Record]


def deal_generated(config: CocoopConfig, hospitals: int, seed: int) -> Share:
    """Pictures drawn for each hospital, as its camera gives them.

    Raises:
        BadInput: A name is not one of the made-up world.
    """
    who = hospitals_of(config, hospitals, seed)
    generator = torch.Generator().manual_seed(seed)

    def drawn(purpose: str, name: str, count: int) -> list[Record]:
        try:
            pictures = [draw(name, generator, config.camera) for _ in range(count)]
        except ValueError as error:
            raise BadInput(f"[task] names: {error}") from error
        label = config.names.index(name)
        return [
            picture_record(f"{purpose}-{label:03d}-{number:03d}", in_memory(name, as_png(picture)))
            for number, picture in enumerate(pictures)
        ]

    shares: list[list[Record]] = [[] for _ in range(hospitals)]
    for name, places in who.items():
        for place in places:
            shares[place] += drawn(f"hospital-{place}", name, config.shots)
    probes = [
        record
        for name in (*config.base, *config.new)
        for record in drawn("probe", name, config.probes_per_name)
    ]
    return Share(shares, probes)


def deal_public(source: Path, config: CocoopConfig, hospitals: int, seed: int) -> Share:
    """Pictures of a public set, none at two hospitals.

    Of a split, its parts are kept; of a folder, some pictures of each name are held out.

    Raises:
        BadInput: Its names are not those of the study, or a name has too few pictures.
    """
    present = split_names(source)
    if sorted(present) != sorted(config.names):
        raise BadInput(f"[task] names differ from those of {source}: names = {present}")
    train = read_pictures(source, config.names, TRAIN)
    test = read_pictures(source, config.names, TEST) if source.is_file() else []
    who = hospitals_of(config, hospitals, seed)
    shares: list[list[Record]] = [[] for _ in range(hospitals)]
    probes: list[Record] = []
    for name in (*config.base, *config.new):
        own = [record for record in train if record.content.name == name]
        own = Draws(seed, f"cocoop/{name}").shuffled(own)
        held = [record for record in test if record.content.name == name]
        if source.is_dir():
            cut = max(1, len(own) * HELD_OUT // 100)
            own, held = own[cut:], own[:cut]
        probes += Draws(seed, f"cocoop/probes/{name}").shuffled(held)[: config.probes_per_name]
        places = who.get(name, ())
        each = min(config.shots, len(own) // len(places)) if places else 0
        if places and not each:
            raise BadInput(f"{source}: {name!r} has too few pictures for {len(places)} hospitals")
        for turn, place in enumerate(places):
            shares[place] += own[turn * each : (turn + 1) * each]
    return Share(shares, probes)


def hospitals_of(config: CocoopConfig, hospitals: int, seed: int) -> Mapping[str, Sequence[int]]:
    """Which hospitals have pictures of each name that is trained on.

    Each has a run of a shuffled circle of names, and the runs start at equal distances.

    Raises:
        BadInput: Together they would not have all names.
    """
    names = Draws(seed, "cocoop/names").shuffled(config.base)
    each = config.names_per_hospital or len(names)
    if each * hospitals < len(names):
        raise BadInput(
            f"[task] names_per_hospital is {each}; {hospitals} hospitals would not have all "
            f"{len(names)} names"
        )
    starts = [place * len(names) // hospitals for place in range(hospitals)]
    runs = [{names[(start + step) % len(names)] for step in range(each)} for start in starts]
    return {name: [place for place, run in enumerate(runs) if name in run] for name in config.base}


def as_png(picture: Tensor) -> bytes:
    """A picture in [0, 1], shape ``(3, height, width)``, as a PNG file."""
    from PIL import Image

    pixels = (picture.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(buffer, format="PNG")
    return buffer.getvalue()
