"""A small segmenter that knows nothing, and pictures for it."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pyramidvit import save_checkpoint
from pyramidvit.structures import Classes
from pyramidvit.tasks.segmentation.config import SegmentationOptions
from pyramidvit.tasks.segmentation.task import SEGMENTATION

COLOURS = ((0, 0, 0), (200, 30, 30), (30, 30, 200))
CLASSES = Classes(names=("background", "red", "blue"), ids=(0, 3, 17), colours=COLOURS)


def named(count: int) -> Classes:
    """Classes a, b, c, ..."""
    return Classes(names=tuple("abcdefgh" * 20)[:count], ids=tuple(range(count)))


def save_segmenter(path: Path) -> None:
    options = SegmentationOptions(short_side=64, long_side=96, width=16, dropout=0.0)
    torch.manual_seed(0)
    model = SEGMENTATION.build_model(options, CLASSES)
    with torch.no_grad():  # whatever is drawn at first says one class everywhere
        model.get_parameter("decode_head.conv_seg.weight").normal_(std=1)
    record = {
        "task": "segmentation",
        "model": SEGMENTATION.describe_model(options, CLASSES),
        "classes": CLASSES.to_records(),
        "input": SEGMENTATION.describe_input(options),
    }
    save_checkpoint(path, model.state_dict(), record)


def blotches(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    small = rng.integers(0, 256, (size[0] // 8, size[1] // 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size[::-1], Image.Resampling.BICUBIC)
