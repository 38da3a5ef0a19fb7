"""Weights and images that follow from names alone, so that any program can make them again.

Random numbers come from a stream that the crc32 of a name starts. With these weights a model's
values are of order 1, every part matters, and LayerNorms that follow a convolution see so little
variance (0.05 squared) that a wrong epsilon shows.
"""

import zlib
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyramidvit import create_model
from pyramidvit.models import BackboneModel


def stream(name: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))


def parameter(name: str, shape: Sequence[int]) -> np.ndarray:
    """The values of a parameter, known by its name in the released checkpoints."""
    noise = stream(name).standard_normal(shape)
    if name == "cls_token" or name.startswith("pos_embed"):
        return noise / 2
    if name.endswith(".weight") and len(shape) == 1:  # a LayerNorm
        return 1 + noise / 10
    before_norm = (name.startswith("patch_embed") and ".proj." in name) or ".attn.sr." in name
    scale = 1 / 10 if name.endswith(".bias") else prod(shape[1:]) ** -0.5
    return noise * scale * (0.05 if before_norm else 1)


def image(batch: int, height: int, width: int) -> np.ndarray:
    """Images [batch, 3, height, width]: noise, and four plane waves a channel."""
    images = stream(f"image:{batch}x3x{height}x{width}").standard_normal((batch, 3, height, width))
    images /= 2
    y = np.arange(height)[:, None] / height
    x = np.arange(width) / width
    for i in range(batch):
        for channel in range(3):
            for draws in stream(f"waves:{i}:{channel}").random((4, 4)):
                down, across = 6 * draws[:2] - 3  # periods over the image
                wave = np.cos(2 * np.pi * (down * y + across * x + draws[2]))
                images[i, channel] += draws[3] * wave
    return images


def probe(values: Tensor, tag: str, count: int = 64) -> np.ndarray:
    """Picks `count` of the values, at places that follow from the tag and the number of values."""
    flat = values.detach().double().cpu().reshape(-1).numpy()
    return flat[stream(f"probe:{tag}:{flat.size}").integers(0, flat.size, size=count)]


def build(name: str, dtype: torch.dtype = torch.float32, **options: Any) -> BackboneModel:
    """A model with the rule's weights, in evaluation mode; options as for `create_model`."""
    with torch.device("meta"):
        model = create_model(name, **options)
    model = model.to(dtype).to_empty(device="cpu").eval()
    for key, value in model.state_dict().items():
        value.copy_(torch.from_numpy(parameter(key, value.shape)))
    return model


def images(batch: int, height: int, width: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.from_numpy(image(batch, height, width)).to(dtype)
