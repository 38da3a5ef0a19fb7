"""Scoring a model on every image of a data set exactly once, over any number of processes."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from ..data.source import Source
from ..structures import Classes
from ..task import Metrics, Task
from .broken import BrokenImages
from .loader import plain_loader
from .report import Reporter


@dataclass(kw_only=True)
class Evaluation:
    """What `evaluate` returns.

    Attributes:
        figures: Name to number.
        metrics: The sums behind them.
        shown: The first images with their captions, for a page: (pixels, line, whether right).
    """

    figures: dict[str, float]
    metrics: Metrics
    shown: list[tuple[np.ndarray, str, bool | None]] = field(default_factory=list)


def evaluate(
    fabric: Fabric,
    task: Task,
    model: nn.Module,
    source: Source,
    classes: Classes,
    input_record: dict[str, Any],
    *,
    batch_size: int,
    workers: int,
    reporter: Reporter,
    broken: BrokenImages,
    show: int = 0,
) -> Evaluation:
    """Scores a model; it is left in the mode, training or not, that it came in.

    Args:
        fabric: Tells devices and processes.
        task: Gives metrics, predictions and captions.
        model: From images to outputs; unwrapped, so that processes need not keep step.
        source: The images; each process reads some, none is read twice.
        classes: What the labels mean.
        input_record: What the model's input must be like.
        batch_size: Images a step and process.
        workers: Reading processes for each process.
        reporter: Shows progress.
        broken: Names unreadable images, and refuses too many.
        show: How many images to keep for a page of pictures, spread over the data.

    Raises:
        UserError: Too many images cannot be read.
    """
    ranks, rank = fabric.world_size, fabric.global_rank
    transform = task.eval_transform(input_record)
    loader = plain_loader(
        source, transform, batch_size=batch_size, workers=workers, rank=rank, ranks=ranks
    )
    metrics = task.metrics(len(classes))
    result = Evaluation(figures={}, metrics=metrics)
    every = max(1, len(source) // ranks // show) if show else 0  # pictures spread over the data
    training = model.training
    model.eval()
    seen = 0
    with torch.inference_mode(), reporter.progress("evaluate", len(loader)) as bar:
        for batch, errors in loader:
            broken.note(errors)
            if ranks == 1:
                broken.check()
            bar.advance()
            if batch is None:
                continue
            batch = batch.to(fabric.device)
            with fabric.autocast():
                outputs = model(batch.images)
            metrics.update(outputs, batch)
            wanted = range(-seen % every, len(batch.images), every) if every else range(0)
            for i in wanted[: show - len(result.shown)]:
                result.shown.append(page_entry(task, outputs, batch, i, classes, input_record))
            seen += len(batch.images)
    model.train(training)
    broken.share(ranks)
    for name, value in metrics.sums.items():
        metrics.sums[name] = add_up(fabric, value)
    result.figures = metrics.compute()
    return result


def add_up(fabric: Fabric, value: Tensor) -> Tensor:
    """The sum of a tensor over all processes, on the CPU."""
    if fabric.world_size == 1:
        return value
    total = fabric.all_reduce(value.to(fabric.device), reduce_op="sum")
    assert isinstance(total, Tensor)
    return total.cpu()


def page_entry(
    task: Task,
    outputs: Any,
    batch: Any,
    index: int,
    classes: Classes,
    input_record: dict[str, Any],
) -> tuple[np.ndarray, str, bool | None]:
    """The picture behind an input, the caption of its prediction, and whether it is right."""
    prediction = task.postprocess(outputs, batch)[index]
    line, right = task.caption(prediction, classes, batch.targets[index])
    return task.to_picture(batch.images[index].float().cpu(), input_record), line, right
