"""What a model's input must be like: our record of it, and the words of timm and transformers."""

import math
from collections.abc import Mapping
from typing import Any

from ..errors import UserError

PILLOW = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # as transformers numbers resamplings
SIDES = (32, 4096)  # pixels that a model is fed with
PUBLISHED: dict[str, Any] = {  # of the official ImageNet classifiers
    "size": 224,
    "crop_share": 0.875,
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "interpolation": "bicubic",
}


def check_input(record: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A classifier's input record, if its numbers are ones that can be meant.

    Raises:
        UserError: They are not; a size or a crop of absurd numbers would fill the memory.
    """
    try:
        size, crop = record["size"], float(record["crop_share"])
        mean, std = ([float(x) for x in record[name]] for name in ("mean", "std"))
        sound = (
            type(size) is int
            and SIDES[0] <= size <= SIDES[1]
            and 0.05 <= crop <= 1
            and len(mean) == len(std)
            and all(math.isfinite(x) for x in mean)
            and all(1e-6 < x < 1e6 for x in std)
            and record["interpolation"] in ("bicubic", "bilinear", "nearest")
        )
    except (LookupError, TypeError, ValueError, OverflowError):
        sound = False
    if not sound:
        raise UserError(f"{where}: its description is damaged: input {dict(record)!r:.200}")
    return dict(record)


def from_timm(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record of a `pretrained_cfg`, as timm's and our own config.json have it."""
    cfg = config.get("pretrained_cfg")
    if not isinstance(cfg, Mapping) or not isinstance(cfg.get("input_size"), list | tuple):
        return None
    return {
        "size": cfg["input_size"][-1],
        "crop_share": cfg.get("crop_pct", PUBLISHED["crop_share"]),
        "mean": list(cfg.get("mean", PUBLISHED["mean"])),
        "std": list(cfg.get("std", PUBLISHED["std"])),
        "interpolation": cfg.get("interpolation", "bicubic"),
    }


def to_timm(record: Mapping[str, Any], in_chans: int) -> dict[str, Any]:
    """The part of a `pretrained_cfg` that says the same."""
    return {
        "input_size": (in_chans, record["size"], record["size"]),
        "crop_pct": record["crop_share"],
        "mean": tuple(record["mean"]),
        "std": tuple(record["std"]),
        "interpolation": record["interpolation"],
    }


def from_transformers(preprocessor: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record of a preprocessor_config.json.

    One that does not crop squeezes the whole picture into the square; the published weights are
    used with a crop, which stays.
    """
    size, crop = preprocessor.get("size"), preprocessor.get("crop_size")
    if not isinstance(size, Mapping) or "image_mean" not in preprocessor:
        return None
    crops = preprocessor.get("do_center_crop") and isinstance(crop, Mapping)
    side = crop.get("height") if crops and isinstance(crop, Mapping) else size.get("height")
    short = size.get("shortest_edge")
    share = PUBLISHED["crop_share"]
    if crops and isinstance(short, int) and isinstance(side, int) and short > 0:
        share = side / short
    return {
        "size": side,
        "crop_share": share,
        "mean": list(preprocessor["image_mean"]),
        "std": list(preprocessor.get("image_std", PUBLISHED["std"])),
        "interpolation": PILLOW.get(preprocessor.get("resample", 3), "bicubic"),
    }


def to_transformers(record: Mapping[str, Any]) -> dict[str, Any]:
    """A preprocessor_config.json: short side resized, centre cropped, as evaluation does here."""
    side = record["size"]
    return {
        "image_processor_type": "BitImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": int(side / record["crop_share"])},
        "resample": next(k for k, name in PILLOW.items() if name == record["interpolation"]),
        "do_center_crop": True,
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(record["mean"]),
        "image_std": list(record["std"]),
        "do_convert_rgb": True,
    }
