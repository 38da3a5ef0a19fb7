"""Moving a picture together with the boxes and masks of its objects.

A picture and its boxes are moved at once. Masks are not: every move here treats columns and rows
apart, so it is enough to remember which column and row of the file each of the picture's shows,
and to read the masks' runs once at the end. A thousand objects in an image of 48 megapixels never
become pixels at that size.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as tv

from ...structures import DetectionTarget, Masks

OUTSIDE = -1  # a column or row that shows nothing of the file


class View(NamedTuple):
    """What is seen of a file."""

    image: Any  # tv_tensors.Image, uint8 [3, H, W]
    boxes: Any  # tv_tensors.BoundingBoxes, float32 [n, 4], within the image
    columns: Tensor  # int64 [W], the file's column that each column shows, or OUTSIDE
    rows: Tensor  # int64 [H], the file's row that each row shows, or OUTSIDE

    @property
    def size(self) -> tuple[int, int]:
        return len(self.rows), len(self.columns)


def whole_view(picture: Any, boxes: Tensor) -> View:
    """A file's picture as it is, with boxes [n, 4], which are clipped to it."""
    image = tv_tensors.Image(tv.pil_to_tensor(picture))
    size = (image.shape[1], image.shape[2])
    placed = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size)
    columns, rows = torch.arange(size[1]), torch.arange(size[0])
    return View(image, tv.clamp_bounding_boxes(placed), columns, rows)


def flip(view: View) -> View:
    """Swaps left and right."""
    image, boxes = (tv.horizontal_flip(x) for x in view[:2])
    return View(image, boxes, view.columns.flip(0), view.rows)


def crop(view: View, top: int, left: int, height: int, width: int) -> View:
    """Keeps a window; boxes are cut at its borders, and those without a part in it get no area."""
    image, boxes = (tv.crop(x, top, left, height, width) for x in view[:2])
    columns, rows = view.columns[left : left + width], view.rows[top : top + height]
    return View(image, boxes, columns, rows)


def resize(view: View, size: tuple[int, int]) -> View:
    """Stretches to (H, W); bilinear without smoothing, as the reference's OpenCV does."""
    # Colour by colour, torch's kernel is slower, and fails where a single pixel is left.
    interleaved = view.image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    image = tv.resize(tv_tensors.Image(interleaved), list(size), antialias=False)
    boxes = tv.resize(view.boxes, list(size))
    columns = view.columns[nearest_places(len(view.columns), size[1])]
    return View(image, boxes, columns, view.rows[nearest_places(len(view.rows), size[0])])


def nearest_places(count: int, new_count: int) -> Tensor:
    """int64 [new_count]: which of `count` cells holds the centre of each of `new_count` cells."""
    return (2 * torch.arange(new_count) + 1) * count // (2 * new_count)


def place(view: View, size: tuple[int, int], top: int, left: int, colour: Sequence[int]) -> View:
    """Puts the picture on a plain canvas of (H, W)."""
    bottom, right = size[0] - top - len(view.rows), size[1] - left - len(view.columns)
    image = tv.pad(view.image, [left, top, right, bottom], fill=list(colour))
    boxes = tv.pad(view.boxes, [left, top, right, bottom])
    columns = F.pad(view.columns, (left, right), value=OUTSIDE)
    return View(image, boxes, columns, F.pad(view.rows, (top, bottom), value=OUTSIDE))


def move_target(target: DetectionTarget, view: View) -> DetectionTarget:
    """A file's target in the frame of a view.

    As in the reference's RandomCrop, an object is dropped if no part of its box is left, with or
    without a mask, a crowd or not; what is left keeps the part of its box within the image, even
    where the mask's pixels are all gone.
    """
    boxes = view.boxes.as_subclass(Tensor)
    left = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    masks = target.masks
    if masks is not None:
        masks = remap_masks(masks, left, view.columns, view.rows)
    return DetectionTarget(
        boxes=boxes[left], labels=target.labels[left], crowd=target.crowd[left], masks=masks
    )


def remap_masks(masks: Masks, chosen: Tensor, columns: Tensor, rows: Tensor) -> Masks:
    """The chosen masks as they are seen through other columns and rows.

    Args:
        masks: Of n objects, of size (H, W).
        chosen: bool [n].
        columns: int64 [W'], numbers of columns, in ascending or descending order where not OUTSIDE.
        rows: int64 [H'], numbers of rows, ascending where not OUTSIDE.
    """
    owners, starts, ends = runs_of_ones(masks)
    keep = chosen[owners]
    owners, starts, ends = chosen.cumsum(0)[owners[keep]] - 1, starts[keep], ends[keep]

    # The new columns that each run reaches.
    height = masks.size[0]
    shown, order = columns.sort(stable=True)
    first = torch.searchsorted(shown, starts // height)
    reach = torch.searchsorted(shown, (ends - 1) // height, right=True) - first
    run = torch.arange(len(reach)).repeat_interleave(reach)
    place = first[run] + torch.arange(len(run)) - (reach.cumsum(0) - reach)[run]

    # The rows that it covers there.
    base = shown[place] * height
    inside = rows[rows != OUTSIDE]
    above = int((rows != OUTSIDE).long().argmax()) if len(rows) else 0
    top, bottom = (
        torch.searchsorted(inside, (edge[run] - base).clamp(0, height)) + above
        for edge in (starts, ends)
    )
    seen = bottom > top
    size = (len(rows), len(columns))
    at = owners[run] * size[0] * size[1] + order[place] * size[0]
    return join_runs(int(chosen.sum()), size, (at + top)[seen], (at + bottom)[seen])


def runs_of_ones(masks: Masks) -> tuple[Tensor, Tensor, Tensor]:
    """The mask of every run of ones, and where in it the run starts and ends (excluded)."""
    owners = torch.arange(len(masks)).repeat_interleave(masks.num_runs)
    number = torch.arange(len(owners)) - (masks.num_runs.cumsum(0) - masks.num_runs)[owners]
    ends = masks.counts.cumsum(0) - owners * (masks.size[0] * masks.size[1])
    ones = (number % 2 == 1) & (masks.counts > 0)
    return owners[ones], (ends - masks.counts)[ones], ends[ones]


def join_runs(count: int, size: tuple[int, int], starts: Tensor, ends: Tensor) -> Masks:
    """Masks from runs of ones in any order, numbered through all masks; runs that touch merge."""
    pixels = size[0] * size[1]
    starts, order = starts.sort()
    ends = ends[order]
    apart = torch.ones(len(starts) + 1, dtype=torch.bool)
    apart[1:-1] = (starts[1:] != ends[:-1]) | (starts[1:] % pixels == 0)
    starts, ends = starts[apart[:-1]], ends[apart[1:]]

    owners = starts // pixels
    num_runs = 2 * torch.bincount(owners, minlength=count) + 1  # the last one of zeros
    last = num_runs.cumsum(0) - 1
    bounds = torch.empty(2 * len(starts) + count, dtype=torch.int64)
    place = 2 * torch.arange(len(starts)) + owners
    bounds[place], bounds[place + 1] = starts, ends
    bounds[last] = torch.arange(1, count + 1) * pixels
    counts = torch.diff(bounds, prepend=bounds.new_zeros(1))
    needed = torch.ones(len(counts), dtype=torch.bool)
    needed[last] = counts[last] > 0
    return Masks(size=size, counts=counts[needed], num_runs=num_runs - (~needed[last]).long())
