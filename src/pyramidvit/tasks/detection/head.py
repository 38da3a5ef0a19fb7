"""What a detector is made of, for the table: each head's file ends with one of these."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn

from ...structures import Batch, DetectionTarget
from .outputs import Decoding, RegionDetections, Sizes

Detect = Callable[[Any, Sizes, Decoding], RegionDetections]


class Head(NamedTuple):
    """A detector.

    Attributes:
        build: (backbone, num_classes, **numbers) to the network, which has a `decoding`.
        outputs: The type of what the network says when it is to learn.
        loss: (outputs, batch) to named scalars.
        detect: (outputs, sizes, decoding) to detections; None where the network, which draws masks
            for them, gives detections itself.
        learns_masks: Whether every object that it learns from must have a mask.
    """

    build: Callable[..., nn.Module]
    outputs: type
    loss: Callable[[Any, Batch[DetectionTarget]], dict[str, Tensor]]
    detect: Detect | None = None
    learns_masks: bool = False
