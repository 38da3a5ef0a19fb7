"""From many scored boxes to the few that are worth showing."""

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import batched_nms


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
        keep = batched_nms(found, values, labels, overlap)[:most]
    else:
        keep = values.argsort(descending=True, stable=True)[:most]
    return Selected(places[keep], labels[keep], found[keep], values[keep])


def best_rows(scores: Tensor, most: int) -> Tensor:
    """Places int64 [m] of the `most` highest of scores [n]; all, in order, where n is no more."""
    if len(scores) <= most:
        return torch.arange(len(scores), device=scores.device)
    return scores.topk(most).indices
