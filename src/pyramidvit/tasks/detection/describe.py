"""Detections in words and records."""

from collections import Counter
from typing import Any

from ...data.outlines import to_coco_runs
from ...structures import Classes, DetectionPrediction, DetectionTarget
from .draw import SHOWN
from .records import pack_found, pack_truth
from .scoring import UNCOUNTED, match_classes


def describe(prediction: DetectionPrediction, classes: Classes) -> dict[str, Any]:
    """A JSON record of all objects, in pixels of the file, the best first.

    Each has the data's own `id` and `name` of its class, `score`, `box` (x0, y0, x1, y1), and from
    a detector that draws masks COCO's `segmentation`.
    """
    rows = zip(
        prediction.labels.tolist(), prediction.scores.tolist(), prediction.boxes.tolist(),
        strict=True,
    )  # fmt: skip
    objects: list[dict[str, Any]] = [
        {
            "name": classes.names[label],
            "id": classes.ids[label],
            "score": round(score, 6),
            "box": [round(side, 2) for side in box],
        }
        for label, score, box in rows
    ]
    if prediction.masks is not None:
        masks = to_coco_runs(prediction.masks.to("cpu"))
        objects = [{**row, "segmentation": mask} for row, mask in zip(objects, masks, strict=True)]
    return {"objects": objects}


def summarise(record: dict[str, Any]) -> str:
    """How many of which class a record of `describe` has, of those that are drawn."""
    names = Counter(row["name"] for row in record["objects"] if row["score"] >= SHOWN)
    return ", ".join(f"{count} {name}" for name, count in names.most_common()) or "nothing"


def caption(
    prediction: DetectionPrediction,
    classes: Classes,
    target: DetectionTarget | None,
    threshold: float = SHOWN,
) -> tuple[str, bool | None]:
    """One line for a page of pictures, and whether all objects were found and nothing else.

    Args:
        prediction: In the frame of the file; only what has at least the score `threshold` counts.
        classes: Give the names.
        target: The truth in the same frame, if it is known.
        threshold: See above.
    """
    shown = prediction.labels[prediction.scores >= threshold]
    if target is None:
        return count_names(shown.tolist(), classes), None
    found = pack_found(prediction)
    matches = match_classes(found, pack_truth(target, None))[found.scores >= threshold]
    right, wrong = int((matches >= 0).sum()), int(((matches < 0) & (matches != UNCOUNTED)).sum())
    count = int((~target.crowd).sum())
    line = f"{right} of {count} found" + (f", {wrong} wrong" if wrong else "")
    return line, right == count and not wrong


def describe_target(target: DetectionTarget, classes: Classes) -> str:
    """What is in a training image: "2 cat, 1 dog"."""
    return count_names(target.labels.tolist(), classes)


def count_names(labels: list[int], classes: Classes) -> str:
    """ "2 cat, 1 dog", the most frequent first."""
    counts = Counter(labels).most_common()
    return ", ".join(f"{n} {classes.names[label]}" for label, n in counts) or "nothing"
