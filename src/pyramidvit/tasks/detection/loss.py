"""What detectors are to learn, and how far they are from it.

Reference: mmdetection 2.13. Crowds are passed over.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...ops.anchors import inside_padded
from ...ops.boxes import encode_boxes
from ...ops.losses import focal_loss, l1_loss
from ...ops.matching import IGNORED, match_boxes
from ...structures import Batch, DetectionTarget
from .outputs import DenseOutputs, Sizes, Truth, truths_of

LevelLosses = list[tuple[Tensor, Tensor]]  # for each level (classes, boxes), both scalar


def loss(outputs: DenseOutputs, batch: Batch[DetectionTarget]) -> dict[str, Tensor]:
    """The loss terms of RetinaNet, whose sum is minimised.

    Args:
        outputs: Of the images of the batch.
        batch: Its targets may be empty of objects, one or all.
    """
    levels = retinanet_losses(outputs, truths_of(batch.targets), batch.sizes)
    return summed(levels, "classes", "boxes")


def summed(levels: LevelLosses, *names: str) -> dict[str, Tensor]:
    """Adds up the terms of all levels."""
    columns = zip(*levels, strict=True)
    return {name: torch.stack(terms).sum() for name, terms in zip(names, columns, strict=True)}


class AnchorTargets(NamedTuple):
    """What each anchor of a batch is to learn."""

    labels: Tensor  # int64 [B, N], a class, BACKGROUND or IGNORED
    boxes: Tensor  # [B, N, 4], meaningful where the label is a class


def retinanet_losses(outputs: DenseOutputs, truths: Sequence[Truth], sizes: Sizes) -> LevelLosses:
    """Focal loss of the classes and L1 of the corrections, over the number of objects' anchors.

    Objects take anchors with IoU from 0.5 on and the best they have; below 0.4 is background.
    """
    anchors = torch.cat(outputs.anchors)
    images = []
    for truth, size in zip(truths, sizes, strict=True):
        matches = match_anchors(anchors, truth, size, (0.5, 0.4, 0.0))
        images.append(targets_of(matches, truth))
    targets = AnchorTargets(*map(torch.stack, zip(*images, strict=True)))
    divisor = (targets.labels >= 0).sum(dim=1).clamp(min=1).sum()
    return dense_losses(outputs, targets, focal_loss, divisor)


def match_anchors(
    anchors: Tensor, truth: Truth, size: tuple[int, int], limits: tuple[float, float, float]
) -> Tensor:
    """Matches of anchors [N] as `match_boxes` has them; beyond the image they are ignored.

    Args:
        limits: IoU from which on an anchor is an object's, below which it is background, and from
            which on an object takes the best that it has.
    """
    foreground, background, low_quality = limits
    inside = inside_padded(anchors, size)
    matches = torch.full((len(anchors),), IGNORED, device=anchors.device)
    matches[inside] = match_boxes(
        anchors[inside],
        truth.boxes.to(anchors),
        foreground=foreground,
        background=background,
        low_quality=low_quality,
    )
    return matches


def targets_of(matches: Tensor, truth: Truth) -> AnchorTargets:
    """Labels [N] and boxes [N, 4] of matched anchors of one image."""
    if not len(truth.labels):
        return AnchorTargets(matches, truth.boxes.new_zeros(len(matches), 4))
    owner = matches.clamp(min=0)
    labels = torch.where(matches >= 0, truth.labels[owner], matches)
    return AnchorTargets(labels, truth.boxes[owner])


def dense_losses(
    outputs: DenseOutputs,
    targets: AnchorTargets,
    class_loss: Callable[[Tensor, Tensor], Tensor],
    divisor: Tensor,
) -> LevelLosses:
    """The class loss of what is not ignored and L1 of objects' corrections, over `divisor`."""
    counts = [len(anchors) for anchors in outputs.anchors]
    labels, boxes = (torch.split(column, counts, dim=1) for column in targets)
    levels = []
    for level, anchors in enumerate(outputs.anchors):
        used = labels[level] != IGNORED  # [B, N_l]
        classes = class_loss(outputs.logits[level][used], labels[level][used])

        objects = labels[level] >= 0
        around = anchors.expand(len(objects), -1, -1)[objects]  # [p, 4]
        wanted = encode_boxes(boxes[level][objects].to(around), around)
        corrections = l1_loss(outputs.deltas[level][objects], wanted)
        levels.append((classes / divisor, corrections / divisor))
    return levels
