"""What a training run writes into its folder beside the snapshot."""

import csv
import io
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from ..files import write_atomically
from ..weights.checkpoint import save_checkpoint
from .evaluate import Evaluation
from .loader import seed_all, training_loader
from .plots import draw_curves, draw_page
from .run import STREAM_MIX, Run


def write_epoch(run: Run, result: Evaluation, is_best: bool, writer: SummaryWriter) -> None:
    """Writes weights, tables and pictures after an epoch; only the first process does."""
    history, best, folder = run.progress.history, run.task.best, run.folder
    row = history[-1]
    record = {**run.record, "figures": result.figures, "epoch": row["epoch"]}
    state = run.judged.state_dict()
    if is_best:
        save_checkpoint(folder / "best.safetensors", state, record)
        run.task.report(result.metrics, run.data.classes, folder)
        title = f"validation images, {run.task.headline(result.figures)}"
        draw_page(result.shown, title, folder / "predictions.png")
    save_checkpoint(folder / "last.safetensors", state, record)
    write_table(folder / "metrics.csv", history)
    draw_curves(history, best, folder / "curves.png")
    for name, value in row.items():
        writer.add_scalar(f"epoch/{name}", value, int(row["step"]))
    writer.flush()
    run.reporter.say(
        f"epoch {row['epoch']}/{run.options.epochs}",
        f" loss {row['train_loss']:.3f}  {run.task.headline(row)}"
        f"  {row['images_per_second']:.3g} images/s" + ("  best" if is_best else ""),
    )


def write_step(run: Run, row: dict[str, float], writer: SummaryWriter) -> None:
    """Adds a line to `steps.csv`."""
    path = run.folder / "steps.csv"
    fresh = not path.exists() or not path.stat().st_size  # a run gone back to its start has none
    with path.open("a", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, fieldnames=list(row), lineterminator="\n")
        if fresh:
            table.writeheader()
        table.writerow(row)
    writer.add_scalar("step/loss", row["loss"], int(row["step"]))


def cut_steps(path: Path, last: int) -> None:
    """Takes the lines after an update off `steps.csv`, for a run that goes on from there."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", newline="") as file:
        whole = [row for row in csv.DictReader(file) if None not in row.values()]
    rows = [row for row in whole if int(row["step"]) <= last]
    write_table(path, rows)


def write_table(path: Path, rows: list[Any]) -> None:
    """Writes records as CSV, whole or not at all."""
    text = io.StringIO()
    if rows:
        table = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    write_atomically(path, text.getvalue())


def write_samples(run: Run) -> None:
    """Draws the first training batch as the model will see it, as `samples.png`."""
    options, task, classes = run.options, run.task, run.data.classes
    source = run.data.splits["train"]
    run.batches.epoch, run.batches.start = 0, 0
    loader = training_loader(
        source, run.transform, run.batches, seed=options.seed, workers=0, divisor=task.divisor
    )
    delivery = next(iter(loader))
    if delivery.batch is None:
        return
    seed_all(options.seed, STREAM_MIX, 0)
    batch = task.mix(options, len(classes))(delivery.batch)
    pictures = [
        task.show_target(image, target, classes, run.input_record)
        for image, target in zip(
            batch.images[: task.shown], batch.targets[: task.shown], strict=True
        )
    ]
    draw_page(pictures, "training images as the model sees them", run.folder / "samples.png")
