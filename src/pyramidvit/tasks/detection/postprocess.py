"""From detections to predictions in the frame of the file."""

from typing import Any

import torch
from torch import Tensor

from ...ops.masks import paste_masks
from ...structures import Batch, DetectionPrediction, DetectionTarget, Origin
from .outputs import PUBLISHED, Decoding, Detections, RegionDetections
from .table import detect


def postprocess(
    outputs: Any,
    batch: Batch[DetectionTarget],
    decoding: Decoding = PUBLISHED,
) -> tuple[DetectionPrediction, ...]:
    """One prediction an image of the batch, on the CPU.

    Args:
        outputs: Of the images of the batch: detections, or what a detector's head says of them.
        batch: Its sizes and origins say how images were made from files.
        decoding: How detections are chosen, where that is still to do.
    """
    if not isinstance(outputs, RegionDetections):
        outputs = detect(outputs, batch.sizes, decoding)
    return tuple(
        to_file_frame(of_image(outputs, i), size, origin)
        for i, (size, origin) in enumerate(zip(batch.sizes, batch.origins, strict=True))
    )


def of_image(outputs: RegionDetections, image: int) -> RegionDetections:
    """The detections of one image."""
    found, mask_logits = outputs
    rows = found.images == image
    chosen = Detections(*(column[rows] for column in found))
    return RegionDetections(chosen, None if mask_logits is None else mask_logits[rows])


def to_file_frame(
    outputs: RegionDetections, size: tuple[int, int], origin: Origin
) -> DetectionPrediction:
    """Scales detections from an image of `size` (H, W) to the file that it was made from."""
    found, mask_logits = outputs
    boxes = (found.boxes / scale_of(size, origin).to(found.boxes)).cpu()
    masks = None
    if mask_logits is not None:
        masks = paste_masks(mask_logits.sigmoid().cpu(), boxes, origin.size)
    return DetectionPrediction(
        boxes=boxes, labels=found.labels.cpu(), scores=found.scores.cpu(), masks=masks
    )


def scale_of(size: tuple[int, int], origin: Origin) -> Tensor:
    """Pixels of the network's image per pixel of the file, as (x, y, x, y)."""
    y, x = (ours / theirs for ours, theirs in zip(size, origin.size, strict=True))
    return torch.tensor((x, y, x, y))
