"""Options of a detection run, and the named recipes."""

from dataclasses import dataclass
from typing import Any, Literal

from ...errors import UserError, nearest
from ...options import TrainOptions, check_train_options, require
from .table import DETECTORS


@dataclass(frozen=True, kw_only=True)
class DetectionOptions(TrainOptions):
    """Options of a detection run.

    Args:
        data: Data set of pictures with boxes; without it, scenes of scikit-learn's digits.
        model: "retinanet", "faster_rcnn", "mask_rcnn", "cascade_mask_rcnn", "atss", "gfl",
            "sparse_rcnn", "detr", or one of your own.
        backbone: Name of the backbone, see `pvt models`.
        pretrained: Checkpoint to start from, of a classifier for the backbone or of a detector.
        epochs: Passes over the training images.
        batch_size: Images an update, over all processes together.
        lr: Peak learning rate, at `lr_batch` images an update.
        short_side: What an image's short side is resized to, in pixels.
        long_side: What its long side may reach at most; the ratio is kept.
        min_scale: In training, least short side, as a share of `short_side`.
        num_scales: In training, how many short sides are drawn from, evenly spaced; 0: any.
        flip: Probability of a left-right flip.
        crop: Probability that a part is cut out first and enlarged, as DETR's training does.
        zoom_out: Largest factor by which half of the images are shrunk, on a plain canvas; 1: none.
        jitter: Strength of random changes of brightness, contrast and saturation.
        tile: Side of a random window that is cut out of the file before all else; 0: none.
        width: Channels of the feature pyramid and the heads; published: 256.
        hidden: Width of the layers that classify regions; published: 1024.
        anchor_scale: Side of the smallest square anchor, in strides; 0 takes the published one.
        candidates: Anchors of a level that a two-stage detector proposes regions from; in training
            twice as many.
        proposals: Regions an image that it looks at; 0 takes the published number.
        region_samples: How many of them an image it learns from at a time.
        score_threshold: Score that detections must be above; -1 takes the detector's published one.
        nms_threshold: IoU above which the better of two boxes of a class hides the other; 0 takes
            the published one.
        max_detections: Most detections an image; 0 takes the published number.
        padding: "masked" keeps the padding beyond a multiple of 32 pixels, which an image has only
            for its neighbours in a batch, from changing what is said of it; "published" does not.
        drop_rate: Dropout in DETR's transformer; published: 0.1.
        drop_path_rate: Stochastic depth; -1 takes the backbone's published rate.
        held_out: Share of the images held out, where the data has no validation part.
    """

    model: str = "retinanet"
    backbone: str = "pvt_v2_b0"
    epochs: int = 50
    batch_size: int = 8
    lr: float = 3e-4
    short_side: int = 480
    long_side: int = 800
    min_scale: float = 0.75
    num_scales: int = 0
    flip: float = 0.5
    crop: float = 0.5
    zoom_out: float = 1.5
    jitter: float = 0.2
    tile: int = 0
    width: int = 64
    hidden: int = 256
    anchor_scale: float = 0.0
    candidates: int = 1000
    proposals: int = 0
    region_samples: int = 256
    score_threshold: float = -1.0
    nms_threshold: float = 0.0
    max_detections: int = 0
    padding: Literal["published", "masked"] = "published"
    drop_rate: float = 0.1
    drop_path_rate: float = -1.0
    held_out: float = 0.2


# COCO as in the reference code's detection configurations: 12 epochs on 8 GPUs, flips alone.
PUBLISHED_1X: dict[str, Any] = {
    "epochs": 12,
    "schedule": "step",
    "lr_drops": (8, 11),
    "min_lr": 0.0,
    "warmup": 0.0,
    "warmup_updates": 500,
    "weight_decay": 1e-4,
    "decay": "all",
    "clip_grad": 0.0,
    "short_side": 800,
    "long_side": 1333,
    "min_scale": 1.0,
    "num_scales": 1,
    "crop": 0.0,
    "zoom_out": 1.0,
    "jitter": 0.0,
    "width": 256,
    "hidden": 1024,
    "region_samples": 512,
}

# Named recipes: what each changes in the defaults above, which are the light recipe.
RECIPES: dict[str, dict[str, Any]] = {
    # Small data: a narrow pyramid; objects enlarged, shrunk, and in other colours.
    "light": {},
    # Scenes of digits at 128 pixels: small anchors, never a flip.
    "scenes": {
        "model": "mask_rcnn",
        "epochs": 12,
        "batch_size": 8,
        "lr": 1e-3,
        "schedule": "poly",
        "poly_power": 0.5,  # the rate stays high for long: a few passes are all there is
        "warmup": 0.3,
        "short_side": 128,
        "long_side": 128,
        "min_scale": 1.0,
        "num_scales": 1,
        "flip": 0.0,
        "crop": 0.0,
        "zoom_out": 1.0,
        "jitter": 0.0,
        "candidates": 100,
        "proposals": 100,
        "region_samples": 32,
        "drop_path_rate": 0.0,
    },
    # As published; learning rate and batch size differ by model: see `recipe_changes`.
    "1x": PUBLISHED_1X,
    "3x": {**PUBLISHED_1X, "epochs": 36, "lr_drops": (27, 33), "num_scales": 11},
    "50ep": {
        **PUBLISHED_1X,
        "epochs": 50,
        "lr_drops": (33,),
        "warmup_updates": 0,
        "min_scale": 0.8,
        "num_scales": 6,
    },
}

# Detectors with queries diverge at the others' rates, and want small steps for long.
LIGHT = {
    "sparse_rcnn": {"lr": 2e-4},
    "detr": {"epochs": 150, "lr": 2e-4, "clip_grad": 0.1},
}
SCENES = {
    "sparse_rcnn": {"lr": 5e-4},
    "detr": {"lr": 5e-4, "clip_grad": 0.1},
}

SCENES_ANCHORS = {
    "retinanet": 2.0,
    "faster_rcnn": 4.0,
    "mask_rcnn": 4.0,
    "cascade_mask_rcnn": 4.0,
    "atss": 4.0,
    "gfl": 4.0,
}

# What the networks take anyway, written out, and how the detectors with queries are trained.
REGION_NUMBERS = {
    "proposals": 1000,
    "score_threshold": 0.05,
    "nms_threshold": 0.5,
    "max_detections": 100,
}
NEAREST_NUMBERS = {"score_threshold": 0.05, "nms_threshold": 0.6, "max_detections": 100}
QUERY_NUMBERS = {
    "hidden": 2048,
    "weight_decay": 1e-4,
    "decay": "all",
    "score_threshold": 0.0,
    "nms_threshold": 1.0,
}
NUMBERS: dict[str, dict[str, Any]] = {
    "retinanet": REGION_NUMBERS,
    "faster_rcnn": REGION_NUMBERS,
    "mask_rcnn": REGION_NUMBERS,
    "cascade_mask_rcnn": REGION_NUMBERS,
    "atss": NEAREST_NUMBERS,
    "gfl": NEAREST_NUMBERS,
    "sparse_rcnn": {**QUERY_NUMBERS, "proposals": 300, "max_detections": 300, "clip_grad": 1.0},
    "detr": {**QUERY_NUMBERS, "max_detections": 100, "clip_grad": 0.1, "backbone_lr": 0.1},
}

# Learning rates with 16 images an update, where not 1e-4.
RATES = {"faster_rcnn": 2e-4, "mask_rcnn": 2e-4, "sparse_rcnn": 2.5e-5}

# Trained with one image on each of 8 GPUs and a learning rate smaller by 1.4, for want of memory.
SMALL_BATCH = {
    "sparse_rcnn": ("pvt_v2_b2", "pvt_v2_b3", "pvt_v2_b4", "pvt_v2_b5"),
    "retinanet": ("pvt_v2_b4", "pvt_v2_b5"),
    "faster_rcnn": ("pvt_large", "pvt_v2_b4", "pvt_v2_b5"),
    "mask_rcnn": ("pvt_large", "pvt_v2_b4", "pvt_v2_b5"),
}


def recipe_changes(recipe: str, model: str, backbone: str) -> dict[str, Any]:
    """What a named recipe changes in the defaults, for a detector on a backbone.

    Raises:
        UserError: No such detector.
    """
    if model not in DETECTORS:
        raise UserError(f"unknown model {model}; nearest: {nearest(model, DETECTORS)}")
    changes = dict(RECIPES[recipe])
    if recipe == "scenes":
        return {
            **changes,
            "anchor_scale": SCENES_ANCHORS.get(model, 0.0),
            **SCENES.get(model, {}),
        }
    if recipe == "light":
        return {**changes, **LIGHT.get(model, {})}
    if recipe == "3x":
        changes |= changes_3x(backbone)
    return changes | NUMBERS.get(model, {}) | published_rate(recipe, model, backbone)


def changes_3x(backbone: str) -> dict[str, Any]:
    """The augmentation and the decay of the long schedule; queries are decayed as in the short one.

    PVT v2 has the configurations of the reference code (short sides 480 to 800, crops); of PVT v1
    only the paper tells (640 to 800), and all else is as in its short schedule.
    """
    if not backbone.startswith("pvt_v2"):
        return {"min_scale": 0.8, "num_scales": 0}
    return {"min_scale": 0.6, "crop": 0.5, "weight_decay": 0.05, "decay": "not_norms"}


def published_rate(recipe: str, model: str, backbone: str) -> dict[str, Any]:
    """Batch size and learning rate, whose warm-up starts at a thousandth."""
    base, batch = RATES.get(model, 1e-4), 16
    if recipe == "3x" and backbone.startswith("pvt_v2") and model != "sparse_rcnn":
        base = 1e-4
    elif backbone in SMALL_BATCH.get(model, ()):
        base, batch = round(base / 1.4, 9), 8
    return {
        "batch_size": batch,
        "lr": base,
        "lr_batch": batch,
        "warmup_lr": round(base / 1000, 12),
    }


def check_options(options: DetectionOptions) -> None:
    """Refuses numbers out of range, before any work is done.

    Raises:
        UserError: Naming the option, what it must be and what it is.
    """
    check_train_options(options)
    require(options, "layer_decay", options.layer_decay == 1, "1 for a detector")
    if options.model not in DETECTORS:
        near = nearest(options.model, DETECTORS)
        raise UserError(f"unknown model {options.model}; nearest: {near}")
    require(options, "short_side", options.short_side >= 32, "32 or more")
    side = f"the short side of {options.short_side} or more"
    require(options, "long_side", options.long_side >= options.short_side, side)
    require(options, "tile", options.tile == 0 or options.tile >= 32, "0, or 32 or more")
    for name in ("width", "hidden", "candidates", "region_samples"):
        require(options, name, getattr(options, name) >= 1, "1 or more")
    for name in ("num_scales", "anchor_scale", "proposals", "max_detections"):
        require(options, name, getattr(options, name) >= 0, "0 or more")
    for name in ("flip", "crop"):
        require(options, name, 0 <= getattr(options, name) <= 1, "from 0 to 1")
    require(options, "drop_rate", 0 <= options.drop_rate < 1, "from 0 to below 1")
    require(options, "jitter", 0 <= options.jitter < 1, "from 0 to below 1")
    score = options.score_threshold
    require(options, "score_threshold", score == -1 or 0 <= score < 1, "-1, or from 0 to below 1")
    require(options, "nms_threshold", 0 <= options.nms_threshold <= 1, "from 0 to 1")
    require(options, "min_scale", 0 < options.min_scale <= 1, "from above 0 to 1")
    require(options, "zoom_out", options.zoom_out >= 1, "1 or more")
    require(options, "held_out", 0 < options.held_out < 1, "between 0 and 1")
