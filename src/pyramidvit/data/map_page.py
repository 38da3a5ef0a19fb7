"""A page of samples with the colours of their classes and a legend, to be looked at by a person."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..structures import UNLABELLED, Classes, SegmentationTarget
from .images import BrokenImage
from .sample_page import CAPTION, CELL, COLUMNS, GAP, ROWS, colour, shorten
from .segmentation import LabelSource

SHADE = 0.6  # share of a class's colour over the picture
LINE = 20  # pixels of a line of the legend
ENTRY = 180  # pixels that a name in the legend may take
MOST_NAMED = 120

Shown = tuple[Image.Image, SegmentationTarget, str]


def draw_map_page(samples: Sequence[Shown], classes: Classes) -> Image.Image:
    """Draws pictures with their labels in colours, each over its caption, and below them a legend.

    Unlabelled pixels stay as they are. The legend names the classes that are seen, those with most
    pixels first.
    """
    columns = min(COLUMNS, max(1, len(samples)))
    rows = max(1, -(-len(samples) // columns))
    step = (CELL[0] + GAP, CELL[1] + CAPTION + GAP)
    width = columns * step[0] + GAP
    named = seen_classes(samples, len(classes))[:MOST_NAMED]
    across = max(1, (width - 2 * GAP) // ENTRY)
    height = rows * step[1] + GAP + (-(-len(named) // across)) * LINE + GAP
    page = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(page)
    font = ImageFont.load_default(13)
    colours = np.asarray(class_colours(classes), np.float32)
    for k, (picture, target, caption) in enumerate(samples):
        left, top = GAP + k % columns * step[0], GAP + k // columns * step[1]
        shown = draw_labels(picture, target, colours)
        page.paste(shown, (left + (CELL[0] - shown.width) // 2, top + CELL[1] - shown.height))
        pen.text((left, top + CELL[1] + 3), shorten(caption, font), fill="black", font=font)
    for k, label in enumerate(named):
        left, top = GAP + k % across * ENTRY, GAP + rows * step[1] + k // across * LINE
        fill = tuple(int(c) for c in colours[label])
        pen.rectangle((left, top, left + 13, top + 13), fill=fill, outline="black")
        pen.text((left + 19, top - 1), classes.names[label][:22], fill="black", font=font)
    return page


def class_colours(classes: Classes) -> list[tuple[int, int, int]]:
    """The data's own colours, else one of ours for each class."""
    return list(classes.colours) or [colour(label) for label in range(len(classes))]


def seen_classes(samples: Sequence[Shown], number: int) -> list[int]:
    """The classes in some samples, those of most pixels first."""
    counts = np.zeros(number + 1, int)
    for _, target, _ in samples:
        counts += np.bincount(target.labels.numpy().ravel() + 1, minlength=number + 1)
    order = np.argsort(-counts[1:], kind="stable")
    return [int(k) for k in order if counts[k + 1]]


def draw_labels(
    picture: Image.Image, target: SegmentationTarget, colours: np.ndarray
) -> Image.Image:
    """A picture scaled into a cell, under the colours float32 [K, 3] of its labels."""
    factor = min(CELL[0] / picture.width, CELL[1] / picture.height)
    width, height = (max(1, round(side * factor)) for side in picture.size)
    smooth = Image.Resampling.NEAREST if factor > 4 else Image.Resampling.BILINEAR
    pixels = np.asarray(picture.resize((width, height), smooth)).astype(np.float32)
    rows = ((np.arange(height) + 0.5) / height * picture.height).astype(int)
    across = ((np.arange(width) + 0.5) / width * picture.width).astype(int)
    labels = target.labels.numpy()[np.ix_(rows, across)]
    known = labels != UNLABELLED
    pixels[known] = pixels[known] * (1 - SHADE) + colours[labels[known]] * SHADE
    return Image.fromarray(np.round(pixels).astype(np.uint8))


def choose_maps(source: LabelSource) -> list[Shown]:
    """Readable samples from all over a source."""
    count, wanted = len(source), COLUMNS * ROWS
    spread = list(dict.fromkeys(k * count // wanted for k in range(wanted))) if count else []
    others = [k for k in range(min(count, wanted * 4)) if k not in spread]
    samples: list[Shown] = []
    for k in spread + others:
        if len(samples) == wanted:
            break
        try:
            sample = source[k]
        except BrokenImage:
            continue
        if isinstance(sample.image, Image.Image) and sample.target is not None:
            caption = "/".join(Path(sample.origin.name).parts[-2:])
            samples.append((sample.image, sample.target, caption))
    return samples
