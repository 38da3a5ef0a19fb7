"""From the outputs of RetinaNet to detections, in the frame of the network's images.

Reference: mmdetection 2.13; later versions choose other candidates.
"""

import torch

from ...ops.boxes import clip_boxes, decode_boxes
from ...ops.selection import Selected, best_rows, select_boxes
from .outputs import Decoding, DenseOutputs, RegionDetections, Sizes, gather_detections

CANDIDATES = 1000  # anchors a level that are looked at


def detect_dense(outputs: DenseOutputs, sizes: Sizes, decoding: Decoding) -> RegionDetections:
    """Chooses detections from the best anchors of each level, by independent class scores."""
    chosen = [detect_image(outputs, i, size, decoding) for i, size in enumerate(sizes)]
    return RegionDetections(gather_detections(chosen), None)


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
