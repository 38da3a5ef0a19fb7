"""How good a segmenter is: everything follows from counts of pixels, so that any number of
processes gives the same figures to the last bit, and no picture travels between them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...ops.boundaries import boundary_distance, near_boundary
from ...structures import UNLABELLED, Batch, SegmentationPrediction
from .truth import LabelledOrigin


class ImageScore(NamedTuple):
    """How good a single image is.

    Attributes:
        name: Of its origin.
        miou: In percent, over the classes in it; NaN where nothing is labelled.
        pixel_accuracy: In percent, likewise.
        labelled: Pixels that count.
    """

    name: str
    miou: float
    pixel_accuracy: float
    labelled: int


class SegmentationMetrics:
    """Overlaps and accuracies over all images seen; unlabelled pixels count nowhere.

    Attributes:
        num_classes: K.
        counts: All int64: "confusion" [K, K] (true class, predicted class) in pixels; of the pixels
            near their class's boundary (2103.16562) "boundary_both" [K], those that are so in truth
            and prediction, and "boundary_either" [K].
        images: One score an image, in the order they came.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.counts: dict[str, Tensor] = {
            "confusion": torch.zeros(num_classes, num_classes, dtype=torch.int64),
            "boundary_both": torch.zeros(num_classes, dtype=torch.int64),
            "boundary_either": torch.zeros(num_classes, dtype=torch.int64),
        }
        self.images: list[ImageScore] = []

    def update(
        self, outputs: Any, predictions: Sequence[SegmentationPrediction], batch: Batch[Any]
    ) -> None:
        """Adds the maps of a batch; its origins know the truth."""
        for prediction, origin in zip(predictions, batch.origins, strict=True):
            assert isinstance(origin, LabelledOrigin), "the transform must keep the truth"
            self.add(prediction, origin)

    def add(self, prediction: SegmentationPrediction, origin: LabelledOrigin) -> None:
        """Adds an image; prediction and truth are in the frame of its file."""
        truth = torch.from_numpy(origin.truth)
        found = prediction.labels.cpu().short()
        confusion = count_pairs(truth, found, self.num_classes)
        both, either = count_boundaries(truth, found, self.num_classes)
        self.counts["confusion"] += confusion
        self.counts["boundary_both"] += both
        self.counts["boundary_either"] += either
        pixels = int(confusion.sum())
        score = ImageScore(
            name=origin.name,
            miou=mean_of(overlaps(confusion)),
            pixel_accuracy=100 * int(confusion.diagonal().sum()) / pixels if pixels else math.nan,
            labelled=pixels,
        )
        self.images.append(score)

    def state(self) -> dict[str, Any]:
        """All there is to be sent to another process; it can be pickled."""
        return {"counts": self.counts, "images": self.images}

    def merge(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Takes the counts and scores of all processes in place of its own."""
        for name in self.counts:
            self.counts[name] = torch.stack([state["counts"][name] for state in states]).sum(0)
        self.images = [score for state in states for score in state["images"]]

    def compute(self) -> dict[str, float]:
        """The figures in percent, NaN where no pixel is to be judged.

        `miou` and `boundary_iou` are means over the classes that are in the truth or in a
        prediction, `mean_accuracy` over those in the truth; `pixel_accuracy` is the share of
        labelled pixels that are right.
        """
        confusion = self.counts["confusion"]
        pixels = int(confusion.sum())
        rows = self.per_class()
        return {
            "images": len(self.images),
            "miou": mean_of(rows["iou"]),
            "mean_accuracy": mean_of(rows["accuracy"]),
            "pixel_accuracy": 100 * int(confusion.diagonal().sum()) / pixels
            if pixels
            else math.nan,
            "boundary_iou": mean_of(rows["boundary_iou"]),
        }

    def per_class(self) -> dict[str, Tensor]:
        """Of each class in percent, float64 [K]: `iou`, `accuracy` (of its pixels, those found),
        `boundary_iou`, and `share` of the labelled pixels; NaN where there is nothing to judge."""
        confusion = self.counts["confusion"]
        true = confusion.sum(1).double()
        return {
            "iou": overlaps(confusion),
            "accuracy": 100 * confusion.diagonal() / true,
            "boundary_iou": 100
            * self.counts["boundary_both"].double()
            / self.counts["boundary_either"],
            "share": 100 * true / true.sum(),
        }


def overlaps(confusion: Tensor) -> Tensor:
    """IoU of each class in percent, float64 [K]; NaN for one neither true nor found."""
    both = confusion.diagonal().double()
    return 100 * both / (confusion.sum(0) + confusion.sum(1) - both)


def mean_of(values: Tensor) -> float:
    """Over what is no number left out; NaN if nothing remains."""
    return float(values.nanmean())


def count_pairs(truth: Tensor, found: Tensor, num_classes: int) -> Tensor:
    """int64 [K, K]: how many pixels of each true class are found to be each class.

    Args:
        truth: int16 [H, W], classes or UNLABELLED.
        found: int16 [H, W], classes.
        num_classes: K.
    """
    known = truth != UNLABELLED
    pairs = truth[known].int() * num_classes + found[known]
    return pairs.bincount(minlength=num_classes**2).view(num_classes, num_classes)


def count_boundaries(truth: Tensor, found: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """int64 [K] twice: pixels near their class's boundary in both maps, and in either.

    What is unlabelled is cut out of both maps, as if they ended there.
    """
    found = found.where(truth != UNLABELLED, UNLABELLED)
    distance = boundary_distance((truth.shape[0], truth.shape[1]))
    true_edge, found_edge = near_boundary(truth, distance), near_boundary(found, distance)
    both = count_labels(truth[true_edge & found_edge & (truth == found)], num_classes)
    each = count_labels(truth[true_edge], num_classes)
    each += count_labels(found[found_edge], num_classes)
    return both, each - both


def count_labels(labels: Tensor, num_classes: int) -> Tensor:
    """int64 [K]: how many of int16 [n] are each class."""
    return (labels + 1).bincount(minlength=num_classes + 1)[1:]  # UNLABELLED comes first
