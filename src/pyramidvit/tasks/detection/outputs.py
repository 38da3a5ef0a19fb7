"""What detectors put out: named tuples of tensors, and what steers the two-stage ones.

Shape letters: B images, L levels of the pyramid, N_l anchors of a level, K classes, R regions,
D detections. Floats are float32 also where the network runs in less.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...ops.selection import Selected
from ...structures import Batch, DetectionTarget

Sizes = Sequence[tuple[int, int]]  # (H, W) of each image of a batch before padding


class DenseOutputs(NamedTuple):
    """What a head says at every anchor; one tensor a level."""

    logits: tuple[Tensor, ...]  # L of [B, N_l, K]
    deltas: tuple[Tensor, ...]  # L of [B, N_l, 4], corrections of the anchors
    anchors: tuple[Tensor, ...]  # L of [N_l, 4], always float32: see `ops.matching`


class Truth(NamedTuple):
    """The objects of an image that are learnt: a target without its crowds."""

    boxes: Tensor  # [n, 4]
    labels: Tensor  # [n]


def truths_of(targets: Sequence[DetectionTarget]) -> tuple[Truth, ...]:
    """One `Truth` an image, the objects in the order of the target."""
    return tuple(Truth(t.boxes[~t.crowd], t.labels[~t.crowd]) for t in targets)


def network_inputs(batch: Batch[DetectionTarget], *, learn: bool) -> dict[str, Any]:
    """What a detector's forward takes beside the images: sizes, and truths where it is to learn.

    Plain tuples: Fabric rebuilds what it passes on under mixed precision, and cannot do so with
    frozen dataclasses.
    """
    return {"sizes": batch.sizes, "targets": truths_of(batch.targets) if learn else None}


def rows_of(maps: Tensor, dim: int) -> Tensor:
    """Turns a head's map [B, A * dim, H, W] into rows [B, H * W * A, dim], float32 or more."""
    return at_least_float32(maps.permute(0, 2, 3, 1).reshape(maps.shape[0], -1, dim))


class Detections(NamedTuple):
    """Boxes that were chosen from a batch, image after image, in each by descending score."""

    boxes: Tensor  # [D, 4], pixels of the network's images
    labels: Tensor  # int64 [D]
    scores: Tensor  # [D]
    images: Tensor  # int64 [D], which image of the batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """How detections are chosen; the defaults are the published ones.

    Attributes:
        score_threshold: What scores must be above.
        nms_threshold: IoU above which the better of two boxes of a class hides the other.
        max_detections: How many an image may have.
    """

    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    max_detections: int = 100


PUBLISHED = Decoding()


def gather_detections(chosen: Sequence[Selected]) -> Detections:
    """Lines up what was chosen in each image of a batch."""
    images = [torch.full_like(found.labels, i) for i, found in enumerate(chosen)]
    return Detections(
        boxes=torch.cat([found.boxes for found in chosen]),
        labels=torch.cat([found.labels for found in chosen]),
        scores=torch.cat([found.scores for found in chosen]),
        images=torch.cat(images),
    )


class Regions(NamedTuple):
    """Boxes of a batch that a head looks at again, to learn."""

    boxes: Tensor  # [R, 4], pixels of the network's images
    images: Tensor  # int64 [R], which image of the batch
    matches: Tensor  # int64 [R], the number of the object in its image's truth, or BACKGROUND
    own: Tensor  # bool [R], which are the object's own box and not a proposal


class RegionOutputs(NamedTuple):
    """What a two-stage detector says, to learn from."""

    proposals: DenseOutputs  # K is 1: object or not
    regions: Regions
    logits: Tensor  # [R, K + 1], background last
    deltas: Tensor  # [R, K, 4], corrections of the regions, one for each class
    mask_logits: Tensor | None  # [p, S, S], for regions with an object, of the object's class


class RegionDetections(NamedTuple):
    """What a two-stage detector finds."""

    detections: Detections
    mask_logits: Tensor | None  # [D, S, S], of the detected class


def at_least_float32(x: Tensor) -> Tensor:
    """Coordinates and scores are no matter for half precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
