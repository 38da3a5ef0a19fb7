"""COCO's average precision and recall, counted by faster-coco-eval.

Shape letters: T thresholds of overlap (0.50 to 0.95), R 101 steps of recall, K classes, A ranges of
area (all, small, medium, large), M limits of detections an image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from .records import ImageRecord, to_xywh

Kind = Literal["bbox", "segm"]
AREAS = ("all", "small", "medium", "large")  # below 32 x 32, up to 96 x 96, and above


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
    from faster_coco_eval import COCO, COCOeval_faster  # half a second

    limits = limits_up_to(most)
    if not images:
        shape = (num_classes, len(AREAS), len(limits))
        return CocoScores(
            precision=np.full((10, 101, *shape), -1.0),
            recall=np.full((10, *shape), -1.0),
            limits=limits,
        )
    frame = {
        "images": [
            {"id": k, "height": image.size[0], "width": image.size[1]}
            for k, image in enumerate(images, start=1)
        ],
        "categories": [{"id": k, "name": str(k)} for k in range(num_classes)],
    }
    truths = [r for k, image in enumerate(images, start=1) for r in truth_rows(image, k, kind)]
    found = [r for k, image in enumerate(images, start=1) for r in found_rows(image, k, kind)]
    counter = COCOeval_faster(
        COCO({**frame, "annotations": numbered(truths)}),
        COCO({**frame, "annotations": numbered(found)}),
        kind,
        print_function=say_nothing,
    )
    counter.params.maxDets = list(limits)
    counter.evaluate()
    counter.accumulate()
    return CocoScores(
        precision=np.asarray(counter.eval["precision"]),
        recall=np.asarray(counter.eval["recall"]),
        limits=limits,
    )


def truth_rows(image: ImageRecord, number: int, kind: Kind) -> list[dict[str, Any]]:
    truth = image.truth
    columns = zip(truth.labels.tolist(), truth.crowd.tolist(), truth.areas.tolist(), strict=True)
    return [
        {
            "image_id": number,
            "category_id": label,
            "iscrowd": int(crowd),
            "area": area,
            **shape_of(image, truth.boxes, truth.masks, k, kind),
        }
        for k, (label, crowd, area) in enumerate(columns)
    ]


def found_rows(image: ImageRecord, number: int, kind: Kind) -> list[dict[str, Any]]:
    found = image.found
    areas = found.mask_areas if kind == "segm" else box_areas(found.boxes)
    columns = zip(found.labels.tolist(), found.scores.tolist(), areas.tolist(), strict=True)
    return [
        {
            "image_id": number,
            "category_id": label,
            "score": score,
            "area": area,
            **shape_of(image, found.boxes, found.masks, k, kind),
        }
        for k, (label, score, area) in enumerate(columns)
    ]


def shape_of(
    image: ImageRecord, boxes: np.ndarray, masks: Sequence[str] | None, row: int, kind: Kind
) -> dict[str, Any]:
    """What an object is compared by."""
    if kind == "bbox":
        return {"bbox": to_xywh(boxes[row])}
    assert masks is not None
    return {"segmentation": {"size": list(image.size), "counts": masks[row]}}


def numbered(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
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
