"""Large pictures: looked at window by window, and once as a whole, as a first look.

A detector shrinks a picture of 48 megapixels to what it was trained on, and small objects are gone.
Windows of the file's own resolution keep them, but their seams cut objects in two. The rule:

- Windows are spread evenly, so that neighbours share at least the overlap that was asked for: an
  object no longer than that lies whole in one of them. The first look answers for the others only.
- A detection that ends at a seam is a piece. Detections are ranked by score, where a piece counts
  half. One goes if it overlaps a better one of its class by more than the detector's own limit; a
  piece goes also if more than half of it lies in a better one: in the whole that it is part of.
- Of what is left, at most ten times as many as the detector may find in one image are kept.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from PIL.Image import Image
from torch import Tensor, nn
from torchvision.ops import batched_nms

from ...ops.masks import Window, join_masks, select_masks
from ...structures import DetectionPrediction, Masks, Origin, Sample, collate
from ...task import Tiling
from .moves import OUTSIDE, remap_masks
from .network import forward
from .outputs import Decoding
from .postprocess import postprocess
from .transforms import DIVISOR, eval_transform

AT_ONCE = 4  # windows
NEAR = 0.02  # share of a window's side; what ends so near to a seam, or 2 pixels, is a piece
PIECE = 0.5  # what a piece's score counts
COVERED = 0.5  # share of a piece that must lie in a better detection
SAME = 0.6  # IoU above which answers from different looks are of one object, at the latest
MORE = 10  # times the detections of an image

Transform = Callable[[Sample[Any]], Sample[Any]]


class Look(NamedTuple):
    """What was found in a window, its boxes in the frame of the file, its masks in the window's."""

    window: Window
    found: DetectionPrediction
    pieces: Tensor  # bool [m]


def predict_tiled(
    network: nn.Module, sample: Sample[Any], input_record: dict[str, Any], tiling: Tiling
) -> DetectionPrediction:
    """What is in a picture of any size, in the frame of the file, on the CPU.

    A picture no larger than a window is looked at once, as without tiles. Never more than a few
    windows are held, beside the picture.

    Args:
        network: A detector in evaluation mode, on any device.
        sample: With a picture; its target is not looked at.
        input_record: What the detector's input must be like.
        tiling: Sides and overlap of the windows.
    """
    assert isinstance(sample.image, Image)
    decoding = network.decoding
    assert isinstance(decoding, Decoding)
    transform = eval_transform(input_record)
    size = sample.image.height, sample.image.width
    everything = (0, 0, size[1], size[0])
    windows = cut_windows(size, tiling)
    (first,) = look(network, transform, sample, [everything])
    if len(windows) == 1:
        return first.found
    looks = [leave_small(first, size, tiling)]
    for start in range(0, len(windows), AT_ONCE):
        looks += look(network, transform, sample, windows[start : start + AT_ONCE])
    most = MORE * decoding.max_detections
    overlap = min(decoding.nms_threshold, SAME)  # DETR and Sparse R-CNN hide nothing in one look
    return merge_looks(looks, size, overlap=overlap, most=most)


def cut_windows(size: tuple[int, int], tiling: Tiling) -> list[Window]:
    """Windows that cover a picture of (H, W), row by row; along a short side one is enough."""
    rows, columns = (spread(length, tiling) for length in size)
    height, width = (min(length, tiling.side) for length in size)
    return [(x, y, x + width, y + height) for y in rows for x in columns]


def spread(length: int, tiling: Tiling) -> list[int]:
    """Where windows start along a side of a picture: evenly, the last one ends with it."""
    rest = length - tiling.side
    if rest <= 0:
        return [0]
    gaps = -(-rest // stride(tiling))
    return [k * rest // gaps for k in range(gaps + 1)]


def stride(tiling: Tiling) -> int:
    """Pixels from a window to the next at most."""
    return max(1, int(tiling.side * (1 - tiling.overlap)))


def look(
    network: nn.Module, transform: Transform, sample: Sample[Any], windows: Sequence[Window]
) -> Iterator[Look]:
    """Looks at some windows of a picture at once."""
    picture = sample.image
    assert isinstance(picture, Image)
    device = next(network.parameters()).device
    parts = []
    for window in windows:
        size = window[3] - window[1], window[2] - window[0]
        part = picture if size == (picture.height, picture.width) else picture.crop(window)
        origin = Origin(name=sample.origin.name, size=size)
        parts.append(transform(Sample(image=part, target=None, origin=origin)))
    batch = collate(parts, divisor=DIVISOR).to(device)
    outputs = forward(network, batch, False)
    with torch.autocast("cpu", enabled=False):  # masks are drawn there, in float32
        predictions = postprocess(outputs, batch)
    for window, found in zip(windows, predictions, strict=True):
        yield place(found, window, (picture.height, picture.width))


def place(found: DetectionPrediction, window: Window, size: tuple[int, int]) -> Look:
    """What was found in a window of a picture of (H, W), moved there."""
    corner = found.boxes.new_tensor((window[0], window[1], window[0], window[1]))
    boxes = found.boxes + corner
    moved = DetectionPrediction(
        boxes=boxes, labels=found.labels, scores=found.scores, masks=found.masks
    )
    pieces = torch.zeros(len(boxes), dtype=torch.bool)
    for axis in (0, 1):
        start, end, length = window[axis], window[axis + 2], size[1 - axis]
        margin = max(2.0, NEAR * (end - start))
        if start > 0:
            pieces |= boxes[:, axis] < start + margin
        if end < length:
            pieces |= boxes[:, axis + 2] > end - margin
    return Look(window, moved, pieces)


def leave_small(first: Look, size: tuple[int, int], tiling: Tiling) -> Look:
    """The first look without those objects that lie whole in a window."""
    shared = tiling.side - stride(tiling)
    limits = [length if length <= tiling.side else shared for length in size]
    boxes = first.found.boxes
    sides = boxes[:, 2:] - boxes[:, :2]
    rows = (sides > sides.new_tensor((limits[1], limits[0]))).any(dim=1).nonzero().flatten()
    return Look(first.window, choose(first.found, rows), first.pieces[rows])


def choose(found: DetectionPrediction, rows: Tensor) -> DetectionPrediction:
    """The detections `rows` int64 [m], in that order."""
    return DetectionPrediction(
        boxes=found.boxes[rows],
        labels=found.labels[rows],
        scores=found.scores[rows],
        masks=None if found.masks is None else select_masks(found.masks, rows),
    )


def merge_looks(
    looks: Sequence[Look], size: tuple[int, int], *, overlap: float, most: int
) -> DetectionPrediction:
    """One prediction from all looks at a picture of (H, W), by the rule at the top.

    Args:
        looks: One or more.
        size: See above.
        overlap: IoU above which the better of two detections of a class hides the other.
        most: How many are kept, the best first.
    """
    boxes, labels, scores = (
        torch.cat([getattr(each.found, name) for each in looks])
        for name in ("boxes", "labels", "scores")
    )
    pieces = torch.cat([each.pieces for each in looks])
    values = torch.where(pieces, PIECE * scores, scores)
    rows = batched_nms(boxes, values, labels, overlap)  # by descending value
    rows = rows[~covered(boxes[rows], labels[rows], pieces[rows])]
    rows = rows[scores[rows].argsort(descending=True, stable=True)][:most]
    return DetectionPrediction(
        boxes=boxes[rows],
        labels=labels[rows],
        scores=scores[rows],
        masks=gather_masks(looks, rows, size),
    )


def covered(boxes: Tensor, labels: Tensor, pieces: Tensor) -> Tensor:
    """Bool [n]: which pieces lie by more than half in a detection of their class before them.

    Args:
        boxes: [n, 4], the best first.
        labels: int64 [n].
        pieces: bool [n].
    """
    gone = torch.zeros_like(pieces)
    for row in pieces.nonzero().flatten().tolist():
        rivals = boxes[:row][labels[:row] == labels[row]]
        start = torch.maximum(rivals[:, :2], boxes[row, :2])
        end = torch.minimum(rivals[:, 2:], boxes[row, 2:])
        shared = (end - start).clamp(min=0).prod(dim=1)
        area = (boxes[row, 2:] - boxes[row, :2]).prod()
        gone[row] = bool((shared > COVERED * area).any())
    return gone


def gather_masks(looks: Sequence[Look], rows: Tensor, size: tuple[int, int]) -> Masks | None:
    """The masks of the detections `rows` of all looks together, in the frame of the file."""
    parts, places, first = [], [], 0
    for window, found, _ in looks:
        if found.masks is None:
            return None
        own = ((rows >= first) & (rows < first + len(found.masks))).nonzero().flatten()
        chosen = select_masks(found.masks, rows[own] - first)
        parts.append(chosen if chosen.size == size else shift_masks(chosen, window, size))
        places.append(own)
        first += len(found.masks)
    return select_masks(join_masks(size, parts), torch.cat(places).argsort())


def shift_masks(masks: Masks, window: Window, size: tuple[int, int]) -> Masks:
    """Masks of a window as masks of the whole picture of (H, W)."""
    columns, rows = (torch.full((length,), OUTSIDE) for length in (size[1], size[0]))
    columns[window[0] : window[2]] = torch.arange(masks.size[1])
    rows[window[1] : window[3]] = torch.arange(masks.size[0])
    return remap_masks(masks, torch.ones(len(masks), dtype=torch.bool), columns, rows)
