"""Predicting pictures, a batch at a time, with unreadable files reported and passed over."""

from collections.abc import Iterator
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from ..data.images import BrokenImage
from ..data.source import Source
from ..task import Task
from .loader import plain_loader


def predict(
    fabric: Fabric,
    task: Task,
    model: nn.Module,
    source: Source,
    input_record: dict[str, Any],
    *,
    batch_size: int,
    workers: int,
) -> Iterator[tuple[str, Any | BrokenImage]]:
    """Yields (file name, prediction), in the order of the files, or (file name, what is broken).

    Args:
        fabric: Tells the device.
        task: Gives transforms and predictions.
        model: From images to outputs, in evaluation mode.
        source: The pictures; their targets are not looked at.
        input_record: What the model's input must be like.
        batch_size: Pictures a step.
        workers: Reading processes.
    """
    transform = task.eval_transform(input_record)
    loader = plain_loader(
        source, transform, batch_size=batch_size, workers=workers, rank=0, ranks=1
    )
    with torch.inference_mode():
        for batch, broken in loader:
            for error in broken:
                yield error.path, error
            if batch is None:
                continue
            batch = batch.to(fabric.device)
            with fabric.autocast():
                outputs = model(batch.images)
            predictions = task.postprocess(outputs, batch)
            for origin, prediction in zip(batch.origins, predictions, strict=True):
                yield origin.name, prediction
