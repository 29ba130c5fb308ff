"""Scikit-learn's handwritten digits as a public set of pictures, in CoOp's split format.

1,797 real pictures of 8 by 8 pixels that come inside the package (a copy of the test set of the UCI
ML hand-written digits), so that a figure on real images needs no download. 70 of 100 pictures of
each digit are for training. Knows nothing of what they are used for.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from wardround.client.tasks.cocoop.dealing import as_png
from wardround.client.tasks.cocoop.formats import TEST, TRAIN, VAL
from wardround.client.tasks.draws import Draws
from wardround.privacy.errors import BadInput

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TRAINING_SHARE = 70  # in percent


def write_digits(folder: Path) -> Path:
    """Write the pictures and ``split.json``; returns the latter.

    Raises:
        BadInput: Scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise BadInput("the digits come with scikit-learn: pip install scikit-learn") from error

    digits = load_digits()
    folder.mkdir(parents=True, exist_ok=True)
    split: dict[str, list[tuple[str, int, str]]] = {TRAIN: [], VAL: [], TEST: []}
    for label, name in enumerate(NAMES):
        places = [place for place, target in enumerate(digits.target) if target == label]
        places = Draws(0, f"digits/{name}").shuffled(places)
        cut = len(places) * TRAINING_SHARE // 100
        for number, place in enumerate(places):
            grey = torch.tensor(digits.images[place] / 16, dtype=torch.float32)
            file = f"{name}-{place:04d}.png"
            (folder / file).write_bytes(as_png(grey.expand(3, 8, 8)))
            split[TRAIN if number < cut else TEST].append((file, label, name))
    (folder / "split.json").write_text(json.dumps(split), encoding="utf-8")
    return folder / "split.json"
