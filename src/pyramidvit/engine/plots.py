"""Curves and pages of pictures in a run folder."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..files import write_atomically

matplotlib.rcParams["text.parse_math"] = False  # a class may be called "$a_$"
DETAILED = 400  # pixels, above which a picture has boxes and labels to be read
GREEN, RED = "#1b7837", "#b2182b"


def save_figure(figure: Figure, path: Path) -> None:
    content = io.BytesIO()
    figure.savefig(content, dpi=110, format="png")
    write_atomically(path, content.getvalue())


def draw_curves(history: Sequence[dict[str, float]], best: str, path: Path) -> None:
    """Losses, the deciding figure and the learning rate over the epochs."""
    epochs = [row["epoch"] for row in history]
    figure = Figure(figsize=(13, 3.8), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    marker = "." if len(epochs) < 60 else ""
    training = [row["train_loss"] for row in history]
    left.plot(epochs, training, marker=marker, label="training (augmented)")
    if all("loss" in row for row in history):
        left.plot(epochs, [row["loss"] for row in history], marker=marker, label="validation")
    left.set(xlabel="epoch", title="loss")
    left.legend()
    values = [row[best] for row in history]
    top = int(np.argmax(values))
    middle.plot(epochs, values, marker=marker)
    middle.margins(y=0.12)
    middle.plot(epochs[top], values[top], "o", color=RED)
    place = {"xytext": (0, 7), "textcoords": "offset points", "ha": "center"}
    middle.annotate(f"{values[top]:.2f}", (epochs[top], values[top]), **place)
    middle.set(xlabel="epoch", title=f"validation {best} (%)")
    right.plot(epochs, [row["lr"] for row in history], marker=marker)
    right.set(xlabel="epoch", title="learning rate")
    for axes in (left, middle, right):
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if len(epochs) == 1:  # else ticks would be at shares of an epoch
            axes.set_xlim(epochs[0] - 1, epochs[0] + 1)
    save_figure(figure, path)


def draw_bars(
    names: Sequence[str],
    panels: Mapping[str, Sequence[tuple[float, float, float]]],
    title: str,
    path: Path,
) -> None:
    """A panel of bars for each figure, one bar a name: (value, from, to), with a line between the
    last two where they differ. Not a number: no bar."""
    figure = Figure(
        figsize=(3.6 * len(panels) + 1.6, 0.42 * len(names) + 1.3), layout="constrained"
    )
    figure.suptitle(title)
    row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (heading, bars) in zip(row, panels.items(), strict=True):
        values = np.array(bars, dtype=float).reshape(-1, 3)
        places = np.arange(len(names))
        axes.barh(places, values[:, 0], color=GREEN, alpha=0.75, height=0.65)
        axes.hlines(places, values[:, 1], values[:, 2], color="black", linewidth=2)
        for place, (value, _, end) in enumerate(values):
            if not np.isnan(value):
                text = f" {value:.0f}" if value >= 1000 else f" {value:.4g}"
                axes.annotate(text, (max(value, end), place), va="center", fontsize=8)
        axes.set(title=heading, yticks=places, yticklabels=names)
        axes.margins(x=0.25)
        axes.set_xlim(left=0)
        axes.grid(axis="x", alpha=0.3)
    row[0].invert_yaxis()
    save_figure(figure, path)


def draw_sweep(
    sides: Sequence[int],
    panels: Mapping[str, Sequence[float]],
    scores: tuple[str, Sequence[float]] | None,
    knee: int | None,
    path: Path,
) -> None:
    """A panel of each figure over the sides of images; and before them, where there are scores (a
    name and numbers), the scores over the first figure, with the knee (an index) marked."""
    count = len(panels) + (scores is not None)
    figure = Figure(figsize=(4.6 * count, 3.8), layout="constrained")
    row = list(figure.subplots(1, count, squeeze=False)[0])
    if scores is not None:
        (heading, first), (name, values) = next(iter(panels.items())), scores
        axes = row.pop(0)
        axes.plot(first, values, marker=".", color=GREEN)
        for x, y, side in zip(first, values, sides, strict=True):
            axes.annotate(str(side), (x, y), xytext=(3, 5), textcoords="offset points", fontsize=8)
        if knee is not None:
            axes.plot(first[knee], values[knee], "o", color=RED, label=f"knee: {sides[knee]}")
            axes.legend(loc="lower right")
        axes.set(xlabel=heading, title=name)
        axes.margins(0.12)
        axes.grid(alpha=0.3)
    for axes, (heading, figures) in zip(row, panels.items(), strict=True):
        axes.plot(sides, figures, marker=".")
        axes.set(xlabel="side of the image (pixels)", title=heading, ylim=(0, 1.1 * max(figures)))
        axes.grid(alpha=0.3)
    save_figure(figure, path)


def draw_page(
    pictures: Sequence[tuple[np.ndarray, str, bool | None]], title: str, path: Path
) -> None:
    """A page of pictures [H, W, 3] with a line over each: green if right, red if wrong."""
    detailed = any(max(pixels.shape[:2]) > DETAILED for pixels, _, _ in pictures)
    most, width, height = (4, 4.0, 3.6) if detailed else (8, 1.7, 1.95)
    columns = min(most, max(1, len(pictures)))
    rows = -(-max(1, len(pictures)) // columns)
    figure = Figure(figsize=(width * columns, height * rows + 0.4), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    figure.suptitle(title)
    for axes in grid.flat:
        axes.axis("off")
    for axes, (pixels, line, right) in zip(grid.flat, pictures, strict=False):
        axes.imshow(pixels, interpolation="nearest" if pixels.shape[0] < 64 else "antialiased")
        colour = "black" if right is None else GREEN if right else RED
        axes.set_title(wrap(line), fontsize=7.5, color=colour, pad=3)
    save_figure(figure, path)


def wrap(line: str, width: int = 22) -> str:
    """Breaks a caption at its comma or cuts it, so that neighbours do not run into each other."""
    parts = [part if len(part) <= width else part[: width - 1] + "…" for part in line.split(", ")]
    return "\n".join(parts)
