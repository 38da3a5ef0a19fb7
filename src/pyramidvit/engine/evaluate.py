"""Scoring a model on every image of a data set exactly once, over any number of processes."""

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed
from lightning_fabric import Fabric
from torch import nn

from ..data.source import Source
from ..structures import Classes
from ..task import Metrics, Shown, Task
from .broken import BrokenImages
from .loader import plain_loader
from .report import Reporter


@dataclass(kw_only=True)
class Evaluation:
    """What `evaluate` returns.

    Attributes:
        figures: Name to number.
        metrics: What is behind them.
        shown: The first images with their captions, for a page: (pixels, line, whether right).
    """

    figures: dict[str, float]
    metrics: Metrics
    shown: list[Shown] = field(default_factory=list)


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
        task: Gives metrics, predictions and pictures of them.
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
        source,
        transform,
        batch_size=batch_size,
        workers=workers,
        rank=rank,
        ranks=ranks,
        divisor=task.divisor,
    )
    metrics = task.metrics(classes)
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
                outputs = task.forward(model, batch, False)
            predictions = task.postprocess(outputs, batch)
            metrics.update(outputs, predictions, batch)
            wanted = range(-seen % every, len(batch.images), every) if every else range(0)
            for i in wanted[: show - len(result.shown)]:
                shown = task.show_prediction(batch, i, predictions[i], classes, input_record)
                result.shown.append(shown)
            seen += len(batch.images)
    model.train(training)
    broken.share(ranks)
    if ranks > 1:
        states: list[Any] = [None] * ranks
        torch.distributed.all_gather_object(states, metrics.state())
        metrics.merge(states)
    result.figures = metrics.compute()
    return result
