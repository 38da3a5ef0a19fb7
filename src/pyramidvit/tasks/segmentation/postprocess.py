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

    A few classes at a time: all logits of 150 classes at 12 megapixels are 7 gigabytes.

    Args:
        logits: [K, h, w] of one image of a batch.
        padded: Of the batch's images.
        size: Of the image before padding.
        file_size: Of the answer.
    """
    count = len(logits)
    dtype = torch.uint8 if count <= 255 else torch.int16
    labels = torch.zeros(file_size, dtype=dtype, device=logits.device)
    most = logits.new_full(file_size, -torch.inf)
    step = max(1, NUMBERS_AT_ONCE // (file_size[0] * file_size[1]))
    for first in range(0, count, step):
        values = stretch(logits[None, first : first + step], padded)
        values = stretch(values[:, :, : size[0], : size[1]], file_size)
        for number, value in enumerate(values[0], first):
            labels.masked_fill_(value > most, number)
            torch.maximum(most, value, out=most)
    return labels


def stretch(values: Tensor, size: Size) -> Tensor:
    """[B, K, H, W] of `size`, resized bilinearly from [B, K, h, w], edges on edges."""
    return F.interpolate(values.contiguous(), size, mode="bilinear", align_corners=False)
