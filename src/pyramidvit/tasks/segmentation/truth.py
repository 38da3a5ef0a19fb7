"""What evaluation holds predictions against: the map of the file, before any transform.

A map that was shrunk to the network's image could not be brought back, and published figures need
the annotation to the last pixel. So the origin of an image takes it along.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from ...structures import Origin, Sample, SegmentationTarget


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledOrigin(Origin):
    """Where an image came from, and what its map says.

    Attributes:
        truth: int16 [H, W] at the file's size, numbers of classes, or UNLABELLED. No tensor: each
            would take a file handle on its way out of a reading process.
    """

    truth: np.ndarray = field(compare=False, repr=False)


def keep_truth(sample: Sample[SegmentationTarget]) -> Sample[SegmentationTarget]:
    """The sample with its map noted in the origin: the first step of an evaluation's transform.

    The map is shared, not copied: a transform must make a new one.
    """
    origin, target = sample.origin, sample.target
    if target is None or isinstance(origin, LabelledOrigin):
        return sample
    noted = LabelledOrigin(name=origin.name, size=origin.size, truth=target.labels.numpy())
    return replace(sample, origin=noted)
