"""The mask head of Mask R-CNN (arXiv 1703.06870, figure 4 right).

Reference: mmdetection 2.13, whose parameter names are kept.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....nn.conv import conv_tower
from ..outputs import at_least_float32


class MaskHead(nn.Module):
    """Four convolutions, twice the resolution, and one map a class.

    Args:
        num_classes: Classes K.
        dim: Channels of the incoming features and of the convolutions.
    """

    def __init__(self, num_classes: int, dim: int = 256) -> None:
        super().__init__()
        self.convs = conv_tower(dim, dim, depth=4)
        self.upsample = nn.ConvTranspose2d(dim, dim, 2, stride=2)
        self.conv_logits = nn.Conv2d(dim, num_classes, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Maps features [n, dim, S, S] to the logits [n, 2 S, 2 S] of each one's label [n]."""
        x = x.contiguous(memory_format=torch.channels_last)  # quicker here, as in the backbones
        for conv in self.convs:
            x = conv(x)
        x = self.conv_logits(F.relu(self.upsample(x)))  # [n, K, 2 S, 2 S]
        rows = torch.arange(len(labels), device=labels.device)
        return at_least_float32(x[rows, labels])
