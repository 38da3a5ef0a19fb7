"""What RetinaNet, Faster and Mask R-CNN are to learn, and how far they are from it.

Other detectors learn the same but for what is named by keywords. Reference: mmdetection 2.13.
Crowds are passed over.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import UserError
from ...ops.anchors import inside_padded
from ...ops.boxes import encode_boxes
from ...ops.losses import focal_loss, l1_loss, objectness_loss
from ...ops.masks import crop_masks
from ...ops.matching import BACKGROUND, IGNORED, match_boxes, sample_matches
from ...structures import Batch, DetectionTarget
from .heads.roi import STDS, labels_of
from .outputs import DenseOutputs, RegionOutputs, Regions, Sizes, Truth, truths_of

LevelLosses = list[tuple[Tensor, Tensor]]  # for each level (classes, boxes), both scalar
PairLoss = Callable[[Tensor, Tensor], Tensor]  # of rows with rows, to their sum
Within = Callable[[Tensor, tuple[int, int]], Tensor]  # anchors [N], image (H, W) to bool [N]
RegionLoss = Callable[[Tensor, Tensor, Tensor], Tensor]  # corrections, regions, boxes to their sum


def retinanet_terms(outputs: DenseOutputs, batch: Batch[DetectionTarget]) -> dict[str, Tensor]:
    """The loss terms of RetinaNet: `classes` and `boxes`."""
    levels = retinanet_losses(outputs, truths_of(batch.targets), batch.sizes)
    return summed(levels, "classes", "boxes")


def region_terms(outputs: RegionOutputs, batch: Batch[DetectionTarget]) -> dict[str, Tensor]:
    """The loss terms of Faster and Mask R-CNN: two of the proposals, two or three of the regions.

    Raises:
        UserError: Masks are to be learnt, and an image's objects have none.
    """
    truths = truths_of(batch.targets)
    levels = proposal_losses(outputs.proposals, truths, batch.sizes)
    return {
        **summed(levels, "proposal_classes", "proposal_boxes"),
        **region_losses(outputs, truths),
        **mask_losses(outputs, batch.targets),
    }


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


def proposal_losses(
    outputs: DenseOutputs,
    truths: Sequence[Truth],
    sizes: Sizes,
    *,
    samples: int = 256,
    within: Within = inside_padded,
    box_loss: PairLoss = l1_loss,
) -> LevelLosses:
    """Cross entropy of objectness and loss of the corrections, over the number of sampled anchors.

    Objects take anchors with IoU from 0.7 on, and the best they have from 0.3 on; below 0.3 is
    background.

    Args:
        outputs: Of an `RPNHead`.
        truths: One an image.
        sizes: (H, W) of each image.
        samples: Anchors an image that are drawn, half of them objects at most.
        within: Which anchors are learnt at all.
        box_loss: Of corrections, L1 by default.
    """
    anchors = torch.cat(outputs.anchors)
    images, divisor = [], 0
    for truth, size in zip(truths, sizes, strict=True):
        matches = match_anchors(anchors, truth, size, (0.7, 0.3, 0.3), within)
        objects, background = sample_matches(matches, samples, share=0.5)
        divisor += max(1, len(objects)) + max(1, len(background))
        drawn = torch.full_like(matches, IGNORED)
        drawn[background] = BACKGROUND
        drawn[objects] = matches[objects]
        images.append(targets_of(drawn, truth))
    targets = AnchorTargets(*map(torch.stack, zip(*images, strict=True)))
    return dense_losses(outputs, targets, objectness_loss, divisor, box_loss)


def correction_loss(deltas: Tensor, regions: Tensor, boxes: Tensor) -> Tensor:
    """L1 of corrections [p, 4] of regions [p, 4] with those that lead to boxes [p, 4]."""
    return l1_loss(deltas, encode_boxes(boxes, regions, STDS))


def region_losses(
    outputs: RegionOutputs, truths: Sequence[Truth], box_loss: RegionLoss = correction_loss
) -> dict[str, Tensor]:
    """Cross entropy of the classes and loss of the boxes, over the number of regions."""
    regions = outputs.regions
    objects = regions.matches != BACKGROUND
    owned, boxes = labels_of(regions, truths)
    labels = torch.full_like(regions.matches, outputs.logits.shape[1] - 1)  # background
    labels[objects] = owned

    divisor = max(1, len(labels))
    classes = F.cross_entropy(outputs.logits, labels, reduction="sum") / divisor
    corrections = box_loss(outputs.deltas[objects, owned], regions.boxes[objects], boxes)
    return {"classes": classes, "boxes": corrections / divisor}


def mask_losses(outputs: RegionOutputs, targets: Sequence[DetectionTarget]) -> dict[str, Tensor]:
    """Mean cross entropy of the cells of regions with an object; empty without a mask head."""
    logits, regions = outputs.mask_logits, outputs.regions
    if logits is None:
        return {}
    wanted = [
        object_masks(regions, image, target, logits.shape[-1])
        for image, target in enumerate(targets)
    ]
    truth = torch.cat(wanted).to(logits)
    total = F.binary_cross_entropy_with_logits(logits, truth, reduction="sum")
    return {"masks": total / max(1, truth.numel())}


def object_masks(regions: Regions, image: int, target: DetectionTarget, side: int) -> Tensor:
    """Bool [p, side, side], what the regions of an image show of their objects' masks."""
    rows = (regions.images == image) & (regions.matches != BACKGROUND)
    boxes = regions.boxes[rows]
    if not len(boxes):
        return torch.zeros(0, side, side, dtype=torch.bool, device=boxes.device)
    if target.masks is None:
        raise UserError("the data has boxes without masks: train retinanet or faster_rcnn on it")
    owners = (~target.crowd).nonzero().flatten()[regions.matches[rows]]
    return crop_masks(target.masks, boxes, owners, side)


def match_anchors(
    anchors: Tensor,
    truth: Truth,
    size: tuple[int, int],
    limits: tuple[float, float, float],
    within: Within = inside_padded,
) -> Tensor:
    """Matches of anchors [N] as `match_boxes` has them; those not within are ignored.

    Args:
        limits: IoU from which on an anchor is an object's, below which it is background, and from
            which on an object takes the best that it has.
    """
    foreground, background, low_quality = limits
    inside = within(anchors, size)
    matches = torch.full((len(anchors),), IGNORED, device=anchors.device)
    matches[inside] = match_boxes(
        anchors[inside],
        truth.boxes,
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
    class_loss: PairLoss,
    divisor: Tensor | int,
    box_loss: PairLoss = l1_loss,
) -> LevelLosses:
    """The class loss of what is not ignored and that of objects' corrections, over `divisor`."""
    counts = [len(anchors) for anchors in outputs.anchors]
    labels, boxes = (torch.split(column, counts, dim=1) for column in targets)
    levels = []
    for level, anchors in enumerate(outputs.anchors):
        used = labels[level] != IGNORED  # [B, N_l]
        classes = class_loss(outputs.logits[level][used], labels[level][used])

        objects = labels[level] >= 0
        around = anchors.expand(len(objects), -1, -1)[objects]  # [p, 4]
        wanted = encode_boxes(boxes[level][objects], around)
        corrections = box_loss(outputs.deltas[level][objects], wanted)
        levels.append((classes / divisor, corrections / divisor))
    return levels
