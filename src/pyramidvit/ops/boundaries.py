"""Which pixels of a map of labels lie near a boundary, for boundary IoU (2103.16562)."""

import math

import torch
from torch import Tensor

SHARE = 0.02  # of the image's diagonal: the paper's distance


def boundary_distance(size: tuple[int, int]) -> int:
    """How far boundaries reach in an image of `size` (H, W), in pixels, 1 or more."""
    return max(1, round(SHARE * math.hypot(*size)))


def near_boundary(labels: Tensor, distance: int) -> Tensor:
    """Bool [H, W]: true where a pixel of another label, or the image's edge, is near.

    For the mask of any single label it says which pixels vanish when the mask is eroded `distance`
    times by a square of 3 x 3, with nothing beyond the edge: the paper's band. The time does not
    depend on the distance, nor on how many labels there are.

    Args:
        labels: [H, W] of any whole numbers.
        distance: Pixels along rows, columns or both (Chebyshev's), 1 or more.
    """
    height, width = labels.shape
    band = torch.ones(height, width, dtype=torch.bool, device=labels.device)
    if min(height, width) <= 2 * distance:
        return band  # every pixel is near the edge
    # A square of pixels has one label if no two neighbours in it differ.
    across = labels[:, 1:] != labels[:, :-1]  # [H, W - 1]
    down = labels[1:] != labels[:-1]  # [H - 1, W]
    side = 2 * distance + 1
    changes = box_sums(across, side, side - 1) + box_sums(down, side - 1, side)
    band[distance : height - distance, distance : width - distance] = changes > 0
    return band


def box_sums(bits: Tensor, height: int, width: int) -> Tensor:
    """int32 [H - height + 1, W - width + 1]: how many bits [H, W] are set in each such box."""
    rows = windows_of(bits.cumsum(dim=1, dtype=torch.int32), width)
    return windows_of(rows.cumsum(dim=0, dtype=torch.int32).T, height).T


def windows_of(sums: Tensor, length: int) -> Tensor:
    """[N, M - length + 1]: sums over `length` neighbours in a row, from running sums [N, M]."""
    windows = sums[:, length - 1 :].clone()
    windows[:, 1:] -= sums[:, :-length]
    return windows
