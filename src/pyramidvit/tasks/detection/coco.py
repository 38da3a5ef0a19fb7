"""COCO's average precision and recall, counted by faster-coco-eval.

Shape letters: T thresholds of overlap (0.50 to 0.95), R 101 steps of recall, K classes, A ranges of
area (all, small, medium, large), M limits of detections an image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from .records import ImageRecord, to_xywh

Kind = Literal["bbox", "segm"]
Row = dict[str, Any]
AREAS = ("all", "small", "medium", "large")  # below 32 x 32, up to 96 x 96, and above
ROWS_AT_ONCE = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CocoScores:
    """What all of COCO's figures are means of; -1 where a class has no object to find.

    Attributes:
        precision: float64 [T, R, K, A, M].
        recall: float64 [T, K, A, M], the highest.
        limits: M numbers of detections an image, the last one is `maxDets`.
    """

    precision: np.ndarray
    recall: np.ndarray
    limits: tuple[int, ...]

    def figures(self) -> dict[str, float]:
        """COCO's 12 figures in its order, in percent; NaN where there is no object to find.

        Where `maxDets` is 10 or less there are fewer columns of recall.
        """
        found = {
            "ap": mean(self.precision[..., 0, -1]),
            "ap50": mean(self.precision[0, ..., 0, -1]),
            "ap75": mean(self.precision[5, ..., 0, -1]),
        }
        for k, area in enumerate(AREAS[1:], start=1):
            found[f"ap_{area}"] = mean(self.precision[..., k, -1])
        for k, limit in enumerate(self.limits):
            found[f"ar{limit}"] = mean(self.recall[..., 0, k])
        for k, area in enumerate(AREAS[1:], start=1):
            found[f"ar_{area}"] = mean(self.recall[..., k, -1])
        return found

    def per_class(self) -> dict[str, np.ndarray]:
        """AP, AP at overlaps 0.50 and 0.75, and recall of each class, in percent; float64 [K]."""
        every = range(self.precision.shape[2])
        return {
            "ap": np.asarray([mean(self.precision[:, :, k, 0, -1]) for k in every]),
            "ap50": np.asarray([mean(self.precision[0, :, k, 0, -1]) for k in every]),
            "ap75": np.asarray([mean(self.precision[5, :, k, 0, -1]) for k in every]),
            "ar": np.asarray([mean(self.recall[:, k, 0, -1]) for k in every]),
        }

    def curves(self, overlap: int = 0) -> np.ndarray:
        """Precision over recall at threshold number `overlap`: float64 [R, K], NaN for none."""
        lines = self.precision[overlap, :, :, 0, -1]
        return np.where(lines < 0, np.nan, lines)


def mean(values: np.ndarray) -> float:
    """The mean of what is there, in percent."""
    present = values[values > -1]
    return 100 * float(present.mean()) if present.size else float("nan")


def limits_up_to(most: int) -> tuple[int, ...]:
    """COCO's columns of recall, 1, 10 and `most`, none above it."""
    return tuple(sorted({limit for limit in (1, 10) if limit < most} | {most}))


def score_coco(
    images: Sequence[ImageRecord], num_classes: int, kind: Kind, most: int
) -> CocoScores:
    """Scores boxes or masks.

    Args:
        images: In the order in which equal scores are to be ranked: COCO's is by image id.
        num_classes: K.
        kind: "bbox" or "segm".
        most: How many detections of an image and class count, the best first: `maxDets`.
    """
    limits = limits_up_to(most)
    shape = (num_classes, len(AREAS), len(limits))
    precision, recall = np.full((10, 101, *shape), -1.0), np.full((10, *shape), -1.0)
    for first, last in class_groups(images, num_classes):
        part = slice(first, last)
        precision[:, :, part], recall[:, part] = count(images, range(first, last), kind, limits)
    return CocoScores(precision=precision, recall=recall, limits=limits)


def class_groups(images: Sequence[ImageRecord], num_classes: int) -> list[tuple[int, int]]:
    """First and last class, the last excluded, of parts that are counted at a time: the counter
    wants a kilobyte or two for each object and detection."""
    rows = np.zeros(num_classes, np.int64)
    for image in images:
        np.add.at(rows, image.truth.labels, 1)
        np.add.at(rows, image.found.labels, 1)
    bounds = [0]
    for label in range(num_classes):
        if label > bounds[-1] and rows[bounds[-1] : label + 1].sum() > ROWS_AT_ONCE:
            bounds.append(label)
    return list(pairwise([*bounds, num_classes])) if images else []


def count(
    images: Sequence[ImageRecord], labels: range, kind: Kind, limits: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Precision [T, R, k, A, M] and recall [T, k, A, M] of k successive classes."""
    from faster_coco_eval import COCO, COCOeval_faster  # half a second

    frame = {
        "images": [
            {"id": k, "height": image.size[0], "width": image.size[1]}
            for k, image in enumerate(images, start=1)
        ],
        "categories": [{"id": label, "name": str(label)} for label in labels],
    }
    truths, found = [], []
    for number, image in enumerate(images, start=1):
        truths += truth_rows(image, number, labels, kind)
        found += found_rows(image, number, labels, kind)
    counter = COCOeval_faster(
        COCO({**frame, "annotations": numbered(truths)}),
        COCO({**frame, "annotations": numbered(found)}),
        kind,
        print_function=say_nothing,
    )
    counter.params.maxDets = list(limits)
    counter.evaluate()
    counter.accumulate()
    return np.asarray(counter.eval["precision"]), np.asarray(counter.eval["recall"])


def truth_rows(image: ImageRecord, number: int, labels: range, kind: Kind) -> list[Row]:
    truth = image.truth
    return [
        {
            "image_id": number,
            "category_id": label,
            "iscrowd": int(truth.crowd[k]),
            "area": float(truth.areas[k]),
            **shape_of(image, truth.boxes, truth.masks, k, kind),
        }
        for k, label in enumerate(truth.labels.tolist())
        if label in labels
    ]


def found_rows(image: ImageRecord, number: int, labels: range, kind: Kind) -> list[Row]:
    found = image.found
    areas = found.mask_areas if kind == "segm" else box_areas(found.boxes)
    return [
        {
            "image_id": number,
            "category_id": label,
            "score": float(found.scores[k]),
            "area": float(areas[k]),
            **shape_of(image, found.boxes, found.masks, k, kind),
        }
        for k, label in enumerate(found.labels.tolist())
        if label in labels
    ]


def shape_of(
    image: ImageRecord, boxes: np.ndarray, masks: Sequence[str] | None, row: int, kind: Kind
) -> Row:
    """What an object is compared by."""
    if kind == "bbox":
        return {"bbox": to_xywh(boxes[row])}
    assert masks is not None
    return {"segmentation": {"size": list(image.size), "counts": masks[row]}}


def numbered(rows: list[Row]) -> list[Row]:
    """Rows with ids from 1: the counter takes 0 for "no match"."""
    for k, row in enumerate(rows, start=1):
        row["id"] = k
    return rows


def box_areas(boxes: np.ndarray) -> np.ndarray:
    """float64 [n] from float64 [n, 4]."""
    areas: np.ndarray = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return areas


def say_nothing(*_: object) -> None:
    """The counter's messages are not ours."""
