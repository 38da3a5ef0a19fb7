"""Binary masks between runs and pixels; see `structures.Masks` for the order of the runs."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..structures import Masks

Window = tuple[int, int, int, int]  # (x0, y0, x1, y1), ends excluded


def encode_masks(bits: Tensor) -> Masks:
    """Masks from bool [n, H, W]."""
    size = (bits.shape[1], bits.shape[2])
    return join_masks(size, [encode_window(mask, (0, 0), size) for mask in bits])


def join_masks(size: tuple[int, int], parts: Sequence[Masks]) -> Masks:
    """All masks of the parts, one after the other; each part is of `size` (H, W)."""
    empty = torch.zeros(0, dtype=torch.int64)
    return Masks(
        size=size,
        counts=torch.cat([part.counts for part in parts]) if parts else empty,
        num_runs=torch.cat([part.num_runs for part in parts]) if parts else empty,
    )


def encode_window(bits: Tensor, corner: tuple[int, int], size: tuple[int, int]) -> Masks:
    """One mask of `size` (H, W) that is zero but for bool [h, w] at `corner` (x, y)."""
    x, y = corner
    columns = F.pad(bits.T, (1, 1)).to(torch.int8)  # [w, h + 2]
    steps = columns[:, 1:] - columns[:, :-1]  # [w, h + 1]: 1 where a run starts, -1 behind its end
    column, row = steps.nonzero(as_tuple=True)
    bounds = (column + x) * size[0] + row + y  # start, end, start, end, ...

    inner = bounds[1:-1].reshape(-1, 2)  # an end and the next start, the same where runs touch
    apart = inner[inner[:, 0] != inner[:, 1]].flatten()
    ends = bounds.new_tensor([size[0] * size[1]])
    bounds = torch.cat((bounds[:1], apart, bounds[-1:] if len(bounds) else bounds, ends))
    counts = torch.diff(bounds, prepend=torch.zeros_like(ends))
    if len(counts) > 1 and not counts[-1]:
        counts = counts[:-1]  # the last run ends with the mask
    return Masks(size=size, counts=counts, num_runs=counts.new_tensor([len(counts)]))


def decode_masks(masks: Masks) -> Tensor:
    """Bool [n, H, W]; large: see `decode_window` for one at a time."""
    height, width = masks.size
    window = (0, 0, width, height)
    found = [decode_window(runs, height, window) for runs in split_runs(masks)]
    return torch.stack(found) if found else torch.zeros(0, height, width, dtype=torch.bool)


def split_runs(masks: Masks) -> tuple[Tensor, ...]:
    """The runs of each mask, int64 [r]."""
    return torch.split(masks.counts, masks.num_runs.tolist())


def decode_window(runs: Tensor, height: int, window: Window) -> Tensor:
    """Bool [h, w], the pixels in a window of one mask of `height`, from its runs [r]."""
    x0, y0, x1, y1 = window
    first, last = x0 * height, x1 * height
    ends = runs.cumsum(0).clamp(first, last)
    lengths = torch.diff(ends, prepend=ends.new_tensor([first]))
    values = torch.arange(len(runs), device=runs.device) % 2 == 1
    pixels = values.repeat_interleave(lengths, output_size=last - first)
    return pixels.view(x1 - x0, height).T[y0:y1]


def mask_areas(masks: Masks) -> Tensor:
    """Pixels of each mask, int64 [n]."""
    areas = [runs[1::2].sum() for runs in split_runs(masks)]
    return torch.stack(areas) if areas else masks.num_runs


def select_masks(masks: Masks, places: Tensor) -> Masks:
    """The masks at `places` int64 [m], in that order."""
    runs = split_runs(masks)
    chosen = [runs[i] for i in places.tolist()]
    return Masks(
        size=masks.size,
        counts=torch.cat(chosen) if chosen else masks.counts[:0],
        num_runs=masks.num_runs[places],
    )
