"""The classifier of a run."""

import logging

from torch import nn

from ...models import create_model
from ...structures import Classes
from ...weights.load import load_weights
from ...weights.places import find_weights
from .config import ClassificationOptions

log = logging.getLogger(__name__)


def build_model(options: ClassificationOptions, classes: Classes) -> nn.Module:
    """A classifier with one output a class, from a checkpoint where the options name one.

    The head starts afresh unless the checkpoint names the very same classes.
    """
    rate = None if options.drop_path_rate < 0 else options.drop_path_rate
    model = create_model(options.model, num_classes=len(classes), drop_path_rate=rate)
    if options.pretrained is not None:
        path = find_weights(options.pretrained, options.model)
        report = load_weights(model, path, classes=classes.names)
        log.info("%s from %s: %s", options.model, path, report)
    return model
