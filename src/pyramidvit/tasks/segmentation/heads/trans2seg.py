"""The head of Trans2Seg (arXiv 2101.08461) as PVT's paper uses it (section 5.4): transformers only.

An encoder looks at the tokens of the last map; in a decoder one query for each class asks them,
and its attention is a map of where the class is. Small convolutions then refine the map of every
class by itself, so that from there on a batch has B * K rows.

Reference: xieenze/Trans2Seg, whose parameter names are kept, and whose oddities are too: see
`class_transformer`, which also says how images of any size are met. Shape letters: B images,
K classes, h and w the grid of stride 32, E channels of the tokens.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .class_transformer import ClassTransformer

CLASSES_AT_ONCE = 8  # outside training, where it saves memory


class Trans2SegHead(nn.Module):
    """Queries of classes, and convolutions on their attention.

    Args:
        num_classes: Classes K.
        channels: Of the incoming map of stride 4, and of that of stride 32.
        dim: Channels E, a multiple of `num_heads`.
        depth: Blocks of the encoder, and of the decoder.
        num_heads: Attention heads.
        mlp_ratio: Hidden channels of the feed-forward networks over E.
        hidden: Channels of the convolutions.
        side: Of the grid of stride 32 that attention maps are refined on.
    """

    def __init__(
        self,
        num_classes: int,
        channels: tuple[int, int],
        *,
        dim: int = 256,
        depth: int = 4,
        num_heads: int = 8,
        mlp_ratio: int = 3,
        hidden: int = 64,
        side: int = 16,
    ) -> None:
        super().__init__()
        fine, coarse = channels
        vit = ClassTransformer(num_classes, coarse, dim, depth, num_heads, mlp_ratio, side)
        self.transformer = nn.ModuleDict({"vit": vit})
        self.conv_c1 = nn.Sequential(
            OrderedDict[str, nn.Module](
                conv=nn.Conv2d(fine, hidden, 1, bias=False),
                bn=nn.BatchNorm2d(hidden),
                relu=nn.ReLU(inplace=True),
            )
        )
        self.lay1 = separable_conv(dim + num_heads, hidden)
        self.lay2 = separable_conv(hidden, hidden)
        self.lay3 = separable_conv(hidden, hidden)
        self.pred = nn.Conv2d(hidden, 1, 1)

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Maps [B, C_i, H_i, W_i] of strides 4 and 32 to logits [B, K, H, W] of the images' `size`.

        In training all classes go through the convolutions together, as their batch normalisation
        counts them all. Otherwise a few at a time do, with the same result.
        """
        fine, coarse = maps
        features, attention = self.transformer["vit"](coarse)  # [B, E, h, w], [B, K, heads, h, w]
        fine = self.conv_c1(fine)  # [B, hidden, H_1, W_1]
        step = attention.shape[1] if self.training else CLASSES_AT_ONCE
        parts = [self.refine(features, part, fine) for part in attention.split(step, dim=1)]
        x = torch.cat(parts, dim=1)  # [B, K, H_1, W_1]
        return F.interpolate(x, size, mode="bilinear", align_corners=True)

    def refine(self, features: Tensor, attention: Tensor, fine: Tensor) -> Tensor:
        """Logits [B, k, H_1, W_1] of classes, from their attention [B, k, heads, h, w]."""
        batch, count = attention.shape[:2]
        x: Tensor = torch.cat((for_each(features, count), attention.flatten(0, 1)), dim=1)
        x = x.contiguous(memory_format=torch.channels_last)  # quicker here, as in the backbones
        x = self.lay2(self.lay1(x))  # [B * k, hidden, h, w]
        x = F.interpolate(x, fine.shape[2:], mode="bilinear", align_corners=True)
        x = torch.unflatten(x, 0, (batch, count)) + fine[:, None]  # [B, k, hidden, H_1, W_1]
        x = self.pred(self.lay3(x.flatten(0, 1)))  # [B * k, 1, H_1, W_1]
        x = torch.unflatten(x[:, 0], 0, (batch, count))  # [B, k, H_1, W_1]
        return x


def separable_conv(in_dim: int, dim: int) -> nn.Sequential:
    """A 3x3 convolution of each channel by itself, then one of all at each place."""
    layers = OrderedDict[str, nn.Module](
        depthwise=nn.Conv2d(in_dim, in_dim, 3, padding=1, groups=in_dim, bias=False),
        bn_depth=nn.BatchNorm2d(in_dim),
        relu1=nn.ReLU(inplace=True),
        pointwise=nn.Conv2d(in_dim, dim, 1, bias=False),
        bn_point=nn.BatchNorm2d(dim),
        relu2=nn.ReLU(inplace=True),
    )
    return nn.Sequential(OrderedDict(block=nn.Sequential(layers)))


def for_each(x: Tensor, count: int) -> Tensor:
    """Repeats maps [B, C, H, W] for each of `count` classes: [B * count, C, H, W]."""
    return x.repeat_interleave(count, dim=0)
