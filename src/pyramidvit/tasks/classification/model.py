"""The classifier of a run."""

import logging
from typing import Any

from torch import Tensor, nn

from ...models import create_model
from ...structures import Batch, Classes
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


def describe_model(options: ClassificationOptions, classes: Classes) -> dict[str, Any]:
    """The JSON record of a model, for its checkpoints."""
    return {"name": options.model, "num_classes": len(classes), "in_chans": 3}


def rebuild(record: dict[str, Any]) -> nn.Module:
    """The classifier of such a record, with fresh weights."""
    return create_model(
        record["name"],
        num_classes=int(record["num_classes"]),
        in_chans=int(record.get("in_chans", 3)),
    )


def forward(model: nn.Module, batch: Batch[Any], learn: bool) -> Tensor:
    """Logits [B, K]; a classifier's forward does not depend on the targets."""
    logits: Tensor = model(batch.images)
    return logits
