"""Tables and plots of a segmenter's answers."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from ...files import write_atomically
from ...structures import Classes
from .metrics import SegmentationMetrics

matplotlib.rcParams["text.parse_math"] = False  # a class may be called "$a_$"

MAX_NAME = 30  # letters of a class name on a plot
Rows = Sequence[Sequence[object]]


def report(metrics: SegmentationMetrics, classes: Classes, folder: Path) -> list[Path]:
    """Writes `class_iou.png`, `confusion.png`, `confusion.csv`, `per_class.csv` and `images.csv`.

    Args:
        metrics: Of all images.
        classes: Give names and ids.
        folder: Must exist.

    Returns:
        The files, pictures first.
    """
    names = ("class_iou.png", "confusion.png", "confusion.csv", "per_class.csv", "images.csv")
    bars, plot, matrix, table, images = paths = [folder / name for name in names]
    counts = metrics.counts["confusion"].numpy()
    write_csv(table, class_rows(metrics, classes))
    write_csv(images, image_rows(metrics))
    write_csv(matrix, [("true \\ found", *classes.names)] + [
        (name, *row) for name, row in zip(classes.names, counts.tolist(), strict=True)
    ])  # fmt: skip
    draw_confusion(counts, classes, plot)
    draw_bars(metrics, classes, bars)
    return paths


def class_rows(metrics: SegmentationMetrics, classes: Classes) -> Rows:
    """A line a class: its figures and its share of the labelled pixels, in percent."""
    columns = metrics.per_class()
    values = (column.numpy().round(4).tolist() for column in columns.values())
    return [
        ("id", "name", *columns),
        *zip(classes.ids, classes.names, *values, strict=True),
    ]


def image_rows(metrics: SegmentationMetrics) -> Rows:
    """A line an image, the worst first and those without labels last."""
    order = sorted(metrics.images, key=lambda i: (math.isnan(i.miou), i.miou, i.name))
    rows = ((i.name, round(i.miou, 4), round(i.pixel_accuracy, 4), i.labelled) for i in order)
    return [("image", "miou", "pixel_accuracy", "labelled_pixels"), *rows]


def write_csv(path: Path, rows: Rows) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_atomically(path, text.getvalue().encode(errors="replace"))  # a file's name may be bytes


def save_figure(figure: Figure, path: Path) -> None:
    content = io.BytesIO()
    figure.savefig(content, dpi=110, format="png")
    write_atomically(path, content.getvalue())


def short(name: str) -> str:
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"


def draw_confusion(counts: np.ndarray, classes: Classes, path: Path) -> None:
    """Which class is taken for which, each row as shares of the pixels of its true class."""
    k = len(classes)
    shares = counts / counts.sum(axis=1, keepdims=True).clip(1)
    side = min(max(4.5, 0.45 * k + 2), 14)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, shrink=0.8, label="share of the true class")
    axes.set(xlabel="found", ylabel="true", title="pixels of each class, %")
    if k <= 80:
        names, size = [short(name) for name in classes.names], 10 if k <= 50 else 6
        axes.set_xticks(range(k), names, rotation=90, fontsize=size)
        axes.set_yticks(range(k), names, fontsize=size)
    if k <= 20:
        for i, j in np.argwhere(shares >= 0.005).tolist():
            colour = "white" if shares[i, j] > 0.5 else "black"
            text = f"{100 * shares[i, j]:.0f}"
            axes.text(j, i, text, ha="center", va="center", color=colour, fontsize=8)
    save_figure(figure, path)


def draw_bars(metrics: SegmentationMetrics, classes: Classes, path: Path) -> None:
    """IoU of each class that was seen, the best at the top, and a line for boundary IoU."""
    rows = {name: column.numpy() for name, column in metrics.per_class().items()}
    seen = np.flatnonzero(~np.isnan(rows["iou"]))
    order = seen[np.argsort(rows["iou"][seen], kind="stable")]
    places = np.arange(len(order))
    figure = Figure(figsize=(8, 1.5 + 0.22 * max(4, len(order))), layout="constrained")
    axes = figure.subplots()
    axes.barh(places, rows["iou"][order], color="#9ecae1", label="IoU")
    axes.plot(rows["boundary_iou"][order], places, "k|", markersize=7, label="boundary IoU")
    axes.set_yticks(places, [short(classes.names[k]) for k in order], fontsize=7)
    mean = metrics.compute()["miou"]
    axes.set(xlim=(0, 100), xlabel="%", title=f"IoU of each class, mean {mean:.1f}")
    axes.margins(y=0.01)
    axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")
    save_figure(figure, path)
