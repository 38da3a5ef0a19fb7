"""Small pictures of what a classifier sees and says, for pages of them."""

from typing import Any

from torch import Tensor

from ...structures import Batch, Classes, ClassPrediction, ClassTarget, MixedTarget
from ...task import Shown
from .postprocess import caption, describe_target
from .transforms import denormalise


def show_prediction(
    batch: Batch[ClassTarget],
    index: int,
    prediction: ClassPrediction,
    classes: Classes,
    input_record: dict[str, Any],
) -> Shown:
    """An image of a batch, the caption of its prediction, and whether that is right."""
    line, right = caption(prediction, classes, batch.targets[index])
    return denormalise(batch.images[index].float().cpu(), input_record), line, right


def show_target(
    image: Tensor, target: MixedTarget, classes: Classes, input_record: dict[str, Any]
) -> Shown:
    """A training image and what it is to be taken for."""
    return denormalise(image, input_record), describe_target(target, classes), None
