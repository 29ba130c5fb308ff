"""Pictures from bytes to what a vision encoder reads: decoded, cut to a square, normalised.

Decoding is Pillow's, for a short list of formats and up to a fixed number of pixels. Resizing and
cutting are CLIP's own, so any CLIP folder reads pictures as it was taught to. Knows nothing of
labels or models. Sources: Radford et al. (2021), released code (``_transform``); Zhou et al.
(2022), "Learning to prompt for vision-language models", released configurations (crops).
"""

from __future__ import annotations

import hashlib
import io
import math
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wardround.client.tasks.draws import Draws

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")
MAX_PIXELS = 1 << 26
_COARSE = 1 << 16


@dataclass(frozen=True)
class Normalisation:
    """``[task.image]``: what is taken from and divides each colour; by default OpenAI's figures.

    Attributes:
        mean: Of red, green and blue in [0, 1].
        std: Their standard deviations.
    """

    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            if len(getattr(self, name)) != 3:
                raise ValueError(f"{name} has {len(getattr(self, name))} numbers; expected 3")
        if not all(0 < value < math.inf for value in self.std):
            raise ValueError(f"std is {self.std}; each number must be greater than 0")

    def apply(self, pixels: Tensor) -> Tensor:
        """Pixels in [0, 1], shape ``(..., 3, side, side)``, as a model wants them."""
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (self.mean, self.std))
        return (pixels - mean) / std


@dataclass(frozen=True)
class Crop:
    """Which part of a picture is looked at, in shares of its width and height."""

    left: float
    top: float
    width: float
    height: float
    mirrored: bool


def check_picture(data: bytes) -> None:
    """Refuse what cannot be decoded, without decoding the pixels of what can.

    Raises:
        ValueError: Saying why; never what is in it.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
                width, height = picture.size
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"not a picture that can be read ({', '.join(FORMATS)})") from error
    if not 0 < width * height <= MAX_PIXELS:
        raise ValueError(f"the picture has {width * height} pixels; at most {MAX_PIXELS} are read")


def decode(data: bytes, side: int, view: int = 0) -> Tensor:
    """A picture as ``(3, side, side)`` in [0, 1].

    Args:
        data: An encoded picture.
        side: Pixels.
        view: 0 for the middle of the picture; any other number is a random crop of its own, the
            same for the same picture and number.

    Raises:
        ValueError: The pixels cannot be decoded.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            picture = opened.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError("the pixels of a picture cannot be decoded") from error
    crop = random_crop(data, view) if view else None
    cut = _middle(picture, side) if crop is None else _cropped(picture, side, crop)
    flat = torch.frombuffer(bytearray(cut.tobytes()), dtype=torch.uint8)
    return flat.view(side, side, 3).permute(2, 0, 1).float() / 255


def random_crop(data: bytes, view: int) -> Crop:
    """A part of 8 to 100 % of the area with sides of 3:4 to 4:3, mirrored half of the time."""
    draws = Draws(view, f"view/{hashlib.sha256(data).hexdigest()}")

    def uniform() -> float:
        return draws.below(_COARSE) / _COARSE

    area, ratio = 0.08 + 0.92 * uniform(), math.exp((2 * uniform() - 1) * math.log(4 / 3))
    width, height = min(1.0, math.sqrt(area * ratio)), min(1.0, math.sqrt(area / ratio))
    left, top = (1 - width) * uniform(), (1 - height) * uniform()
    return Crop(left, top, width, height, bool(draws.below(2)))


def _middle(picture: Any, side: int) -> Any:
    """The shorter side scaled to ``side``, then the middle square."""
    from PIL import Image

    width, height = picture.size
    if (width, height) != (side, side):
        short = min(width, height)
        # Truncated as torchvision does, which CLIP's own preprocessing uses.
        scaled = (int(side * width / short), int(side * height / short))
        picture = picture.resize(scaled, Image.Resampling.BICUBIC)
    width, height = picture.size
    left, top = round((width - side) / 2), round((height - side) / 2)
    return picture.crop((left, top, left + side, top + side))


def _cropped(picture: Any, side: int, crop: Crop) -> Any:
    """A part of the picture, scaled to a square."""
    from PIL import Image

    width, height = picture.size
    left, top = crop.left * width, crop.top * height
    box = (left, top, left + crop.width * width, top + crop.height * height)
    part = picture.resize((side, side), Image.Resampling.BICUBIC, box=box)
    return part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if crop.mirrored else part
