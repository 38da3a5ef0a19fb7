"""Small pictures of what a detector sees and finds, for pages of them."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...structures import Batch, Classes, DetectionPrediction, DetectionTarget, Origin
from ...task import Shown
from .describe import caption
from .draw import draw
from .moves import nearest_places, remap_masks
from .postprocess import scale_of
from .transforms import denormalise
from .truth import AnnotatedOrigin


def show_prediction(
    batch: Batch[DetectionTarget],
    index: int,
    prediction: DetectionPrediction,
    classes: Classes,
    input_record: dict[str, Any],
) -> Shown:
    """An image of a batch with what was found in it, and how much of that is right."""
    height, width = size = batch.sizes[index]
    pixels = denormalise(batch.images[index][:, :height, :width].float().cpu(), input_record)
    found = to_frame(prediction, size, batch.origins[index])
    page = draw(Image.fromarray(pixels), found, classes)
    origin = batch.origins[index]
    truth = origin.truth if isinstance(origin, AnnotatedOrigin) else None
    line, right = caption(prediction, classes, truth)
    return np.asarray(page), line, right


def to_frame(
    prediction: DetectionPrediction, size: tuple[int, int], origin: Origin
) -> DetectionPrediction:
    """A prediction from the frame of the file to that of an image of `size` (H, W) made of it."""
    masks = prediction.masks
    if masks is not None:
        rows, columns = (nearest_places(a, b) for a, b in zip(origin.size, size, strict=True))
        everything = torch.ones(len(masks), dtype=torch.bool)
        masks = remap_masks(masks, everything, columns, rows)
    return replace(prediction, boxes=prediction.boxes * scale_of(size, origin), masks=masks)


def show_target(
    image: Tensor, target: DetectionTarget, classes: Classes, input_record: dict[str, Any]
) -> Shown:
    """A training image with its objects; it may be padded at the right and the bottom."""
    pixels = denormalise(image, input_record)
    if target.masks is not None:
        height, width = target.masks.size
        pixels = pixels[:height, :width]
    page = draw(Image.fromarray(pixels), target, classes)
    return np.asarray(page), f"{len(target.labels)} objects", None
