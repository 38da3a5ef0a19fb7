"""Models by name, in timm's habits."""

import fnmatch
import logging
from collections.abc import Sequence
from pathlib import Path

from .backbones import pvt_v1, pvt_v2
from .backbones.trunk import PyramidOptions
from .errors import UserError, nearest
from .weights.load import load_weights
from .weights.places import find_weights

BackboneModel = (
    pvt_v1.PVTv1Classifier | pvt_v1.PVTv1Pyramid | pvt_v2.PVTv2Classifier | pvt_v2.PVTv2Pyramid
)

log = logging.getLogger(__name__)


def list_models(pattern: str = "*") -> list[str]:
    """Names of the models, filtered by a shell pattern: `list_models("pvt_v2*")`."""
    return fnmatch.filter([*pvt_v1.SIZES, *pvt_v2.SIZES], pattern)


def create_model(
    name: str,
    *,
    num_classes: int = 1000,
    pretrained: str | Path | bool | None = None,
    in_chans: int = 3,
    drop_path_rate: float | None = None,
    features_only: bool = False,
    out_indices: Sequence[int] = (0, 1, 2, 3),
) -> BackboneModel:
    """Builds a classifier, or with `features_only` a backbone that gives a pyramid of maps.

    Args:
        name: One of `list_models()`.
        num_classes: Width of the logits; 0 gives pooled features.
        pretrained: Weights to start from: a checkpoint file or directory, True for the official
            release, a published name such as "pvt_v2_b0.in1k", or a repository of the hub; see
            `weights.places`. Where the class count differs from `num_classes`, the head starts
            fresh; what was done is logged, as a warning where not all was loaded as it stood.
        in_chans: Channels of the images, 1 or more.
        drop_path_rate: Stochastic depth of the last block; None takes the published rate for a
            classifier (0.1 or 0.3) and 0.1 for a backbone, as in the reference.
        features_only: Returns maps [B, C_i, H / stride_i, W / stride_i] instead of logits.
        out_indices: Which of the four maps to return, with `features_only`.

    Raises:
        UserError: An unknown name, or a checkpoint that does not fit or cannot be fetched.
        ValueError: A number out of its range.
    """
    if name not in list_models():
        raise UserError(f"unknown model {name}; nearest: {nearest(name, list_models())}")
    if in_chans < 1:
        raise ValueError(f"in_chans must be 1 or more, got {in_chans}")
    if drop_path_rate is not None and not 0 <= drop_path_rate < 1:
        raise ValueError(f"drop_path_rate must be from 0 to below 1, got {drop_path_rate}")
    if features_only:
        rate = 0.1 if drop_path_rate is None else drop_path_rate
        model = build_pyramid(name, in_chans, rate, out_indices)
    else:
        model = build_classifier(name, num_classes, in_chans, drop_path_rate)
    if pretrained is not None and pretrained is not False:
        path = find_weights(pretrained, name)
        report = load_weights(model, path)
        level = logging.WARNING if report.reinitialised or report.resized else logging.INFO
        log.log(level, "%s from %s: %s", name, path, report)
    return model


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
