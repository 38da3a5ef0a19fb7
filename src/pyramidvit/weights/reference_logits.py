"""Published logits, and how a model here is held against them.

Source: the conversion scripts of transformers (models/pvt and models/pvt_v2), which state the first
three logits of the official ImageNet checkpoints on COCO val2017 image 000000039769, resized to
224x224 without a crop, with a tolerance of 1e-4.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from ..errors import UserError, nearest
from .download import checkpoints_folder, mirrored
from .transfer import transfer
from .web import UnreachableError

PHOTOGRAPH = "http://images.cocodataset.org/val2017/000000039769.jpg"
LOGITS = {
    "pvt_tiny": (-1.4192, -1.9158, -0.9702),
    "pvt_small": (0.4353, -0.1960, -0.2373),
    "pvt_medium": (-0.2914, -0.2231, 0.0321),
    "pvt_large": (0.3740, -0.7739, -0.4214),
    "pvt_v2_b0": (-1.1939, -1.4547, -0.1076),
    "pvt_v2_b1": (-0.4716, -0.7335, -0.4600),
    "pvt_v2_b2": (0.0795, -0.3170, 0.2247),
    "pvt_v2_b2_li": (0.0968, 0.3937, -0.4252),
    "pvt_v2_b3": (-0.4595, -0.2870, 0.0940),
    "pvt_v2_b4": (-0.1769, -0.1747, -0.0143),
    "pvt_v2_b5": (-0.2943, -0.1008, 0.6812),
}
# They were computed with another epsilon than the reference's in some norms, from a JPEG, and with
# a resampling that changed between versions: together some 1e-3. A wrong file, a wrong norm or a
# wrong scaling of the pixels is off by 0.1 and more.
TOLERANCE = 0.01
# Grey means of the photograph in 3 rows of 4 fields; decoders differ by a step or two.
FIELDS = ((110, 84, 97, 102), (156, 119, 135, 140), (155, 171, 162, 156))
SIZE = (640, 480)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The logits under certain settings, and how far at most they are from the published ones."""

    settings: str
    logits: tuple[float, ...]
    distance: float


def published_logits(name: str, num_classes: int, where: str) -> tuple[float, ...]:
    """The first three logits of a model.

    Raises:
        UserError: The checkpoint is not one of the published ImageNet classifiers.
    """
    if name not in LOGITS:
        raise UserError(f"no logits of {name} were published; nearest: {nearest(name, LOGITS)}")
    if num_classes != 1000:
        raise UserError(
            f"{where} has {num_classes} classes: only the published classifiers of 1000 classes can"
            " be verified"
        )
    return LOGITS[name]


def fetch_photograph() -> Path:
    """The photograph in the cache of downloaded files, fetched at first use.

    Raises:
        UserError: It cannot be fetched.
    """
    path = checkpoints_folder() / PHOTOGRAPH.rpartition("/")[2]
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        transfer(mirrored(PHOTOGRAPH), path)
    except UnreachableError as error:
        raise UserError(
            f"{PHOTOGRAPH} cannot be fetched ({error}): fetch it by hand, and give it with --image"
        ) from error
    return path


def check_photograph(picture: Image.Image, where: str) -> None:
    """Refuses another photograph, with which no checkpoint could be verified.

    Raises:
        UserError: It is another one.
    """
    grey = np.asarray(picture.resize((4, 3), Image.Resampling.BOX)).mean(axis=2)
    if picture.size != SIZE or np.abs(grey - np.array(FIELDS)).max() > 2:
        raise UserError(f"{where} is not the reference photograph, COCO val2017 000000039769")


def compare_logits(
    model: nn.Module, picture: Image.Image, wanted: tuple[float, ...]
) -> list[Comparison]:
    """The model's logits under the settings that the published ones may have been made with."""
    rows = []
    for epsilon in (1e-6, 1e-5):
        for resampling in (Image.Resampling.BICUBIC, Image.Resampling.BILINEAR):
            with reduction_epsilon(model, epsilon), torch.inference_mode():
                logits = tuple(model(to_input(picture, resampling))[0, :3].tolist())
            rows.append(
                Comparison(
                    settings=f"epsilon {epsilon:.0e}, {resampling.name.lower()}",
                    logits=logits,
                    distance=max(abs(a - b) for a, b in zip(logits, wanted, strict=True)),
                )
            )
    return rows


def to_input(picture: Image.Image, resampling: Image.Resampling) -> torch.Tensor:
    """The whole picture as [1, 3, 224, 224], normalised."""
    resized = np.asarray(picture.convert("RGB").resize((224, 224), resampling)) / 255
    normalised = (resized - MEAN) / STD
    return torch.from_numpy(normalised).float().permute(2, 0, 1)[None]


@contextmanager
def reduction_epsilon(model: nn.Module, epsilon: float) -> Iterator[None]:
    """Sets the epsilon of the norms in patch embedding and reduction; 1e-5 is the reference's."""
    norms = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.LayerNorm)
        and (name.startswith("patch_embed") or name.endswith(".attn.norm"))
    ]
    before = [norm.eps for norm in norms]
    for norm in norms:
        norm.eps = epsilon
    try:
        yield
    finally:
        for norm, old in zip(norms, before, strict=True):
            norm.eps = old
