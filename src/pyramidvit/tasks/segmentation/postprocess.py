"""From logits to a map of labels in the frame of the file."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ...structures import Batch, SegmentationPrediction, SegmentationTarget
from .outputs import SegmentationOutputs

NUMBERS_AT_ONCE = 1 << 24  # logits at the size of the file
Size = tuple[int, int]  # (H, W)


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


def stretch_rows(values: Tensor, size: Size, first: int, end: int) -> Tensor:
    """[B, K, end - first, W], rows of what `stretch` makes of [B, K, h, w], but for rounding."""
    if (first, end) == (0, size[0]):
        return stretch(values, size)
    height = values.shape[2]
    places = (torch.arange(first, end, dtype=torch.float64) + 0.5) * (height / size[0]) - 0.5
    places = places.clamp(min=0)
    upper = places.long()
    lower = (upper + 1).clamp(max=height - 1)
    start = int(upper[0])
    part = values[:, :, start : int(lower[-1]) + 1]
    wide = stretch(part, (part.shape[2], size[1]))
    shares = (places - upper).to(values)[:, None]
    return torch.lerp(wide[:, :, upper - start], wide[:, :, lower - start], shares)


def stretch(values: Tensor, size: Size) -> Tensor:
    """[B, K, H, W] of `size`, resized bilinearly from [B, K, h, w], edges on edges."""
    return F.interpolate(values.contiguous(), size, mode="bilinear", align_corners=False)
