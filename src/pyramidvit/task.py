"""A task is a record of functions; every task has the same ones."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL.Image import Image
from torch import Tensor, nn

from .structures import Batch, Classes, Origin, Sample


class Metrics(Protocol):
    """Collects what is needed to judge predictions.

    Processes that have each seen images of their own exchange their `state()`, and each takes all
    of them with `merge`: after that they agree.
    """

    def update(self, outputs: Any, predictions: Sequence[Any], batch: Batch[Any]) -> None: ...

    def state(self) -> Any: ...

    def merge(self, states: Sequence[Any]) -> None: ...

    def compute(self) -> dict[str, float]: ...


class ResultFiles(Protocol):
    """Files that grow by a prediction at a time, beside the JSON lines that every task has."""

    def add(self, origin: Origin, prediction: Any) -> dict[str, Any]:
        """Takes a prediction; returns what its JSON line is to say of the files."""
        ...

    def close(self) -> list[Path]:
        """Writes what is left; returns the paths of whatever is there for all pictures together."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiling:
    """How a large picture is cut into windows that are looked at one by one.

    Attributes:
        side: Of a window, in pixels of the file.
        overlap: Share of a side, from 0 to below 1, that neighbours have in common.
    """

    side: int
    overlap: float = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Looks:
    """How often and in which sizes an image is looked at when it is scored.

    Attributes:
        window: Side in pixels of the square windows that the prepared image is cut into, whose
            answers are averaged; 0 looks at it whole.
        overlap: Share of a window, from 0 to below 1, that neighbours have in common.
        scales: Sizes, as shares of the usual one's, whose answers are averaged.
        flip: Averages with the answers for the mirrored image.
    """

    window: int = 0
    overlap: float = 1 / 3
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False


Loss = Callable[[Any, Batch[Any]], dict[str, Tensor]]
Shown = tuple[np.ndarray, str, bool | None]  # pixels [H, W, 3], a line, whether it is right


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What the engine needs to train, evaluate and predict.

    Attributes:
        name: As written into checkpoints.
        divisor: Batches are padded to a multiple of it.
        shown: How many pictures a page of them holds.
        at_once: Images a step where nothing is learnt, unless somebody says how many.
        build_model: (options, classes) to a network, filled from a checkpoint where options say so.
        describe_model: (options, classes) to the JSON record from which `rebuild` makes it again.
        rebuild: Such a record to a network with fresh weights.
        forward: (network, batch, whether to learn from its targets) to outputs.
        describe_input: Options to the JSON record from which `eval_transform` can be rebuilt.
        train_transform: Options to a function on samples, with augmentation.
        eval_transform: An input record to a function on samples, without.
        mix: (options, number of classes) to a function on training batches.
        mixes_pairs: It may mix the i-th image with the i-th from the end, so a process needs an
            even number of them.
        frozen: (options, model) to the names of the parameters that training leaves as they are.
        draw_evenly: (options, labels) to a number for each training sample, of which samples of
            every number are drawn equally often; None draws each sample once.
        loss: (options, labels, classes) to a function from (outputs, batch) to named
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
        draw_frame: As `draw`, of pictures of one size in one size, for videos; None where `draw`
            does so.
        report: (metrics, classes, folder) writes tables and plots, and returns their paths.
        formats: Names of the result files that can be asked of a prediction.
        open_results: (folder, classes, some of these names) to files that predictions are added to;
            None where a task has only the JSON lines.
        predict_tiled: (network, sample with a picture, input record, tiling) to a prediction, of a
            picture too large to be looked at whole; None where a task cannot.
        look_again: (network, looks) to a network that averages over several looks at its images;
            None where a task cannot.
        predict_sizes: (network, sample with a picture, input record, scales) to a prediction, an
            average over sizes of the picture, as shares of that which the record asks for; None
            where a task cannot.
    """

    name: str
    divisor: int = 1
    shown: int = 32
    at_once: int = 64
    mixes_pairs: bool = False
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
    loss: Callable[[Any, Sequence[int], Classes], Loss]
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
    formats: tuple[str, ...] = ()
    open_results: Callable[[Path, Classes, Sequence[str]], ResultFiles] | None = None
    predict_tiled: Callable[[nn.Module, Sample[Any], dict[str, Any], Tiling], Any] | None = None
    look_again: Callable[[nn.Module, Looks], nn.Module] | None = None
    predict_sizes: (
        Callable[[nn.Module, Sample[Any], dict[str, Any], Sequence[float]], Any] | None
    ) = None
    draw_frame: Callable[[Image, Any, Classes], Image] | None = None
