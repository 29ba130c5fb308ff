"""A made-up world of pictures: coloured shapes, and digits as a hand might write them.

What the embedded base of images and texts is taught, and what generated studies are made of. A
picture is drawn from implicit shapes and strokes; where, how large, on what ground and with how
much noise is public and repeatable. Knows nothing of files or models.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

SIDE = 32  # pixels
COLOURS: Mapping[str, tuple[float, float, float]] = {
    "red": (0.85, 0.12, 0.12),
    "green": (0.10, 0.70, 0.20),
    "blue": (0.15, 0.25, 0.90),
    "yellow": (0.95, 0.90, 0.15),
    "purple": (0.60, 0.15, 0.75),
    "orange": (1.00, 0.55, 0.05),
    "white": (0.97, 0.97, 0.97),
    "cyan": (0.10, 0.85, 0.90),
}
Inside = Callable[[Tensor, Tensor], Tensor]
# How far inside the shape a place is, in units of the shape's radius; negative outside.
SHAPES: Mapping[str, Inside] = {
    "disc": lambda x, y: 0.9 - torch.hypot(x, y),
    "ring": lambda x, y: 0.22 - (torch.hypot(x, y) - 0.72).abs(),
    "square": lambda x, y: 0.75 - torch.maximum(x.abs(), y.abs()),
    "frame": lambda x, y: 0.2 - (torch.maximum(x.abs(), y.abs()) - 0.65).abs(),
    "diamond": lambda x, y: 0.65 - (x.abs() + y.abs()) / 1.5,
    "triangle": lambda x, y: torch.minimum(0.7 - y, (y + 0.9 - 1.9 * x.abs()) / 2.1),
    "plus": lambda x, y: torch.minimum(
        0.9 - torch.maximum(x.abs(), y.abs()), 0.25 - torch.minimum(x.abs(), y.abs())
    ),
    "cross": lambda x, y: torch.minimum(
        0.9 - torch.hypot(x, y), 0.25 - torch.minimum((x - y).abs(), (x + y).abs()) / 1.41
    ),
    "bar": lambda x, y: torch.minimum(0.95 - x.abs(), 0.25 - y.abs()),
    "pillar": lambda x, y: torch.minimum(0.25 - x.abs(), 0.95 - y.abs()),
    "moon": lambda x, y: torch.minimum(
        0.9 - torch.hypot(x, y), torch.hypot(x - 0.45, y + 0.1) - 0.65
    ),
    "pair": lambda x, y: 0.38 - torch.hypot(x.abs() - 0.5, y),
}
_ROUND = tuple(
    (0.5 * math.sin(k * math.pi / 6), -0.9 * math.cos(k * math.pi / 6)) for k in range(13)
)
# Corners of each digit's strokes, drawn in one go; x to the right, y downwards.
DIGITS: Mapping[str, tuple[tuple[float, float], ...]] = {
    "zero": _ROUND,
    "one": ((-0.3, -0.5), (0.05, -0.9), (0.05, 0.9)),
    "two": ((-0.5, -0.5), (-0.3, -0.85), (0.2, -0.9), (0.5, -0.55), (0.3, -0.05), (-0.5, 0.9),
            (0.55, 0.9)),
    "three": ((-0.45, -0.75), (0.1, -0.9), (0.5, -0.55), (0.05, -0.05), (0.5, 0.4), (0.15, 0.88),
              (-0.5, 0.75)),
    "four": ((0.25, 0.9), (0.25, -0.2), (-0.1, -0.9), (-0.55, 0.25), (0.6, 0.25)),
    "five": ((0.5, -0.9), (-0.4, -0.9), (-0.45, -0.1), (0.15, -0.2), (0.55, 0.25), (0.2, 0.85),
             (-0.5, 0.8)),
    "six": ((0.35, -0.9), (-0.25, -0.45), (-0.5, 0.3), (-0.1, 0.9), (0.45, 0.55), (0.2, 0.05),
            (-0.45, 0.3)),
    "seven": ((-0.5, -0.9), (0.5, -0.9), (0.1, 0.0), (-0.1, 0.9)),
    "eight": ((0.0, -0.05), (-0.4, -0.45), (0.0, -0.9), (0.4, -0.45), (0.0, -0.05), (-0.5, 0.45),
              (0.0, 0.9), (0.5, 0.45), (0.0, -0.05)),
    "nine": ((0.4, -0.45), (-0.05, -0.05), (-0.45, -0.45), (0.0, -0.9), (0.4, -0.5), (0.3, 0.3),
             (0.0, 0.9)),
}  # fmt: skip
NAMES = (*(f"{colour} {shape}" for shape in SHAPES for colour in COLOURS), *DIGITS)


@dataclass(frozen=True)
class Camera:
    """What a hospital's camera does to every picture it takes.

    Attributes:
        shift: How far pictures are from those the base was taught; 0 is not at all, 1 is hard.
        tint: Added to red, green and blue at a shift of 1.
        spread: How much of the shift differs from picture to picture, between 0 and 1.
    """

    shift: float = 0.0
    tint: tuple[float, float, float] = (0.25, 0.1, -0.15)
    spread: float = 0.0

    def __post_init__(self) -> None:
        for name in ("shift", "spread"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must lie in [0, 1]")


def draw(name: str, generator: torch.Generator, camera: Camera | None = None) -> Tensor:
    """A picture of what is called ``name``, shape ``(3, SIDE, SIDE)``, values in [0, 1].

    Args:
        name: One of ``NAMES``.
        generator: Public.
        camera: Whose picture it is; without one it is as the base was taught.

    Raises:
        ValueError: Nothing is called that.
    """
    if name in DIGITS:
        picture = _digit(DIGITS[name], generator)
    else:
        colour, _, shape = name.partition(" ")
        if colour not in COLOURS or shape not in SHAPES:
            raise ValueError(f"nothing in the made-up world is called {name!r}")
        picture = _shape(SHAPES[shape], COLOURS[colour], generator)
    return picture if camera is None else _taken(picture, camera, generator)


def _shape(
    inside: Inside, colour: tuple[float, float, float], generator: torch.Generator
) -> Tensor:
    """A coloured shape somewhere on a dull ground."""
    side, height, size, turn, grey, *rest = _uniform(12, generator)
    radius = 0.4 + 0.35 * size
    x, y = _grid()
    x, y = x - 0.5 * (side - 0.5), y - 0.5 * (height - 0.5)
    angle = 0.5 * (turn - 0.5)
    across = (math.cos(angle) * x + math.sin(angle) * y) / radius
    down = (math.cos(angle) * y - math.sin(angle) * x) / radius
    alpha = torch.sigmoid(inside(across, down) * radius * SIDE)
    ground = 0.08 + 0.4 * grey + 0.12 * (torch.tensor(rest[:3]) - 0.5)
    paint = torch.tensor(colour) * (0.8 + 0.2 * rest[3]) + 0.1 * (torch.tensor(rest[4:7]) - 0.5)
    picture = ground.view(3, 1, 1) * (1 - alpha) + paint.view(3, 1, 1) * alpha
    return _noisy(picture, 0.04, generator)


def _digit(corners: tuple[tuple[float, float], ...], generator: torch.Generator) -> Tensor:
    """A digit in bright strokes on a dark ground, half of them as coarse as eight pixels a side."""
    wide, tall, lean, turn, thick, bright, coarse, side, height = _uniform(9, generator)
    points = torch.tensor(corners)
    points = points + 0.07 * torch.randn(points.shape, generator=generator)
    x = points[:, 0] * (0.75 + 0.45 * wide) + 0.35 * (lean - 0.5) * points[:, 1]
    y = points[:, 1] * (0.8 + 0.2 * tall)
    angle = 0.4 * (turn - 0.5)
    across = math.cos(angle) * x - math.sin(angle) * y + 0.2 * (side - 0.5)
    down = math.sin(angle) * x + math.cos(angle) * y + 0.1 * (height - 0.5)
    strokes = torch.stack([across, down], dim=1)
    margin = 0.08 + 0.16 * thick - _distance(strokes[:-1], strokes[1:])
    picture = (0.75 + 0.25 * bright) * torch.sigmoid(margin * SIDE / 2).expand(3, SIDE, SIDE)
    if coarse < 0.5:
        small = functional.interpolate(picture[None], size=(8, 8), mode="area")
        picture = functional.interpolate(small, size=(SIDE, SIDE), mode="bicubic")[0]
    return _noisy(picture, 0.03, generator)


def _taken(picture: Tensor, camera: Camera, generator: torch.Generator) -> Tensor:
    """The picture as the camera gives it: tinted, flat, noisy, with a line across."""
    own, place, upright, *tint = _uniform(6, generator)
    strength = camera.shift * (1 + camera.spread * (2 * own - 1))
    tints = torch.tensor(camera.tint) * (1 - camera.spread)
    tints = strength * (tints + camera.spread * 0.6 * (torch.tensor(tint) - 0.5))
    flat = 0.5 + (picture - 0.5) * (1 - 0.6 * strength) + tints.view(3, 1, 1)
    x, y = _grid()
    line = ((x if upright < 0.5 else y) - (2 * place - 1)).abs() < 2 / SIDE
    marked = torch.where(line, flat + (0.9 - flat) * min(1.0, strength), flat)
    return _noisy(marked, 0.15 * strength, generator)


def _distance(start: Tensor, end: Tensor) -> Tensor:
    """Each pixel's distance to the nearest of some line segments, shape ``(SIDE, SIDE)``."""
    x, y = _grid()
    pixels = torch.stack([x, y], dim=-1)[None]
    a, along = start[:, None, None], (end - start)[:, None, None]
    length = along.square().sum(-1).clamp(min=1e-9)
    part = (((pixels - a) * along).sum(-1) / length).clamp(0, 1)
    distance: Tensor = (pixels - a - part[..., None] * along).norm(dim=-1)
    return distance.amin(0)


def _grid() -> tuple[Tensor, Tensor]:
    """Middle of each pixel, x and y, over [-1, 1]."""
    axis = (torch.arange(SIDE) + 0.5) * 2 / SIDE - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return x, y


def _noisy(picture: Tensor, deviation: float, generator: torch.Generator) -> Tensor:
    """The picture with noise, within [0, 1]."""
    return (picture + deviation * torch.randn(picture.shape, generator=generator)).clamp(0, 1)


def _uniform(count: int, generator: torch.Generator) -> list[float]:
    """So many numbers in [0, 1)."""
    numbers: list[float] = torch.rand(count, generator=generator).tolist()
    return numbers
