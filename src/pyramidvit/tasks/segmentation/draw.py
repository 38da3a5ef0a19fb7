"""Coloured classes over a picture with a legend of those that it shows, from one pixel to posters.

A small picture is enlarged first, and a gigantic one is shrunk.
"""

from functools import cache

import numpy as np
from PIL import Image

from ...structures import Classes, SegmentationPrediction, SegmentationTarget
from .describe import count_labels
from .legend import Colour, add_legend, add_steady_legend

MIN_SIDE = 480  # pixels that the longer side of a drawn picture has at least,
MAX_SIDE = 8192  # and at most
SMALL = 64  # pixels below which enlarging keeps the pixels visible
COLOUR = 128  # of 255, how strongly a region is coloured,
BORDER = 230  # and the pixels at its border
AT_ONCE = 1 << 22  # pixels that are blended
BLACK, FIRST = (0, 0, 0), (0, 159, 255)

Shown = SegmentationPrediction | SegmentationTarget


def draw(picture: Image.Image, shown: Shown, classes: Classes) -> Image.Image:
    """The picture with every region in its class's colour, and a legend beside or below it.

    A class that is called background is not coloured, and neither is what is unlabelled.

    Args:
        picture: Of any size and mode; it stays as it is.
        shown: In the frame of the picture.
        classes: Give names and colours.

    Returns:
        RGB, with the picture at the top left: enlarged by a whole factor, shrunk by one, or of its
        own size.
    """
    page, counts = overlay(picture, shown, classes)
    return add_legend(page, counts, classes, palette(classes))


def draw_frame(picture: Image.Image, shown: Shown, classes: Classes) -> Image.Image:
    """As `draw`, but pictures of one size come out in one size, as the frames of a video must.

    In the legend every class has its place, seen or not. Where the picture is too small for that,
    the most frequent classes of the frame have.
    """
    page, counts = overlay(picture, shown, classes)
    return add_steady_legend(page, counts, classes, palette(classes))


def overlay(picture: Image.Image, shown: Shown, classes: Classes) -> tuple[Image.Image, np.ndarray]:
    """The picture with coloured regions, and how many pixels each class has in the file."""
    labels = shown.labels.cpu().numpy()
    counts = count_labels(shown.labels, len(classes))
    page, labels = fit(picture if picture.mode == "RGB" else picture.convert("RGB"), labels)
    return colour_in(page, labels, palette(classes), classes.background), counts


def palette(classes: Classes) -> list[Colour]:
    """A colour of each class: the data's own, or else distinct ones, always the same.

    They go by the classes' numbers, neighbours far from each other; a background is black.
    """
    if len(classes.colours) == len(classes):
        return list(classes.colours)
    made, background = made_colours(), classes.background
    colours = [made[k % len(made)] for k in range(len(classes))]
    if background is not None:
        colours = [*colours[:background], BLACK, *colours[background:-1]]
    return colours


@cache
def made_colours() -> tuple[Colour, ...]:
    """Some 700 colours, each as far from all before it, and from black, as those left allow."""
    levels = np.linspace(0, 255, 9).round()
    left = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 3)  # [n, 3]
    left = left[np.ptp(left, axis=1) > 60]  # greys are what pictures are full of
    chosen, apart = [], (left**2).sum(axis=1)
    apart[(left == FIRST).all(axis=1)] = np.inf
    for _ in left:
        best = int(apart.argmax())
        chosen.append((int(left[best, 0]), int(left[best, 1]), int(left[best, 2])))
        apart = np.minimum(apart, ((left - left[best]) ** 2).sum(axis=1))
    return tuple(chosen)


def fit(picture: Image.Image, labels: np.ndarray) -> tuple[Image.Image, np.ndarray]:
    """Picture and labels at the size at which they are drawn."""
    longest = max(picture.size)
    if longest > MAX_SIDE:
        factor = -(-longest // MAX_SIDE)
        page = picture.reduce(factor)  # whose last row and column may stand for fewer pixels
        rows, columns = (
            np.minimum(np.arange(drawn) * factor + factor // 2, own - 1)
            for drawn, own in zip((page.height, page.width), labels.shape, strict=True)
        )
        return page, labels[np.ix_(rows, columns)]
    factor = -(-MIN_SIDE // longest)
    if factor == 1:
        return picture, labels
    resample = Image.Resampling.NEAREST if longest < SMALL else Image.Resampling.BICUBIC
    page = picture.resize((picture.width * factor, picture.height * factor), resample)
    return page, labels.repeat(factor, axis=0).repeat(factor, axis=1)


def colour_in(
    page: Image.Image, labels: np.ndarray, colours: list[Colour], background: int | None
) -> Image.Image:
    """The page with its regions coloured, a band of rows at a time.

    Args:
        page: RGB.
        labels: Integers [H, W], negative where nothing is known.
        colours: Of the classes.
        background: The class that stays as it is, if any.
    """
    table = np.asarray([*colours, BLACK], np.uint8)  # -1 is the last
    strength = np.full(len(table), COLOUR, np.uint8)
    strength[[-1, *([] if background is None else [background])]] = 0
    line = max(1, round(max(page.size) / 1000))
    drawn = page.copy()
    rows = max(1, AT_ONCE // page.width)
    for top in range(0, page.height, rows):
        bottom = min(top + rows, page.height)
        band = labels[top:bottom]
        mask = strength[band]
        mask[borders(labels, top, bottom, line) & (mask > 0)] = BORDER
        drawn.paste(Image.fromarray(table[band]), (0, top), Image.fromarray(mask))
    return drawn


def borders(labels: np.ndarray, top: int, bottom: int, width: int) -> np.ndarray:
    """bool [bottom - top, W]: pixels of some rows no more than `width` from another label."""
    first, last = max(0, top - width), min(len(labels), bottom + width)
    band = labels[first:last]
    found = np.zeros(band.shape, bool)
    found[1:] |= band[1:] != band[:-1]
    found[:, 1:] |= band[:, 1:] != band[:, :-1]
    for axis in (0, 1):  # so far the pixels right of borders and below, now those on both sides
        seed = found.swapaxes(0, axis)
        grown = seed.copy()
        for step in range(1, width + 1):
            grown[:-step] |= seed[step:]
            if step < width:
                grown[step:] |= seed[:-step]
        found = grown.swapaxes(0, axis)
    return found[top - first : bottom - first]
