"""From many scored boxes to the few that are worth showing."""

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import batched_nms, nms

AT_ONCE = 10_000  # boxes; more are looked at class by class


class Selected(NamedTuple):
    places: Tensor  # int64 [m], rows of the boxes that were chosen from
    labels: Tensor  # int64 [m]
    boxes: Tensor  # [m, 4]
    scores: Tensor  # [m], descending


def select_boxes(
    boxes: Tensor, scores: Tensor, *, threshold: float, overlap: float, most: int
) -> Selected:
    """The best `most` boxes with scores above `threshold`, none of a class hiding another.

    A box is hidden by a better one of its class with which its IoU is above `overlap`: by none
    where that is 1.

    Args:
        boxes: [n, 4], or [n, K, 4] where each class has its own.
        scores: [n, K].
    """
    places, labels = (scores > threshold).nonzero(as_tuple=True)
    found = boxes[places] if boxes.ndim == 2 else boxes[places, labels]
    values = scores[places, labels]
    if overlap < 1:
        keep = not_hidden(found, values, labels, overlap)[:most]
    else:
        keep = values.argsort(descending=True, stable=True)[:most]
    return Selected(places[keep], labels[keep], found[keep], values[keep])


def not_hidden(boxes: Tensor, scores: Tensor, labels: Tensor, overlap: float) -> Tensor:
    """Rows int64 [m], the best first, of the boxes that no better one of their class hides.

    Classes are kept apart as the reference does it (mmcv 1.3, ops/nms.py, `batched_nms`): the boxes
    of each are moved to a place of their own. In float32 that rounds their coordinates, by up to
    0.002 pixels in an image of 300 with 80 classes, and of two boxes whose IoU is the threshold but
    for so much, the rounded ones say which stays. Torchvision's own function moves few boxes and
    compares many as they are.

    Args:
        boxes: [n, 4].
        scores: [n].
        labels: int64 [n], from 0.
        overlap: IoU above which a box is hidden.
    """
    if not len(boxes):
        return labels
    moved = boxes + (labels.to(boxes) * (boxes.max() + 1))[:, None]
    few = len(boxes) < AT_ONCE
    kept: Tensor = (
        nms(moved, scores, overlap) if few else batched_nms(moved, scores, labels, overlap)
    )
    return kept


def best_rows(scores: Tensor, most: int) -> Tensor:
    """Places int64 [m] of the `most` highest of scores [n]; all, in order, where n is no more."""
    if len(scores) <= most:
        return torch.arange(len(scores), device=scores.device)
    return scores.topk(most).indices
