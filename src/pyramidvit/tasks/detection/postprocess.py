"""From raw outputs to predictions in the frame of the file.

Reference: mmdetection 2.13; later versions choose other candidates.
"""

import torch
from torch import Tensor

from ...ops.boxes import clip_boxes, decode_boxes
from ...ops.masks import paste_masks
from ...ops.selection import Selected, best_rows, select_boxes
from ...structures import Batch, DetectionPrediction, DetectionTarget, Origin
from .outputs import (
    PUBLISHED,
    Decoding,
    DenseOutputs,
    Detections,
    RegionDetections,
    Sizes,
    gather_detections,
)

CANDIDATES = 1000  # anchors a level that are looked at


def postprocess(
    outputs: DenseOutputs | RegionDetections,
    batch: Batch[DetectionTarget],
    decoding: Decoding = PUBLISHED,
) -> tuple[DetectionPrediction, ...]:
    """One prediction an image of the batch, on the CPU.

    Args:
        outputs: Of the images of the batch.
        batch: Its sizes and origins say how images were made from files.
        decoding: How detections are chosen; a two-stage detector, which draws masks for them, has
            chosen by its own.
    """
    if isinstance(outputs, DenseOutputs):
        outputs = RegionDetections(detect_dense(outputs, batch.sizes, decoding), None)
    return tuple(
        to_file_frame(of_image(outputs, i), size, origin)
        for i, (size, origin) in enumerate(zip(batch.sizes, batch.origins, strict=True))
    )


def detect_dense(outputs: DenseOutputs, sizes: Sizes, decoding: Decoding) -> Detections:
    """Chooses detections from the best anchors of each level, by independent class scores."""
    return gather_detections(
        [detect_image(outputs, i, size, decoding) for i, size in enumerate(sizes)]
    )


def detect_image(
    outputs: DenseOutputs, image: int, size: tuple[int, int], decoding: Decoding
) -> Selected:
    boxes, scores = [], []
    for logits, deltas, anchors in zip(*outputs, strict=True):
        value = logits[image].sigmoid()  # [N_l, K]
        rows = best_rows(value.amax(dim=1), CANDIDATES)
        boxes.append(decode_boxes(deltas[image, rows], anchors[rows]))
        scores.append(value[rows])
    return select_boxes(
        clip_boxes(torch.cat(boxes), size),
        torch.cat(scores),
        threshold=decoding.score_threshold,
        overlap=decoding.nms_threshold,
        most=decoding.max_detections,
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
