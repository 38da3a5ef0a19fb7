"""The second stage of Faster and Mask R-CNN: a closer look at the proposed regions.

Reference: mmdetection 2.13, whose parameter names are kept. A region is looked at on the level
that its size suggests, with 7x7 cells for its class and box, and 14x14 for its mask.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....ops.boxes import clip_boxes, decode_boxes
from ....ops.matching import BACKGROUND, match_boxes, sample_matches
from ....ops.regions import Level, pool_regions
from ....ops.selection import select_boxes
from ..outputs import (
    Decoding,
    Detections,
    Regions,
    Sizes,
    Truth,
    at_least_float32,
    gather_detections,
)
from .mask import MaskHead

BOX_SIDE = 7
MASK_SIDE = 14
STDS = (0.1, 0.1, 0.2, 0.2)  # by which corrections of regions are divided
OBJECT_SHARE = 0.25  # of the regions to learn from
MASKS_AT_ONCE = 128  # of one region at a width of 256 are 0.8 MB


class BoxHead(nn.Module):
    """Two hidden layers, then classes and one box correction a class.

    Args:
        num_classes: Classes K.
        dim: Channels of the incoming features.
        hidden: Width of the hidden layers.
    """

    def __init__(self, num_classes: int, dim: int = 256, hidden: int = 1024) -> None:
        super().__init__()
        first, second = nn.Linear(dim * BOX_SIDE * BOX_SIDE, hidden), nn.Linear(hidden, hidden)
        self.shared_fcs = nn.ModuleList((first, second))
        self.fc_cls = nn.Linear(hidden, num_classes + 1)
        self.fc_reg = nn.Linear(hidden, num_classes * 4)
        for layer in (first, second):
            nn.init.xavier_uniform_(layer.weight)
        nn.init.normal_(self.fc_cls.weight, std=0.01)
        nn.init.normal_(self.fc_reg.weight, std=0.001)
        for layer in (first, second, self.fc_cls, self.fc_reg):
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Maps features [R, dim, 7, 7] to logits [R, K + 1] and corrections [R, K, 4]."""
        x = x.flatten(1)
        for layer in self.shared_fcs:
            x = F.relu(layer(x))
        deltas = self.fc_reg(x).reshape(len(x), -1, 4)
        return at_least_float32(self.fc_cls(x)), at_least_float32(deltas)


class RoIHead(nn.Module):
    """The heads that look at regions.

    Args:
        bbox_head: For classes and boxes.
        mask_head: For masks; None for a detector of boxes.
        strides: Of the levels that regions are read from, in pixels of the image per cell.
    """

    def __init__(
        self, bbox_head: BoxHead, mask_head: MaskHead | None, strides: Sequence[int]
    ) -> None:
        super().__init__()
        self.bbox_head = bbox_head
        self.mask_head = mask_head
        self.strides = tuple(strides)

    def forward(
        self, maps: Sequence[Level], boxes: Tensor, images: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Logits [R, K + 1] and corrections [R, K, 4] of regions [R, 4] of images [R]."""
        x = pool_regions(maps, self.strides, boxes, images, BOX_SIDE)  # [R, dim, 7, 7]
        logits, deltas = self.bbox_head(x)
        return logits, deltas

    def forward_masks(
        self, maps: Sequence[Level], boxes: Tensor, images: Tensor, labels: Tensor
    ) -> Tensor | None:
        """Logits [n, 28, 28] of the masks of labels [n] in boxes [n, 4] of images [n]."""
        if self.mask_head is None:
            return None
        parts = []
        columns = (torch.split(column, MASKS_AT_ONCE) for column in (boxes, images, labels))
        for box, image, label in zip(*columns, strict=True):
            x = pool_regions(maps, self.strides, box, image, MASK_SIDE)  # [n, dim, 14, 14]
            parts.append(self.mask_head(x, label))
        return torch.cat(parts)


def sample_regions(
    boxes: Tensor,
    images: Tensor,
    truths: Sequence[Truth],
    *,
    count: int,
    overlap: float = 0.5,
    low_quality: float | None = None,
) -> Regions:
    """Draws at most `count` regions an image to learn from, a quarter of them objects at most.

    Args:
        boxes: Proposals [R, 4]; the objects' own boxes are drawn from too.
        images: int64 [R], which image of the batch a box lies in.
        truths: One an image.
        count: See above.
        overlap: IoU from which on a region is an object, below it is background.
        low_quality: Least IoU for which an object also takes the best region that it has.
    """
    parts = []
    for image, truth in enumerate(truths):
        found = boxes[images == image]
        own = truth.boxes.to(found)
        matches = match_boxes(
            found, own, foreground=overlap, background=overlap, low_quality=low_quality
        )
        numbers = torch.arange(len(own), device=boxes.device)
        found, matches = torch.cat((own, found)), torch.cat((numbers, matches))
        rows = torch.cat(sample_matches(matches, count, OBJECT_SHARE))
        place = torch.full_like(rows, image)
        parts.append((found[rows], place, matches[rows], rows < len(own)))
    return Regions(*map(torch.cat, zip(*parts, strict=True)))


def labels_of(regions: Regions, truths: Sequence[Truth]) -> tuple[Tensor, Tensor]:
    """The labels [p] and boxes [p, 4] of the objects of those regions that have one."""
    objects = regions.matches != BACKGROUND
    counts = [len(truth.labels) for truth in truths]
    starts = torch.tensor([sum(counts[:i]) for i in range(len(counts))])
    owners = starts.to(regions.images)[regions.images[objects]] + regions.matches[objects]
    labels = torch.cat([truth.labels for truth in truths])[owners]
    return labels, torch.cat([truth.boxes for truth in truths])[owners]


def detect_regions(
    logits: Tensor,
    deltas: Tensor,
    proposals: Detections,
    sizes: Sizes,
    decoding: Decoding,
    *,
    stds: Sequence[float] = STDS,
) -> Detections:
    """Chooses detections from what the box head says of proposed regions.

    Corrections [R, K, 4] are divided by `stds`.
    """
    scores = logits.softmax(dim=1)[:, :-1]  # [R, K]
    boxes = decode_boxes(deltas, proposals.boxes[:, None], stds)  # [R, K, 4]
    chosen = []
    for image, size in enumerate(sizes):
        rows = proposals.images == image
        chosen.append(
            select_boxes(
                clip_boxes(boxes[rows], size),
                scores[rows],
                threshold=decoding.score_threshold,
                overlap=decoding.nms_threshold,
                most=decoding.max_detections,
            )
        )
    return gather_detections(chosen)
