"""The embedded default: 1,797 scans of handwritten digits that scikit-learn ships.

Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI (1998); 8x8 pixels
with 17 grey levels, reduced from 32x32 scans of 43 people.
"""

from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from ..structures import Classes, ClassTarget, Origin, Sample
from .source import DataSet, Subset
from .split import hold_out

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class DigitSource:
    """All digits, as RGB pictures of 8x8 pixels."""

    def __init__(self) -> None:
        self.pictures, labels = load_arrays()
        self.labels: tuple[int, ...] = tuple(labels.tolist())

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample[Any]:
        return Sample(
            image=Image.fromarray(self.pictures[index]).convert("RGB"),
            target=ClassTarget(label=self.labels[index]),
            origin=Origin(name=f"digit-{index:04d}", size=(8, 8)),
        )


@cache
def load_arrays() -> tuple[np.ndarray, np.ndarray]:
    """Pictures uint8 [1797, 8, 8] and labels int64 [1797]."""
    from sklearn.datasets import load_digits  # slow to import, and only needed here

    digits = load_digits()
    return np.round(digits.images * (255 / 16)).astype(np.uint8), digits.target


def load_digit_data(*, seed: int, held_out: float = 0.2) -> DataSet:
    """The digits, a share of each class held out for validation."""
    source = DigitSource()
    train, validation = hold_out(source.labels, held_out, seed)
    return DataSet(
        name="digits",
        summary=f"scikit-learn's handwritten digits: 10 classes, {len(train)} training and"
        f" {len(validation)} validation images of 8x8 pixels",
        classes=Classes(names=NAMES, ids=tuple(range(10))),
        splits={"train": Subset(source, train), "validation": Subset(source, validation)},
        in_memory=True,
    )
