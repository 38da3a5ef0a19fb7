"""Predicting pictures, a batch at a time, with unreadable files reported and passed over."""

from collections.abc import Iterator
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from ..data.image_folder import FileSource
from ..data.images import BrokenImage
from ..task import Task
from .loader import plain_loader


def predict(
    fabric: Fabric,
    task: Task,
    model: nn.Module,
    source: FileSource,
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
        source,
        transform,
        batch_size=batch_size,
        workers=workers,
        rank=0,
        ranks=1,
        divisor=task.divisor,
    )
    with torch.inference_mode():
        for number, (batch, broken) in enumerate(loader):
            results: dict[str, Any] = {error.path: error for error in broken}
            if batch is not None:
                batch = batch.to(fabric.device)
                with fabric.autocast():
                    outputs = task.forward(model, batch, False)
                names = [origin.name for origin in batch.origins]
                results |= zip(names, task.postprocess(outputs, batch), strict=True)
            for file in source.files[number * batch_size : (number + 1) * batch_size]:
                yield str(file), results[str(file)]
