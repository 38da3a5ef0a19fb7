"""The legend of a drawn picture: below a wide one, beside a high one; its letters grow with it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ...structures import Classes
from .describe import percent

MAX_NAME = 30  # letters

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


class Entry(NamedTuple):
    """A line of the legend."""

    colour: Colour | None
    text: str


class Style(NamedTuple):
    """How a legend is set, in pixels.

    Attributes:
        font: Of its letters.
        line: Height of an entry.
        column: Width of an entry.
        gap: Around the whole.
        most: Entries that there is room for, at least 8.
        rows: Of a full column.
        beside: Whether it stands beside the picture, or else below.
    """

    font: Font
    line: int
    column: int
    gap: int
    most: int
    rows: int
    beside: bool


def add_legend(
    page: Image.Image, counts: np.ndarray, classes: Classes, colours: Sequence[Colour]
) -> Image.Image:
    """The page with a legend of the classes that it shows, the most frequent first; where it would
    outgrow the page, the rarest are only counted.

    Args:
        page: The drawn picture; it stays as it is.
        counts: Pixels of each class, [K].
        classes: Give names.
        colours: Of the classes.
    """
    order = [k for k in np.argsort(-counts, kind="stable").tolist() if counts[k]]
    if not order:
        return page
    entries = [entry_of(k, counts, classes, colours) for k in order]
    style = style_for(page.size, [entry.text for entry in entries])
    if len(entries) > style.most:
        more = Entry(None, f"and {len(entries) - style.most + 1} more")
        entries = [*entries[: style.most - 1], more]
    return write_legend(page, entries, style)


def add_steady_legend(
    page: Image.Image, counts: np.ndarray, classes: Classes, colours: Sequence[Colour]
) -> Image.Image:
    """As `add_legend`, but of a size and with places that depend on the page's size and the classes
    alone: every class is there, or of too many the most frequent ones and a count of the others."""
    entries = [entry_of(k, counts, classes, colours) for k in range(len(classes))]
    widest = [f"{short(name)}  100 %" for name in classes.names]
    style = style_for(page.size, widest)
    if len(entries) > style.most:
        order = np.argsort(-counts, kind="stable").tolist()
        chosen, others = sorted(order[: style.most - 1]), order[style.most - 1 :]
        seen = int((counts[others] > 0).sum())
        more = Entry(None, f"and {seen} more" if seen else "")
        entries = [*(entries[k] for k in chosen), more]
    return write_legend(page, entries, style)


def entry_of(k: int, counts: np.ndarray, classes: Classes, colours: Sequence[Colour]) -> Entry:
    """A class and its share of the labelled pixels, if it has any."""
    share = percent(counts[k] / counts.sum()) if counts[k] else ""
    return Entry(colours[k], f"{short(classes.names[k])}  {share}".rstrip())


def short(name: str) -> str:
    """A name on one line that is short enough."""
    name = " ".join(name.encode(errors="replace").decode().split())
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"


def style_for(page: tuple[int, int], texts: Sequence[str]) -> Style:
    """How the legend of a page of (width, height) is set, so that each of the texts fits.

    Beside a page it takes up to the page's width, and below up to half its height.
    """
    width, height = page
    letters = round(max(13, min(max(page) / 45, min(page) / 12)))
    font = ImageFont.load_default(letters)
    line, gap = round(letters * 1.4), letters // 2
    column = line + 2 * gap + round(max(font.getlength(text) for text in texts))
    beside = height > width
    columns, rows = max(1, width // column), max(1, height // line)
    most = max(8, columns * (rows if beside else rows // 2))
    return Style(font, line, column, gap, most, rows, beside)


def write_legend(page: Image.Image, entries: Sequence[Entry], style: Style) -> Image.Image:
    """The page and its legend on white, in as many columns as it takes."""
    gap = style.gap
    if style.beside:
        rows = min(style.rows, len(entries))
    else:
        rows = -(-len(entries) // max(1, page.width // style.column))
    width = -(-len(entries) // rows) * style.column + 2 * gap
    height = rows * style.line + 2 * gap
    if style.beside:
        x0, y0, size = page.width, 0, (page.width + width, max(page.height, height))
    else:
        x0, y0, size = 0, page.height, (max(page.width, width), page.height + height)
    whole = Image.new("RGB", size, "white")
    whole.paste(page)
    pen = ImageDraw.Draw(whole)
    for number, entry in enumerate(entries):
        x, y = number // rows * style.column, number % rows * style.line
        write_entry(pen, entry, (x0 + gap + x, y0 + gap + y), style)
    return whole


def write_entry(
    pen: ImageDraw.ImageDraw, entry: Entry, corner: tuple[int, int], style: Style
) -> None:
    """A square of a class's colour, and its text in black, at a corner (x, y)."""
    (x, y), line = corner, style.line
    inset = line // 8
    if entry.colour is not None:
        square = (x + inset, y + inset, x + line - 1 - inset, y + line - 1 - inset)
        pen.rectangle(square, fill=entry.colour, outline="black")
    pen.text((x + line + line // 4, y + line / 2), entry.text, "black", style.font, anchor="lm")
