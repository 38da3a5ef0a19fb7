"""From a picture to the tensor that the model sees, with and without augmentation.

Order and numbers follow the reference (classification/datasets.py, which uses timm): random crop,
flip, RandAugment, normalisation, random erasing.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL.Image import Image, Resampling
from PIL.Image import new as new_image
from timm.data.auto_augment import posterize, rand_augment_transform
from timm.data.mixup import Mixup
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from ...errors import UserError
from ...structures import Batch, ClassTarget, MixedTarget, Sample
from .config import ClassificationOptions

MEAN = (0.485, 0.456, 0.406)  # ImageNet, RGB, of values from 0 to 1
STD = (0.229, 0.224, 0.225)
BICUBIC = InterpolationMode.BICUBIC

Transform = Callable[[Sample[Any]], Sample[Any]]


def describe_input(options: ClassificationOptions) -> dict[str, Any]:
    """What a checkpoint must know of its input."""
    return {
        "size": options.image_size,
        "crop_share": options.crop_share,
        "mean": list(MEAN),
        "std": list(STD),
        "interpolation": "bicubic",
    }


def train_transform(options: ClassificationOptions) -> Transform:
    """Augments; random numbers come from torch's, numpy's and Python's global generators."""
    size = options.image_size
    steps: list[Any] = [
        v2.RandomResizedCrop(size, (options.min_area, 1), (3 / 4, 4 / 3), interpolation=BICUBIC)
        if options.min_area < 1
        else v2.Resize((size, size), interpolation=BICUBIC)
    ]
    if options.flip:
        steps.append(v2.RandomHorizontalFlip(options.flip))
    if options.rotate or options.shift or options.zoom:
        steps.append(
            v2.RandomAffine(
                options.rotate,
                translate=(options.shift, options.shift),
                scale=(1 - options.zoom, 1 + options.zoom),
                interpolation=InterpolationMode.BILINEAR,
            )
        )
    if options.rand_augment:
        fill = tuple(round(255 * x) for x in MEAN)
        settings = {
            "translate_const": int(size * 0.45),
            "img_mean": fill,
            "interpolation": Resampling.BICUBIC,
        }
        augment = build_rand_augment(options.rand_augment, settings)
        steps.append(augment)
    steps.append(normalise(MEAN, STD))
    if options.random_erasing:
        steps.append(RandomErasing(options.random_erasing, mode="pixel", device="cpu"))
    return OnImage(v2.Compose(steps))


def build_rand_augment(description: str, settings: dict[str, Any]) -> Any:
    try:
        augment = rand_augment_transform(description, settings)
    except (AssertionError, LookupError, ValueError) as error:
        raise UserError(
            f"--rand_augment must be like rand-m9-mstd0.5-inc1, got {description}"
        ) from error
    for op in augment.ops:
        op.aug_fn = black_at_zero_bits if op.aug_fn is posterize else op.aug_fn
    return augment


def black_at_zero_bits(image: Image, bits: int, **_: Any) -> Image:
    """timm's posterize, which at full strength asks Pillow for 0 bits: from version 13 on Pillow
    refuses that, where it used to give a black picture."""
    return new_image(image.mode, image.size) if bits < 1 else posterize(image, bits)


def eval_transform(record: dict[str, Any]) -> Transform:
    """Resizes the short side and takes the centre, after a checkpoint's input record.

    Raises:
        ValueError: The record does not describe an input.
    """
    size, share = int(record["size"]), float(record["crop_share"])
    mean, std = (tuple(float(x) for x in record[name]) for name in ("mean", "std"))
    if size < 32 or not 0 < share <= 1 or not len(mean) == len(std) == 3 or min(std) <= 0:
        raise ValueError(f"no usable input: {record}")
    resize = v2.Resize(int(size / share), InterpolationMode(record["interpolation"]))
    return OnImage(v2.Compose([resize, v2.CenterCrop(size), normalise(mean, std)]))


def normalise(mean: Any, std: Any) -> v2.Compose:
    return v2.Compose(
        [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]
    )


@dataclass(frozen=True)
class OnImage:
    """Applies a transform to a sample's image; a class, so that reading processes can get it."""

    transform: Callable[[Any], Tensor]

    def __call__(self, sample: Sample[Any]) -> Sample[Any]:
        return replace(sample, image=self.transform(sample.image))


def mix(
    options: ClassificationOptions, num_classes: int
) -> Callable[[Batch[ClassTarget]], Batch[MixedTarget]]:
    """Mixup, CutMix and label smoothing on a training batch; numpy's generator decides."""
    smoothing = options.label_smoothing
    mixup = Mixup(
        mixup_alpha=options.mixup,
        cutmix_alpha=options.cutmix,
        label_smoothing=smoothing,
        num_classes=num_classes,
    )

    def mixed(batch: Batch[ClassTarget]) -> Batch[MixedTarget]:
        images = batch.images
        labels = torch.tensor([t.label for t in batch.targets], device=images.device)
        if options.mixup or options.cutmix:
            images, weights = mixup(images.clone(), labels)  # [B, K]
        else:
            weights = F.one_hot(labels, num_classes) * (1 - smoothing) + smoothing / num_classes
        targets = tuple(MixedTarget(weights=row) for row in weights)
        return Batch(images=images, sizes=batch.sizes, targets=targets, origins=batch.origins)

    return mixed


def denormalise(image: Tensor, record: dict[str, Any]) -> np.ndarray:
    """The picture behind a model's input [3, H, W]: uint8 [H, W, 3]."""
    mean = torch.tensor(record["mean"]).view(-1, 1, 1)
    std = torch.tensor(record["std"]).view(-1, 1, 1)
    pixels = (image.cpu() * std + mean).clamp(0, 1) * 255
    return pixels.round().byte().permute(1, 2, 0).numpy()
