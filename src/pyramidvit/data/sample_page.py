"""A page of samples with their boxes, masks and names, to be looked at by a person."""

import colorsys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from ..structures import Classes, DetectionTarget
from .images import BrokenImage, read_image
from .objects import DetectionSource

COLUMNS, ROWS = 4, 3
CELL = (440, 360)  # width, height of a picture's place
CAPTION, GAP = 22, 10
SHADE = 0.45  # share of a mask's colour over the picture
NAME_HEIGHT = 16


class Area(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: "Area") -> bool:
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom


def draw_page(
    samples: Sequence[tuple[Image.Image, DetectionTarget | None, str]], classes: Classes
) -> Image.Image:
    """Draws pictures with their objects, each over its caption, in rows of four."""
    columns = min(COLUMNS, max(1, len(samples)))
    rows = -(-len(samples) // columns)
    step = (CELL[0] + GAP, CELL[1] + CAPTION + GAP)
    page = Image.new("RGB", (columns * step[0] + GAP, max(1, rows) * step[1] + GAP), "white")
    pen = ImageDraw.Draw(page)
    font = ImageFont.load_default(13)
    for k, (picture, target, caption) in enumerate(samples):
        left, top = GAP + k % columns * step[0], GAP + k // columns * step[1]
        shown = draw_sample(picture, target, classes)
        page.paste(shown, (left + (CELL[0] - shown.width) // 2, top + CELL[1] - shown.height))
        pen.text((left, top + CELL[1] + 3), shorten(caption, font), fill="black", font=font)
    return page


def shorten(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The end of a text, as much as fits below a picture."""
    if font.getlength(text) <= CELL[0]:
        return text
    while font.getlength(f"…{text}") > CELL[0]:
        text = text[1:]
    return f"…{text}"


def draw_sample(
    picture: Image.Image, target: DetectionTarget | None, classes: Classes
) -> Image.Image:
    """A picture scaled into a cell, with masks below boxes below names."""
    factor = min(CELL[0] / picture.width, CELL[1] / picture.height)
    size = tuple(max(1, round(side * factor)) for side in picture.size)
    smooth = Image.Resampling.NEAREST if factor > 4 else Image.Resampling.BILINEAR
    shown = picture.resize((size[0], size[1]), smooth)
    if target is None:
        return shown
    if target.masks is not None:
        shown = shade_masks(shown, target, factor)
    pen = ImageDraw.Draw(shown)
    boxes = (target.boxes * factor).tolist()
    labels, crowd = target.labels.tolist(), target.crowd.tolist()
    width = 2 if len(boxes) <= 40 else 1
    for box, label in zip(boxes, labels, strict=True):
        pen.rectangle(box, outline=colour(label), width=width)
    font = ImageFont.load_default(12)
    taken = [Area(*box) for box in boxes if box[3] - box[1] < 2 * NAME_HEIGHT]
    named = target_order(target) if len(classes) > 1 else []  # else they all say the same
    for k in named:
        name = classes.names[labels[k]] + " (crowd)" * crowd[k]
        place = find_place(Area(*boxes[k]), font.getlength(name[:24]) + 6, shown.size, taken)
        if place:
            taken.append(place)
            pen.rectangle(place, fill=colour(labels[k]))
            pen.text((place.left + 3, place.top), name[:24], fill="black", font=font)
    return shown


def target_order(target: DetectionTarget) -> list[int]:
    """Numbers of the objects, the largest first."""
    sides = target.boxes[:, 2:] - target.boxes[:, :2]
    return torch.argsort(sides.prod(dim=1), descending=True).tolist()


def find_place(
    box: Area, width: float, size: tuple[int, int], taken: Sequence[Area]
) -> Area | None:
    """Where a name of `width` covers neither a name nor a small object: in the upper left of its
    box, above or below; None where there is no room."""
    left = max(0, min(box.left, size[0] - width))
    tops = [box.top - NAME_HEIGHT, box.bottom]
    if box.bottom - box.top >= 2 * NAME_HEIGHT:
        tops.insert(0, box.top)
    for top in tops:
        place = Area(left, top, left + width, top + NAME_HEIGHT)
        if place.top >= 0 and place.bottom <= size[1] and not any(map(place.meets, taken)):
            return place
    return None


def shade_masks(shown: Image.Image, target: DetectionTarget, factor: float) -> Image.Image:
    """Lays each mask's colour over a picture that was scaled by `factor`."""
    from ..ops.masks import decode_window, split_runs  # brings torchvision: seconds

    assert target.masks is not None
    pixels = np.asarray(shown).astype(np.float32)
    height, width = target.masks.size
    for runs, box, label in zip(
        split_runs(target.masks), target.boxes.tolist(), target.labels.tolist(), strict=True
    ):
        x0, y0 = max(int(box[0]) - 1, 0), max(int(box[1]) - 1, 0)
        x1, y1 = min(int(box[2]) + 2, width), min(int(box[3]) + 2, height)
        bits = decode_window(runs, height, (x0, y0, x1, y1)).numpy()
        rows = ((np.arange(shown.height) + 0.5) / factor).astype(int)  # of the mask, for each pixel
        columns = ((np.arange(shown.width) + 0.5) / factor).astype(int)
        top, bottom = np.searchsorted(rows, (y0, y1))
        left, right = np.searchsorted(columns, (x0, x1))
        inside = bits[np.ix_(rows[top:bottom] - y0, columns[left:right] - x0)]
        part = pixels[top:bottom, left:right]
        part[inside] = part[inside] * (1 - SHADE) + np.asarray(colour(label)) * SHADE
    return Image.fromarray(np.round(pixels).astype(np.uint8))


def colour(label: int) -> tuple[int, int, int]:
    """A bright colour, far from those of the neighbouring classes."""
    red, green, blue = colorsys.hsv_to_rgb((0.08 + label * 0.61803) % 1, 0.65, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)


def choose_samples(
    source: DetectionSource,
) -> list[tuple[Image.Image, DetectionTarget | None, str]]:
    """Readable pictures from all over a source, those with objects first."""
    count = len(source)
    wanted = COLUMNS * ROWS
    spread = list(dict.fromkeys(k * count // wanted for k in range(wanted)))
    order = [k for k in spread if source.table.first[k] < source.table.first[k + 1]]
    others = [k for k in range(min(count, wanted * 4)) if k not in order]
    samples: list[tuple[Image.Image, DetectionTarget | None, str]] = []
    for k in order + others:
        if len(samples) == wanted:
            break
        try:
            sample = source[k]
        except BrokenImage:
            continue
        assert isinstance(sample.image, Image.Image)
        samples.append((sample.image, sample.target, "/".join(Path(sample.origin.name).parts[-2:])))
    return samples


def read_pictures(
    files: Sequence[tuple[str, str]],
) -> list[tuple[Image.Image, DetectionTarget | None, str]]:
    """Readable pictures of (file, caption), as many as a page shows."""
    samples: list[tuple[Image.Image, DetectionTarget | None, str]] = []
    for file, caption in files:
        if len(samples) == COLUMNS * ROWS:
            break
        try:
            samples.append((read_image(file), None, caption))
        except BrokenImage:
            continue
    return samples
