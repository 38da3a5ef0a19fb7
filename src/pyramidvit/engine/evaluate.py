"""Scoring a model on every image of a data set exactly once, over any number of processes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.distributed
from lightning_fabric import Fabric
from torch import nn

from ..data.images import BrokenImage
from ..data.source import Source
from ..structures import Batch, Classes, collate, split_by_size
from ..task import Metrics, Shown, Task, Tiling
from .broken import BrokenImages
from .loader import plain_loader
from .predict import predict_batch, predict_sizes, predict_tiled, read_samples
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


class Step(NamedTuple):
    """A batch with what the model says of it, or files that are broken and no batch."""

    batch: Batch[Any] | None
    outputs: Any
    predictions: Sequence[Any]
    broken: tuple[BrokenImage, ...]


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
    tiling: Tiling | None = None,
    scales: Sequence[float] = (1.0,),
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
        tiling: Looks at one image at a time, window by window, where the task can.
        scales: Sizes, as shares of what the record asks for, that are made of each file, looked at
            one image at a time and averaged, where the task can; without effect on tiles.

    Raises:
        UserError: Too many images cannot be read.
    """
    ranks = fabric.world_size
    if tiling is not None:
        find = partial(predict_tiled, fabric, task, model, tiling=tiling)
        steps = one_by_one(fabric, task, find, source, input_record)
    elif tuple(scales) != (1.0,):
        find = partial(predict_sizes, fabric, task, model, scales=scales)
        steps = one_by_one(fabric, task, find, source, input_record)
    else:
        steps = in_batches(fabric, task, model, source, input_record, batch_size, workers)
    metrics = task.metrics(classes)
    result = Evaluation(figures={}, metrics=metrics)
    every = max(1, len(source) // ranks // show) if show else 0  # pictures spread over the data
    training = model.training
    model.eval()
    length = -(-len(source) // ranks)
    seen = unread = 0
    with torch.inference_mode(), reporter.progress("evaluate", length) as bar:
        for batch, outputs, predictions, errors in steps:
            broken.note(errors)
            if ranks == 1:
                broken.check()
            unread += len(errors)
            bar.advance(to=seen + unread + (0 if batch is None else len(batch.images)))
            if batch is None:
                continue
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


def in_batches(
    fabric: Fabric,
    task: Task,
    model: nn.Module,
    source: Source,
    input_record: dict[str, Any],
    batch_size: int,
    workers: int,
) -> Iterator[Step]:
    """This process's batches, each in parts whose images have the same size.

    A padded image could be scored otherwise next to larger ones than by itself; published figures
    are those of images one by one.
    """
    loader = plain_loader(
        source,
        task.eval_transform(input_record),
        batch_size=batch_size,
        workers=workers,
        rank=fabric.global_rank,
        ranks=fabric.world_size,
        divisor=task.divisor,
    )
    for batch, broken in loader:
        if broken or batch is None:
            yield Step(None, None, (), broken)
        if batch is None:
            continue
        for _, part in split_by_size(batch.to(fabric.device), divisor=task.divisor):
            outputs, predictions = predict_batch(fabric, task, model, part)
            yield Step(part, outputs, predictions, ())


def one_by_one(
    fabric: Fabric,
    task: Task,
    find: Callable[..., Any],
    source: Source,
    input_record: dict[str, Any],
) -> Iterator[Step]:
    """This process's images one by one, as files: there are no outputs for one as a whole."""
    transform = task.eval_transform(input_record)
    numbers = range(fabric.global_rank, len(source), fabric.world_size)
    for sample in read_samples(source, numbers):
        if isinstance(sample, BrokenImage):
            yield Step(None, None, (), (sample,))
            continue
        found = find(sample=sample, input_record=input_record)
        yield Step(collate([transform(sample)], divisor=task.divisor), None, (found,), ())
