"""Binary masks between runs and pixels; see `structures.Masks` for the order of the runs.

Masks are drawn and read one at a time and within a window, never all at full size: a thousand
objects in an image of 48 megapixels are 48 gigabytes of pixels.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

from ..structures import Masks
from .boxes import clip_boxes

Window = tuple[int, int, int, int]  # (x0, y0, x1, y1), ends excluded

PIXELS_AT_ONCE = 1 << 22  # of a pasted mask, in float32


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


def crop_masks(masks: Masks, boxes: Tensor, owners: Tensor, side: int) -> Tensor:
    """Bool [p, side, side]: what regions show of their objects' masks, half a cell or more.

    Args:
        masks: Of the objects of an image.
        boxes: [p, 4] regions of that image.
        owners: int64 [p], the number of each region's object.
        side: Cells across a region.
    """
    runs = split_runs(masks)
    boxes = clip_boxes(boxes, masks.size)
    crops = torch.zeros(len(boxes), side, side, dtype=torch.bool, device=boxes.device)
    for number in torch.unique(owners).tolist():
        rows = (owners == number).nonzero().flatten()
        window = window_around(boxes[rows], masks.size, margin=2)
        pixels = decode_window(runs[number], masks.size[0], window)
        corner = boxes.new_tensor((window[0], window[1], window[0], window[1]))
        image = pixels[None, None].to(boxes)  # [1, 1, h, w]
        where = [boxes[rows] - corner]
        crop = roi_align(image, where, side, sampling_ratio=0, aligned=True)
        crops[rows] = crop[:, 0] >= 0.5
    return crops


def window_around(boxes: Tensor, size: tuple[int, int], margin: int) -> Window:
    """Whole pixels of an image of `size` (H, W) around all boxes [n, 4], with a margin."""
    x0, y0 = (boxes[:, :2].amin(dim=0).floor() - margin).clamp(min=0).long().tolist()
    x1, y1 = (boxes[:, 2:].amax(dim=0).ceil() + margin).long().tolist()
    return x0, y0, min(x1, size[1]), min(y1, size[0])


def paste_masks(shares: Tensor, boxes: Tensor, size: tuple[int, int]) -> Masks:
    """Masks of `size` (H, W) from what cells of boxes say, stretched bilinearly: half or more.

    Args:
        shares: float32 [n, S, S], from 0 to 1, on the CPU.
        boxes: float32 [n, 4], in pixels of the masks, on the CPU.
    """
    parts = [paste_mask(cells, box, size) for cells, box in zip(shares, boxes, strict=True)]
    return join_masks(size, parts)


def paste_mask(cells: Tensor, box: Tensor, size: tuple[int, int]) -> Masks:
    """One mask of `size` (H, W) from cells [S, S] stretched over a box [4]."""
    x0, y0, x1, y1 = window_around(box[None], size, margin=1)
    if x1 <= x0 or y1 <= y0:
        return encode_window(torch.zeros(0, 0, dtype=torch.bool), (0, 0), size)
    down = stretch(y0, y1, box[1], box[3], len(cells)) @ cells  # [h, S]
    across = stretch(x0, x1, box[0], box[2], len(cells)).T  # [S, w]
    bands = torch.split(across, max(1, PIXELS_AT_ONCE // (y1 - y0)), dim=1)
    bits = torch.cat([down @ band >= 0.5 for band in bands], dim=1)  # [h, w]
    return encode_window(bits, (x0, y0), size)


def stretch(first: int, last: int, start: Tensor, end: Tensor, cells: int) -> Tensor:
    """Weights [last - first, cells] with which pixels read cells that span `start` to `end`.

    Linear between the centres of cells, and falling to zero beyond the outer ones.
    """
    pixels = torch.arange(first, last, dtype=start.dtype) + 0.5
    place = (pixels - start) / (end - start) * cells - 0.5
    distance = (place[:, None] - torch.arange(cells, dtype=start.dtype)).abs()
    return (1 - distance).clamp(min=0).nan_to_num(0)
