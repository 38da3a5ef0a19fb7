"""ATSS (arXiv 1912.02424): one anchor a cell, objects choose theirs by statistics of overlaps.

Reference: mmdetection 2.13, whose parameter names are kept.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import generalized_box_iou_loss

from ....necks.fpn import FPN
from ....nn.bounds import Bounds, clear
from ....nn.conv import Scale, norm_tower, run_tower
from ....ops.anchors import anchor_shapes, grid_anchors, inside_padded
from ....ops.boxes import centres_of, clip_boxes, decode_boxes, side_distances
from ....ops.losses import focal_loss
from ....ops.matching import IGNORED, match_nearest
from ....ops.selection import Selected, best_rows, select_boxes
from ....structures import Batch, DetectionTarget
from ..baseline_losses import AnchorTargets, targets_of
from ..dense_decoding import CANDIDATES
from ..detectors import SingleStageDetector
from ..divisors import mean_of_processes
from ..head import Head
from ..outputs import (
    Decoding,
    RegionDetections,
    Sizes,
    Truth,
    gather_detections,
    rows_of,
    truths_of,
)
from ..trunk import Padding, build_backbone
from .retinanet import PRIOR, init_normal

STRIDES = (8, 16, 32, 64, 128)
STDS = (0.1, 0.1, 0.2, 0.2)  # by which corrections of anchors are divided
BOX_WEIGHT = 2.0
DECODING = Decoding(nms_threshold=0.6)


class ATSSOutputs(NamedTuple):
    """What the head says at every anchor; one tensor a level."""

    logits: tuple[Tensor, ...]  # L of [B, N_l, K]
    deltas: tuple[Tensor, ...]  # L of [B, N_l, 4], corrections of the anchors
    centerness: tuple[Tensor, ...]  # L of [B, N_l], logits
    anchors: tuple[Tensor, ...]  # L of [N_l, 4], always float32


class ATSSHead(nn.Module):
    """Two towers of convolutions, shared by all levels, but for a factor of the corrections.

    Args:
        num_classes: Classes K.
        dim: Channels of the incoming maps and of the towers.
        anchor_scale: Side of the anchors, in strides.
    """

    def __init__(self, num_classes: int, *, dim: int = 256, anchor_scale: float = 8.0) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.shapes = [anchor_shapes(stride, [anchor_scale], [1.0]) for stride in STRIDES]
        self.cls_convs = norm_tower(dim, dim, depth=4)
        self.reg_convs = norm_tower(dim, dim, depth=4)
        self.atss_cls = nn.Conv2d(dim, num_classes, 3, padding=1)
        self.atss_reg = nn.Conv2d(dim, 4, 3, padding=1)
        self.atss_centerness = nn.Conv2d(dim, 1, 3, padding=1)
        self.scales = nn.ModuleList(Scale() for _ in STRIDES)
        init_head(self, self.atss_cls)

    def forward(self, maps: Sequence[Tensor], bounds: Bounds | None = None) -> ATSSOutputs:
        """Reads maps [B, dim, H_l, W_l], one a level.

        With `bounds`, logits are minus infinity beyond an image's own part.
        """
        logits, deltas, centerness = [], [], []
        for x, scale in zip(maps, self.scales, strict=True):
            classes = run_tower(self.cls_convs, x, bounds)
            boxes = run_tower(self.reg_convs, x, bounds)
            classes = clear(self.atss_cls(classes), bounds, -math.inf)
            logits.append(rows_of(classes, self.num_classes))  # [B, N_l, K]
            deltas.append(scale(rows_of(self.atss_reg(boxes), 4)))  # [B, N_l, 4]
            centerness.append(rows_of(self.atss_centerness(boxes), 1)[..., 0])  # [B, N_l]
        anchors = anchors_of(self.shapes, maps)
        return ATSSOutputs(tuple(logits), tuple(deltas), tuple(centerness), anchors)


def init_head(head: nn.Module, classes: nn.Conv2d) -> None:
    """Small random weights; at first all `classes` say that objects are rare."""
    init_normal(head, std=0.01)
    nn.init.constant_(classes.bias, -math.log((1 - PRIOR) / PRIOR))  # type: ignore[arg-type]


def anchors_of(shapes: Sequence[Tensor], maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Anchors [N_l, 4] of each level, of shapes [A, 4] in every cell of a map."""
    return tuple(
        grid_anchors(shape.to(x.device), (x.shape[2], x.shape[3]), stride)
        for shape, x, stride in zip(shapes, maps, STRIDES, strict=True)
    )


def build_atss(
    backbone: str,
    num_classes: int,
    *,
    in_chans: int = 3,
    drop_path_rate: float | None = None,
    width: int = 256,
    anchor_scale: float = 8.0,
    decoding: Decoding = DECODING,
    padding: Padding = "published",
) -> SingleStageDetector:
    """ATSS on levels of stride 8 to 128.

    Args:
        backbone: Name of a backbone.
        num_classes: Classes, 1 or more.
        in_chans: Channels of the images.
        drop_path_rate: Stochastic depth; None takes the published rate.
        width: Channels of pyramid and towers.
        anchor_scale: Side of the anchors, in strides; less for small objects.
        decoding: How detections are chosen.
        padding: "masked" keeps what lies beyond an image's own padding from changing its answers.
    """
    head = ATSSHead(num_classes, dim=width, anchor_scale=anchor_scale)
    return assemble(head, backbone, in_chans, drop_path_rate, width, decoding, padding)


def assemble(
    head: nn.Module,
    backbone: str,
    in_chans: int,
    drop_path_rate: float | None,
    width: int,
    decoding: Decoding,
    padding: Padding,
) -> SingleStageDetector:
    """A head behind the pyramid of ATSS: two more levels, made from the last outgoing map."""
    trunk = build_backbone(backbone, in_chans, drop_path_rate, out_indices=(1, 2, 3))
    neck = FPN(trunk.feature_info.channels(), width, num_outs=5, extra="on_output")
    return SingleStageDetector(trunk, neck, head, decoding=decoding, padding=padding)


def atss_terms(outputs: ATSSOutputs, batch: Batch[DetectionTarget]) -> dict[str, Tensor]:
    """The loss terms of ATSS: `classes`, `boxes` and `centerness`.

    Focal loss of the classes and cross entropy of the centerness, both over the number of objects'
    anchors; GIoU of their boxes, weighted by the centerness that they are to have.
    """
    targets = nearest_targets(outputs.anchors, truths_of(batch.targets), batch.sizes)
    logits, deltas, centerness = (torch.cat(levels, dim=1) for levels in outputs[:3])
    used, objects = targets.labels != IGNORED, targets.labels >= 0  # [B, N]
    count = count_objects(objects)

    anchors = torch.cat(outputs.anchors).expand(len(objects), -1, -1)[objects]  # [p, 4]
    wanted = targets.boxes[objects].to(deltas)
    central = centerness_of(centres_of(anchors), wanted)  # [p]
    boxes = decode_boxes(deltas[objects], anchors, STDS)
    overlap = central * generalized_box_iou_loss(boxes, wanted)
    entropy = F.binary_cross_entropy_with_logits(centerness[objects], central, reduction="sum")
    return {
        "classes": focal_loss(logits[used], targets.labels[used]) / count,
        "boxes": BOX_WEIGHT * overlap.sum() / mean_of_processes(central.sum()).clamp(min=1),
        "centerness": entropy / count,
    }


def nearest_targets(
    anchors: Sequence[Tensor], truths: Sequence[Truth], sizes: Sizes
) -> AnchorTargets:
    """What each anchor of a batch is to learn; beyond an image it is ignored."""
    images = []
    for truth, size in zip(truths, sizes, strict=True):
        inside = [inside_padded(level, size) for level in anchors]
        used = torch.cat(inside)
        levels = [level[rows] for level, rows in zip(anchors, inside, strict=True)]
        matches = torch.full((len(used),), IGNORED, device=used.device)
        matches[used] = match_nearest(levels, truth.boxes)
        images.append(targets_of(matches, truth))
    return AnchorTargets(*map(torch.stack, zip(*images, strict=True)))


def count_objects(objects: Tensor) -> Tensor:
    """The number of objects' anchors, bool [B, N], each image counting for one at least.

    Of several processes it is their mean.
    """
    return mean_of_processes(objects.sum(dim=1).clamp(min=1).sum())


def centerness_of(points: Tensor, boxes: Tensor) -> Tensor:
    """How central points [p, 2] lie in boxes [p, 4] around them: 1 in the middle, 0 at a side."""
    left, top, right, bottom = side_distances(points, boxes).unbind(dim=-1)
    across = torch.minimum(left, right) / torch.maximum(left, right)
    down = torch.minimum(top, bottom) / torch.maximum(top, bottom)
    return (across * down).sqrt()


def detect_atss(outputs: ATSSOutputs, sizes: Sizes, decoding: Decoding) -> RegionDetections:
    """Chooses detections from the best anchors of each level.

    Classes must be above the threshold by themselves; then they are weighed by the centerness.
    """
    chosen = [detect_image(outputs, i, size, decoding) for i, size in enumerate(sizes)]
    return RegionDetections(gather_detections(chosen), None)


def detect_image(
    outputs: ATSSOutputs, image: int, size: tuple[int, int], decoding: Decoding
) -> Selected:
    boxes, scores = [], []
    for logits, deltas, centerness, anchors in zip(*outputs, strict=True):
        classes = logits[image].sigmoid()  # [N_l, K]
        value = classes * centerness[image].sigmoid()[:, None]
        rows = best_rows(value.amax(dim=1), CANDIDATES)
        boxes.append(decode_boxes(deltas[image, rows], anchors[rows], STDS))
        scores.append(torch.where(classes > decoding.score_threshold, value, 0)[rows])
    return select_boxes(
        clip_boxes(torch.cat(boxes), size),
        torch.cat(scores),
        threshold=0,
        overlap=decoding.nms_threshold,
        most=decoding.max_detections,
    )


HEAD = Head(build_atss, ATSSOutputs, atss_terms, detect_atss)
