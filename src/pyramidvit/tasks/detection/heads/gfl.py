"""GFL (arXiv 2006.04388): scores that are qualities, and box sides as distributions of distances.

Reference: mmdetection 2.13, whose parameter names are kept. Pyramid, towers and the choice of
anchors are those of ATSS.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.ops import generalized_box_iou_loss

from ....nn.bounds import Bounds, clear
from ....nn.conv import Scale, norm_tower, run_tower
from ....ops.anchors import anchor_shapes
from ....ops.boxes import centres_of, clip_boxes, paired_iou, place_boxes, side_distances
from ....ops.losses import distribution_loss, quality_focal_loss
from ....ops.matching import IGNORED
from ....ops.selection import Selected, best_rows, select_boxes
from ....structures import Batch, DetectionTarget
from ..dense_decoding import CANDIDATES
from ..detectors import SingleStageDetector
from ..divisors import mean_of_processes
from ..head import Head
from ..outputs import Decoding, RegionDetections, Sizes, gather_detections, rows_of, truths_of
from ..trunk import Padding
from .atss import (
    DECODING,
    STRIDES,
    anchors_of,
    assemble,
    count_objects,
    init_head,
    nearest_targets,
)

FARTHEST = 16  # distance from an anchor's centre to a side of a box, in strides
BOX_WEIGHT = 2.0
SIDE_WEIGHT = 0.25


class GFLOutputs(NamedTuple):
    """What the head says at every anchor; one tensor a level."""

    logits: tuple[Tensor, ...]  # L of [B, N_l, K], qualities of an object of a class
    sides: tuple[Tensor, ...]  # L of [B, N_l, 4, 17], logits of 0 to 16 strides to a side
    distances: tuple[Tensor, ...]  # L of [B, N_l, 4], their means, in pixels
    anchors: tuple[Tensor, ...]  # L of [N_l, 4], always float32


class Integral(nn.Module):
    """The mean of a distribution over the whole numbers from 0 on, which are in `project`."""

    project: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("project", torch.arange(FARTHEST + 1.0))

    def forward(self, logits: Tensor) -> Tensor:
        """Maps logits [..., 17] to means [...]; no matrix product, which may run in half."""
        return (logits.softmax(dim=-1) * self.project.to(logits)).sum(dim=-1)


class GFLHead(nn.Module):
    """Two towers of convolutions, shared by all levels, but for a factor of the sides' logits.

    Args:
        num_classes: Classes K.
        dim: Channels of the incoming maps and of the towers.
        anchor_scale: Side of the anchors by which objects choose their cells, in strides.
    """

    def __init__(self, num_classes: int, *, dim: int = 256, anchor_scale: float = 8.0) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.shapes = [anchor_shapes(stride, [anchor_scale], [1.0]) for stride in STRIDES]
        self.cls_convs = norm_tower(dim, dim, depth=4)
        self.reg_convs = norm_tower(dim, dim, depth=4)
        self.gfl_cls = nn.Conv2d(dim, num_classes, 3, padding=1)
        self.gfl_reg = nn.Conv2d(dim, 4 * (FARTHEST + 1), 3, padding=1)
        self.scales = nn.ModuleList(Scale() for _ in STRIDES)
        self.integral = Integral()
        init_head(self, self.gfl_cls)

    def forward(self, maps: Sequence[Tensor], bounds: Bounds | None = None) -> GFLOutputs:
        """Reads maps [B, dim, H_l, W_l], one a level.

        With `bounds`, logits are minus infinity beyond an image's own part.
        """
        logits, sides, distances = [], [], []
        for x, scale, stride in zip(maps, self.scales, STRIDES, strict=True):
            classes = run_tower(self.cls_convs, x, bounds)
            boxes = run_tower(self.reg_convs, x, bounds)
            classes = clear(self.gfl_cls(classes), bounds, -math.inf)
            logits.append(rows_of(classes, self.num_classes))  # [B, N_l, K]
            rows = scale(rows_of(self.gfl_reg(boxes), 4 * (FARTHEST + 1)))
            sides.append(rows.unflatten(-1, (4, -1)))  # [B, N_l, 4, 17]
            distances.append(self.integral(sides[-1]) * stride)  # [B, N_l, 4]
        anchors = anchors_of(self.shapes, maps)
        return GFLOutputs(tuple(logits), tuple(sides), tuple(distances), anchors)


def build_gfl(
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
    """GFL on levels of stride 8 to 128.

    Args:
        backbone: Name of a backbone.
        num_classes: Classes, 1 or more.
        in_chans: Channels of the images.
        drop_path_rate: Stochastic depth; None takes the published rate.
        width: Channels of pyramid and towers.
        anchor_scale: Side of the anchors by which objects choose their cells, in strides.
        decoding: How detections are chosen.
        padding: "masked" keeps what lies beyond an image's own padding from changing its answers.
    """
    head = GFLHead(num_classes, dim=width, anchor_scale=anchor_scale)
    return assemble(head, backbone, in_chans, drop_path_rate, width, decoding, padding)


def gfl_terms(outputs: GFLOutputs, batch: Batch[DetectionTarget]) -> dict[str, Tensor]:
    """The loss terms of GFL: `classes`, `boxes` and `sides`.

    Quality focal loss of the classes, over the number of objects' anchors: the quality to learn is
    the overlap that the box has now. GIoU and distribution focal loss of the boxes, weighted by
    the anchor's best score.
    """
    targets = nearest_targets(outputs.anchors, truths_of(batch.targets), batch.sizes)
    logits, sides, distances = (torch.cat(levels, dim=1) for levels in outputs[:3])
    used, objects = targets.labels != IGNORED, targets.labels >= 0  # [B, N]

    points = centres_of(torch.cat(outputs.anchors)).expand(len(objects), -1, -1)[objects]  # [p, 2]
    wanted = targets.boxes[objects].to(distances)
    boxes = place_boxes(points, distances[objects])  # [p, 4]
    qualities = torch.zeros_like(logits[..., 0])  # [B, N]
    qualities[objects] = paired_iou(boxes.detach(), wanted)
    classes = quality_focal_loss(logits[used], targets.labels[used], qualities[used])

    strides = strides_of(outputs.anchors).expand(len(objects), -1)[objects]  # [p]
    steps = side_distances(points, wanted) / strides[:, None]  # [p, 4]
    steps = steps.clamp(0, FARTHEST - 0.1)
    spread = distribution_loss(sides[objects].flatten(0, 1), steps.flatten())
    weights = logits[objects].detach().sigmoid().amax(dim=1)  # [p]
    divisor = mean_of_processes(weights.sum()).clamp(min=1)
    return {
        "classes": classes / count_objects(objects),
        "boxes": BOX_WEIGHT * (weights * generalized_box_iou_loss(boxes, wanted)).sum() / divisor,
        "sides": SIDE_WEIGHT * (weights * spread.view(-1, 4).mean(dim=1)).sum() / divisor,
    }


def strides_of(anchors: Sequence[Tensor]) -> Tensor:
    """The stride [N] of every anchor, over all levels."""
    parts = [level.new_full((len(level),), s) for level, s in zip(anchors, STRIDES, strict=True)]
    return torch.cat(parts)


def detect_gfl(outputs: GFLOutputs, sizes: Sizes, decoding: Decoding) -> RegionDetections:
    """Chooses detections from the best anchors of each level, by the quality that they say."""
    chosen = [detect_image(outputs, i, size, decoding) for i, size in enumerate(sizes)]
    return RegionDetections(gather_detections(chosen), None)


def detect_image(
    outputs: GFLOutputs, image: int, size: tuple[int, int], decoding: Decoding
) -> Selected:
    boxes, scores = [], []
    for logits, _, distances, anchors in zip(*outputs, strict=True):
        value = logits[image].sigmoid()  # [N_l, K]
        rows = best_rows(value.amax(dim=1), CANDIDATES)
        boxes.append(place_boxes(centres_of(anchors[rows]), distances[image, rows]))
        scores.append(value[rows])
    return select_boxes(
        clip_boxes(torch.cat(boxes), size),
        torch.cat(scores),
        threshold=decoding.score_threshold,
        overlap=decoding.nms_threshold,
        most=decoding.max_detections,
    )


HEAD = Head(build_gfl, GFLOutputs, gfl_terms, detect_gfl)
