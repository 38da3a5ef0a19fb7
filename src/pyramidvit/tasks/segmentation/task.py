"""Segmentation as a task: its functions, under the names that every task has."""

from collections.abc import Mapping, Sequence
from typing import Any

from ...structures import Batch, Classes
from ...task import Task
from .config import SegmentationOptions
from .describe import describe, summarise
from .draw import draw, draw_frame
from .looks import look_again, predict_sizes
from .loss import build_loss
from .metrics import SegmentationMetrics
from .network import build_model, describe_model, forward, frozen, rebuild
from .postprocess import postprocess
from .report import report
from .results import FORMATS, open_results
from .show import show_prediction, show_target
from .tiles import predict_tiled
from .transforms import DIVISOR, describe_input, eval_transform, train_transform


def mix(options: SegmentationOptions, num_classes: int) -> Any:
    """No images are mixed."""

    def same(batch: Batch[Any]) -> Batch[Any]:
        return batch

    return same


def draw_evenly(options: SegmentationOptions, labels: Sequence[int]) -> None:
    """Each image is drawn once: it has pixels of many classes."""


def build_metrics(classes: Classes) -> SegmentationMetrics:
    return SegmentationMetrics(len(classes))


def headline(figures: Mapping[str, float]) -> str:
    """Mean IoU, mean accuracy of the classes, and the share of pixels that are right."""
    return (
        f"mIoU {figures['miou']:.1f}, mean accuracy {figures['mean_accuracy']:.1f},"
        f" pixels {figures['pixel_accuracy']:.1f}"
    )


SEGMENTATION = Task(
    name="segmentation",
    divisor=DIVISOR,
    shown=16,
    at_once=4,
    build_model=build_model,
    describe_model=describe_model,
    rebuild=rebuild,
    forward=forward,
    describe_input=describe_input,
    train_transform=train_transform,
    eval_transform=eval_transform,
    mix=mix,
    frozen=frozen,
    draw_evenly=draw_evenly,
    loss=build_loss,
    postprocess=postprocess,
    metrics=build_metrics,
    best="miou",
    headline=headline,
    describe=describe,
    summarise=summarise,
    show_prediction=show_prediction,
    show_target=show_target,
    draw=draw,
    draw_frame=draw_frame,
    report=report,
    formats=FORMATS,
    open_results=open_results,
    predict_tiled=predict_tiled,
    look_again=look_again,
    predict_sizes=predict_sizes,
)
