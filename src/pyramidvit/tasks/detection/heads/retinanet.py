"""The head of RetinaNet (arXiv 1708.02002): classes and boxes at every anchor of every level.

Reference: mmdetection 2.13, whose parameter names are kept.
"""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from ....nn.bounds import Bounds, clear
from ....nn.conv import conv_tower
from ....ops.anchors import anchor_shapes, grid_anchors
from ..outputs import DenseOutputs, rows_of

RATIOS = (0.5, 1.0, 2.0)  # height over width
OCTAVES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
PRIOR = 0.01  # share of objects among the anchors that an untrained head assumes


class RetinaNetHead(nn.Module):
    """Two towers of convolutions, one for classes and one for boxes, shared by all levels.

    Args:
        num_classes: Classes K.
        strides: Pixels of the image per cell, one a level.
        dim: Channels of the incoming maps and of the towers.
        depth: Convolutions of a tower.
        anchor_scale: Side of the smallest square anchor, in strides.
    """

    def __init__(
        self,
        num_classes: int,
        strides: Sequence[int],
        *,
        dim: int = 256,
        depth: int = 4,
        anchor_scale: float = 4.0,
    ) -> None:
        super().__init__()
        scales = [anchor_scale * octave for octave in OCTAVES]
        self.num_classes = num_classes
        self.strides = tuple(strides)
        self.shapes = [anchor_shapes(stride, scales, RATIOS) for stride in strides]
        num_shapes = len(scales) * len(RATIOS)
        self.cls_convs = conv_tower(dim, dim, depth)
        self.reg_convs = conv_tower(dim, dim, depth)
        self.retina_cls = nn.Conv2d(dim, num_shapes * num_classes, 3, padding=1)
        self.retina_reg = nn.Conv2d(dim, num_shapes * 4, 3, padding=1)
        init_normal(self, std=0.01)
        nn.init.constant_(self.retina_cls.bias, -math.log((1 - PRIOR) / PRIOR))  # type: ignore[arg-type]

    def forward(self, maps: Sequence[Tensor], bounds: Bounds | None = None) -> DenseOutputs:
        """Reads maps [B, dim, H_l, W_l], one a level; K logits and 4 corrections an anchor.

        With `bounds`, logits are minus infinity beyond an image's own part.
        """
        logits, deltas, anchors = [], [], []
        for x, shapes, stride in zip(maps, self.shapes, self.strides, strict=True):
            classes, boxes = x, x
            for conv in self.cls_convs:
                classes = conv(clear(classes, bounds))
            for conv in self.reg_convs:
                boxes = conv(clear(boxes, bounds))
            classes = clear(self.retina_cls(clear(classes, bounds)), bounds, -math.inf)
            logits.append(rows_of(classes, self.num_classes))  # [B, N_l, K]
            deltas.append(rows_of(self.retina_reg(clear(boxes, bounds)), 4))  # [B, N_l, 4]
            grid = (x.shape[2], x.shape[3])
            anchors.append(grid_anchors(shapes.to(x.device), grid, stride))  # [N_l, 4]
        return DenseOutputs(tuple(logits), tuple(deltas), tuple(anchors))


def init_normal(head: nn.Module, std: float) -> None:
    """Convolutions from a normal of `std`, with bias 0."""
    for layer in head.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
