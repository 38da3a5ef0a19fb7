"""Small data sets with label maps, written as other people's tools write them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from annotated import make_picture

VALUES = np.array([[0, 0, 1], [2, 2, 255]], np.uint8)
COLOURS = [(0, 0, 0), (128, 0, 0), (0, 128, 0)]


def save_map(path: Path, values: Any, palette: list[tuple[int, int, int]] | None = None) -> Path:
    """Writes a label map: uint8 or uint16 [H, W], with a palette if given, or colours [H, W, 3]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.ascontiguousarray(values))
    if palette:
        image = image.convert("L")
        full = [*palette, *[(9, 9, 9)] * (256 - len(palette))]  # of fewer, Pillow saves fewer bits
        image.putpalette([c for colour in full for c in colour])
    image.save(path)
    return path


def make_pair(
    root: Path, name: str, values: Any = VALUES, *, pictures: str = "images", maps: str = "labels"
) -> None:
    """Writes a picture and its map of the same size, below two folders."""
    size = np.asarray(values).shape
    make_picture(root / pictures / f"{name}.png", (size[0], size[1]))
    save_map(root / maps / f"{name}.png", values)


def to_colours(values: np.ndarray, colours: list[tuple[int, int, int]]) -> np.ndarray:
    """uint8 [H, W, 3], the colour of each value."""
    return np.asarray(colours, np.uint8)[values]


def make_panoptic(root: Path, part: str, segments: dict[int, int], ids: np.ndarray) -> Path:
    """One picture with a panoptic map: segment ids [H, W], and the category of each segment."""
    height, width = ids.shape
    make_picture(root / part / "7.jpg", (height, width))
    colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
    save_map(root / "annotations" / f"panoptic_{part}" / "7.png", colours)
    record = {
        "images": [{"id": 7, "file_name": "7.jpg", "height": height, "width": width}],
        "annotations": [
            {
                "image_id": 7,
                "file_name": "7.png",
                "segments_info": [
                    {"id": i, "category_id": c, "area": 1, "bbox": [0, 0, 1, 1], "iscrowd": 0}
                    for i, c in segments.items()
                ],
            }
        ],
        "categories": [
            {"id": 200, "name": "rug", "isthing": 0, "color": [1, 2, 3]},
            {"id": 17, "name": "cat", "isthing": 1, "color": [4, 5, 6]},
        ],
    }
    file = root / "annotations" / f"panoptic_{part}.json"
    file.write_text(json.dumps(record))
    return file
