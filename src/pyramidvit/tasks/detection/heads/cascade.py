"""Cascade Mask R-CNN (arXiv 1906.09756): regions are looked at three times and moved in between.

Reference: mmdetection 2.13, whose parameter names are kept, with the configuration of the papers:
convolutions with batch normalisation, a box for each class, boxes learnt by their overlap.
"""

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....necks.fpn import FPN
from ....ops.anchors import inside_image
from ....ops.boxes import decode_boxes
from ....ops.losses import giou_loss, smooth_l1_loss
from ....ops.matching import BACKGROUND
from ....ops.regions import Level, pool_regions
from ....structures import Batch, DetectionTarget
from ..baseline_losses import mask_losses, proposal_losses, region_losses, summed
from ..head import Head
from ..outputs import (
    PUBLISHED,
    Decoding,
    DenseOutputs,
    RegionDetections,
    RegionOutputs,
    Sizes,
    Truth,
    at_least_float32,
    truths_of,
)
from ..trunk import Padding, bounds_of, build_backbone, check_padding, own_parts, read_maps
from .mask import MaskHead
from .roi import (
    BOX_SIDE,
    MASK_SIDE,
    MASKS_AT_ONCE,
    detect_regions,
    labels_of,
    sample_regions,
)
from .rpn import RPNHead, propose

BETA = 1 / 9  # up to which a correction of an anchor is off by squares
BOX_WEIGHT = 10.0  # of GIoU in the loss


class Stage(NamedTuple):
    """What the looks at a region differ in: each takes better regions and moves them less."""

    overlap: float  # IoU from which on a region is an object, below it is background
    stds: tuple[float, float, float, float]  # by which corrections are divided
    weight: float  # of the stage in the loss


STAGES = (
    Stage(0.5, (0.1, 0.1, 0.2, 0.2), 1.0),
    Stage(0.6, (0.05, 0.05, 0.1, 0.1), 0.5),
    Stage(0.7, (0.033, 0.033, 0.067, 0.067), 0.25),
)


class CascadeOutputs(NamedTuple):
    """What a cascade says, to learn from."""

    stages: tuple[RegionOutputs, ...]  # one a stage, all with the same proposals


class ConvBoxHead(nn.Module):
    """Four convolutions, a hidden layer, then classes and one box correction a class.

    Args:
        num_classes: Classes K.
        dim: Channels of the incoming features and of the convolutions.
        hidden: Width of the hidden layer.
    """

    def __init__(self, num_classes: int, dim: int = 256, hidden: int = 1024) -> None:
        super().__init__()
        self.shared_convs = nn.Sequential(*(normed_conv(dim) for _ in range(4)))
        layer = nn.Linear(dim * BOX_SIDE * BOX_SIDE, hidden)
        self.shared_fcs = nn.Sequential(layer)
        self.fc_cls = nn.Linear(hidden, num_classes + 1)
        self.fc_reg = nn.Linear(hidden, num_classes * 4)
        nn.init.xavier_uniform_(layer.weight)
        nn.init.normal_(self.fc_cls.weight, std=0.01)
        nn.init.normal_(self.fc_reg.weight, std=0.001)
        for linear in (layer, self.fc_cls, self.fc_reg):
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Maps features [R, dim, 7, 7] to logits [R, K + 1] and corrections [R, K, 4]."""
        x = F.relu(self.shared_fcs(self.shared_convs(x).flatten(1)))  # [R, hidden]
        deltas = self.fc_reg(x).reshape(len(x), self.fc_reg.out_features // 4, 4)
        return at_least_float32(self.fc_cls(x)), at_least_float32(deltas)


def normed_conv(dim: int) -> nn.Sequential:
    """A 3x3 convolution without bias, batch normalisation (arXiv 1502.03167) and a ReLU."""
    conv = nn.Conv2d(dim, dim, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(
        OrderedDict(conv=conv, bn=nn.BatchNorm2d(dim), activation=nn.ReLU(inplace=True))
    )


class CascadeHead(nn.Module):
    """The heads that look at regions, two for each stage.

    Args:
        num_classes: Classes K.
        dim: Channels of the incoming maps and of the heads.
        hidden: Width of the layers that classify regions.
        strides: Of the levels that regions are read from, in pixels of the image per cell.
    """

    def __init__(self, num_classes: int, dim: int, hidden: int, strides: Sequence[int]) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.bbox_head = nn.ModuleList(ConvBoxHead(num_classes, dim, hidden) for _ in STAGES)
        self.mask_head = nn.ModuleList(MaskHead(num_classes, dim) for _ in STAGES)

    def forward(
        self, stage: int, maps: Sequence[Level], boxes: Tensor, images: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Logits [R, K + 1] and corrections [R, K, 4] of regions [R, 4] of images [R]."""
        x = pool_regions(maps, self.strides, boxes, images, BOX_SIDE)  # [R, dim, 7, 7]
        logits, deltas = self.bbox_head[stage](x)
        return logits, deltas

    def forward_masks(
        self,
        stages: Sequence[int],
        maps: Sequence[Level],
        boxes: Tensor,
        images: Tensor,
        labels: Tensor,
    ) -> Tensor:
        """Logits [S, n, 28, 28] by S stages of the masks of labels [n] in boxes [n, 4]."""
        parts = []
        columns = (torch.split(column, MASKS_AT_ONCE) for column in (boxes, images, labels))
        for box, image, label in zip(*columns, strict=True):
            x = pool_regions(maps, self.strides, box, image, MASK_SIDE)  # [n, dim, 14, 14]
            parts.append(torch.stack([self.mask_head[stage](x, label) for stage in stages]))
        return torch.cat(parts, dim=1)


class CascadeDetector(nn.Module):
    """A detector that proposes regions and looks at them once in every stage.

    Args:
        backbone: Images to a list of maps.
        neck: Those, and `Bounds` or None, to maps of one width.
        rpn_head: Those, and the same, to objectness.
        roi_head: Regions of the maps, but for the last one, to classes, boxes and masks.
        candidates: Anchors of a level that proposals are chosen from; twice as many in training.
        proposals: Regions an image; twice as many in training.
        region_samples: How many of them an image a stage learns from at a time.
        decoding: How detections are chosen, whose masks are then drawn.
        padding: See `trunk.bounds_of`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        rpn_head: RPNHead,
        roi_head: CascadeHead,
        *,
        candidates: int,
        proposals: int,
        region_samples: int,
        decoding: Decoding,
        padding: Padding = "published",
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.rpn_head = rpn_head
        self.roi_head = roi_head
        self.candidates = candidates
        self.proposals = proposals
        self.region_samples = region_samples
        self.padding = check_padding(padding)
        self.decoding = decoding

    def forward(
        self,
        images: Tensor,
        *,
        sizes: Sizes | None = None,
        targets: Sequence[Truth] | None = None,
    ) -> CascadeOutputs | RegionDetections:
        """Maps images [B, C, H, W] to detections, or with targets to what can be learnt from.

        Args:
            images: Padded at the right and the bottom.
            sizes: (H, W) of each image before padding, at whose borders boxes are cut off; None
                where nothing was padded.
            targets: One an image; they decide which regions are looked at.
        """
        sizes = [(images.shape[2], images.shape[3])] * len(images) if sizes is None else sizes
        bounds = bounds_of(images, sizes, self.padding)
        maps = self.neck(read_maps(self.backbone, images, bounds), bounds)
        dense = self.rpn_head(maps, bounds)
        levels = own_parts(maps[:-1], bounds)
        if targets is None:
            return self.detect(levels, dense, sizes)
        return self.learn(levels, dense, sizes, targets)

    def detect(self, maps: Sequence[Level], dense: DenseOutputs, sizes: Sizes) -> RegionDetections:
        regions = propose(dense, sizes, candidates=self.candidates, most=self.proposals)
        moved, said = regions, []
        for number, stage in enumerate(STAGES):
            regions = moved
            logits, deltas = self.roi_head(number, maps, regions.boxes, regions.images)
            said.append(logits)
            labels = logits[:, :-1].argmax(dim=1)
            boxes = move_regions(regions.boxes, regions.images, deltas, labels, stage.stds, sizes)
            moved = regions._replace(boxes=boxes)
        mean, stds = torch.stack(said).mean(dim=0), STAGES[-1].stds
        found = detect_regions(mean, deltas, regions, sizes, self.decoding, stds=stds)
        masks = self.roi_head.forward_masks(
            range(len(STAGES)), maps, found.boxes, found.images, found.labels
        )
        return RegionDetections(found, mean_logits(masks))

    def learn(
        self,
        maps: Sequence[Level],
        dense: DenseOutputs,
        sizes: Sizes,
        targets: Sequence[Truth],
    ) -> CascadeOutputs:
        found = propose(dense, sizes, candidates=2 * self.candidates, most=2 * self.proposals)
        boxes, images, said = found.boxes, found.images, []
        for number, stage in enumerate(STAGES):
            regions = sample_regions(
                boxes, images, targets, count=self.region_samples, overlap=stage.overlap
            )
            logits, deltas = self.roi_head(number, maps, regions.boxes, regions.images)
            objects = regions.matches != BACKGROUND
            owned, _ = labels_of(regions, targets)
            (masks,) = self.roi_head.forward_masks(
                [number], maps, regions.boxes[objects], regions.images[objects], owned
            )
            said.append(RegionOutputs(dense, regions, logits, deltas, masks))

            labels = logits[:, :-1].argmax(dim=1)
            labels[objects] = owned
            boxes = move_regions(regions.boxes, regions.images, deltas, labels, stage.stds, sizes)
            boxes, images = boxes[~regions.own], regions.images[~regions.own]
        return CascadeOutputs(tuple(said))


def build_cascade_mask_rcnn(
    backbone: str,
    num_classes: int,
    *,
    in_chans: int = 3,
    drop_path_rate: float | None = None,
    width: int = 256,
    hidden: int = 1024,
    anchor_scale: float = 8.0,
    candidates: int = 1000,
    proposals: int = 1000,
    region_samples: int = 512,
    decoding: Decoding = PUBLISHED,
    padding: Padding = "published",
) -> CascadeDetector:
    """Cascade Mask R-CNN: proposals on levels of stride 4 to 64, regions up to 32.

    Args:
        backbone: Name of a backbone.
        num_classes: Classes, 1 or more.
        in_chans: Channels of the images.
        drop_path_rate: Stochastic depth; None takes the published rate.
        width: Channels of pyramid and heads.
        hidden: Width of the hidden layers that classify regions.
        anchor_scale: Side of the square anchor, in strides; less for small objects.
        candidates: Anchors of a level that proposals are chosen from; twice as many in training.
        proposals: Regions an image; twice as many in training.
        region_samples: How many of them an image a stage learns from at a time.
        decoding: How detections are chosen.
        padding: "masked" keeps what lies beyond an image's own padding from changing its answers.
    """
    trunk = build_backbone(backbone, in_chans, drop_path_rate, out_indices=(0, 1, 2, 3))
    channels = trunk.feature_info.channels()
    return CascadeDetector(
        trunk,
        FPN(channels, width, num_outs=5, extra="pool"),
        RPNHead((4, 8, 16, 32, 64), dim=width, anchor_scale=anchor_scale),
        CascadeHead(num_classes, width, hidden, (4, 8, 16, 32)),
        candidates=candidates,
        proposals=proposals,
        region_samples=region_samples,
        decoding=decoding,
        padding=padding,
    )


@torch.no_grad()
def move_regions(
    boxes: Tensor,
    images: Tensor,
    deltas: Tensor,
    labels: Tensor,
    stds: Sequence[float],
    sizes: Sizes,
) -> Tensor:
    """Regions [R, 4] corrected as for labels [R], cut off at their images' borders.

    No gradient passes: the next stage looks at them as they are.
    """
    rows = torch.arange(len(labels), device=labels.device)
    moved = decode_boxes(deltas[rows, labels], boxes, stds)
    limits = moved.new_tensor([(width, height, width, height) for height, width in sizes])
    return torch.minimum(moved.clamp(min=0), limits[images])


def mean_logits(logits: Tensor) -> Tensor:
    """The logits [...] of the mean of what logits [S, ...] are the logits of; never infinite."""
    yes, no = (F.logsigmoid(sign * logits).logsumexp(dim=0) for sign in (1, -1))
    return yes - no


def cascade_terms(outputs: CascadeOutputs, batch: Batch[DetectionTarget]) -> dict[str, Tensor]:
    """The loss terms of a cascade: two of the proposals, and three of each stage, weighted.

    Raises:
        UserError: An image's objects have no masks.
    """
    truths = truths_of(batch.targets)
    levels = inner_proposal_losses(outputs.stages[0].proposals, truths, batch.sizes)
    terms = summed(levels, "proposal_classes", "proposal_boxes")
    for number, (stage, said) in enumerate(zip(STAGES, outputs.stages, strict=True), start=1):
        box_loss = partial(overlap_loss, stage=stage)
        own = {**region_losses(said, truths, box_loss), **mask_losses(said, batch.targets)}
        terms |= {f"stage{number}_{name}": stage.weight * term for name, term in own.items()}
    return terms


def overlap_loss(deltas: Tensor, regions: Tensor, boxes: Tensor, *, stage: Stage) -> Tensor:
    """GIoU of regions [p, 4], as a stage's corrections [p, 4] move them, with boxes [p, 4]."""
    found = decode_boxes(deltas, regions, stage.stds)
    return BOX_WEIGHT * giou_loss(found, boxes.to(found))


# As Faster R-CNN's, but that anchors across a border are ignored and corrections are of smooth L1.
inner_proposal_losses = partial(
    proposal_losses, within=inside_image, box_loss=partial(smooth_l1_loss, beta=BETA)
)


HEAD = Head(build_cascade_mask_rcnn, CascadeOutputs, cascade_terms, learns_masks=True)
