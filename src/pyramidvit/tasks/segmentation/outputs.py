"""What segmenters put out. Floats are float32 also where the network runs in less."""

from typing import NamedTuple

from torch import Tensor


class SegmentationOutputs(NamedTuple):
    """What a head says of every class at every place."""

    logits: Tensor  # [B, K, h, w], at the head's own resolution: stride 4, or that of the images
