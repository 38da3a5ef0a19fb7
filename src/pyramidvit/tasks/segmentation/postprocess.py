"""From logits to a map of labels in the frame of the file."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...structures import Batch, SegmentationPrediction, SegmentationTarget
from .outputs import SegmentationOutputs

NUMBERS_AT_ONCE = 1 << 24  # logits at the size of the file
Size = tuple[int, int]  # (H, W)


class Look(NamedTuple):
    """What is said of an image in one of its sizes.

    Attributes:
        logits: [K, h, w].
        padded: The size that they stand for,
        size: and that of the image, before padding.
    """

    logits: Tensor
    padded: Size
    size: Size


def postprocess(
    outputs: SegmentationOutputs, batch: Batch[SegmentationTarget]
) -> tuple[SegmentationPrediction, ...]:
    """One prediction an image of the batch, on the CPU.

    Logits are stretched bilinearly to the padded batch, cut to the image, and stretched again to
    the file, as in the reference (mmseg 0.13: whole inference); of equal logits the first class
    wins.

    Args:
        outputs: Of the images of the batch.
        batch: Its sizes and origins say how images were made from files.
    """
    padded = (batch.images.shape[2], batch.images.shape[3])
    return tuple(
        SegmentationPrediction(labels=best_classes(logits, padded, size, origin.size).cpu())
        for logits, size, origin in zip(outputs.logits, batch.sizes, batch.origins, strict=True)
    )


def best_classes(logits: Tensor, padded: Size, size: Size, file_size: Size) -> Tensor:
    """[H, W] of `file_size`, uint8 up to 255 classes and else int16: the class with most logits.

    A few classes at a time, and of a large file a band of rows at a time: all logits of 150 classes
    at 12 megapixels are 7 gigabytes.

    Args:
        logits: [K, h, w] of one image of a batch.
        padded: Of the batch's images.
        size: Of the image before padding.
        file_size: Of the answer.
    """
    height, width = file_size
    dtype = torch.uint8 if len(logits) <= 255 else torch.int16
    labels = torch.zeros(file_size, dtype=dtype, device=logits.device)
    rows = max(1, min(height, NUMBERS_AT_ONCE // width))
    step = max(1, NUMBERS_AT_ONCE // (rows * width))
    for first in range(0, height, rows):
        band = labels[first : first + rows]
        most = logits.new_full(band.shape, -torch.inf)
        for number in range(0, len(logits), step):
            values = stretch(logits[None, number : number + step], padded)
            values = values[:, :, : size[0], : size[1]]
            values = stretch_rows(values, file_size, first, first + len(band))
            for k, value in enumerate(values[0], number):
                band.masked_fill_(value > most, k)
                torch.maximum(most, value, out=most)
    return labels


def likeliest_classes(views: Sequence[Look], file_size: Size) -> Tensor:
    """As `best_classes`, of the probabilities that an image has on average over several sizes.

    As in the reference, logits are stretched to the file before they become probabilities; a band
    of rows at a time.
    """
    height, width = file_size
    number = len(views[0].logits)
    dtype = torch.uint8 if number <= 255 else torch.int16
    labels = torch.zeros(file_size, dtype=dtype, device=views[0].logits.device)
    rows = max(1, NUMBERS_AT_ONCE // (number * width))
    for first in range(0, height, rows):
        end = min(first + rows, height)
        total = torch.zeros(())
        for view in views:
            shares = file_rows(view, file_size, first, end).softmax(dim=1)
            total = total.add_(shares) if total.ndim else shares
        labels[first:end] = total[0].argmax(dim=0)
    return labels


def file_rows(view: Look, file_size: Size, first: int, end: int) -> Tensor:
    """[1, K, end - first, W]: logits of some rows of the file."""

    def image_rows(a: int, b: int) -> Tensor:
        return stretch_rows(view.logits[None], view.padded, a, b)[..., : view.size[1]]

    return blend_rows(image_rows, view.size[0], file_size, first, end)


def stretch_rows(values: Tensor, size: Size, first: int, end: int) -> Tensor:
    """[B, K, end - first, W], rows of what `stretch` makes of [B, K, h, w], but for rounding."""
    if (first, end) == (0, size[0]):
        return stretch(values, size)
    return blend_rows(lambda a, b: values[:, :, a:b], values.shape[2], size, first, end)


def blend_rows(
    rows: Callable[[int, int], Tensor], height: int, size: Size, first: int, end: int
) -> Tensor:
    """As `stretch_rows`, of a map of that height whose rows are asked for by (first, end)."""
    places = (torch.arange(first, end, dtype=torch.float64) + 0.5) * (height / size[0]) - 0.5
    places = places.clamp(min=0)
    upper = places.long()
    lower = (upper + 1).clamp(max=height - 1)
    start = int(upper[0])
    part = rows(start, int(lower[-1]) + 1)
    wide = stretch(part, (part.shape[2], size[1]))
    shares = (places - upper).to(part)[:, None]
    return torch.lerp(wide[:, :, upper - start], wide[:, :, lower - start], shares)


def stretch(values: Tensor, size: Size) -> Tensor:
    """[B, K, H, W] of `size`, resized bilinearly from [B, K, h, w], edges on edges."""
    return F.interpolate(values.contiguous(), size, mode="bilinear", align_corners=False)
