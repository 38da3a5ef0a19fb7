"""The classifier of a run."""

from torch import nn

from ...models import create_model
from ...structures import Classes
from .config import ClassificationOptions


def build_model(options: ClassificationOptions, classes: Classes) -> nn.Module:
    """A classifier with one output a class, from a checkpoint where the options name one."""
    rate = None if options.drop_path_rate < 0 else options.drop_path_rate
    return create_model(
        options.model,
        num_classes=len(classes),
        pretrained=options.pretrained,
        drop_path_rate=rate,
    )
