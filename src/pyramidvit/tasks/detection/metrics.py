"""How good a detector is.

Average precision ranks the answers of all images together, so no sums can stand for them: the
answers themselves are kept, packed, and gathered from the processes that gave them.
"""

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...files import write_atomically
from ...structures import Batch, Classes, DetectionPrediction
from .coco import CocoScores, Kind, score_coco
from .records import ImageRecord, record_image, to_json
from .scoring import Cut, best_cut, image_f1, pascal_ap
from .truth import AnnotatedOrigin

State = list[ImageRecord]


class DetectionMetrics:
    """COCO's figures for boxes and masks, and PASCAL VOC's, over all images seen.

    Attributes:
        num_classes: K.
        max_detections: How many detections an image and class count, the best first: COCO's
            `maxDets`.
    """

    def __init__(self, num_classes: int, *, max_detections: int = 100) -> None:
        self.num_classes = num_classes
        self.max_detections = max_detections
        self.records: dict[tuple[int | str, str], ImageRecord] = {}
        self.scored: dict[Kind, CocoScores] = {}

    def update(
        self, outputs: Any, predictions: Sequence[DetectionPrediction], batch: Batch[Any]
    ) -> None:
        """Adds what was found in the images of a batch; their origins know the truth.

        An image that comes again takes the place of its first coming.
        """
        for prediction, origin in zip(predictions, batch.origins, strict=True):
            assert isinstance(origin, AnnotatedOrigin), "the transform must keep the truth"
            self.add(prediction, origin)

    def add(self, prediction: DetectionPrediction, origin: AnnotatedOrigin) -> None:
        """Adds an image; prediction and truth are in the frame of its file."""
        self.take([record_image(prediction, origin)])

    def state(self) -> State:
        """All there is to be sent to another process; it can be pickled."""
        return list(self.records.values())

    def merge(self, states: Iterable[State]) -> None:
        """Takes in what other processes saw; an image that several saw counts once."""
        for state in states:
            self.take(state)

    def take(self, records: Iterable[ImageRecord]) -> None:
        self.records.update(((record.id, record.name), record) for record in records)
        self.scored.clear()

    @property
    def images(self) -> list[ImageRecord]:
        """All images in COCO's order, whoever saw them: equal scores are ranked by it."""
        return sorted(self.records.values(), key=lambda record: record.order)

    @property
    def has_masks(self) -> bool:
        """Whether there are masks to score: drawn by the detector and by the annotation."""
        return bool(self.records) and all(
            record.found.masks is not None and record.truth.masks is not None
            for record in self.records.values()
        )

    def coco(self, kind: Kind) -> CocoScores:
        """COCO's counts for boxes ("bbox") or masks ("segm")."""
        if kind not in self.scored:
            self.scored[kind] = score_coco(self.images, self.num_classes, kind, self.max_detections)
        return self.scored[kind]

    def pascal(self) -> np.ndarray:
        """PASCAL VOC's AP at overlap 0.5 of each class in percent, float64 [K]."""
        return pascal_ap(self.images, self.num_classes)

    def compute(self) -> dict[str, float]:
        """The figures in percent, NaN where no object is to be found.

        COCO's 12 for boxes and, if there are any, masks: `box_ap`, `box_ap50`, `box_ap75`,
        `box_ap_small` ..., `box_ar1`, `box_ar10`, `box_ar100`, `box_ar_small` ..., `mask_ap` ...;
        and `pascal_ap50`, the mean of `pascal`.
        """
        objects = sum(int((~r.truth.crowd).sum()) for r in self.records.values())
        figures: dict[str, float] = {"images": len(self.records), "objects": objects}
        figures |= {f"box_{name}": v for name, v in self.coco("bbox").figures().items()}
        if self.has_masks:
            figures |= {f"mask_{name}": v for name, v in self.coco("segm").figures().items()}
        present = [value for value in self.pascal().tolist() if not math.isnan(value)]
        figures["pascal_ap50"] = sum(present) / len(present) if present else math.nan
        return figures

    def worst(self, most: int, cut: Cut | None = None) -> list[tuple[ImageRecord, float]]:
        """The images with the lowest F1 from 0 to 1 among what a best cut leaves, lowest first.

        Of equal ones that with more objects or answers comes first; images without mistakes are
        not shown.
        """
        images = self.images
        cut = cut or best_cut(images)
        rated = [
            (image_f1(image, match, cut.score), -len(image.truth.labels), k)
            for k, (image, match) in enumerate(zip(images, cut.matches, strict=True))
        ]
        return [(images[k], f1) for f1, _, k in sorted(rated)[:most] if f1 < 1]


def write_results(metrics: DetectionMetrics, classes: Classes, folder: Path) -> list[Path]:
    """Writes what was found as COCO's result files, with the data's own ids, in COCO's order.

    `results_boxes.json`, and `results_masks.json` if all images have masks. Scored with COCO's
    tools, they give our figures.
    """
    images = metrics.images
    kinds = [(folder / "results_boxes.json", False)]
    if images and all(image.found.masks is not None for image in images):
        kinds.append((folder / "results_masks.json", True))
    for path, masks in kinds:
        rows = [row for image in images for row in to_json(image, classes.ids, masks=masks)]
        write_atomically(path, "[" + ",\n".join(json.dumps(row) for row in rows) + "]\n")
    return [path for path, _ in kinds]
