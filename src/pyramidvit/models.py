"""Models by name, in timm's habits."""

import fnmatch
import logging
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

from torch import nn

from .backbones import pvt_v1, pvt_v2
from .backbones.trunk import PyramidOptions
from .errors import UserError, nearest
from .weights.checkpoint import Checkpoint, read_checkpoint
from .weights.load import LoadReport, load_weights
from .weights.load_detector import load_detector
from .weights.places import find_weights

if TYPE_CHECKING:
    from .tasks.detection.detectors import SingleStageDetector, TwoStageDetector
    from .tasks.segmentation.model import Segmenter

BackboneModel = (
    pvt_v1.PVTv1Classifier | pvt_v1.PVTv1Pyramid | pvt_v2.PVTv2Classifier | pvt_v2.PVTv2Pyramid
)
Weights = str | Path | bool | None
STAGES = (0, 1, 2, 3)

log = logging.getLogger(__name__)


class Heads(NamedTuple):
    """The models of a task that are a head on a backbone."""

    names: Collection[str]
    build: Callable[..., nn.Module]  # (name, backbone, num_classes, **numbers)
    load: Callable[[nn.Module, Checkpoint, str], LoadReport]  # (model, checkpoint, where)
    num_classes: int  # of the data set that their papers report on


def heads_of_tasks() -> tuple[Heads, ...]:
    """All heads, a row a task; imported here, since tasks import this module."""
    from .tasks.detection.model import build_detector
    from .tasks.detection.table import DETECTORS
    from .tasks.segmentation.model import BUILDERS as SEGMENTERS
    from .tasks.segmentation.model import build_segmenter

    return (
        Heads(DETECTORS, build_detector, load_detector, 80),  # COCO
        Heads(SEGMENTERS, build_segmenter, load_detector, 150),  # ADE20K
    )


def list_models(pattern: str = "*") -> list[str]:
    """Names of the models, filtered by a shell pattern: `list_models("pvt_v2*")`."""
    return fnmatch.filter([*pvt_v1.SIZES, *pvt_v2.SIZES], pattern)


def list_heads(pattern: str = "*") -> list[str]:
    """Names of what stands on a backbone, such as detectors, filtered by a shell pattern."""
    names = [name for heads in heads_of_tasks() for name in heads.names]
    return fnmatch.filter(names, pattern)


@overload
def create_model(
    name: str,
    *,
    backbone: None = None,
    num_classes: int | None = None,
    pretrained: Weights = None,
    in_chans: int = 3,
    drop_path_rate: float | None = None,
    features_only: bool = False,
    out_indices: Sequence[int] = STAGES,
) -> BackboneModel: ...


@overload
def create_model(
    name: Literal["retinanet"],
    *,
    backbone: str,
    num_classes: int | None = None,
    pretrained: Weights = None,
    in_chans: int = 3,
    drop_path_rate: float | None = None,
    **numbers: Any,
) -> "SingleStageDetector": ...


@overload
def create_model(
    name: Literal["faster_rcnn", "mask_rcnn"],
    *,
    backbone: str,
    num_classes: int | None = None,
    pretrained: Weights = None,
    in_chans: int = 3,
    drop_path_rate: float | None = None,
    **numbers: Any,
) -> "TwoStageDetector": ...


@overload
def create_model(
    name: Literal["semantic_fpn", "trans2seg"],
    *,
    backbone: str,
    num_classes: int | None = None,
    pretrained: Weights = None,
    in_chans: int = 3,
    drop_path_rate: float | None = None,
    **numbers: Any,
) -> "Segmenter": ...


@overload
def create_model(
    name: str,
    *,
    backbone: str,
    num_classes: int | None = None,
    pretrained: Weights = None,
    in_chans: int = 3,
    drop_path_rate: float | None = None,
    **numbers: Any,
) -> nn.Module: ...


def create_model(
    name: str,
    *,
    backbone: str | None = None,
    num_classes: int | None = None,
    pretrained: Weights = None,
    in_chans: int = 3,
    drop_path_rate: float | None = None,
    features_only: bool = False,
    out_indices: Sequence[int] = STAGES,
    **numbers: Any,
) -> nn.Module:
    """Builds a classifier, a backbone that gives a pyramid of maps, or a detector or a segmenter on
    a backbone.

    Args:
        name: One of `list_models()` for a classifier, or with `features_only` a backbone; one of
            `list_heads()` for a detector or a segmenter.
        backbone: What a detector or a segmenter stands on, one of `list_models()`.
        num_classes: Width of a classifier's logits, 0 for pooled features; classes of a detector,
            the background not counted; or classes of a segmenter, the background counted if it is
            one. None takes 1000, COCO's 80, or ADE20K's 150.
        pretrained: Weights to start from: a checkpoint file or directory, True for the official
            release, a published name such as "pvt_v2_b0.in1k", or a repository of the hub; see
            `weights.places`. A detector takes a detector's, or a classifier's for its backbone, and
            a segmenter likewise. Where the class count differs from `num_classes`, the head starts
            fresh; what was done is logged, as a warning where not all was loaded as it stood.
        in_chans: Channels of the images, 1 or more.
        drop_path_rate: Stochastic depth of the last block; None takes the published rate for a
            classifier (0.1 or 0.3) or a detector (0.1 or 0), and 0.1 for a segmenter or a backbone,
            as in the reference.
        features_only: Returns maps [B, C_i, H / stride_i, W / stride_i] instead of logits.
        out_indices: Which of the four maps to return, with `features_only`.
        numbers: Of a detector or a segmenter: see its builder in `tasks.detection` or
            `tasks.segmentation.model`.

    Raises:
        UserError: An unknown name, a detector or segmenter without a backbone, a classifier with
            one, or a checkpoint that does not fit or cannot be fetched.
        ValueError: A number out of its range.
        TypeError: A number that this model does not have.
    """
    check_names(name, backbone)
    if in_chans < 1:
        raise ValueError(f"in_chans must be 1 or more, got {in_chans}")
    if drop_path_rate is not None and not 0 <= drop_path_rate < 1:
        raise ValueError(f"drop_path_rate must be from 0 to below 1, got {drop_path_rate}")
    if backbone is not None:
        if features_only or tuple(out_indices) != STAGES:
            raise UserError(f"{name} gives no pyramid: features_only and out_indices are for one")
        numbers |= {"in_chans": in_chans, "drop_path_rate": drop_path_rate}
        return create_with_head(name, backbone, num_classes, pretrained, numbers)
    if numbers:
        raise TypeError(f"{name} takes no {', '.join(numbers)}")
    if features_only:
        rate = 0.1 if drop_path_rate is None else drop_path_rate
        model = build_pyramid(name, in_chans, rate, out_indices)
    else:
        count = 1000 if num_classes is None else num_classes
        model = build_classifier(name, count, in_chans, drop_path_rate)
    if pretrained is not None and pretrained is not False:
        path = find_weights(pretrained, name)
        report_load(name, path, load_weights(model, path))
    return model


def check_names(name: str, backbone: str | None) -> None:
    """Refuses names that are not there, and a backbone where none belongs.

    Raises:
        UserError: Naming the nearest.
    """
    if name in list_models():
        if backbone is not None:
            raise UserError(f"{name} is a backbone itself: leave backbone={backbone!r} out")
    elif name not in list_heads():
        near = nearest(name, [*list_models(), *list_heads()])
        raise UserError(f"unknown model {name}; nearest: {near}")
    elif backbone is None:
        raise UserError(f'{name} stands on a backbone: name one, such as backbone="pvt_v2_b2"')


def create_with_head(
    name: str,
    backbone: str,
    num_classes: int | None,
    pretrained: Weights,
    numbers: dict[str, Any],
) -> nn.Module:
    """A head on a backbone, filled where weights are named."""
    heads = next(row for row in heads_of_tasks() if name in row.names)
    count = heads.num_classes if num_classes is None else num_classes
    model = heads.build(name, backbone, count, **numbers)
    if pretrained is not None and pretrained is not False:
        path = find_weights(pretrained, backbone)
        report = heads.load(model, read_checkpoint(path), str(path))
        report_load(f"{name} on {backbone}", path, report)
    return model


def report_load(what: str, path: Path, report: LoadReport) -> None:
    """Logs what was done, as a warning where not all was loaded as it stood."""
    level = logging.WARNING if report.reinitialised or report.resized else logging.INFO
    log.log(level, "%s from %s: %s", what, path, report)


def build_classifier(
    name: str, num_classes: int, in_chans: int, drop_path_rate: float | None
) -> BackboneModel:
    if name in pvt_v1.SIZES:
        return pvt_v1.PVTv1Classifier(
            pvt_v1.SIZES[name],
            num_classes=num_classes,
            in_chans=in_chans,
            drop_path_rate=drop_path_rate,
        )
    return pvt_v2.PVTv2Classifier(
        pvt_v2.SIZES[name],
        num_classes=num_classes,
        in_chans=in_chans,
        drop_path_rate=drop_path_rate,
    )


def build_pyramid(
    name: str, in_chans: int, drop_path_rate: float, out_indices: Sequence[int]
) -> BackboneModel:
    options: PyramidOptions = {
        "in_chans": in_chans,
        "drop_path_rate": drop_path_rate,
        "out_indices": out_indices,
    }
    if name in pvt_v1.SIZES:
        return pvt_v1.PVTv1Pyramid(pvt_v1.SIZES[name], **options)
    return pvt_v2.PVTv2Pyramid(pvt_v2.SIZES[name], **options)
