"""Pictures too large to be looked at whole: window by window, with blended seams.

Windows are looked at in the file's own pixels, whatever size the input record would shrink the
picture to: who cuts a picture into windows wants its details. Where windows overlap, their logits
are averaged, each with a weight that falls linearly towards its window's edge.

A label is right away from seams in this sense: a network whose answer for a pixel looks r pixels
far gives every pixel the label that it gives in the whole picture, unless the pixel lies within r
of the edge of a window over it. Attention looks at its whole window, so PVT's labels can differ.

Letters: K classes; H, W of the picture; h, w of a window's logits.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from PIL.Image import Image
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as tv

from ...errors import UserError
from ...structures import Sample, SegmentationPrediction
from ...task import Tiling
from .postprocess import stretch
from .transforms import normalise

NUMBERS_AT_ONCE = 1 << 23  # blended logits, in float32
CARRIED = 1 << 28  # bytes of logits that may wait for the windows below them
Area = tuple[int, int, int, int]  # (y0, y1, x0, x1), ends excluded


class Grid(NamedTuple):
    """How a picture is cut.

    Attributes:
        size: (H, W) of the picture.
        tops: Where rows of windows start.
        lefts: Where columns of windows start.
        side: Of a window; those at the right and the bottom may be cut off.
        ramp: Pixels over which a window's weight falls towards its edge.
    """

    size: tuple[int, int]
    tops: tuple[int, ...]
    lefts: tuple[int, ...]
    side: int
    ramp: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the network says of a window, or the lower part of it.

    Attributes:
        area: The window in the picture.
        logits: float32 [K, h, w], perhaps without upper rows.
        first: How many upper rows of the logits are missing.
        stride: Pixels of the picture to one place of the logits.
    """

    area: Area
    logits: Tensor
    first: int
    stride: int


def predict_tiled(
    model: nn.Module, sample: Sample[Any], input_record: dict[str, Any], tiling: Tiling
) -> SegmentationPrediction:
    """The labels of a picture, on the CPU, looking at no more than a window at a time.

    Memory beside the picture and its labels does not grow with the picture: see `CARRIED`.

    Args:
        model: From images to `SegmentationOutputs`; used in the mode that it is in.
        sample: With an RGB picture; its target is not looked at.
        input_record: What the model's input must be like, of which colours and divisor are used.
        tiling: Its side is rounded up to a multiple of the divisor.

    Raises:
        UserError: A window without a side, or an overlap out of range.
    """
    picture = sample.image
    if isinstance(picture, Tensor):
        raise TypeError("tiles are cut from a picture, not from a tensor")
    divisor = int(input_record["divisor"])
    grid = plan((picture.height, picture.width), tiling, divisor)
    with torch.inference_mode():
        probe = look(model, picture, (grid.tops[0], grid.lefts[0]), grid, input_record)
        dtype = torch.uint8 if len(probe.logits) <= 255 else torch.int16
        labels = torch.empty(grid.size, dtype=dtype)
        waiting = probe.logits.nbytes * (grid.ramp + 2 * probe.stride) / grid.side
        most = max(1, int(CARRIED / waiting))
        for first in range(0, len(grid.lefts), most):
            columns = range(first, min(first + most, len(grid.lefts)))
            for area, answers in cells(model, picture, grid, input_record, columns):
                fill(labels, area, answers, grid)
    return SegmentationPrediction(labels=labels)


def plan(size: tuple[int, int], tiling: Tiling, divisor: int) -> Grid:
    """Where windows stand: all at multiples of `divisor`, as evenly as that allows.

    So a network's strides fall on the same pixels as in the whole picture.
    """
    if tiling.side < 1 or not 0 <= tiling.overlap < 1:
        raise UserError(
            "tiles need a side of 1 or more pixels and an overlap from 0 to below 1,"
            f" got {tiling.side} and {tiling.overlap:g}"
        )
    units = math.ceil(tiling.side / divisor)
    step = max(1, math.floor(units * (1 - tiling.overlap) + 1e-9))
    tops, lefts = (
        tuple(start * divisor for start in starts(math.ceil(length / divisor), units, step))
        for length in size
    )
    return Grid(size, tops, lefts, units * divisor, max(1, (units - step) * divisor))


def starts(length: int, side: int, step: int) -> Iterator[int]:
    """Where pieces of `side` start that cover `length`, no more than `step` apart."""
    last = max(0, length - side)
    count = math.ceil(last / step)
    for i in range(count + 1):
        yield (2 * i * last + count) // (2 * count) if count else 0


def look(
    model: nn.Module,
    picture: Image,
    corner: tuple[int, int],
    grid: Grid,
    input_record: dict[str, Any],
) -> Answer:
    """What the network says of the window at a corner (top, left)."""
    top, left = corner
    bottom, right = (min(a + grid.side, b) for a, b in zip(corner, grid.size, strict=True))
    pixels = tv.pil_to_tensor(picture.crop((left, top, right, bottom)).convert("RGB"))
    values = tv.to_dtype(pixels, torch.float32, scale=True)
    image = normalise(values, input_record["mean"], input_record["std"])
    below, beside = (-length % int(input_record["divisor"]) for length in image.shape[1:])
    image = F.pad(image, (0, beside, 0, below))
    device = next((p.device for p in model.parameters()), image.device)
    logits = model(image[None].to(device)).logits.float()  # [1, K, h, w]
    height, width = image.shape[1:]
    stride = height // logits.shape[2]
    if (stride * logits.shape[2], stride * logits.shape[3]) != (height, width):
        logits, stride = stretch(logits, (height, width)), 1
    return Answer(area=(top, bottom, left, right), logits=logits[0], first=0, stride=stride)


def cells(
    model: nn.Module,
    picture: Image,
    grid: Grid,
    input_record: dict[str, Any],
    columns: range,
) -> Iterator[tuple[Area, list[Answer]]]:
    """Areas that fill some columns of windows, each once all windows over it were looked at.

    Of what was looked at, only the rows are kept that windows further down overlap with.
    """
    tops, lefts = (*grid.tops, grid.size[0]), (*grid.lefts, grid.size[1])
    before = sum(left + grid.side <= lefts[columns.start] for left in grid.lefts)
    above: list[Answer] = []
    for top, next_top in pairwise(tops):
        row: list[Answer] = []
        for j in range(before, columns.stop):
            row.append(look(model, picture, (top, lefts[j]), grid, input_record))
            if j in columns:
                yield (top, next_top, lefts[j], lefts[j + 1]), above + row
            row = [a if a.area[3] > lefts[j + 1] else lower_part(a, next_top) for a in row]
        above = [lower_part(a, next_top) for a in above + row if a.area[1] > next_top]


def lower_part(answer: Answer, top: int) -> Answer:
    """An answer without the rows that pixels from `top` on do not need."""
    needed = min((top - answer.area[0]) // answer.stride - 1, answer.first + answer.logits.shape[1])
    if needed <= answer.first:
        return answer
    logits = answer.logits[:, needed - answer.first :].clone()  # and the rest is freed
    return Answer(area=answer.area, logits=logits, first=needed, stride=answer.stride)


def fill(labels: Tensor, area: Area, answers: Sequence[Answer], grid: Grid) -> None:
    """Writes the labels [H, W] of an area, from the answers for the windows that reach into it."""
    y0, y1, x0, x1 = area
    rows = max(1, NUMBERS_AT_ONCE // (len(answers[-1].logits) * (x1 - x0)))
    for y in range(y0, y1, rows):
        part = (y, min(y + rows, y1), x0, x1)
        labels[y : part[1], x0:x1] = blend(part, answers, grid).argmax(dim=0).cpu()


def blend(area: Area, answers: Sequence[Answer], grid: Grid) -> Tensor:
    """Weighted sums of logits [K, y1 - y0, x1 - x0]; what they are divided by changes no order."""
    y0, y1, x0, x1 = area
    logits = answers[-1].logits
    total = logits.new_zeros(len(logits), y1 - y0, x1 - x0)
    for answer in answers:
        top, bottom, left, right = answer.area
        inner = (max(y0, top), min(y1, bottom), max(x0, left), min(x1, right))
        if inner[0] >= inner[1] or inner[2] >= inner[3]:
            continue
        down = weights_of((top, bottom), inner[:2], grid.size[0], grid.ramp).to(logits)
        across = weights_of((left, right), inner[2:], grid.size[1], grid.ramp).to(logits)
        place = total[:, inner[0] - y0 : inner[1] - y0, inner[2] - x0 : inner[3] - x0]
        place += values_in(answer, inner).mul_(down[:, None]).mul_(across)
    return total


def weights_of(window: tuple[int, int], part: tuple[int, int], length: int, ramp: int) -> Tensor:
    """Weights of the pixels `part` (start, end) of a window (start, end), along one side.

    They fall from 1 towards the window's ends, but not towards those of the picture.
    """
    pixels = torch.arange(*part) + 0.5
    start = pixels - window[0] if window[0] > 0 else torch.full_like(pixels, ramp)
    end = window[1] - pixels if window[1] < length else torch.full_like(pixels, ramp)
    return (torch.minimum(start, end) / ramp).clamp(max=1)


def values_in(answer: Answer, area: Area) -> Tensor:
    """The logits [K, y1 - y0, x1 - x0] at the pixels of an area of the window, interpolated as they
    would be with the whole window."""
    y0, y1, x0, x1 = area
    top, _, left, _ = answer.area
    logits, stride = answer.logits, answer.stride
    missing, (height, width) = answer.first, logits.shape[1:]
    row, last_row = places_for(y0 - top, y1 - top, stride, missing, missing + height)
    column, last_column = places_for(x0 - left, x1 - left, stride, 0, width)
    part = logits[None, :, row - missing : last_row - missing, column:last_column]
    size = (stride * (last_row - row), stride * (last_column - column))
    y, x = y0 - top - stride * row, x0 - left - stride * column
    return stretch(part, size)[0, :, y : y + y1 - y0, x : x + x1 - x0]


def places_for(start: int, end: int, stride: int, first: int, last: int) -> tuple[int, int]:
    """The places of the logits that pixels from `start` to before `end` are interpolated from."""
    return max(first, start // stride - 1), min(last, -(-end // stride) + 1)
