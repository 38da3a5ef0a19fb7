"""Classes of unequal size: drawing them equally often, or weighing them in the loss."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ...errors import UserError
from .config import ClassificationOptions


def draw_evenly(options: ClassificationOptions, labels: Sequence[int]) -> Sequence[int] | None:
    """The labels, by which the classes are drawn equally often, where the options ask for that."""
    if options.sampling == "natural":
        return None
    check_labels("sampling", labels)
    return labels


def class_weights(
    options: ClassificationOptions, labels: Sequence[int], num_classes: int
) -> Tensor | None:
    """The classes' weights in the loss, float32 [num_classes]; None where all weigh the same.

    They are n / (K n_k) for n training images in K classes, n_k of them in class k: inversely
    proportional to a class's size, and 1 on average over the images, so that the loss stays as
    large as without. A class without images does not count among the K and gets the weight 1: only
    label smoothing ever names it.
    """
    if options.class_weights == "none":
        return None
    check_labels("class_weights", labels)
    counts = torch.bincount(torch.tensor(labels), minlength=num_classes).double()
    present = counts > 0
    weights = len(labels) / (present.sum() * counts.clamp(min=1))
    weights = torch.where(present, weights, 1.0).float()
    return None if bool((weights == 1).all()) else weights


def check_labels(name: str, labels: Sequence[int]) -> None:
    if not labels:
        raise UserError(f"--{name} balanced needs data that names a class for every image")
