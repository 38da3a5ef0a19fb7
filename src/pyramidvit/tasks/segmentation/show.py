"""Small pictures of what a segmenter sees and says, for pages of them."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...structures import Batch, Classes, SegmentationPrediction, SegmentationTarget
from ...task import Shown
from .describe import describe, summarise
from .draw import draw
from .transforms import denormalise
from .truth import LabelledOrigin


def show_prediction(
    batch: Batch[SegmentationTarget],
    index: int,
    prediction: SegmentationPrediction,
    classes: Classes,
    input_record: dict[str, Any],
) -> Shown:
    """An image of a batch with its regions, and how many of its labelled pixels are right."""
    height, width = size = batch.sizes[index]
    pixels = denormalise(batch.images[index][:, :height, :width].float().cpu(), input_record)
    found = SegmentationPrediction(labels=at_size(prediction.labels.cpu(), size))
    page = draw(Image.fromarray(pixels), found, classes)
    origin = batch.origins[index]
    if isinstance(origin, LabelledOrigin):
        line = score(prediction.labels.cpu().numpy(), origin.truth)
    else:
        line = summarise(describe(prediction, classes))
    return np.asarray(page), line, None


def at_size(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """A map [H, W] as it is at the centres of the pixels of another of `size`."""
    rows, columns = (
        torch.div((torch.arange(new) * 2 + 1) * old, 2 * new, rounding_mode="floor")
        for new, old in zip(size, labels.shape, strict=True)
    )
    return labels[rows][:, columns]


def score(labels: np.ndarray, truth: np.ndarray) -> str:
    """ "91 % of pixels right"; both are [H, W], and what the truth does not know is not counted."""
    known = truth >= 0
    count = int(known.sum())
    if not count:
        return "unlabelled"
    right = int(((labels == truth) & known).sum())
    return f"{100 * right / count:.0f} % of pixels right"


def show_target(
    image: Tensor, target: SegmentationTarget, classes: Classes, input_record: dict[str, Any]
) -> Shown:
    """A training image with its regions; it may be padded at the right and the bottom."""
    height, width = target.labels.shape
    pixels = denormalise(image, input_record)[:height, :width]
    page = draw(Image.fromarray(pixels), target, classes)
    known = SegmentationPrediction(labels=target.labels)
    return np.asarray(page), summarise(describe(known, classes)), None
