"""A task is a record of functions; every task has the same ones."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL.Image import Image
from torch import Tensor, nn

from .structures import Batch, Classes, Sample


class Metrics(Protocol):
    """Adds up what is needed to judge predictions.

    `sums` holds tensors that may be added over processes, each having seen its own images.
    """

    sums: dict[str, Tensor]

    def update(self, outputs: Any, batch: Batch[Any]) -> None: ...

    def compute(self) -> dict[str, float]: ...


Loss = Callable[[Any, Batch[Any]], dict[str, Tensor]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What the engine needs to train, evaluate and predict. O stands for the task's options.

    Attributes:
        name: As written into checkpoints.
        build_model: (options, classes) to a network from images to outputs.
        describe_input: Options to the JSON record from which `eval_transform` can be rebuilt.
        train_transform: Options to a function on samples, with augmentation.
        eval_transform: An input record to a function on samples, without.
        mix: (options, number of classes) to a function on training batches.
        frozen: (options, model) to the names of the parameters that training leaves as they are.
        draw_evenly: (options, labels) to a number for each training sample, of which samples of
            every number are drawn equally often; None draws each sample once.
        loss: (options, labels, number of classes) to a function from (outputs, batch) to named
            scalars, whose sum is minimised. Labels are those of the training samples, and empty
            where a sample has no single one.
        postprocess: (outputs, batch) to one prediction an image.
        metrics: Number of classes to a fresh `Metrics`.
        best: The figure of the metrics by which the best weights are chosen; higher is better.
        describe: (prediction, classes) to a JSON record.
        caption: (prediction, classes, target or None) to (one line, whether right or None).
        to_picture: (model input [C, H, W], input record) to pixels uint8 [H, W, 3].
        describe_target: (target, classes) to one line.
        draw: (picture, prediction, classes) to a picture that shows the prediction.
        report: (metrics, classes, folder) writes tables and plots, and returns their paths.
    """

    name: str
    build_model: Callable[[Any, Classes], nn.Module]
    describe_input: Callable[[Any], dict[str, Any]]
    train_transform: Callable[[Any], Callable[[Sample[Any]], Sample[Any]]]
    eval_transform: Callable[[dict[str, Any]], Callable[[Sample[Any]], Sample[Any]]]
    mix: Callable[[Any, int], Callable[[Batch[Any]], Batch[Any]]]
    frozen: Callable[[Any, nn.Module], set[str]]
    draw_evenly: Callable[[Any, Sequence[int]], Sequence[int] | None]
    loss: Callable[[Any, Sequence[int], int], Loss]
    postprocess: Callable[[Any, Batch[Any]], Sequence[Any]]
    metrics: Callable[[int], Metrics]
    best: str
    describe: Callable[[Any, Classes], dict[str, Any]]
    caption: Callable[[Any, Classes, Any], tuple[str, bool | None]]
    to_picture: Callable[[Tensor, dict[str, Any]], np.ndarray]
    describe_target: Callable[[Any, Classes], str]
    draw: Callable[[Image, Any, Classes], Image]
    report: Callable[[Any, Classes, Path], list[Path]]
