"""DETR (arXiv 2005.12872): queries read the deepest map, and each names one object or none.

Reference: mmdetection 2.13, whose parameter names are kept. Shape letters: B images, N tokens of an
image, Q queries, C channels, K classes, L layers of the decoder.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_convert, generalized_box_iou

from ....nn.transformer import HiddenLayer, Transformer
from ....ops.boxes import clip_boxes, extents
from ....ops.losses import giou_loss, l1_loss
from ....ops.matching import match_one_to_one
from ....ops.selection import Selected, select_boxes
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
from ..trunk import Padding, bounds_of, build_backbone, check_padding, read_maps

CLASSES, BOXES, OVERLAPS = 1.0, 5.0, 2.0  # weights, in the costs of pairs and in the loss
BACKGROUND_WEIGHT = 0.1  # of a query without an object, in the loss of the classes
TEMPERATURE = 10_000  # how much slower the slowest wave of positions is than the fastest
DECODING = Decoding(score_threshold=0.0, nms_threshold=1.0, max_detections=100)


class DETROutputs(NamedTuple):
    """What every layer of the decoder says, the last one best."""

    logits: Tensor  # [L, B, Q, K + 1], no object last
    boxes: Tensor  # [L, B, Q, 4], centre (x, y), width and height, as shares of the image


class DETRHead(nn.Module):
    """The transformer, and what its queries say of classes and boxes.

    Args:
        in_channels: Channels of the incoming map.
        num_classes: Classes K.
        dim: Channels C of the transformer, a multiple of 8.
        hidden: Width of its hidden layers.
        queries: Queries Q.
        depth: Layers L of the encoder, and of the decoder.
        drop_rate: Dropout of the transformer.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        dim: int,
        hidden: int,
        queries: int,
        depth: int,
        drop_rate: float,
    ) -> None:
        super().__init__()
        self.input_proj = nn.Conv2d(in_channels, dim, 1)
        self.transformer = Transformer(dim, hidden, depth, drop_rate)
        self.query_embedding = nn.Embedding(queries, dim)
        self.fc_cls = nn.Linear(dim, num_classes + 1)
        self.reg_ffn = HiddenLayer(dim, dim)
        self.fc_reg = nn.Linear(dim, 4)

    def forward(self, x: Tensor, valid: Tensor) -> DETROutputs:
        """Reads a map [B, C_in, H, W], of which the cells `valid` bool [B, H, W] show an image."""
        x = self.input_proj(x)
        tokens = x.flatten(2).transpose(1, 2)  # [B, N, C]
        places = sine_positions(valid, x.shape[1]).to(x)
        queries = self.query_embedding.weight.expand(len(x), -1, -1)
        heard = self.transformer(tokens, places, queries, ~valid.flatten(1))  # [L, B, Q, C]
        boxes = self.fc_reg(F.relu(self.reg_ffn(heard)))
        return DETROutputs(at_least_float32(self.fc_cls(heard)), at_least_float32(boxes).sigmoid())


def valid_cells(sizes: Sizes, image: Sequence[int], grid: Sequence[int]) -> Tensor:
    """Bool [B, H, W]: the cells of a grid (H, W) whose first pixel lies in its image.

    Args:
        sizes: (H, W) of each image before padding.
        image: (H, W) of all of them after it.
        grid: (H, W) of the map that was made of them.
    """
    rows, columns = (
        torch.arange(cells) * side // cells for side, cells in zip(image, grid, strict=True)
    )
    return torch.stack([(rows < h)[:, None] & (columns < w) for h, w in sizes])


def sine_positions(valid: Tensor, dim: int) -> Tensor:
    """Waves [B, H * W, dim] that say where in its image each cell lies, y first, then x.

    As in the reference, they are float32 whatever the network's precision.

    Args:
        valid: Bool [B, H, W]: cells of the image. Positions run from 0 to 2 pi over these.
        dim: Channels, a multiple of 4.
    """
    half = dim // 2
    channel = torch.arange(half, dtype=torch.float32, device=valid.device)
    period = TEMPERATURE ** (2 * (channel // 2) / half)
    waves = []
    for axis in (1, 2):
        count = valid.cumsum(axis, dtype=torch.float32)
        last = count.narrow(axis, count.shape[axis] - 1, 1)
        angle = (count / (last + 1e-6) * (2 * math.pi))[..., None] / period  # [B, H, W, half]
        pair = torch.stack((angle[..., 0::2].sin(), angle[..., 1::2].cos()), dim=-1)
        waves.append(pair.flatten(-2))
    return torch.cat(waves, dim=-1).flatten(1, 2)


class DETR(nn.Module):
    """The whole detector.

    Args:
        backbone: Images to a list of one map.
        bbox_head: That to outputs.
        decoding: How detections are chosen from the outputs.
        padding: See `trunk.bounds_of`; the head never reads beyond an image.
    """

    def __init__(
        self,
        backbone: nn.Module,
        bbox_head: DETRHead,
        *,
        decoding: Decoding,
        padding: Padding = "published",
    ) -> None:
        super().__init__()
        self.decoding = decoding
        self.padding = check_padding(padding)
        self.backbone = backbone
        self.bbox_head = bbox_head

    def forward(
        self,
        images: Tensor,
        *,
        sizes: Sizes | None = None,
        targets: Sequence[Truth] | None = None,
    ) -> DETROutputs:
        """Maps images [B, C, H, W] to raw outputs; targets steer other detectors.

        Args:
            images: Padded at the right and the bottom.
            sizes: (H, W) of each image before padding; None where nothing was padded.
            targets: Not looked at.
        """
        sizes = [(images.shape[2], images.shape[3])] * len(images) if sizes is None else sizes
        bounds = bounds_of(images, sizes, self.padding)
        (x,) = read_maps(self.backbone, images, bounds)
        valid = valid_cells(sizes, images.shape[2:], x.shape[2:]).to(x.device)
        outputs: DETROutputs = self.bbox_head(x, valid)
        return outputs


def build_detr(
    backbone: str,
    num_classes: int,
    *,
    in_chans: int = 3,
    drop_path_rate: float | None = None,
    width: int = 256,
    hidden: int = 2048,
    queries: int = 100,
    depth: int = 6,
    drop_rate: float = 0.1,
    decoding: Decoding = DECODING,
    padding: Padding = "published",
) -> DETR:
    """DETR on the map of stride 32.

    Args:
        backbone: Name of a backbone.
        num_classes: Classes, 1 or more.
        in_chans: Channels of the images.
        drop_path_rate: Stochastic depth; None takes the published rate.
        width: Channels of the transformer, a multiple of 8.
        hidden: Width of its hidden layers.
        queries: The most objects of an image that can be found.
        depth: Layers of the encoder, and of the decoder.
        drop_rate: Dropout of the transformer.
        decoding: How detections are chosen.
        padding: "masked" keeps what lies beyond an image's own padding from changing its answers.
    """
    trunk = build_backbone(backbone, in_chans, drop_path_rate, out_indices=(3,))
    head = DETRHead(
        trunk.feature_info.channels()[0],
        num_classes,
        dim=width,
        hidden=hidden,
        queries=queries,
        depth=depth,
        drop_rate=drop_rate,
    )
    return DETR(trunk, head, decoding=decoding, padding=padding)


def detr_terms(outputs: DETROutputs, batch: Batch[DetectionTarget]) -> dict[str, Tensor]:
    """The loss terms of DETR, all layers added up: `classes`, `boxes` and `overlaps`."""
    truths = truths_of(batch.targets)
    layers = [layer_losses(*layer, truths, batch.sizes) for layer in zip(*outputs, strict=True)]
    classes, boxes, overlaps = torch.stack([torch.stack(terms) for terms in layers]).sum(dim=0)
    return {"classes": classes, "boxes": boxes, "overlaps": overlaps}


def layer_losses(
    logits: Tensor, boxes: Tensor, truths: Sequence[Truth], sizes: Sizes
) -> tuple[Tensor, Tensor, Tensor]:
    """Cross entropy of the classes, L1 of centres and sizes as shares of the image, and GIoU.

    Each object of an image is learnt by one query, and the others learn that they have none. The
    classes are over the sum of their weights, the boxes over the number of objects of the batch.

    Args:
        logits: [B, Q, K + 1].
        boxes: [B, Q, 4], as `DETROutputs` has them.
    """
    targets = match_layer(logits, boxes, truths, sizes)
    objects = targets.labels >= 0
    none = logits.shape[-1] - 1
    labels = torch.where(objects, targets.labels, none)
    weights = torch.ones_like(logits[0, 0])
    weights[none] = BACKGROUND_WEIGHT
    classes = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), weights, reduction="sum")

    found, wanted = boxes[objects], targets.boxes[objects]
    scale = extents(sizes, boxes).expand_as(boxes)[objects]
    corners = [box_convert(x, "cxcywh", "xyxy") * scale for x in (found, wanted)]
    overlaps = giou_loss(*corners)
    divisor = mean_of_processes(objects.sum()).clamp(min=1)
    return (
        CLASSES * classes / weights[labels].sum().clamp(min=1),
        BOXES * l1_loss(found, wanted) / divisor,
        OVERLAPS * overlaps / divisor,
    )


@torch.no_grad()
def match_layer(
    logits: Tensor, boxes: Tensor, truths: Sequence[Truth], sizes: Sizes
) -> AnchorTargets:
    """Which class [B, Q] and which object's box [B, Q, 4], as shares, each query is to learn."""
    images = []
    for score, box, scale, truth in zip(logits, boxes, extents(sizes, boxes), truths, strict=True):
        own = truth.boxes.to(box)
        shares = box_convert(own / scale, "xyxy", "cxcywh")
        corners = box_convert(box, "cxcywh", "xyxy") * scale
        cost = -CLASSES * score.softmax(dim=1)[:, truth.labels]  # [Q, n]
        cost += BOXES * torch.cdist(box, shares, p=1)
        cost -= OVERLAPS * generalized_box_iou(corners, own)
        images.append(targets_of(match_one_to_one(cost), Truth(shares, truth.labels)))
    return AnchorTargets(*map(torch.stack, zip(*images, strict=True)))


def detect_detr(outputs: DETROutputs, sizes: Sizes, decoding: Decoding) -> RegionDetections:
    """Chooses detections from what the last layer says, one a query at most."""
    chosen = [
        detect_image(logits, boxes, size, decoding)
        for logits, boxes, size in zip(outputs.logits[-1], outputs.boxes[-1], sizes, strict=True)
    ]
    return RegionDetections(gather_detections(chosen), None)


def detect_image(
    logits: Tensor, boxes: Tensor, size: tuple[int, int], decoding: Decoding
) -> Selected:
    scores, labels = logits.softmax(dim=1)[:, :-1].max(dim=1, keepdim=True)  # [Q, 1]
    best = torch.zeros_like(logits[:, :-1]).scatter(1, labels, scores)  # [Q, K], else 0
    corners = box_convert(boxes, "cxcywh", "xyxy") * extents([size], boxes)[0]
    return select_boxes(
        clip_boxes(corners, size),
        best,
        threshold=decoding.score_threshold,
        overlap=decoding.nms_threshold,
        most=decoding.max_detections,
    )


HEAD = Head(build_detr, DETROutputs, detr_terms, detect_detr)
