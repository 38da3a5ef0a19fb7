"""Tables, plots and pictures of a detector's answers."""

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from ...data.images import BrokenImage, read_image
from ...files import write_atomically
from ...structures import Classes
from .coco import CocoScores
from .draw import count_shown, draw
from .metrics import DetectionMetrics
from .records import ImageRecord, show_found, show_truth
from .scoring import Cut, best_cut, confusion

matplotlib.rcParams["text.parse_math"] = False  # a class may be called "$a_$"

MAX_NAME = 30  # letters of a class name on a plot
MOST_LINES = 10  # curves of single classes
WORST = 8  # pictures
CELL = (640, 480)  # (width, height) that a picture on the page has at most
CAPTION, GAP = 24, 10


Read = Callable[[str], Image.Image]


def report(
    metrics: DetectionMetrics, classes: Classes, folder: Path, read: Read = read_image
) -> list[Path]:
    """Writes `per_class.csv`, `confusion.csv`, `confusion.png`, `precision_recall.png`, and, where
    pictures with mistakes can be read again, `worst.png`.

    Args:
        metrics: Of all images.
        classes: Give names and ids.
        folder: Must exist.
        read: A picture by its origin's name, at the size of its file, or `BrokenImage`; images
            without a file bring their own.

    Returns:
        The files, pictures first.
    """
    images = metrics.images
    cut = best_cut(images)
    counts = confusion(images, cut, len(classes))
    names = ("per_class.csv", "confusion.csv", "confusion.png", "precision_recall.png")
    table, matrix, plot, curves = (folder / name for name in names)
    write_csv(table, class_rows(metrics, classes, cut, counts))
    write_csv(matrix, [("true \\ found", *classes.names, "missed")] + [
        (name, *row)
        for name, row in zip((*classes.names, "nothing"), counts.tolist(), strict=True)
    ])  # fmt: skip
    draw_confusion(counts, classes, cut, plot)
    draw_precision(metrics, classes, counts[:-1].sum(axis=1), curves)
    written = [curves, plot, matrix, table]
    page = draw_worst(metrics, classes, cut, read)
    if page is not None:
        content = io.BytesIO()
        page.save(content, format="png")
        write_atomically(folder / "worst.png", content.getvalue())
        written.insert(0, folder / "worst.png")
    return written


def class_rows(
    metrics: DetectionMetrics, classes: Classes, cut: Cut, counts: np.ndarray
) -> list[tuple[object, ...]]:
    """A line a class: APs in percent, and precision and recall of boxes at the best cut."""
    columns: dict[str, np.ndarray] = {"objects": counts[:-1].sum(axis=1)}
    columns |= {f"box_{k}": v for k, v in metrics.coco("bbox").per_class().items()}
    if metrics.has_masks:
        columns |= {f"mask_{k}": v for k, v in metrics.coco("segm").per_class().items()}
    columns["pascal_ap50"] = metrics.pascal()
    right = counts.diagonal()[:-1]
    with np.errstate(invalid="ignore"):
        columns["precision"] = 100 * right / counts[:, :-1].sum(axis=0)
        columns["recall"] = 100 * right / counts[:-1].sum(axis=1)
    heads = ("id", "name", *columns, "score_from")
    values = (column.round(4).tolist() for column in columns.values())
    rows = zip(classes.ids, classes.names, *values, strict=True)
    return [heads, *((*row, round(cut.score, 4)) for row in rows)]


def write_csv(path: Path, rows: Sequence[tuple[object, ...]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_atomically(path, text.getvalue())


def save_figure(figure: Figure, path: Path) -> None:
    content = io.BytesIO()
    figure.savefig(content, dpi=110, format="png")
    write_atomically(path, content.getvalue())


def short(name: str) -> str:
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"


def draw_confusion(counts: np.ndarray, classes: Classes, cut: Cut, path: Path) -> None:
    """Which class is taken for which, each row as shares of its true class."""
    k = len(classes)
    shares = counts / counts.sum(axis=1, keepdims=True).clip(1)
    side = min(max(4.5, 0.45 * (k + 1) + 2), 14)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, shrink=0.8, label="share of the true class")
    title = f"boxes that overlap by half, scores from {cut.score:.2f}"
    axes.set(xlabel="found", ylabel="true", title=title)
    if k <= 80:
        names, size = [short(name) for name in classes.names], 10 if k <= 50 else 6
        axes.set_xticks(range(k + 1), [*names, "missed"], rotation=90, fontsize=size)
        axes.set_yticks(range(k + 1), [*names, "nothing"], fontsize=size)
    if k <= 20:
        for i, j in np.argwhere(counts).tolist():
            colour = "white" if shares[i, j] > 0.5 else "black"
            text = str(int(counts[i, j]))
            axes.text(j, i, text, ha="center", va="center", color=colour, fontsize=8)
    save_figure(figure, path)


def draw_precision(
    metrics: DetectionMetrics, classes: Classes, objects: np.ndarray, path: Path
) -> None:
    """Precision over recall: the mean over classes at several overlaps, and single classes, of many
    those with the most objects, which int64 [K] counts."""
    kinds = [("boxes", metrics.coco("bbox"))]
    if metrics.has_masks:
        kinds.append(("masks", metrics.coco("segm")))
    figure = Figure(figsize=(12, 4.6 * len(kinds)), layout="constrained")
    grid = figure.subplots(len(kinds), 2, squeeze=False)
    for (left, right), (kind, scores) in zip(grid, kinds, strict=True):
        draw_overlaps(left, scores, kind)
        draw_classes(right, scores, classes, np.argsort(-objects, kind="stable"))
        right.set_title(f"{kind}, single classes, overlap 0.5")
        for axes in (left, right):
            axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
            axes.grid(alpha=0.3)
            if axes.lines:
                axes.legend(fontsize=7.5, loc="best")
    save_figure(figure, path)


def draw_overlaps(axes: Axes, scores: CocoScores, kind: str) -> None:
    axes.set_title(f"{kind}, mean of the classes")
    colours = matplotlib.colormaps["viridis"]
    for number in range(0, 10, 2):  # overlaps 0.5, 0.6, 0.7, 0.8, 0.9
        lines = scores.curves(number)
        seen = ~np.isnan(lines).any(axis=0)
        if seen.any():
            mean = lines[:, seen].mean(axis=1)
            label = f"overlap {0.5 + 0.05 * number:.1f}: {100 * mean.mean():.1f}"
            axes.plot(np.linspace(0, 1, 101), mean, color=colours(number / 9), label=label)


def draw_classes(axes: Axes, scores: CocoScores, classes: Classes, order: np.ndarray) -> None:
    """The first classes, in this order, that have objects, at overlap 0.5."""
    lines = scores.curves()
    seen = [k for k in order.tolist() if not np.isnan(lines[:, k]).any()]
    for k in seen[:MOST_LINES]:
        label = f"{short(classes.names[k])}: {100 * lines[:, k].mean():.1f}"
        axes.plot(np.linspace(0, 1, 101), lines[:, k], label=label)


def draw_worst(
    metrics: DetectionMetrics, classes: Classes, cut: Cut, read: Read
) -> Image.Image | None:
    """Pictures with the most mistakes, the truth at the left and what was found at the right; None
    if there are none that can be read."""
    rows: list[tuple[ImageRecord, float, Image.Image]] = []
    for image, f1 in metrics.worst(4 * WORST, cut):
        try:
            picture = read(image.name) if image.picture is None else unpack(image.picture)
        except BrokenImage:
            continue  # gone since
        if len(rows) < WORST and (picture.height, picture.width) == image.size:
            rows.append((image, f1, picture))
    if not rows:
        return None
    return stack([pair_of(image, f1, picture, classes, cut) for image, f1, picture in rows])


def unpack(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content)).convert("RGB")


def pair_of(
    image: ImageRecord, f1: float, picture: Image.Image, classes: Classes, cut: Cut
) -> Image.Image:
    """The truth at the left and what was found at the right, under a line of text."""
    truth, found = show_truth(image), show_found(image)
    count = max(count_shown(truth), count_shown(found, cut.score))
    left = draw(picture, truth, classes, count=count)
    right = draw(picture, found, classes, cut.score, count)
    left.thumbnail(CELL)
    right.thumbnail(CELL)
    height = max(left.height, right.height) + CAPTION
    pair = Image.new("RGB", (2 * CELL[0] + GAP, height), "white")
    pair.paste(left, (0, CAPTION))
    pair.paste(right, (CELL[0] + GAP, CAPTION))
    name = Path(image.name).name.encode(errors="replace").decode()
    text = f"{name}: F1 {f1:.2f} at scores from {cut.score:.2f} (left true, right found)"
    ImageDraw.Draw(pair).text((0, 0), text, fill="black", font=ImageFont.load_default(15))
    return pair


def stack(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures of one width below each other, on white."""
    height = sum(picture.height + GAP for picture in pictures) + GAP
    page = Image.new("RGB", (pictures[0].width + 2 * GAP, height), "white")
    top = GAP
    for picture in pictures:
        page.paste(picture, (GAP, top))
        top += picture.height + GAP
    return page
