"""The head of Semantic FPN (arXiv 1901.02446, figure 3): all levels of a pyramid, summed.

Reference: mmsegmentation 0.13, whose parameter names are kept.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SemanticFPNHead(nn.Module):
    """Brings every level to stride 4, by convolutions that each double the size, and adds them up.

    Args:
        num_classes: Classes K.
        in_dim: Channels of the incoming maps.
        dim: Channels of the convolutions.
        num_levels: How many maps come in, each half the size of the one before.
        dropout: Share of the channels that training leaves out before the logits.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        in_dim: int = 256,
        dim: int = 128,
        num_levels: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.conv_seg = nn.Conv2d(dim, num_classes, 1)
        self.dropout = nn.Dropout2d(dropout)
        self.scale_heads = nn.ModuleList(scale_head(i, in_dim, dim) for i in range(num_levels))
        for name, layer in self.named_modules():
            if isinstance(layer, nn.Conv2d) and name != "conv_seg":
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.conv_seg.weight, std=0.01)
        nn.init.zeros_(self.conv_seg.bias)  # type: ignore[arg-type]

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Maps [B, in_dim, H_l, W_l], from large to small, to logits [B, K, H_0, W_0].

        The images' `size` plays no part: the logits have that of the first map.
        """
        grid = (maps[0].shape[2], maps[0].shape[3])
        x: Tensor = self.scale_heads[0](maps[0])  # [B, dim, H_0, W_0]
        for head, level in zip(list(self.scale_heads)[1:], maps[1:], strict=True):
            x = x + enlarge(head(level), grid)
        x = self.conv_seg(self.dropout(x))
        return x


def scale_head(level: int, in_dim: int, dim: int) -> nn.Sequential:
    """`level` times a convolution and twice the size; for level 0 a convolution alone."""
    layers: list[nn.Module] = []
    for i in range(max(1, level)):
        layers.append(conv_norm(dim if i else in_dim, dim))
        if level:
            layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
    return nn.Sequential(*layers)


def conv_norm(in_dim: int, dim: int) -> nn.Sequential:
    """A 3x3 convolution, batch normalisation and ReLU."""
    layers = OrderedDict[str, nn.Module](
        conv=nn.Conv2d(in_dim, dim, 3, padding=1, bias=False),
        bn=nn.BatchNorm2d(dim),
        activate=nn.ReLU(inplace=True),
    )
    return nn.Sequential(layers)


def enlarge(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resizes a map bilinearly, where doubling an odd map did not meet the size of a larger one."""
    if not torch.compiler.is_exporting() and (x.shape[2], x.shape[3]) == grid:
        return x  # resizing would return the same values; exported graphs always resize
    return F.interpolate(x, grid, mode="bilinear", align_corners=False)
