"""Predicting pictures, a batch or a large one at a time; unreadable files are passed on as such."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from PIL.Image import Image
from torch import nn

from ..data.image_folder import FileSource
from ..data.images import BrokenImage
from ..data.source import Source
from ..data.video import Frame
from ..structures import Batch, Origin, Sample, collate, split_by_size
from ..task import Task, Tiling
from .loader import plain_loader


class Answer(NamedTuple):
    """What a model says of a picture, and a picture of that where one was asked for and at hand."""

    origin: Origin
    prediction: Any
    drawn: Image | None = None


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
    """`predict_pictures` for those who need no more than (file name, prediction or what is broken).

    Args: see there.
    """
    for answer in predict_pictures(
        fabric, task, model, source, input_record, batch_size=batch_size, workers=workers
    ):
        if isinstance(answer, BrokenImage):
            yield answer.path, answer
        else:
            yield answer.origin.name, answer.prediction


def predict_pictures(
    fabric: Fabric,
    task: Task,
    model: nn.Module,
    source: FileSource,
    input_record: dict[str, Any],
    *,
    batch_size: int,
    workers: int,
    tiling: Tiling | None = None,
    draw: Callable[[Any, Any], Image] | None = None,
) -> Iterator[Answer | BrokenImage]:
    """Yields what is said of each picture, or what is broken, in the order of the files.

    However many there are, no more is held than the batches on their way.

    Args:
        fabric: Tells the device.
        task: Gives transforms and predictions.
        model: From images to outputs, in evaluation mode.
        source: The pictures; their targets are not looked at.
        input_record: What the model's input must be like.
        batch_size: Pictures a step.
        workers: Reading processes.
        tiling: Looks at one picture at a time, window by window, where the task can.
        draw: From (picture, prediction) to a picture of both, asked where the picture is still
            there after all has been said of it: with tiles.
    """
    if tiling is not None:
        for sample in read_samples(source, range(len(source))):
            if isinstance(sample, BrokenImage):
                yield sample
            else:
                found = predict_tiled(fabric, task, model, sample, input_record, tiling)
                answer = Answer(sample.origin, found, draw and draw(sample.image, found))
                del sample  # a large picture, while files are made of what was found
                yield answer
        return
    loader = plain_loader(
        source,
        task.eval_transform(input_record),
        batch_size=batch_size,
        workers=workers,
        rank=0,
        ranks=1,
        divisor=task.divisor,
    )
    for number, (batch, broken) in enumerate(loader):
        results: dict[str, Answer | BrokenImage] = {error.path: error for error in broken}
        if batch is not None:
            predictions = predict_apart(fabric, task, model, batch.to(fabric.device))
            answers = map(Answer, batch.origins, predictions)
            results |= {answer.origin.name: answer for answer in answers}
        for file in source.files[number * batch_size : (number + 1) * batch_size]:
            yield results[str(file)]


def predict_frames(
    fabric: Fabric,
    task: Task,
    model: nn.Module,
    frames: Iterable[Frame],
    input_record: dict[str, Any],
    *,
    batch_size: int,
    tiling: Tiling | None = None,
) -> Iterator[tuple[Frame, Any]]:
    """Yields each frame of a video with what is said of it; `batch_size` frames are held at most.

    Args: as in `predict_pictures`.
    """
    transform = task.eval_transform(input_record)
    coming = iter(frames)
    while group := list(islice(coming, batch_size if tiling is None else 1)):
        samples = [to_sample(frame) for frame in group]
        if tiling is None:
            batch = collate([transform(sample) for sample in samples], divisor=task.divisor)
            predictions = predict_apart(fabric, task, model, batch.to(fabric.device))
        else:
            predictions = [predict_tiled(fabric, task, model, samples[0], input_record, tiling)]
        yield from zip(group, predictions, strict=True)


def to_sample(frame: Frame) -> Sample[Any]:
    picture = frame.picture
    origin = Origin(name=f"frame {frame.number}", size=(picture.height, picture.width))
    return Sample(image=picture, target=None, origin=origin)


def predict_apart(fabric: Fabric, task: Task, model: nn.Module, batch: Batch[Any]) -> list[Any]:
    """One prediction an image of a batch, which lies on the device; none of them depends on the
    other images, as it would if these were larger and all padded to one size."""
    found: dict[int, Any] = {}
    for indices, part in split_by_size(batch, divisor=task.divisor):
        found |= zip(indices, predict_batch(fabric, task, model, part)[1], strict=True)
    return [found[index] for index in range(len(found))]


@torch.inference_mode()
def predict_batch(
    fabric: Fabric, task: Task, model: nn.Module, batch: Batch[Any]
) -> tuple[Any, Sequence[Any]]:
    """Outputs for a batch, which lies on the device, and one prediction an image."""
    with fabric.autocast():
        outputs = task.forward(model, batch, False)
    return outputs, task.postprocess(outputs, batch)


@torch.inference_mode()
def predict_tiled(
    fabric: Fabric,
    task: Task,
    model: nn.Module,
    sample: Sample[Any],
    input_record: dict[str, Any],
    tiling: Tiling,
) -> Any:
    """The prediction for a picture that is looked at window by window; the task must be able to."""
    assert task.predict_tiled is not None
    with fabric.autocast():
        return task.predict_tiled(model, sample, input_record, tiling)


@torch.inference_mode()
def predict_sizes(
    fabric: Fabric,
    task: Task,
    model: nn.Module,
    sample: Sample[Any],
    input_record: dict[str, Any],
    scales: Sequence[float],
) -> Any:
    """The prediction for a picture that is looked at in several sizes; the task must be able to."""
    assert task.predict_sizes is not None
    with fabric.autocast():
        return task.predict_sizes(model, sample, input_record, scales)


def read_samples(source: Source, numbers: Iterable[int]) -> Iterator[Sample[Any] | BrokenImage]:
    """Samples of a source by number, one at a time."""
    for number in numbers:
        try:
            yield source[number]
        except BrokenImage as error:
            yield error
