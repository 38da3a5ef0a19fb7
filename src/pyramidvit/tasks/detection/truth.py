"""What evaluation holds predictions against: the annotation of the file, before any transform.

Boxes could be scaled back from the network's image, masks could not, and published figures need the
annotation to the last pixel. So the origin of an image takes it along.
"""

import io
import os
from dataclasses import dataclass, replace

import numpy as np
from PIL.Image import Image

from ...data.objects import RecordedOrigin
from ...structures import DetectionTarget, Origin, Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotatedOrigin(Origin):
    """Where an annotated image came from, and what its annotation says.

    Attributes:
        id: What the data calls the image, such as COCO's number; written into results.
        truth: Its objects in the frame of the file.
        areas: float64 [n], what the annotation says of the objects' areas in pixels of the file,
            by which COCO tells small from large; NaN, or None as a whole, where it says nothing.
        picture: A PNG file's content where the image has no file; None where it can be read again.
    """

    id: int | str
    truth: DetectionTarget
    areas: np.ndarray | None = None
    picture: bytes | None = None


def keep_truth(sample: Sample[DetectionTarget]) -> Sample[DetectionTarget]:
    """The sample with its target noted in the origin: the first step of an evaluation's transform.

    Images of data that name none are called by their files.
    """
    origin, target = sample.origin, sample.target
    if target is None or isinstance(origin, AnnotatedOrigin):
        return sample
    number: int | str = origin.name
    areas = None
    if isinstance(origin, RecordedOrigin):
        number, areas = origin.id, origin.areas
    noted = AnnotatedOrigin(
        name=origin.name,
        size=origin.size,
        id=number,
        truth=target,
        areas=areas,
        picture=pack_picture(sample),
    )
    return replace(sample, origin=noted)


def pack_picture(sample: Sample[DetectionTarget]) -> bytes | None:
    """The picture of a sample that was made up by a program, so that a report can show it."""
    if not isinstance(sample.image, Image) or os.path.isfile(sample.origin.name):  # noqa: PTH113
        return None
    content = io.BytesIO()
    sample.image.save(content, format="png", compress_level=1)
    return content.getvalue()
