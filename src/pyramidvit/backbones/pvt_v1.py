"""Pyramid Vision Transformer v1 (arXiv 2102.12122): patches that touch, position tables, and a
class token in the last stage.

Parameters and outputs equal the reference code (classification/pvt.py, detection/pvt.py), which
crashes or scrambles positions on grids of 3136 cells that are not stage 1 at 224x224; here the
tables are resized whenever the grid differs. Shape letters are those of `nn.tokens`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn

from ..nn.attention import SpatialReductionAttention
from ..nn.block import Block
from ..nn.bounds import Bounds, join
from ..nn.feed_forward import FeedForward
from ..nn.init import init_linear_and_norm
from ..nn.patch_embed import PatchEmbed
from ..nn.tokens import Grid, to_map, to_tokens
from .classifier import Classifier
from .trunk import STRIDES, PyramidOptions, Trunk, drop_path_rates

TABLE_SIZE = 224  # the image size whose grids the position tables have

# Sizes: Table 1 of the paper, with L2 = 4 where the table prints 3: the released weights have 4.


@dataclass(frozen=True, slots=True, kw_only=True)
class PVTv1Size:
    """A row of Table 1; each tuple has one number a stage."""

    dims: tuple[int, ...] = (64, 128, 320, 512)  # channels C
    depths: tuple[int, ...]  # blocks L
    num_heads: tuple[int, ...] = (1, 2, 5, 8)  # N
    sr_ratios: tuple[int, ...] = (8, 4, 2, 1)  # R
    mlp_ratios: tuple[int, ...] = (8, 8, 4, 4)  # E
    drop_path_rate: float = 0.1  # in the reference's ImageNet configuration


SIZES = {
    "pvt_tiny": PVTv1Size(depths=(2, 2, 2, 2)),
    "pvt_small": PVTv1Size(depths=(3, 4, 6, 3)),
    "pvt_medium": PVTv1Size(depths=(3, 4, 18, 3), drop_path_rate=0.3),
    "pvt_large": PVTv1Size(depths=(3, 8, 27, 3), drop_path_rate=0.3),
}


class PVTv1(Trunk):
    """The four stages of PVT v1. Abstract: see `PVTv1Classifier` and `PVTv1Pyramid`."""

    sizes = SIZES
    size_type = PVTv1Size

    def __init__(
        self, size: PVTv1Size, in_chans: int, drop_path_rate: float, out_indices: Sequence[int]
    ) -> None:
        super().__init__(size, in_chans, drop_path_rate, out_indices)
        rates = drop_path_rates(drop_path_rate, size.depths)
        for i in range(self.num_stages):
            dim = size.dims[i]
            embed = PatchEmbed(in_chans, dim, stride=2 if i else 4, overlapping=False)
            cells = (TABLE_SIZE // STRIDES[i]) ** 2
            positions = nn.Parameter(torch.empty(1, cells + (i == 3), dim))  # [3] has a class token
            nn.init.trunc_normal_(positions, std=0.02)
            blocks = nn.ModuleList(build_block(size, i, rate) for rate in rates[i])
            self.add_module(f"patch_embed{i + 1}", embed)
            self.register_parameter(f"pos_embed{i + 1}", positions)
            self.add_module(f"block{i + 1}", blocks)
            in_chans = dim
        init_linear_and_norm(self)

    def embed(self, index: int, x: Tensor, bounds: Bounds | None = None) -> tuple[Tensor, Grid]:
        """Tokens [B, N, C] of a stage with their positions added, and their grid."""
        tokens, grid = getattr(self, f"patch_embed{index + 1}")(x)  # [B, N, C], (H, W)
        positions = getattr(self, f"pos_embed{index + 1}")
        if index == 3:
            positions = positions[:, 1:]  # row 0 belongs to the class token
        if bounds is None:
            return tokens + resize_positions(positions, grid), grid
        return tokens + own_positions(positions, grid, bounds), grid

    def forward_stage(self, index: int, x: Tensor, bounds: Bounds | None) -> Tensor:
        tokens, grid = self.embed(index, x, bounds)
        return to_map(self.run_blocks(index, tokens, grid, bounds), grid)  # [B, C, H, W]


class PVTv1Pyramid(PVTv1):
    """PVT v1 as a backbone: maps [B, C_i, H / stride_i, W / stride_i], strides 4, 8, 16, 32.

    There is neither class token nor final norm, so the last map differs from the classifier's.

    Args:
        size: A row of `SIZES`.
        in_chans: Channels of the images.
        drop_path_rate: Stochastic depth of the last block; rates grow linearly from 0.
        out_indices: Which of the four maps to return, increasing.
    """

    def __init__(
        self,
        size: PVTv1Size,
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


class PVTv1Classifier(PVTv1, Classifier):
    """PVT v1 with a class token in the last stage and a linear head on it.

    Args:
        size: A row of `SIZES`.
        num_classes: Width of the logits; 0 gives the class token's features instead.
        in_chans: Channels of the images.
        drop_path_rate: Stochastic depth of the last block; None takes the published rate.
        drop_rate: Dropout of the head's input.
        global_pool: "token" for the class token, "avg" for the mean of the others, "" for all.
    """

    pools = ("token", "avg", "")
    pos_embed4: nn.Parameter

    def __init__(
        self,
        size: PVTv1Size,
        *,
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_path_rate: float | None = None,
        drop_rate: float = 0.0,
        global_pool: str = "token",
    ) -> None:
        rate = size.drop_path_rate if drop_path_rate is None else drop_path_rate
        super().__init__(size, in_chans, rate, out_indices=(0, 1, 2, 3))
        self.cls_token = nn.Parameter(torch.empty(1, 1, size.dims[3]))
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        self.norm = nn.LayerNorm(size.dims[3], eps=1e-6)
        self.add_head(num_classes, drop_rate, global_pool)

    def forward_features(self, images: Tensor) -> Tensor:
        """The normalised last tokens [B, 1 + N, C4], the class token first."""
        return self.forward_all(images, norm=False)[0]

    def pool(self, features: Tensor) -> Tensor:
        if self.global_pool == "token":
            return features[:, 0]  # [B, C4]
        if self.global_pool == "avg":
            first = 1 if self.num_stages == 4 else 0  # a pruned model has no class token
            return features[:, first:].mean(1)
        return features

    def forward_all(self, images: Tensor, norm: bool) -> tuple[Tensor, list[Tensor]]:
        maps = self.forward_maps(images, min(self.num_stages, 3))
        if self.num_stages < 4:  # pruned: neither class token nor last norm
            return to_tokens(maps[-1]), maps
        tokens, grid = self.embed(3, maps[2])
        token = self.cls_token + self.pos_embed4[:, :1]
        tokens = torch.cat((token.expand(tokens.shape[0], -1, -1), tokens), dim=1)  # [B, 1 + N, C4]
        # sr_ratio is 1 here, so attention sees all tokens alike and reads no grid.
        tokens = self.run_blocks(3, tokens, grid)
        features = self.norm(tokens)
        last = features if norm else tokens
        return features, [*maps, to_map(last[:, 1:], grid)]

    def no_weight_decay(self) -> set[str]:
        """The class token; the position tables are decayed, as in the reference."""
        return {"cls_token"}


@torch.fx.wrap  # traced as one call: a graph cannot decide on shapes
def resize_positions(positions: Tensor, grid: Grid) -> Tensor:
    """Resizes a square table [1, N, C] bilinearly to `grid`; [1, H*W, C]. Exact where equal."""
    side = round(positions.shape[1] ** 0.5)
    if not torch.compiler.is_compiling() and grid == (side, side):
        return positions  # resizing would return the same values; graphs always resize
    return to_tokens(F.interpolate(to_map(positions, (side, side)), grid, mode="bilinear"))


def own_positions(positions: Tensor, grid: Grid, bounds: Bounds) -> Tensor:
    """A square table [1, N, C] resized to each image's own part of `grid`; [B, H*W, C]."""
    parts = [to_map(resize_positions(positions, own), own) for own in bounds.cells(grid)]
    return to_tokens(join(parts, grid))


def build_block(size: PVTv1Size, stage: int, drop_path: float) -> Block:
    dim = size.dims[stage]
    attention = SpatialReductionAttention(dim, size.num_heads[stage], size.sr_ratios[stage])
    return Block(dim, attention, FeedForward(dim, size.mlp_ratios[stage]), drop_path)


# Builders of the pyramid of four maps.
# `options`: in_chans, drop_path_rate, out_indices, as in PVTv1Pyramid.


def pvt_tiny(**options: Unpack[PyramidOptions]) -> PVTv1Pyramid:
    """PVT-Tiny as a backbone, 12.7 M parameters; maps of 64, 128, 320 and 512 channels."""
    return PVTv1Pyramid(SIZES["pvt_tiny"], **options)


def pvt_small(**options: Unpack[PyramidOptions]) -> PVTv1Pyramid:
    """PVT-Small as a backbone, 24.0 M parameters; maps of 64, 128, 320 and 512 channels."""
    return PVTv1Pyramid(SIZES["pvt_small"], **options)


def pvt_medium(**options: Unpack[PyramidOptions]) -> PVTv1Pyramid:
    """PVT-Medium as a backbone, 43.7 M parameters; maps of 64, 128, 320 and 512 channels."""
    return PVTv1Pyramid(SIZES["pvt_medium"], **options)


def pvt_large(**options: Unpack[PyramidOptions]) -> PVTv1Pyramid:
    """PVT-Large as a backbone, 60.9 M parameters; maps of 64, 128, 320 and 512 channels."""
    return PVTv1Pyramid(SIZES["pvt_large"], **options)
