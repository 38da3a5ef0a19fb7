"""Pyramid Vision Transformer v2 (arXiv 2106.13797): overlapping patches, convolutional
feed-forward, no position tables, optional linear attention.

Parameters and outputs equal the reference code (classification/pvt_v2.py, detection/pvt_v2.py).
Shape letters are those of `nn.tokens`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

from torch import Tensor, nn

from ..nn.attention import LinearSpatialReductionAttention, SpatialReductionAttention
from ..nn.block import Block
from ..nn.bounds import Bounds
from ..nn.feed_forward import ConvFeedForward
from ..nn.init import init_conv_fan_out, init_linear_and_norm
from ..nn.patch_embed import PatchEmbed
from ..nn.tokens import to_map
from .classifier import Classifier
from .trunk import PyramidOptions, Trunk, drop_path_rates

# Sizes: Table 1 of the paper, with L2 = 4 where the table prints 3: the released weights have 4.


@dataclass(frozen=True, slots=True, kw_only=True)
class PVTv2Size:
    """A row of Table 1; each tuple has one number a stage."""

    dims: tuple[int, ...] = (64, 128, 320, 512)  # channels C
    depths: tuple[int, ...]  # blocks L
    num_heads: tuple[int, ...] = (1, 2, 5, 8)  # N
    sr_ratios: tuple[int, ...] = (8, 4, 2, 1)  # R
    mlp_ratios: tuple[int, ...] = (8, 8, 4, 4)  # E
    linear: bool = False  # linear attention, which reads no sr_ratio
    drop_path_rate: float = 0.1  # in the reference's ImageNet configuration


SIZES = {
    "pvt_v2_b0": PVTv2Size(dims=(32, 64, 160, 256), depths=(2, 2, 2, 2)),
    "pvt_v2_b1": PVTv2Size(depths=(2, 2, 2, 2)),
    "pvt_v2_b2": PVTv2Size(depths=(3, 4, 6, 3)),
    "pvt_v2_b2_li": PVTv2Size(depths=(3, 4, 6, 3), linear=True),
    "pvt_v2_b3": PVTv2Size(depths=(3, 4, 18, 3), drop_path_rate=0.3),
    "pvt_v2_b4": PVTv2Size(depths=(3, 8, 27, 3), drop_path_rate=0.3),
    "pvt_v2_b5": PVTv2Size(depths=(3, 6, 40, 3), mlp_ratios=(4, 4, 4, 4), drop_path_rate=0.3),
}


class PVTv2(Trunk):
    """The four stages of PVT v2. Abstract: see `PVTv2Classifier` and `PVTv2Pyramid`."""

    sizes = SIZES
    size_type = PVTv2Size

    def __init__(
        self, size: PVTv2Size, in_chans: int, drop_path_rate: float, out_indices: Sequence[int]
    ) -> None:
        super().__init__(size, in_chans, drop_path_rate, out_indices)
        rates = drop_path_rates(drop_path_rate, size.depths)
        for i in range(self.num_stages):
            dim = size.dims[i]
            embed = PatchEmbed(in_chans, dim, stride=2 if i else 4, overlapping=True)
            blocks = nn.ModuleList(build_block(size, i, rate) for rate in rates[i])
            self.add_module(f"patch_embed{i + 1}", embed)
            self.add_module(f"block{i + 1}", blocks)
            self.add_module(f"norm{i + 1}", nn.LayerNorm(dim, eps=1e-6))
            in_chans = dim
        init_linear_and_norm(self)
        init_conv_fan_out(self)

    def forward_stage(self, index: int, x: Tensor, bounds: Bounds | None) -> Tensor:
        tokens, grid = getattr(self, f"patch_embed{index + 1}")(x, bounds)  # [B, N, C], (H, W)
        tokens = self.run_blocks(index, tokens, grid, bounds)
        tokens = getattr(self, f"norm{index + 1}")(tokens)
        return to_map(tokens, grid)  # [B, C, H, W]: the next stage sees normalised features


class PVTv2Pyramid(PVTv2):
    """PVT v2 as a backbone: maps [B, C_i, H / stride_i, W / stride_i], strides 4, 8, 16, 32.

    Args:
        size: A row of `SIZES`.
        in_chans: Channels of the images.
        drop_path_rate: Stochastic depth of the last block; rates grow linearly from 0.
        out_indices: Which of the four maps to return, increasing.
    """

    def __init__(
        self,
        size: PVTv2Size,
        *,
        in_chans: int = 3,
        drop_path_rate: float = 0.1,
        out_indices: Sequence[int] = (0, 1, 2, 3),
    ) -> None:
        super().__init__(size, in_chans, drop_path_rate, out_indices)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Maps images [B, in_chans, H, W], H and W from 32 up, to the chosen maps."""
        maps = self.forward_maps(images, self.num_stages)
        return [maps[i] for i in self.out_indices]


class PVTv2Classifier(PVTv2, Classifier):
    """PVT v2 with a linear head on the mean of the last map.

    Args:
        size: A row of `SIZES`.
        num_classes: Width of the logits; 0 gives the pooled features instead.
        in_chans: Channels of the images.
        drop_path_rate: Stochastic depth of the last block; None takes the published rate.
        drop_rate: Dropout of the head's input.
        global_pool: "avg" for the mean of the map, "" for the map itself.
    """

    pools = ("avg", "")

    def __init__(
        self,
        size: PVTv2Size,
        *,
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_path_rate: float | None = None,
        drop_rate: float = 0.0,
        global_pool: str = "avg",
    ) -> None:
        rate = size.drop_path_rate if drop_path_rate is None else drop_path_rate
        super().__init__(size, in_chans, rate, out_indices=(0, 1, 2, 3))
        self.pretrained_cfg["pool_size"] = (7, 7)  # of the last map, where timm pools it itself
        self.add_head(num_classes, drop_rate, global_pool)

    def forward_features(self, images: Tensor) -> Tensor:
        """The normalised last map [B, C4, H / 32, W / 32]."""
        return self.forward_maps(images, self.num_stages)[-1]

    def pool(self, features: Tensor) -> Tensor:
        return features.mean((2, 3)) if self.global_pool else features  # [B, C4]

    def forward_all(self, images: Tensor, norm: bool) -> tuple[Tensor, list[Tensor]]:
        maps = self.forward_maps(images, self.num_stages)
        return maps[-1], maps


def build_block(size: PVTv2Size, stage: int, drop_path: float) -> Block:
    dim, heads = size.dims[stage], size.num_heads[stage]
    attention = (
        LinearSpatialReductionAttention(dim, heads)
        if size.linear
        else SpatialReductionAttention(dim, heads, size.sr_ratios[stage])
    )
    mlp = ConvFeedForward(dim, size.mlp_ratios[stage], relu_first=size.linear)
    return Block(dim, attention, mlp, drop_path)


# Builders of the pyramid of four maps, under the names and with the parameter names that the
# private copies of pvtv2.py in many research repositories have: one import replaces the file.
# `options`: in_chans, drop_path_rate, out_indices, as in PVTv2Pyramid.


def pvt_v2_b0(**options: Unpack[PyramidOptions]) -> PVTv2Pyramid:
    """PVTv2-B0 as a backbone, 3.4 M parameters; maps of 32, 64, 160 and 256 channels."""
    return PVTv2Pyramid(SIZES["pvt_v2_b0"], **options)


def pvt_v2_b1(**options: Unpack[PyramidOptions]) -> PVTv2Pyramid:
    """PVTv2-B1 as a backbone, 13.5 M parameters; maps of 64, 128, 320 and 512 channels."""
    return PVTv2Pyramid(SIZES["pvt_v2_b1"], **options)


def pvt_v2_b2(**options: Unpack[PyramidOptions]) -> PVTv2Pyramid:
    """PVTv2-B2 as a backbone, 24.8 M parameters; maps of 64, 128, 320 and 512 channels."""
    return PVTv2Pyramid(SIZES["pvt_v2_b2"], **options)


def pvt_v2_b2_li(**options: Unpack[PyramidOptions]) -> PVTv2Pyramid:
    """PVTv2-B2-Li as a backbone, 22.0 M parameters; maps of 64, 128, 320 and 512 channels."""
    return PVTv2Pyramid(SIZES["pvt_v2_b2_li"], **options)


def pvt_v2_b3(**options: Unpack[PyramidOptions]) -> PVTv2Pyramid:
    """PVTv2-B3 as a backbone, 44.7 M parameters; maps of 64, 128, 320 and 512 channels."""
    return PVTv2Pyramid(SIZES["pvt_v2_b3"], **options)


def pvt_v2_b4(**options: Unpack[PyramidOptions]) -> PVTv2Pyramid:
    """PVTv2-B4 as a backbone, 62.0 M parameters; maps of 64, 128, 320 and 512 channels."""
    return PVTv2Pyramid(SIZES["pvt_v2_b4"], **options)


def pvt_v2_b5(**options: Unpack[PyramidOptions]) -> PVTv2Pyramid:
    """PVTv2-B5 as a backbone, 81.4 M parameters; maps of 64, 128, 320 and 512 channels."""
    return PVTv2Pyramid(SIZES["pvt_v2_b5"], **options)
