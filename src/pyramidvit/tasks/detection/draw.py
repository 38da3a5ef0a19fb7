"""Boxes, masks and labels over a picture, legible from thumbnails to posters.

Lines and letters grow with the picture, and a small picture is enlarged first.
"""

import colorsys
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ...ops.masks import decode_window, split_runs
from ...structures import Classes, DetectionPrediction, DetectionTarget
from .labels import Area, Colour, Font, Label, choose_style, readable, write_labels

SHOWN = 0.3  # score from which detections are drawn
MIN_SIDE = 480  # pixels that the longer side of a picture has at least,
MIN_SIDE_OF_MANY = 960  # and of one with more than MANY objects
MANY = 15
SMALL = 64  # pixels below which enlarging keeps the pixels visible
SHADE = 95  # of 255, how strongly a mask is coloured


class Item(NamedTuple):
    """An object to draw, in pixels of the page."""

    box: tuple[float, float, float, float]
    label: int
    name: str
    score: float | None
    crowd: bool
    runs: Tensor | None  # of its mask, in pixels of the file


def draw(
    picture: Image.Image,
    objects: DetectionPrediction | DetectionTarget,
    classes: Classes,
    threshold: float = SHOWN,
    count: int | None = None,
) -> Image.Image:
    """The picture with its objects: masks below boxes below labels, the best and smallest on top.

    Args:
        picture: Of any size and mode; it stays as it is.
        objects: In the frame of the picture; a target is drawn whole, its crowds dashed.
        classes: Give the names.
        threshold: Detections with a lower score are left out.
        count: How many objects there must be room for; by default those that are drawn. Pictures
            that stand side by side are enlarged alike with the same number.

    Returns:
        RGB, of the picture's size; a small one is enlarged by a whole factor.
    """
    factor = enlargement(picture.size, count_shown(objects, threshold) if count is None else count)
    page = picture.convert("RGB")
    if factor > 1:
        visible = max(picture.size) < SMALL
        resample = Image.Resampling.NEAREST if visible else Image.Resampling.BICUBIC
        page = page.resize((page.width * factor, page.height * factor), resample)
    items = list(items_of(objects, classes, factor, threshold))
    style = choose_style(page.size, len(items))
    for item in items:
        if item.runs is not None and objects.masks is not None:
            shade(page, item.runs, objects.masks.size, factor, item.label, style.line)
    pen = ImageDraw.Draw(page)
    for item in items:
        outline(pen, item, style.line)
    write_labels(page, [label_of(item, style.font) for item in items], style)
    return page


def count_shown(objects: DetectionPrediction | DetectionTarget, threshold: float = SHOWN) -> int:
    """How many objects are drawn."""
    if isinstance(objects, DetectionTarget):
        return len(objects.labels)
    return int((objects.scores >= threshold).sum())


def enlargement(size: tuple[int, int], count: int) -> int:
    """The whole factor at which a picture of (width, height) has room for its labels."""
    return -(-(MIN_SIDE if count <= MANY else MIN_SIDE_OF_MANY) // max(size))


def items_of(
    objects: DetectionPrediction | DetectionTarget,
    classes: Classes,
    factor: int,
    threshold: float,
) -> Iterator[Item]:
    """What is to be drawn, the largest first, so that small objects lie on top."""
    boxes = objects.boxes.detach().cpu().double()
    runs = [None] * len(boxes) if objects.masks is None else split_runs(objects.masks.to("cpu"))
    labels = objects.labels.tolist()
    scores, crowd = [None] * len(boxes), [False] * len(boxes)
    if isinstance(objects, DetectionPrediction):
        scores = objects.scores.tolist()
    else:
        crowd = objects.crowd.tolist()
    order = torch.argsort((boxes[:, 2:] - boxes[:, :2]).prod(dim=1), descending=True, stable=True)
    for k in order.tolist():
        score = scores[k]
        if score is None or score >= threshold:
            x0, y0, x1, y1 = (boxes[k] * factor).tolist()
            name = classes.names[labels[k]]
            yield Item((x0, y0, x1, y1), labels[k], name, score, crowd[k], runs[k])


def colour_of(label: int) -> Colour:
    """The class's own colour, far from those of its neighbours."""
    hue = (0.56 + label * 0.61803) % 1
    saturation, value = ((0.85, 1.0), (0.6, 1.0), (0.9, 0.8))[label % 3]
    red, green, blue = (round(255 * c) for c in colorsys.hsv_to_rgb(hue, saturation, value))
    return red, green, blue


def shade(
    page: Image.Image, runs: Tensor, size: tuple[int, int], factor: int, label: int, line: int
) -> None:
    """Colours the pixels of a mask of `size` (H, W), its rim stronger; only its columns are drawn.

    Args:
        page: Drawn on.
        runs: int64 [r] of the mask.
        size: Of the mask and of the picture before it was enlarged.
        factor: By which it was enlarged.
        label: Number of the class.
        line: Width of the rim.
    """
    ends = runs.cumsum(0)
    starts = ends[:-1:2]  # where runs of ones start
    if not len(starts) or size[0] == 0:
        return
    last = int(ends[1::2][-1]) - 1
    x0, x1 = int(starts[0]) // size[0], last // size[0] + 1
    bits = decode_window(runs, size[0], (x0, 0, x1, size[0])).numpy()
    rows = np.flatnonzero(bits.any(axis=1))
    if not len(rows):
        return
    y0, y1 = int(rows[0]), int(rows[-1]) + 1
    inside = bits[y0:y1].repeat(factor, axis=0).repeat(factor, axis=1)
    strength = np.where(inside, SHADE, 0).astype(np.uint8)
    strength[inside & ~core(inside, line)] = 255
    page.paste(colour_of(label), (x0 * factor, y0 * factor), Image.fromarray(strength))


def core(inside: np.ndarray, width: int) -> np.ndarray:
    """A mask bool [h, w] without its rim; beyond the array nothing is inside."""
    h, w = inside.shape
    wide = np.pad(inside, width)
    part = inside.copy()
    for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        y, x = width + dy * width, width + dx * width
        part &= wide[y : y + h, x : x + w]
    return part


def outline(pen: ImageDraw.ImageDraw, item: Item, line: int) -> None:
    """A box's line, its inner edge dark so that it shows on any ground; a crowd's is dashed."""
    x0, y0, x1, y1 = (round(v) for v in item.box)
    x1, y1 = max(x0, x1 - 1), max(y0, y1 - 1)
    colour = colour_of(item.label)
    if item.crowd:
        for part in dashes((x0, y0, x1, y1), line):
            pen.rectangle(part, fill=colour)
        return
    if min(x1 - x0, y1 - y0) > 10 * line:
        inner = (x0 + line, y0 + line, x1 - line, y1 - line)
        dark = (colour[0] // 4, colour[1] // 4, colour[2] // 4)
        pen.rectangle(inner, outline=dark, width=max(1, line // 3))
    pen.rectangle((x0, y0, x1, y1), outline=colour, width=line)


def dashes(box: Area, line: int) -> Iterator[Area]:
    """Pieces along the sides of a box."""
    x0, y0, x1, y1 = box
    step = 8 * line
    for x in range(x0, x1 + 1, step):
        end = min(x + step // 2, x1)
        yield x, y0, end, min(y0 + line - 1, y1)
        yield x, max(y1 - line + 1, y0), end, y1
    for y in range(y0, y1 + 1, step):
        end = min(y + step // 2, y1)
        yield x0, y, min(x0 + line - 1, x1), end
        yield max(x1 - line + 1, x0), y, x1, end


def label_of(item: Item, font: Font) -> Label:
    """What may be written at an object: its name and score, or less where there is no room."""
    x0, y0, x1, y1 = (round(v) for v in item.box)
    name = readable(item.name, item.label, font)
    texts: tuple[str, ...] = (f"{name} (crowd)" if item.crowd else name,)
    if item.score is not None:
        texts = (f"{name} {item.score:.2f}", f"{item.score:.2f}".removeprefix("0"))
    rank = 1.0 if item.score is None else item.score
    return Label((x0, y0, x1, y1), texts, colour_of(item.label), rank)
