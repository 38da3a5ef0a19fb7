"""A task is a record of functions; every task has the same ones."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL.Image import Image
from torch import Tensor, nn

from .structures import Batch, Classes, Sample


class Metrics(Protocol):
    """Collects what is needed to judge predictions.

    Processes that have each seen images of their own exchange their `state()`, and each takes all
    of them with `merge`: after that they agree.
    """

    def update(self, outputs: Any, predictions: Sequence[Any], batch: Batch[Any]) -> None: ...

    def state(self) -> Any: ...

    def merge(self, states: Sequence[Any]) -> None: ...

    def compute(self) -> dict[str, float]: ...


Loss = Callable[[Any, Batch[Any]], dict[str, Tensor]]
Shown = tuple[np.ndarray, str, bool | None]  # pixels [H, W, 3], a line, whether it is right


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What the engine needs to train, evaluate and predict.

    Attributes:
        name: As written into checkpoints.
        divisor: Batches are padded to a multiple of it.
        shown: How many pictures a page of them holds.
        build_model: (options, classes) to a network, filled from a checkpoint where options say so.
        describe_model: (options, classes) to the JSON record from which `rebuild` makes it again.
        rebuild: Such a record to a network with fresh weights.
        forward: (network, batch, whether to learn from its targets) to outputs.
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
        metrics: Classes to a fresh `Metrics`.
        best: The figure of the metrics by which the best weights are chosen; higher is better.
        headline: The figures of a row to the few words of them that a line has room for.
        describe: (prediction, classes) to a JSON record.
        summarise: Such a record to one line.
        show_prediction: (batch, index in it, prediction, classes, input record) to a small picture.
        show_target: (image [C, H, W], target, classes, input record) to a small picture.
        draw: (picture, prediction, classes) to a picture that shows the prediction.
        report: (metrics, classes, folder) writes tables and plots, and returns their paths.
    """

    name: str
    divisor: int = 1
    shown: int = 32
    build_model: Callable[[Any, Classes], nn.Module]
    describe_model: Callable[[Any, Classes], dict[str, Any]]
    rebuild: Callable[[dict[str, Any]], nn.Module]
    forward: Callable[[nn.Module, Batch[Any], bool], Any]
    describe_input: Callable[[Any], dict[str, Any]]
    train_transform: Callable[[Any], Callable[[Sample[Any]], Sample[Any]]]
    eval_transform: Callable[[dict[str, Any]], Callable[[Sample[Any]], Sample[Any]]]
    mix: Callable[[Any, int], Callable[[Batch[Any]], Batch[Any]]]
    frozen: Callable[[Any, nn.Module], set[str]]
    draw_evenly: Callable[[Any, Sequence[int]], Sequence[int] | None]
    loss: Callable[[Any, Sequence[int], int], Loss]
    postprocess: Callable[[Any, Batch[Any]], Sequence[Any]]
    metrics: Callable[[Classes], Metrics]
    best: str
    headline: Callable[[Mapping[str, float]], str]
    describe: Callable[[Any, Classes], dict[str, Any]]
    summarise: Callable[[dict[str, Any]], str]
    show_prediction: Callable[[Batch[Any], int, Any, Classes, dict[str, Any]], Shown]
    show_target: Callable[[Tensor, Any, Classes, dict[str, Any]], Shown]
    draw: Callable[[Image, Any, Classes], Image]
    report: Callable[[Any, Classes, Path], list[Path]]
