"""Pictures and tables of a classifier's answers."""

import csv
import io
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from ...files import write_atomically
from ...structures import Classes, ClassPrediction
from .metrics import ClassificationMetrics

matplotlib.rcParams["text.parse_math"] = False  # a class may be called "$a_$"

MIN_WIDTH = 320  # a caption stays legible under the smallest picture
MAX_SIDE = 4000  # beyond it a small picture is not enlarged
MAX_NAME = 30  # letters of a class name on a plot


def draw(picture: Image.Image, prediction: ClassPrediction, classes: Classes) -> Image.Image:
    """The picture over the three best classes with bars for their scores."""
    factor = max(1, min(-(-MIN_WIDTH // picture.width), MAX_SIDE // picture.height))
    resample = Image.Resampling.NEAREST if picture.width < 64 else Image.Resampling.BICUBIC
    picture = picture.resize((picture.width * factor, picture.height * factor), resample)

    page_width = max(picture.width, MIN_WIDTH)
    line = max(18, page_width // 22)
    font = ImageFont.load_default(line * 0.75)
    scores, labels = prediction.scores.topk(min(3, len(classes)))
    page = Image.new("RGB", (page_width, picture.height + line * (len(scores) + 1)), "white")
    page.paste(picture, (0, 0))
    pen = ImageDraw.Draw(page)
    for row, (score, label) in enumerate(zip(scores.tolist(), labels.tolist(), strict=True)):
        top = picture.height + line // 2 + row * line
        width = round(score * page_width * 0.98)
        pen.rectangle((0, top, width, top + line - 3), fill="#a6cee3" if row == 0 else "#dfe7ec")
        text = f"{classes.names[label]}  {score:.2f}"
        pen.text((line // 3, top + line * 0.02), text, fill="black", font=font)
    return page


def report(metrics: ClassificationMetrics, classes: Classes, folder: Path) -> list[Path]:
    """Writes `confusion.png`, `confusion.csv` and `per_class.csv`."""
    table, matrix = folder / "per_class.csv", folder / "confusion.csv"
    counts = metrics.sums["confusion"]
    rows = zip(
        classes.ids,
        classes.names,
        counts.sum(1).tolist(),
        metrics.per_class().tolist(),
        strict=True,
    )
    write_csv(table, [("id", "name", "images", "accuracy"), *rows])
    write_csv(matrix, [("true \\ predicted", *classes.names)] + [
        (name, *row) for name, row in zip(classes.names, counts.tolist(), strict=True)
    ])  # fmt: skip
    picture = folder / "confusion.png"
    draw_confusion(metrics, classes, picture)
    return [picture, matrix, table]


def write_csv(path: Path, rows: list[tuple[object, ...]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_atomically(path, text.getvalue())


def draw_confusion(metrics: ClassificationMetrics, classes: Classes, path: Path) -> None:
    """The confusion matrix, each row as shares of its true class."""
    counts = metrics.sums["confusion"]
    k = len(classes)
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    side = min(max(4.5, 0.45 * k + 2), 14)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, shrink=0.8, label="share of the true class")
    axes.set(xlabel="predicted", ylabel="true", title=f"top-1 {metrics.compute()['top1']:.1f} %")
    if k <= 50:
        names = [n if len(n) <= MAX_NAME else f"{n[: MAX_NAME - 1]}…" for n in classes.names]
        axes.set_xticks(range(k), names, rotation=90)
        axes.set_yticks(range(k), names)
    if k <= 20:
        for i, j in counts.nonzero().tolist():
            colour = "white" if shares[i, j] > 0.5 else "black"
            axes.text(
                j, i, str(int(counts[i, j])), ha="center", va="center", color=colour, fontsize=8
            )
    content = io.BytesIO()
    figure.savefig(content, dpi=110, format="png")
    write_atomically(path, content.getvalue())
