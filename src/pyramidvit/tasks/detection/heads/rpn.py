"""Region proposals (arXiv 1506.01497): at every anchor, whether there is any object.

Reference: mmdetection 2.13, whose parameter names are kept.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....nn.bounds import Bounds, clear
from ....ops.anchors import anchor_shapes, grid_anchors
from ....ops.boxes import clip_boxes, decode_boxes
from ....ops.selection import Selected, best_rows, not_hidden
from ..outputs import DenseOutputs, Detections, Sizes, gather_detections, rows_of
from .retinanet import RATIOS, init_normal

OVERLAP = 0.7  # IoU above which the better of two proposals of a level hides the other


class RPNHead(nn.Module):
    """One shared convolution, then objectness and box corrections of three anchors a cell.

    Args:
        strides: Pixels of the image per cell, one a level.
        dim: Channels of the incoming maps.
        anchor_scale: Side of the square anchor, in strides.
    """

    def __init__(
        self, strides: Sequence[int], *, dim: int = 256, anchor_scale: float = 8.0
    ) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.shapes = [anchor_shapes(stride, [anchor_scale], RATIOS) for stride in strides]
        self.rpn_conv = nn.Conv2d(dim, dim, 3, padding=1)
        self.rpn_cls = nn.Conv2d(dim, len(RATIOS), 1)
        self.rpn_reg = nn.Conv2d(dim, len(RATIOS) * 4, 1)
        init_normal(self, std=0.01)

    def forward(self, maps: Sequence[Tensor], bounds: Bounds | None = None) -> DenseOutputs:
        """Reads maps [B, dim, H_l, W_l], one a level; one logit and 4 corrections an anchor.

        With `bounds`, logits are minus infinity beyond an image's own part.
        """
        logits, deltas, anchors = [], [], []
        for x, shapes, stride in zip(maps, self.shapes, self.strides, strict=True):
            hidden = F.relu(self.rpn_conv(clear(x, bounds)))
            objects = clear(self.rpn_cls(hidden), bounds, -math.inf)
            logits.append(rows_of(objects, 1))  # [B, N_l, 1]
            deltas.append(rows_of(self.rpn_reg(hidden), 4))  # [B, N_l, 4]
            grid = (x.shape[2], x.shape[3])
            anchors.append(grid_anchors(shapes.to(x.device), grid, stride))  # [N_l, 4]
        return DenseOutputs(tuple(logits), tuple(deltas), tuple(anchors))


@torch.no_grad()
def propose(outputs: DenseOutputs, sizes: Sizes, *, candidates: int, most: int) -> Detections:
    """The best boxes of each image, with their level as label.

    Args:
        outputs: Of an `RPNHead`.
        sizes: (H, W) of each image, at whose borders boxes are cut off.
        candidates: Anchors a level that are looked at.
        most: Boxes an image at the end.
    """
    return gather_detections(
        [propose_for(outputs, i, size, candidates, most) for i, size in enumerate(sizes)]
    )


def propose_for(
    outputs: DenseOutputs, image: int, size: tuple[int, int], candidates: int, most: int
) -> Selected:
    boxes, scores, levels = [], [], []
    for level, (logits, deltas, anchors) in enumerate(zip(*outputs, strict=True)):
        value = logits[image, :, 0].sigmoid()  # [N_l]
        rows = best_rows(value, candidates)
        rows = rows[logits[image, rows, 0] > -math.inf]  # those of the image's own part
        boxes.append(decode_boxes(deltas[image, rows], anchors[rows]))
        scores.append(value[rows])
        levels.append(torch.full_like(rows, level))
    found = clip_boxes(torch.cat(boxes), size)
    places = (found[:, 2:] > found[:, :2]).all(dim=1).nonzero().flatten()  # that have an area
    found, values, labels = found[places], torch.cat(scores)[places], torch.cat(levels)[places]
    keep = not_hidden(found, values, labels, OVERLAP)[:most]
    return Selected(places[keep], labels[keep], found[keep], values[keep])
