"""Anchors: boxes of a few shapes at every place of a map, which detectors correct."""

from collections.abc import Sequence

import torch
from torch import Tensor


def anchor_shapes(stride: int, scales: Sequence[float], ratios: Sequence[float]) -> Tensor:
    """Boxes [len(ratios) * len(scales), 4] around the origin, float32; the scale changes first.

    Each has the area (stride * scale) squared, and a height of `ratio` times its width.
    """
    tall = torch.tensor(ratios, dtype=torch.float32, device="cpu").sqrt()[:, None]
    scale = torch.tensor(scales, dtype=torch.float32, device="cpu")
    width = (stride * (1 / tall) * scale).flatten()
    height = (stride * tall * scale).flatten()
    return torch.stack((-width, -height, width, height), dim=1) * 0.5


def grid_anchors(shapes: Tensor, grid: tuple[int, int], stride: int) -> Tensor:
    """Copies of `shapes` [A, 4] at every cell of a grid (H, W); [H * W * A, 4], row by row.

    A cell's anchors lie around its top left corner (x * stride, y * stride).
    """
    y = torch.arange(grid[0], dtype=shapes.dtype, device=shapes.device) * stride
    x = torch.arange(grid[1], dtype=shapes.dtype, device=shapes.device) * stride
    y, x = torch.meshgrid(y, x, indexing="ij")
    corners = torch.stack((x, y, x, y), dim=-1).reshape(-1, 1, 4)
    return (corners + shapes).reshape(-1, 4)


def inside_padded(anchors: Tensor, size: tuple[int, int], divisor: int = 32) -> Tensor:
    """Bool [N]: which anchors' cells see an image of (H, W), padded to multiples of `divisor`.

    In a batch, smaller images leave cells beyond their own padding, and nothing is learnt there.
    """
    limits = anchors.new_tensor([-(-side // divisor) * divisor for side in reversed(size)])
    centres = (anchors[:, :2] + anchors[:, 2:]) * 0.5
    return (centres < limits - 0.5).all(dim=1)  # half a pixel for the rounding of centres


def inside_image(anchors: Tensor, size: tuple[int, int]) -> Tensor:
    """Bool [N]: which anchors lie in an image of (H, W), short of its right and lower border."""
    height, width = size
    return (anchors[:, :2] >= 0).all(1) & (anchors[:, 2] < width) & (anchors[:, 3] < height)
