"""From a picture with boxes and masks to what the model sees, with and without augmentation.

Sizes, orders and numbers follow the reference (mmdetection 2.13: Resize, RandomFlip, RandomCrop).
Random numbers come from torch's global generator alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from ...structures import Sample
from .config import DetectionOptions
from .moves import View, crop, flip, move_target, place, resize, whole_view
from .truth import keep_truth

MEAN = (0.485, 0.456, 0.406)  # ImageNet, RGB, of values from 0 to 1
STD = (0.229, 0.224, 0.225)
CANVAS = tuple(round(255 * x) for x in MEAN)
DIVISOR = 32  # the model's input is padded to multiples of it

# The part that is cut out and enlarged, in shares of the final short side of 800 pixels: from a
# picture with a short side of 400, 500 or 600 a window of 384 to 600 either way (DETR, 2005.12872).
CROP_SIDES = (400 / 800, 500 / 800, 600 / 800)
CROP_WINDOW = (384 / 800, 600 / 800)

Transform = Callable[[Sample[Any]], Sample[Any]]
Size = tuple[int, int]  # (H, W)


def describe_input(options: DetectionOptions) -> dict[str, Any]:
    """What a checkpoint must know of its input."""
    return {
        "short_side": options.short_side,
        "long_side": options.long_side,
        "divisor": DIVISOR,
        "mean": list(MEAN),
        "std": list(STD),
        "interpolation": "bilinear",
    }


def eval_transform(record: dict[str, Any]) -> Transform:
    """Resizes after a checkpoint's input record; the origin keeps the truth as the file has it.

    Raises:
        ValueError: The record does not describe an input.
    """
    short, long = int(record["short_side"]), int(record["long_side"])
    mean, std = (tuple(float(x) for x in record[name]) for name in ("mean", "std"))
    numbers = 0 < short <= long and len(mean) == len(std) == 3 and min(std) > 0
    if not numbers or record["interpolation"] != "bilinear":
        raise ValueError(f"no usable input: {record}")
    return Plain(short, long, mean, std)


@dataclass(frozen=True)
class Plain:
    """The transform of evaluation; a class, so that reading processes can get it."""

    short_side: int
    long_side: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, sample: Sample[Any]) -> Sample[Any]:
        sample = keep_truth(sample)
        view = view_of(sample)
        view = resize(view, fit_size(view.size, self.short_side, self.long_side))
        return finish(sample, view, self.mean, self.std)


def train_transform(options: DetectionOptions) -> Transform:
    """Augments; random numbers come from torch's global generator."""
    return Augment(options)


@dataclass(frozen=True)
class Augment:
    """The transform of training; a class, so that reading processes can get it."""

    options: DetectionOptions

    def __call__(self, sample: Sample[Any]) -> Sample[Any]:
        return finish(sample, augment(view_of(sample), self.options), MEAN, STD)


def view_of(sample: Sample[Any]) -> View:
    boxes = torch.zeros(0, 4) if sample.target is None else sample.target.boxes
    return whole_view(sample.image, boxes)


def finish(
    sample: Sample[Any], view: View, mean: tuple[float, ...], std: tuple[float, ...]
) -> Sample[Any]:
    """The sample as the model takes it, its target in the frame of the view."""
    target = None if sample.target is None else move_target(sample.target, view)
    return replace(sample, image=normalise(view.image, mean, std), target=target)


def augment(view: View, options: DetectionOptions) -> View:
    """Window, flip, crop, size, colours, canvas: each where the options ask for it."""
    if options.tile:
        view = random_crop(view, (options.tile, options.tile))
    if options.flip and chance(options.flip):
        view = flip(view)
    if options.crop and chance(options.crop):
        view = crop_part(view, options.short_side, options.long_side)
    size = fit_size(view.size, draw_side(options), options.long_side)
    shrinks = options.zoom_out > 1 and chance(0.5)
    factor = between(1, options.zoom_out) if shrinks else 1.0
    view = resize(view, (max(1, int(size[0] / factor)), max(1, int(size[1] / factor))))
    if options.jitter:
        strength = options.jitter
        view = view._replace(image=v2.ColorJitter(strength, strength, strength)(view.image))
    if view.size != size:
        top, left = (whole_number(0, a - b) for a, b in zip(size, view.size, strict=True))
        view = place(view, size, top, left, CANVAS)
    return view


def crop_part(view: View, short_side: int, long_side: int) -> View:
    """A window of random size from a picture of random, smaller size."""
    share = CROP_SIDES[whole_number(0, len(CROP_SIDES) - 1)]
    view = resize(view, fit_size(view.size, round(share * short_side), long_side))
    low, high = (round(share * short_side) for share in CROP_WINDOW)
    height, width = (whole_number(min(low, side), min(high, side)) for side in view.size)
    return random_crop(view, (height, width))


def random_crop(view: View, size: Size) -> View:
    """A window of (H, W), or of the picture's own height or width where that is less."""
    height, width = (min(a, b) for a, b in zip(size, view.size, strict=True))
    top, left = whole_number(0, view.size[0] - height), whole_number(0, view.size[1] - width)
    return crop(view, top, left, height, width)


def draw_side(options: DetectionOptions) -> int:
    """A short side from the least to the largest; with one scale always the largest."""
    high, low = options.short_side, round(options.min_scale * options.short_side)
    if options.num_scales == 0:
        return whole_number(low, high)
    step = whole_number(0, options.num_scales - 1)
    return high - round((high - low) * step / max(1, options.num_scales - 1))


def fit_size(size: Size, short_side: int, long_side: int) -> Size:
    """(H, W) with the short side as asked, or less so that the long side does not get too long.

    Rounded as the reference does (mmcv's rescale_size), but never down to no pixel.
    """
    factor = min(long_side / max(size), short_side / min(size))
    height, width = (max(1, int(side * factor + 0.5)) for side in size)
    return height, width


def normalise(image: Any, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """uint8 [3, H, W] to the model's input, float32."""
    pixels = tv.to_dtype(torch.as_tensor(image).as_subclass(Tensor), torch.float32, scale=True)
    values: Tensor = tv.normalize(pixels, list(mean), list(std), inplace=True)
    return values.contiguous()


def denormalise(image: Tensor, record: dict[str, Any]) -> np.ndarray:
    """The picture behind a model's input [3, H, W]: uint8 [H, W, 3]."""
    mean = torch.tensor(record["mean"]).view(-1, 1, 1)
    std = torch.tensor(record["std"]).view(-1, 1, 1)
    pixels = (image.cpu() * std + mean).clamp(0, 1) * 255
    return pixels.round().byte().permute(1, 2, 0).numpy()


def chance(probability: float) -> bool:
    return float(torch.rand(())) < probability


def between(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))


def whole_number(low: int, high: int) -> int:
    """From low to high, both included."""
    return int(torch.randint(low, high + 1, ()))
