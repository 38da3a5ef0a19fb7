"""Coloured classes over a picture with a legend of those that it shows, from one pixel to posters.

Letters grow with the picture; a small picture is enlarged first, and a gigantic one is shrunk.
"""

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ...structures import Classes, SegmentationPrediction, SegmentationTarget
from .describe import count_labels, percent

MIN_SIDE = 480  # pixels that the longer side of a drawn picture has at least,
MAX_SIDE = 8192  # and at most
SMALL = 64  # pixels below which enlarging keeps the pixels visible
COLOUR = 128  # of 255, how strongly a region is coloured,
BORDER = 230  # and the pixels at its border
AT_ONCE = 1 << 22  # pixels that are blended
MAX_NAME = 30  # letters
BLACK, FIRST = (0, 0, 0), (0, 159, 255)
BACKGROUND = "background"

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def draw(
    picture: Image.Image, shown: SegmentationPrediction | SegmentationTarget, classes: Classes
) -> Image.Image:
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
    labels = shown.labels.cpu().numpy()
    counts = count_labels(shown.labels, len(classes))
    page, labels = fit(picture if picture.mode == "RGB" else picture.convert("RGB"), labels)
    colours = palette(classes)
    page = colour_in(page, labels, colours, is_background(classes))
    return add_legend(page, list(legend_of(counts, classes, colours)))


def palette(classes: Classes) -> list[Colour]:
    """A colour of each class: the data's own, or else distinct ones, always the same.

    They go by the classes' numbers, neighbours far from each other; a background is black.
    """
    if len(classes.colours) == len(classes):
        return list(classes.colours)
    first = int(is_background(classes))
    made = made_colours()
    return [BLACK] * first + [made[k % len(made)] for k in range(len(classes) - first)]


def is_background(classes: Classes) -> bool:
    """Whether the first class is what remains beside the others."""
    return bool(classes.names) and classes.names[0].strip().lower() == BACKGROUND


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
    page: Image.Image, labels: np.ndarray, colours: list[Colour], background: bool
) -> Image.Image:
    """The page with its regions coloured, a band of rows at a time.

    Args:
        page: RGB.
        labels: Integers [H, W], negative where nothing is known.
        colours: Of the classes.
        background: Whether the first class stays as it is.
    """
    table = np.asarray([*colours, BLACK], np.uint8)  # -1 is the last
    strength = np.full(len(table), COLOUR, np.uint8)
    strength[[-1, *([0] if background else [])]] = 0
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


class Entry(NamedTuple):
    """A line of the legend."""

    colour: Colour | None
    text: str


def legend_of(counts: np.ndarray, classes: Classes, colours: list[Colour]) -> Iterator[Entry]:
    """The classes that a picture shows, the most frequent first; `counts` are pixels [K]."""
    total = max(1, int(counts.sum()))
    for k in np.argsort(-counts, kind="stable").tolist():
        if counts[k]:
            yield Entry(colours[k], f"{short(classes.names[k])}  {percent(counts[k] / total)}")


def short(name: str) -> str:
    """A name on one line that is short enough."""
    name = " ".join(name.encode(errors="replace").decode().split())
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"


def add_legend(page: Image.Image, entries: list[Entry]) -> Image.Image:
    """The page with a legend: below a wide picture, beside a high one, in as many columns as it
    takes; where it would outgrow the picture, the rarest classes are only counted."""
    if not entries:
        return page
    letters = round(max(13, min(max(page.size) / 45, min(page.size) / 12)))
    font = ImageFont.load_default(letters)
    line, gap = round(letters * 1.4), letters // 2
    column = line + 2 * gap + round(max(font.getlength(entry.text) for entry in entries))
    beside = page.height > page.width
    entries, rows = arrange(entries, page.size, (column, line), beside=beside)
    width = -(-len(entries) // rows) * column + 2 * gap
    height = rows * line + 2 * gap
    if beside:
        x0, y0, size = page.width, 0, (page.width + width, max(page.height, height))
    else:
        x0, y0, size = 0, page.height, (max(page.width, width), page.height + height)
    whole = Image.new("RGB", size, "white")
    whole.paste(page)
    pen = ImageDraw.Draw(whole)
    for number, entry in enumerate(entries):
        corner = (x0 + gap + number // rows * column, y0 + gap + number % rows * line)
        write_entry(pen, entry, corner, line, font)
    return whole


def arrange(
    entries: list[Entry], page: tuple[int, int], cell: tuple[int, int], *, beside: bool
) -> tuple[list[Entry], int]:
    """The entries that a page of (width, height) has room for, and in how many rows they stand.

    Args:
        entries: The most important first.
        page: See above.
        cell: (width, height) of an entry.
        beside: Whether they stand beside the page, which takes up to its width, or below it, which
            takes up to half its height.
    """
    columns, rows = max(1, page[0] // cell[0]), max(1, page[1] // cell[1])
    most = max(8, columns * (rows if beside else rows // 2))
    if len(entries) > most:
        entries = [*entries[: most - 1], Entry(None, f"and {len(entries) - most + 1} more")]
    return entries, min(rows, len(entries)) if beside else -(-len(entries) // columns)


def write_entry(
    pen: ImageDraw.ImageDraw, entry: Entry, corner: tuple[int, int], line: int, font: Font
) -> None:
    """A square of a class's colour, and its text in black, at a corner (x, y)."""
    x, y = corner
    inset = line // 8
    if entry.colour is not None:
        square = (x + inset, y + inset, x + line - 1 - inset, y + line - 1 - inset)
        pen.rectangle(square, fill=entry.colour, outline="black")
    pen.text((x + line + line // 4, y + line / 2), entry.text, "black", font, anchor="lm")
