"""Features of regions: cut out of a pyramid by RoIAlign (arXiv 1703.06870)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import roi_align

FINEST = 56  # regions of a side below twice this many pixels are read from the first level


def region_levels(boxes: Tensor, num_levels: int) -> Tensor:
    """The level int64 [R] on which each box [R, 4] is looked at: one up for each doubled side."""
    side = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
    return (side / FINEST + 1e-6).log2().floor().clamp(0, num_levels - 1).long()


Level = Tensor | Sequence[Tensor]  # [B, C, H, W], or one [1, C, h, w] an image where these differ


def pool_regions(
    maps: Sequence[Level],
    strides: Sequence[int],
    boxes: Tensor,
    images: Tensor,
    side: int,
    *,
    samples: int = 0,
) -> Tensor:
    """Features [R, C, side, side] of regions.

    Args:
        maps: Levels, from the finest on.
        strides: Pixels of the image per cell, one a level.
        boxes: [R, 4], in pixels of the image.
        images: int64 [R], which image of the batch a box lies in.
        side: Cells along each side of a region.
        samples: Along each side of a cell; 0 takes as many as it has pixels.
    """
    levels = region_levels(boxes, len(maps))
    like = maps[0] if isinstance(maps[0], Tensor) else maps[0][0]
    pooled = like.new_zeros(len(boxes), like.shape[1], side, side)
    for level, (x, stride) in enumerate(zip(maps, strides, strict=True)):
        rows = (levels == level).nonzero().flatten()
        cut = cut_regions(x, stride, boxes[rows], images[rows], side, samples)
        pooled[rows] = cut.to(pooled)
    return pooled


def cut_regions(
    x: Level, stride: int, boxes: Tensor, images: Tensor, side: int, samples: int
) -> Tensor:
    """Features [R, C, side, side] of regions of one level."""
    if isinstance(x, Tensor):
        x = as_planes(x).to(boxes.dtype)  # boxes want float32 where the maps have less
        where = torch.cat((images[:, None].to(boxes), boxes), dim=1)
        read: Tensor = roi_align(x, where, side, 1 / stride, sampling_ratio=samples, aligned=True)
        return read
    cut = boxes.new_zeros(len(boxes), x[0].shape[1], side, side)
    for image, part in enumerate(x):
        rows = (images == image).nonzero().flatten()
        first = torch.zeros_like(rows)
        cut[rows] = cut_regions(part, stride, boxes[rows], first, side, samples)
    return cut


def as_planes(x: Tensor) -> Tensor:
    """A map [B, C, H, W] with each channel in one piece, as RoIAlign reads it.

    On a CPU image by image, as transposed matrices: torch copies these six times as fast.
    """
    if x.is_contiguous() or x.device.type != "cpu":
        return x.contiguous()
    planes = [image.flatten(1).contiguous() for image in x]  # [C, H * W] each
    whole = planes[0][None] if len(planes) == 1 else torch.stack(planes)
    return whole.view(x.shape)
