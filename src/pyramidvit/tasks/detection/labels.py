"""Where names and scores stand in a picture: each at its box, within the picture, and beside the
others; in a crowd scores alone, and at last nothing, since the colour tells the class as well."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

MAX_NAME = 30  # letters
COVER = 0.15  # share of a label that other labels may cover
HIDE = 0.4  # share of a label that may hide small objects

Colour = tuple[int, int, int]
Area = tuple[int, int, int, int]  # (x0, y0, x1, y1)
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


class Label(NamedTuple):
    """What is to be written at a box.

    Attributes:
        box: (x0, y0, x1, y1) in pixels of the page.
        texts: The most telling first.
        ground: The class's colour.
        rank: Those with a higher one choose their places first.
    """

    box: Area
    texts: tuple[str, ...]
    ground: Colour
    rank: float


@dataclass(frozen=True, slots=True)
class Style:
    """How thick and how large.

    Attributes:
        line: Width of a box's line in pixels.
        font: Of the labels.
        height: Of a label.
        pad: Between a label's side and its text.
    """

    line: int
    font: Font
    height: int
    pad: int


class Place(NamedTuple):
    """Where a label could stand, and what would suffer.

    Attributes:
        covered: Share of it that lies on other labels.
        hidden: Share of it that lies on objects not much larger than it.
    """

    area: Area
    covered: float
    hidden: float


def choose_style(size: tuple[int, int], count: int) -> Style:
    """Lines and letters for a page of (width, height), finer where many objects crowd."""
    side = min(max(size) / 1.5, min(size) * 2)  # of a usual picture as wide or as high
    fine = min(1.0, max(0.55, (max(count, 1) / 12) ** -0.25))
    letters = max(10, round(side / 30 * fine))
    font = ImageFont.load_default(letters)
    line = max(1, round(side / 220 * fine))
    return Style(line=line, font=font, height=round(letters * 1.3), pad=max(2, letters // 5))


class Written(NamedTuple):
    """A label with its place."""

    text: str
    area: Area
    ground: Colour


def place_labels(labels: Sequence[Label], style: Style, page: tuple[int, int]) -> Iterator[Written]:
    """Labels that have room on a page of (width, height); of each colour at least the first, so
    that every class is named."""
    boxes = np.asarray([label.box for label in labels], np.int64).reshape(-1, 4)
    taken = np.zeros((0, 4), np.int64)
    named: set[Colour] = set()
    for label in sorted(labels, key=lambda label: -label.rank):
        for text in label.texts:
            width = round(style.font.getlength(text)) + 2 * style.pad
            place = best_place(label.box, (width, style.height), page, taken, boxes)
            fits = place.covered <= COVER and place.hidden <= HIDE
            if fits or label.ground not in named:
                taken = np.concatenate((taken, [place.area]))
                named.add(label.ground)
                yield Written(text, place.area, label.ground)
                break


def write_labels(page: Image.Image, labels: Sequence[Label], style: Style) -> None:
    pen = ImageDraw.Draw(page)
    for text, area, ground in place_labels(labels, style, page.size):
        x0, y0, x1, y1 = area
        pen.rectangle((x0, y0, x1 - 1, y1 - 1), fill=ground)
        middle = (x0 + style.pad, (y0 + y1) / 2)
        pen.text(middle, text, fill=ink_for(ground), font=style.font, anchor="lm")


def ink_for(ground: Colour) -> Colour:
    """Black or white, whichever can be read better on a colour (WCAG 2, relative luminance)."""
    shares = [value / 255 for value in ground]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in shares]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return (0, 0, 0) if luminance > 0.179 else (255, 255, 255)


def readable(name: str, number: int, font: Font) -> str:
    """A name on one line, short enough; the class's number if the font lacks its script."""
    name = " ".join(name.encode(errors="replace").decode().split())
    name = name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"
    nothing = bytes(font.getmask("\U0010ffff"))  # what the font shows for letters it has not
    missing = sum(bytes(font.getmask(c)) == nothing for c in name if not c.isspace())
    return name if name and missing * 2 <= len(name) else f"#{number}"


def best_place(
    box: Area,
    size: tuple[int, int],
    page: tuple[int, int],
    taken: np.ndarray,
    boxes: np.ndarray,
) -> Place:
    """Where a label of (width, height) does least harm on a page of (width, height).

    Above the box's corner if there is room, else inside, below, or at the right end.

    Args:
        box: What it belongs to.
        size: Of the label.
        page: Of the page.
        taken: int64 [p, 4], labels that stand already.
        boxes: int64 [n, 4], all objects.
    """
    x0, y0, x1, y1 = box
    width, height = size
    small = boxes[(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) < 6 * width * height]
    lefts, tops = (x0, x1 - width), (y0 - height, y0, y1, y1 - height)
    best: Place | None = None
    for x, y in [(x, y) for x in lefts for y in tops]:
        left = max(0, min(x, page[0] - width))
        top = max(0, min(y, page[1] - height))
        area = (left, top, left + width, top + height)
        place = Place(area, share_in(area, taken), min(1.0, share_in(area, small)))
        if best is None or harm(place) < harm(best):
            best = place
        if not harm(place):
            break
    assert best is not None
    return best


def harm(place: Place) -> float:
    return max(0.0, place.covered * 3 + place.hidden - 0.02)


def share_in(area: Area, others: np.ndarray) -> float:
    """The shares of an area that lie in each of others int64 [p, 4], added up."""
    start = np.maximum(others[:, :2], area[:2])
    end = np.minimum(others[:, 2:], area[2:])
    shared = (end - start).clip(0).prod(axis=1).sum()
    return float(shared) / max(1, (area[2] - area[0]) * (area[3] - area[1]))
