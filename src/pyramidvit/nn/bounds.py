"""Which part of a padded batch is each image's own, so that what lies beyond it does not leak in.

An image alone is padded at the right and the bottom to a multiple of 32 at most: that is its own
part. In a batch it may be padded further, and a convolution or an attention that reads cells
beyond the own part gives other features than for the image alone. Whatever reads so is handed
`Bounds`, or None where nothing is to be told apart, as published.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .tokens import Grid

DIVISOR = 32  # the largest stride of a backbone: own parts are whole cells at all of its strides


class Bounds:
    """The own parts of the images of a batch, on maps of any stride that is a power of 2.

    On a map of stride s an own part of (H, W) pixels has (H / s, W / s) cells, rounded up. A map
    tells its stride by its size.

    Args:
        sizes: (H, W) of each image before padding.
        padded: (H, W) of all of them after it, multiples of 32.
        device: Where the maps are.

    Raises:
        ValueError: `padded` is no multiple of 32.
    """

    def __init__(self, sizes: Sequence[Grid], padded: Grid, device: torch.device) -> None:
        if padded[0] % DIVISOR or padded[1] % DIVISOR:
            raise ValueError(f"images must be padded to multiples of {DIVISOR}, got {padded}")
        self.padded = padded
        self.own = own_sizes(sizes)
        self.device = device
        self.masks: dict[Grid, Tensor] = {}

    def cells(self, grid: Grid) -> list[Grid]:
        """(H, W) of each own part on a map of `grid` (H, W).

        Raises:
            ValueError: No map of the batch has that grid.
        """
        stride = 1
        while shrink(self.padded, stride) != grid:
            if stride > max(self.padded):
                raise ValueError(f"images of {self.padded} have no map of {grid}")
            stride *= 2
        return [shrink(size, stride) for size in self.own]

    def inside(self, grid: Grid) -> Tensor:
        """Bool [B, 1, H, W]: the cells of a map that are an image's own."""
        if grid not in self.masks:
            limits = torch.tensor(self.cells(grid), device=self.device)[:, :, None]  # [B, 2, 1]
            rows = torch.arange(grid[0], device=self.device) < limits[:, 0]  # [B, H]
            columns = torch.arange(grid[1], device=self.device) < limits[:, 1]  # [B, W]
            self.masks[grid] = (rows[:, :, None] & columns[:, None])[:, None]
        return self.masks[grid]

    def parts(self, x: Tensor) -> list[Tensor]:
        """Each image's own part of a map [B, C, H, W], as a batch of one: [1, C, h, w]."""
        cells = self.cells(grid_of(x))
        return [x[i : i + 1, :, :h, :w] for i, (h, w) in enumerate(cells)]


def find_bounds(sizes: Sequence[Grid] | None, images: Tensor) -> Bounds | None:
    """The bounds of images [B, C, H, W] of `sizes` before padding.

    None where no image is padded further than it is alone: then all is its own.

    Raises:
        ValueError: They are padded to no multiple of 32.
    """
    padded = grid_of(images)
    if sizes is None or all(size == padded for size in own_sizes(sizes)):
        return None
    return Bounds(sizes, padded, images.device)


def own_sizes(sizes: Sequence[Grid]) -> list[Grid]:
    """(H, W) of each image once it is padded to multiples of 32."""
    cells = [shrink(size, DIVISOR) for size in sizes]
    return [(height * DIVISOR, width * DIVISOR) for height, width in cells]


def shrink(size: Grid, stride: int) -> Grid:
    """How many cells of a stride cover (H, W)."""
    return -(-size[0] // stride), -(-size[1] // stride)


def grid_of(x: Tensor) -> Grid:
    return x.shape[2], x.shape[3]


def clear(x: Tensor, bounds: Bounds | None, value: float = 0.0) -> Tensor:
    """A map [B, C, H, W] with a value beyond the own parts: 0, as convolutions pad a lone image."""
    return x if bounds is None else torch.where(bounds.inside(grid_of(x)), x, value)


def join(parts: Sequence[Tensor], grid: Grid) -> Tensor:
    """Own parts [1, C, h, w] as one map [B, C, H, W] of `grid`, with zeros beyond them."""
    height, width = grid
    padded = [F.pad(x, (0, width - x.shape[3], 0, height - x.shape[2])) for x in parts]
    return torch.cat(padded)
