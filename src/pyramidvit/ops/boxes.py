"""Boxes as corrections of other boxes. A box is (x0, y0, x1, y1), its width x1 - x0.

Reference: the delta coder of mmdetection 2.13, after R-CNN (arXiv 1311.2524, appendix C).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

MAX_LOG_SCALE = math.log(1000 / 16)  # a correction changes a side at most 62.5 times


def encode_boxes(boxes: Tensor, anchors: Tensor, stds: Sequence[float] = (1, 1, 1, 1)) -> Tensor:
    """The corrections [n, 4] that lead from `anchors` [n, 4] to `boxes` [n, 4].

    They are the shift of the centre (x, y) over the anchor's size, and the logarithms of the
    ratios of width and height, all divided by `stds`. Every box and anchor must have an area.
    """
    size = anchors[:, 2:] - anchors[:, :2]
    shift = ((boxes[:, :2] + boxes[:, 2:]) - (anchors[:, :2] + anchors[:, 2:])) * 0.5 / size
    scale = torch.log((boxes[:, 2:] - boxes[:, :2]) / size)
    return torch.cat((shift, scale), dim=1) / boxes.new_tensor(stds)


def decode_boxes(deltas: Tensor, anchors: Tensor, stds: Sequence[float] = (1, 1, 1, 1)) -> Tensor:
    """The boxes [..., 4] to which corrections [..., 4] lead from `anchors` that broadcast to them.

    The inverse of `encode_boxes`, but that no side changes more than 62.5 times.
    """
    deltas = deltas * deltas.new_tensor(stds)
    size = anchors[..., 2:] - anchors[..., :2]
    centre = (anchors[..., :2] + anchors[..., 2:]) * 0.5 + size * deltas[..., :2]
    half = size * deltas[..., 2:].clamp(-MAX_LOG_SCALE, MAX_LOG_SCALE).exp() * 0.5
    return torch.cat((centre - half, centre + half), dim=-1)


def clip_boxes(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes [..., 4] cut off at the borders of an image of `size` (H, W)."""
    height, width = size
    limits = boxes.new_tensor((width, height, width, height))
    return torch.minimum(boxes.clamp(min=0), limits)


def paired_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Overlaps (IoU) [...] of boxes [..., 4] with others that broadcast to them, each with its own.

    0 where neither has an area.
    """
    corner = torch.maximum(boxes[..., :2], others[..., :2])
    shared = (torch.minimum(boxes[..., 2:], others[..., 2:]) - corner).clamp(min=0).prod(dim=-1)
    areas = [(each[..., 2:] - each[..., :2]).prod(dim=-1) for each in (boxes, others)]
    return shared / (areas[0] + areas[1] - shared).clamp(min=1e-6)


def place_boxes(points: Tensor, distances: Tensor) -> Tensor:
    """Boxes [..., 4] with sides at `distances` [..., 4] (left, top, right, bottom) of points."""
    return torch.cat((points - distances[..., :2], points + distances[..., 2:]), dim=-1)


def side_distances(points: Tensor, boxes: Tensor) -> Tensor:
    """Distances [..., 4] of points [..., 2] to the sides of boxes [..., 4]; negative beyond them.

    The inverse of `place_boxes`.
    """
    return torch.cat((points - boxes[..., :2], boxes[..., 2:] - points), dim=-1)


def centres_of(boxes: Tensor) -> Tensor:
    """The middles (x, y) [..., 2] of boxes [..., 4]."""
    return (boxes[..., :2] + boxes[..., 2:]) * 0.5


def extents(sizes: Sequence[tuple[int, int]], like: Tensor) -> Tensor:
    """Width and height, twice, of images of `sizes` (H, W): [B, 1, 4], by which boxes are shares.

    Args:
        sizes: One an image.
        like: A tensor of the wanted type and device.
    """
    return like.new_tensor([(width, height, width, height) for height, width in sizes])[:, None]
