"""Changes of shape that keep what a tensor has learnt."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .recognise import table_grid

TOKEN_ADDED = "a row for the class token added"


def resize_table(name: str, table: Tensor, wanted: torch.Size) -> tuple[Tensor, str]:
    """A position table [1, N, C] of v1 for another grid, bilinearly, and what was done.

    The row of the class token, which leads the table of stage 4, is kept apart; a file without a
    class token (mmdetection's) gets a row of zeros there, which only a classifier reads.
    Returns the table as it is where it is not square or has other channels.
    """
    index = int(name[-1]) - 1
    grid, ours = table_grid(table, index), table_grid(torch.empty(wanted, device="meta"), index)
    if grid is None or ours is None or table.shape[2] != wanted[2]:
        return table, ""
    (side, has_token), (new_side, wants_token) = grid, ours
    token = table[:, :1] if has_token else torch.zeros_like(table[:, :1])
    cells = table[:, 1:] if has_token else table
    change = [] if has_token or not wants_token else [TOKEN_ADDED]
    if side != new_side:
        square = cells.transpose(1, 2).reshape(1, -1, side, side).float()  # [1, C, side, side]
        square = F.interpolate(square, size=(new_side, new_side), mode="bilinear")
        cells = square.flatten(2).transpose(1, 2).to(table.dtype)  # [1, N, C]
        change.insert(0, f"position table {side}x{side} to {new_side}x{new_side}")
    resized = torch.cat([token, cells], dim=1) if wants_token else cells
    return resized.contiguous(), ", ".join(change)


def adapt_channels(weight: Tensor, wanted: torch.Size) -> tuple[Tensor, str]:
    """The first convolution [C, n, k, k] for images of m channels, and what was done.

    One channel gets the sum over the file's n, so that a grey image stored once gives what it gave
    stored n times. Otherwise channel c gets the file's channel c mod n, times n / m, so that the
    sum over channels keeps its scale. (timm adapts 3 channels to m in the same way.)
    """
    old, new = weight.shape[1], wanted[1]
    if weight.shape[0] != wanted[0] or weight.shape[2:] != wanted[2:] or not old:
        return weight, ""
    summed = weight.sum(dim=1, keepdim=True, dtype=torch.float32)
    tiled = weight.float()[:, torch.arange(new) % old] * (old / new)
    adapted = summed if new == 1 else tiled
    return adapted.to(weight.dtype), f"stem for {old} channels to {new}"
