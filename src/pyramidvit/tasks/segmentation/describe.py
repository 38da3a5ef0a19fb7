"""Maps of labels in words and records."""

from typing import Any

import numpy as np
from torch import Tensor

from ...structures import Classes, SegmentationPrediction

NAMED = 5  # classes that a line has room for
AT_ONCE = 1 << 22  # pixels that are counted


def describe(prediction: SegmentationPrediction, classes: Classes) -> dict[str, Any]:
    """A JSON record of the classes that a picture shows, the most frequent first.

    Each has the data's own `id`, its `name`, and its `share` of the picture's pixels, from 0 to 1.
    """
    counts = count_labels(prediction.labels, len(classes))
    total = int(counts.sum())
    order = [int(k) for k in np.argsort(-counts, kind="stable") if counts[k]]
    return {
        "classes": [
            {
                "id": classes.ids[k],
                "name": classes.names[k],
                "share": float(f"{counts[k] / total:.6g}"),
            }
            for k in order
        ]
    }


def summarise(record: dict[str, Any]) -> str:
    """ "road 41 %, sky 22 %, and 3 more", from a record of `describe`."""
    rows = record["classes"]
    words = [f"{row['name']} {percent(row['share'])}" for row in rows[:NAMED]]
    if len(rows) > NAMED:
        words.append(f"and {len(rows) - NAMED} more")
    return ", ".join(words) or "nothing"


def percent(share: float) -> str:
    """ "41 %"; what is there, but rounds to nothing, is "<1 %"."""
    return "<1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"


def count_labels(labels: Tensor, num_classes: int) -> np.ndarray:
    """int64 [K]: pixels of each class in a map [H, W]; unlabelled ones are not counted.

    A piece at a time: counting makes 8 bytes of every pixel.
    """
    counts = np.zeros(num_classes, np.int64)
    pixels = labels.cpu().numpy().ravel()
    for start in range(0, len(pixels), AT_ONCE):
        part = pixels[start : start + AT_ONCE]
        counts += np.bincount(part[part >= 0], minlength=num_classes)
    return counts
