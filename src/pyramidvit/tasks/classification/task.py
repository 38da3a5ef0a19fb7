"""Classification as a record of functions."""

from ...task import Task
from .balance import draw_evenly
from .draw import draw, report
from .frozen import frozen
from .loss import build_loss
from .metrics import ClassificationMetrics
from .model import build_model, describe_model, forward, rebuild
from .postprocess import describe, headline, postprocess, summarise
from .show import show_prediction, show_target
from .transforms import describe_input, eval_transform, mix, train_transform

CLASSIFICATION = Task(
    name="classification",
    mixes_pairs=True,
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
    metrics=ClassificationMetrics,
    best="top1",
    headline=headline,
    describe=describe,
    summarise=summarise,
    show_prediction=show_prediction,
    show_target=show_target,
    draw=draw,
    report=report,
)
