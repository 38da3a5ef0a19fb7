"""Detection as a record of functions."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from ...structures import Batch, Classes
from ...task import Loss, Task
from .config import DetectionOptions
from .describe import describe, summarise
from .draw import draw
from .loss import loss
from .metrics import DetectionMetrics
from .network import build_model, describe_model, forward, frozen, rebuild
from .outputs import Decoding
from .postprocess import postprocess
from .report import report
from .results import FORMATS, open_results
from .show import show_prediction, show_target
from .tiles import predict_tiled
from .transforms import DIVISOR, describe_input, eval_transform, train_transform


def mix(options: DetectionOptions, num_classes: int) -> Any:
    """No images are mixed."""

    def same(batch: Batch[Any]) -> Batch[Any]:
        return batch

    return same


def draw_evenly(options: DetectionOptions, labels: Sequence[int]) -> None:
    """Each image is drawn once: it has objects of many classes."""


def build_loss(options: DetectionOptions, labels: Sequence[int], classes: Classes) -> Loss:
    return loss


def build_metrics(classes: Classes) -> DetectionMetrics:
    return DetectionMetrics(len(classes))


def headline(figures: Mapping[str, float]) -> str:
    """Average precision of boxes and, where there are any, of masks."""
    words = [f"box AP {figures['box_ap']:.1f}, AP50 {figures['box_ap50']:.1f}"]
    if "mask_ap" in figures:
        words.append(f"mask AP {figures['mask_ap']:.1f}, AP50 {figures['mask_ap50']:.1f}")
    return "  ".join(words)


DETECTION = Task(
    name="detection",
    divisor=DIVISOR,
    shown=16,
    at_once=8,
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
    best="box_ap",
    headline=headline,
    describe=describe,
    summarise=summarise,
    show_prediction=show_prediction,
    show_target=show_target,
    draw=draw,
    report=report,
    formats=FORMATS,
    open_results=open_results,
    predict_tiled=predict_tiled,
)


def counting(task: Task, most: int) -> Task:
    """Detection whose figures count `most` detections an image and class, where COCO counts 100."""

    def metrics(classes: Classes) -> DetectionMetrics:
        return DetectionMetrics(len(classes), max_detections=most)

    return replace(task, metrics=metrics)


def with_limit(task: Task, model: nn.Module, most: int) -> Task:
    """The task with another limit of detections an image, in its figures and in the model.

    Args:
        task: Detection.
        model: A detector; its own limit is set.
        most: COCO's `maxDets`, for crowded images; published are 100.
    """
    decoding = model.decoding
    assert isinstance(decoding, Decoding)
    model.decoding = replace(decoding, max_detections=most)
    return counting(task, most)
