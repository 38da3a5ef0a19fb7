"""From a picture and its map of labels to what the model sees, with and without augmentation.

Order and numbers follow the reference (mmsegmentation 0.13: Resize, RandomCrop, RandomFlip,
PhotoMetricDistortion, Normalize, Pad; AlignResize of the official segmentation code). Random
numbers come from torch's global generator alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as tv

from ...structures import UNLABELLED, Sample, SegmentationTarget
from .config import SegmentationOptions
from .moves import Size, View, crop, resize
from .truth import keep_truth

MEAN = (0.485, 0.456, 0.406)  # ImageNet, RGB, of values from 0 to 1
STD = (0.229, 0.224, 0.225)
DIVISOR = 32  # the model's input is padded, or stretched, to multiples of it

# The strongest changes of colour: what is added to brightness, the share by which contrast and
# saturation change, and the part of the colour circle by which hue turns (18 of OpenCV's 180).
BRIGHTNESS, CONTRAST, SATURATION, HUE = 32 / 255, 0.5, 0.5, 0.1

Transform = Callable[[Sample[Any]], Sample[Any]]


def describe_input(options: SegmentationOptions) -> dict[str, Any]:
    """What a checkpoint must know of its input."""
    return {
        "short_side": options.short_side,
        "long_side": options.long_side,
        "resize": "aligned" if options.aligned else "padded",
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
    words = record["interpolation"] == "bilinear" and record["resize"] in ("aligned", "padded")
    if not (numbers and words):
        raise ValueError(f"no usable input: {record}")
    return Plain(short, long, record["resize"] == "aligned", mean, std)


@dataclass(frozen=True)
class Plain:
    """The transform of evaluation; a class, so that reading processes can get it."""

    short_side: int
    long_side: int
    aligned: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, sample: Sample[Any]) -> Sample[Any]:
        sample = keep_truth(sample)
        view = view_of(sample)
        view = resize(view, fit_size(view.size, self.short_side, self.long_side))
        if self.aligned:  # a second time, as the reference does: pixels are rounded in between
            view = resize(view, align_size(view.size))
        image = normalise(tv.to_dtype(view.image, torch.float32, scale=True), self.mean, self.std)
        return finish(sample, image, view.labels)


def train_transform(options: SegmentationOptions) -> Transform:
    """Augments; random numbers come from torch's global generator."""
    return Augment(options)


@dataclass(frozen=True)
class Augment:
    """The transform of training; a class, so that reading processes can get it."""

    options: SegmentationOptions

    def __call__(self, sample: Sample[Any]) -> Sample[Any]:
        options = self.options
        view = augment(view_of(sample), options)
        pixels = tv.to_dtype(view.image, torch.float32, scale=True)
        image = normalise(distort(pixels, options.distortion), MEAN, STD)
        below, beside = (max(0, options.crop_side - side) for side in view.size)
        labels = view.labels
        if labels is not None:
            labels = F.pad(labels.as_subclass(Tensor), (0, beside, 0, below), value=UNLABELLED)
        return finish(sample, F.pad(image, (0, beside, 0, below)), labels)


def view_of(sample: Sample[Any]) -> View:
    labels = None if sample.target is None else tv_tensors.Mask(sample.target.labels)
    return View(tv_tensors.Image(tv.pil_to_tensor(sample.image)), labels)


def finish(sample: Sample[Any], image: Tensor, labels: Any) -> Sample[Any]:
    """The sample as the model takes it."""
    target = None
    if labels is not None:
        target = SegmentationTarget(labels=labels.as_subclass(Tensor).clone())  # the file's stays
    return replace(sample, image=image.contiguous(), target=target)


def augment(view: View, options: SegmentationOptions) -> View:
    """Size, window and flip: each where the options ask for it."""
    share = between(options.min_scale, options.max_scale)
    short, long = (max(1, int(side * share)) for side in (options.short_side, options.long_side))
    view = resize(view, fit_size(view.size, short, long))
    view = crop(view, options.crop_side, options.cat_max_ratio)
    if options.flip and chance(options.flip):
        view = View(*(x if x is None else tv.horizontal_flip(x) for x in view))
    return view


def distort(image: Any, strength: float) -> Any:
    """Changes brightness, contrast, saturation and hue, each in half of the images.

    Contrast is changed first or last. An image has values from 0 to 1, before and after.
    """
    if not strength:
        return image
    amounts = (BRIGHTNESS, CONTRAST, SATURATION, HUE)
    brightness, contrast, saturation, hue = (
        between(-strength * most, strength * most) if chance(0.5) else 0.0 for most in amounts
    )
    early = chance(0.5)
    image = (image + brightness).clamp(0, 1)
    if early:
        image = (image * (1 + contrast)).clamp(0, 1)
    image = saturate(image, 1 + saturation)
    if hue:
        image = tv.adjust_hue(image, hue)
    return image if early else (image * (1 + contrast)).clamp(0, 1)


def saturate(image: Any, factor: float) -> Any:
    """Multiplies the saturation that a colour has in HSV, to 1 at most; hue and value stay."""
    value, least = image.amax(0), image.amin(0)
    most = value / (value - least).clamp(min=1e-6)
    return value - (value - image) * most.clamp(max=factor)


def fit_size(size: Size, short_side: int, long_side: int) -> Size:
    """(H, W) with the short side as asked, or less so that the long side does not get too long.

    Rounded as the reference does (mmcv's rescale_size), but never down to no pixel.
    """
    factor = min(long_side / max(size), short_side / min(size))
    height, width = (max(1, int(side * factor + 0.5)) for side in size)
    return height, width


def align_size(size: Size) -> Size:
    """(H, W) with each side up to the next multiple of `DIVISOR`."""
    height, width = (-(-side // DIVISOR) * DIVISOR for side in size)
    return height, width


def normalise(image: Any, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """float32 [3, H, W] from 0 to 1 to the model's input."""
    values: Tensor = tv.normalize(image.as_subclass(Tensor), list(mean), list(std))
    return values


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
