"""Sparse R-CNN (arXiv 2011.12450): a few learnt boxes, which six stages move onto the objects.

Reference: mmdetection 2.13, whose parameter names are kept. Each stage looks at the regions of the
boxes that it is given, and each box brings features, from which the weights of the layer follow
that reads its region. Shape letters: B images, Q boxes an image, C channels, K classes, S stages.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_convert, generalized_box_iou

from ....necks.fpn import FPN
from ....nn.transformer import HiddenLayer, QueryAttention
from ....ops.boxes import decode_boxes, extents
from ....ops.losses import focal_loss, giou_loss, l1_loss
from ....ops.matching import match_one_to_one
from ....ops.regions import Level, pool_regions
from ....ops.selection import select_boxes
from ....structures import Batch, DetectionTarget
from ..baseline_losses import AnchorTargets, targets_of
from ..divisors import mean_of_processes
from ..head import Head
from ..outputs import (
    Decoding,
    RegionDetections,
    Sizes,
    Truth,
    at_least_float32,
    gather_detections,
    truths_of,
)
from ..trunk import Padding, bounds_of, build_backbone, check_padding, own_parts, read_maps
from .retinanet import PRIOR

SIDE = 7  # cells along each side of a region
STDS = (0.5, 0.5, 1.0, 1.0)  # by which corrections are divided
CLASSES, CORNERS, OVERLAPS = 2.0, 5.0, 2.0  # weights, in the costs of pairs and in the loss
DECODING = Decoding(score_threshold=0.0, nms_threshold=1.0, max_detections=300)


class SparseRCNNOutputs(NamedTuple):
    """What every stage says, the last one best."""

    logits: Tensor  # [S, B, Q, K]
    boxes: Tensor  # [S, B, Q, 4], pixels of the network's images, not cut off at their borders


class ProposalHead(nn.Module):
    """Boxes and features to start from, the same for all images: at first, the whole image.

    Args:
        count: Boxes an image.
        dim: Channels of the features.
    """

    def __init__(self, count: int, dim: int) -> None:
        super().__init__()
        self.init_proposal_bboxes = nn.Embedding(count, 4)  # centre and size, as shares of an image
        self.init_proposal_features = nn.Embedding(count, dim)
        nn.init.constant_(self.init_proposal_bboxes.weight[:, :2], 0.5)
        nn.init.constant_(self.init_proposal_bboxes.weight[:, 2:], 1.0)

    def forward(self, sizes: Sizes) -> tuple[Tensor, Tensor]:
        """Boxes [B, Q, 4] in pixels of images of `sizes` (H, W), and features [B, Q, C]."""
        shares = at_least_float32(self.init_proposal_bboxes.weight)
        boxes = box_convert(shares, "cxcywh", "xyxy") * extents(sizes, shares)  # [B, Q, 4]
        return boxes, self.init_proposal_features.weight.expand(len(sizes), -1, -1)


class DynamicConv(nn.Module):
    """Reads a region through two layers whose weights follow from the features of its box.

    Args:
        dim: Channels C of features and regions.
        hidden: Channels between the two layers.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.shape = (dim, hidden)
        self.dynamic_layer = nn.Linear(dim, 2 * dim * hidden)
        self.norm_in = nn.LayerNorm(hidden)
        self.norm_out = nn.LayerNorm(dim)
        self.fc_layer = nn.Linear(SIDE * SIDE * dim, dim)
        self.fc_norm = nn.LayerNorm(dim)

    def forward(self, features: Tensor, x: Tensor) -> Tensor:
        """Maps features [R, C] and regions [R, C, 7, 7] to features [R, C]."""
        dim, hidden = self.shape
        first, second = self.dynamic_layer(features).chunk(2, dim=1)
        x = x.flatten(2).transpose(1, 2)  # [R, 49, C]
        x = F.relu(self.norm_in(x @ first.reshape(-1, dim, hidden)))
        x = F.relu(self.norm_out(x @ second.reshape(-1, hidden, dim)))
        x = F.relu(self.fc_norm(self.fc_layer(x.flatten(1))))
        return x


class Stage(nn.Module):
    """Boxes compare notes, look at their regions, and say what is there and where exactly.

    Args:
        num_classes: Classes K.
        dim: Channels C, a multiple of 8.
        hidden: Width of the hidden layer.
    """

    def __init__(self, num_classes: int, dim: int, hidden: int) -> None:
        super().__init__()
        self.attention = QueryAttention(dim)
        self.attention_norm = nn.LayerNorm(dim)
        self.instance_interactive_conv = DynamicConv(dim, dim // 4)
        self.instance_interactive_conv_norm = nn.LayerNorm(dim)
        self.ffn = HiddenLayer(dim, hidden)
        self.ffn_norm = nn.LayerNorm(dim)
        self.cls_fcs = linear_tower(dim, depth=1)
        self.reg_fcs = linear_tower(dim, depth=3)
        self.fc_cls = nn.Linear(dim, num_classes)
        self.fc_reg = nn.Linear(dim, 4)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
        nn.init.constant_(self.fc_cls.bias, -math.log((1 - PRIOR) / PRIOR))

    def forward(self, features: Tensor, regions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reads features [B, Q, C] and regions [B * Q, C, 7, 7].

        Returns:
            (logits [B, Q, K], corrections [B, Q, 4], features [B, Q, C]).
        """
        x = self.attention_norm(features + self.attention(features, features))
        seen = self.instance_interactive_conv(x.flatten(0, 1), regions).reshape(x.shape)
        x = self.instance_interactive_conv_norm(x + seen)
        x = self.ffn_norm(x + self.ffn(x))
        return self.fc_cls(self.cls_fcs(x)), self.fc_reg(self.reg_fcs(x)), x


def linear_tower(dim: int, depth: int) -> nn.Sequential:
    """Linear layers without bias, each followed by a norm and a ReLU."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(dim, dim, bias=False), nn.LayerNorm(dim), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class SparseRCNNHead(nn.Module):
    """The stages, one after the other.

    Args:
        num_classes: Classes K.
        strides: Of the levels that regions are read from, in pixels of the image per cell.
        dim: Channels of the maps and of the features, a multiple of 8.
        hidden: Width of the hidden layers.
        depth: Stages S.
    """

    def __init__(
        self, num_classes: int, strides: Sequence[int], *, dim: int, hidden: int, depth: int
    ) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.bbox_head = nn.ModuleList(Stage(num_classes, dim, hidden) for _ in range(depth))

    def forward(self, maps: Sequence[Level], boxes: Tensor, features: Tensor) -> SparseRCNNOutputs:
        """Moves boxes [B, Q, 4] with features [B, Q, C] over maps [B, C, H_l, W_l].

        No stage learns through the boxes that it gives to the next one.
        """
        images = torch.arange(len(boxes), device=boxes.device).repeat_interleave(boxes.shape[1])
        said, moved = [], []
        for stage in self.bbox_head:
            around = boxes.detach().flatten(0, 1)
            regions = pool_regions(maps, self.strides, around, images, SIDE, samples=2)
            logits, deltas, features = stage(features, regions)
            boxes = decode_boxes(at_least_float32(deltas), boxes, STDS)
            said.append(at_least_float32(logits))
            moved.append(boxes)
            boxes = boxes.detach()
        return SparseRCNNOutputs(torch.stack(said), torch.stack(moved))


class SparseRCNN(nn.Module):
    """The whole detector.

    Args:
        backbone: Images to a list of maps.
        neck: Those, and `Bounds` or None, to maps of one width.
        rpn_head: Sizes to boxes and features to start from.
        roi_head: Maps and those to outputs.
        decoding: How detections are chosen from the outputs.
        padding: See `trunk.bounds_of`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        rpn_head: ProposalHead,
        roi_head: SparseRCNNHead,
        *,
        decoding: Decoding,
        padding: Padding = "published",
    ) -> None:
        super().__init__()
        self.decoding = decoding
        self.padding = check_padding(padding)
        self.backbone = backbone
        self.neck = neck
        self.rpn_head = rpn_head
        self.roi_head = roi_head

    def forward(
        self,
        images: Tensor,
        *,
        sizes: Sizes | None = None,
        targets: Sequence[Truth] | None = None,
    ) -> SparseRCNNOutputs:
        """Maps images [B, C, H, W] to raw outputs; targets steer other detectors.

        Args:
            images: Padded at the right and the bottom.
            sizes: (H, W) of each image before padding; None where nothing was padded.
            targets: Not looked at.
        """
        sizes = [(images.shape[2], images.shape[3])] * len(images) if sizes is None else sizes
        boxes, features = self.rpn_head(sizes)
        bounds = bounds_of(images, sizes, self.padding)
        maps = self.neck(read_maps(self.backbone, images, bounds), bounds)
        outputs: SparseRCNNOutputs = self.roi_head(own_parts(maps, bounds), boxes, features)
        return outputs


def build_sparse_rcnn(
    backbone: str,
    num_classes: int,
    *,
    in_chans: int = 3,
    drop_path_rate: float | None = None,
    width: int = 256,
    hidden: int = 2048,
    proposals: int = 300,
    depth: int = 6,
    decoding: Decoding = DECODING,
    padding: Padding = "published",
) -> SparseRCNN:
    """Sparse R-CNN on levels of stride 4 to 32.

    Args:
        backbone: Name of a backbone.
        num_classes: Classes, 1 or more.
        in_chans: Channels of the images.
        drop_path_rate: Stochastic depth; None takes the published rate.
        width: Channels of pyramid and stages, a multiple of 8.
        hidden: Width of the hidden layers.
        proposals: Boxes an image, and so the most objects of an image that can be found.
        depth: Stages.
        decoding: How detections are chosen.
        padding: "masked" keeps what lies beyond an image's own padding from changing its answers.
    """
    trunk = build_backbone(backbone, in_chans, drop_path_rate, out_indices=(0, 1, 2, 3))
    return SparseRCNN(
        trunk,
        FPN(trunk.feature_info.channels(), width, num_outs=4, extra="pool"),
        ProposalHead(proposals, width),
        SparseRCNNHead(num_classes, (4, 8, 16, 32), dim=width, hidden=hidden, depth=depth),
        decoding=decoding,
        padding=padding,
    )


def sparse_rcnn_terms(
    outputs: SparseRCNNOutputs, batch: Batch[DetectionTarget]
) -> dict[str, Tensor]:
    """The loss terms of Sparse R-CNN, all stages added up: `classes`, `boxes` and `overlaps`."""
    truths = truths_of(batch.targets)
    stages = [stage_losses(*stage, truths, batch.sizes) for stage in zip(*outputs, strict=True)]
    classes, boxes, overlaps = torch.stack([torch.stack(terms) for terms in stages]).sum(dim=0)
    return {"classes": classes, "boxes": boxes, "overlaps": overlaps}


def stage_losses(
    logits: Tensor, boxes: Tensor, truths: Sequence[Truth], sizes: Sizes
) -> tuple[Tensor, Tensor, Tensor]:
    """Focal loss of the classes, L1 of the corners as shares of the image, and GIoU.

    Each object of an image is learnt by one box, and there is no other loss for the boxes. All are
    over the number of objects of the batch.

    Args:
        logits: [B, Q, K].
        boxes: [B, Q, 4].
    """
    targets = match_stage(logits, boxes, truths, sizes)
    objects = targets.labels >= 0
    divisor = mean_of_processes(objects.sum()).clamp(min=1)
    scale = extents(sizes, boxes).expand_as(boxes)[objects]
    found, wanted = boxes[objects], targets.boxes[objects]
    classes = focal_loss(logits.flatten(0, 1), targets.labels.flatten())
    corners = l1_loss(found / scale, wanted / scale)
    overlaps = giou_loss(found, wanted)
    return CLASSES * classes / divisor, CORNERS * corners / divisor, OVERLAPS * overlaps / divisor


@torch.no_grad()
def match_stage(
    logits: Tensor, boxes: Tensor, truths: Sequence[Truth], sizes: Sizes
) -> AnchorTargets:
    """Which class [B, Q] and which object's box [B, Q, 4] each box is to learn."""
    images = []
    for score, box, scale, truth in zip(logits, boxes, extents(sizes, boxes), truths, strict=True):
        own = truth.boxes.to(box)
        cost = CLASSES * focal_costs(score)[:, truth.labels]  # [Q, n]
        cost += CORNERS * torch.cdist(box / scale, own / scale, p=1)
        cost -= OVERLAPS * generalized_box_iou(box, own)
        images.append(targets_of(match_one_to_one(cost), Truth(own, truth.labels)))
    return AnchorTargets(*map(torch.stack, zip(*images, strict=True)))


def focal_costs(logits: Tensor) -> Tensor:
    """What the focal loss would be less, were [Q, K] each the class to be said: [Q, K]."""
    p = logits.sigmoid()
    yes = -(p + 1e-12).log() * 0.25 * (1 - p) ** 2
    no = -(1 - p + 1e-12).log() * 0.75 * p**2
    return yes - no


def detect_sparse_rcnn(
    outputs: SparseRCNNOutputs, sizes: Sizes, decoding: Decoding
) -> RegionDetections:
    """Chooses detections from what the last stage says; a box may be of several classes."""
    chosen = [
        select_boxes(
            boxes,
            logits.sigmoid(),
            threshold=decoding.score_threshold,
            overlap=decoding.nms_threshold,
            most=decoding.max_detections,
        )
        for logits, boxes in zip(outputs.logits[-1], outputs.boxes[-1], strict=True)
    ]
    return RegionDetections(gather_detections(chosen), None)


HEAD = Head(build_sparse_rcnn, SparseRCNNOutputs, sparse_rcnn_terms, detect_sparse_rcnn)
