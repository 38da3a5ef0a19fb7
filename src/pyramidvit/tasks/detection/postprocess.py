"""From raw outputs to predictions in the frame of the file.

Reference: mmdetection 2.13; later versions choose other candidates.
"""

import torch
from torch import Tensor

from ...ops.boxes import clip_boxes, decode_boxes
from ...ops.selection import Selected, best_rows, select_boxes
from ...structures import Batch, DetectionPrediction, DetectionTarget, Origin
from .outputs import PUBLISHED, Decoding, DenseOutputs, Detections, Sizes, gather_detections

CANDIDATES = 1000  # anchors a level that are looked at


def postprocess(
    outputs: DenseOutputs, batch: Batch[DetectionTarget], decoding: Decoding = PUBLISHED
) -> tuple[DetectionPrediction, ...]:
    """One prediction an image of the batch, on the CPU."""
    found = detect_dense(outputs, batch.sizes, decoding)
    return tuple(
        to_file_frame(of_image(found, i), size, origin)
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


def of_image(found: Detections, image: int) -> Detections:
    """The detections of one image."""
    rows = found.images == image
    return Detections(*(column[rows] for column in found))


def to_file_frame(found: Detections, size: tuple[int, int], origin: Origin) -> DetectionPrediction:
    """Scales boxes from an image of `size` (H, W) to the file it was made from."""
    return DetectionPrediction(
        boxes=(found.boxes / scale_of(size, origin).to(found.boxes)).cpu(),
        labels=found.labels.cpu(),
        scores=found.scores.cpu(),
    )


def scale_of(size: tuple[int, int], origin: Origin) -> Tensor:
    """Pixels of the network's image per pixel of the file, as (x, y, x, y)."""
    y, x = (ours / theirs for ours, theirs in zip(size, origin.size, strict=True))
    return torch.tensor((x, y, x, y))
