"""Trains ours and timm's pvt_v2_b0 alike and compares: same recipe, seed, data order and weights.

    python benchmarks/train_vs_timm.py --data cifar10_jpg --output /tmp/versus

Writes two run folders and a table: final and best accuracy of both, and how far the first losses
are apart. With --drop_path_rate 0 the two should make the same losses to rounding.
"""

import argparse
import csv
from dataclasses import replace
from pathlib import Path

import timm
from torch import nn

from pyramidvit.cli.tasks import CLASSIFICATION, load_data
from pyramidvit.engine.device import build_fabric
from pyramidvit.engine.folders import make_folder
from pyramidvit.engine.report import Reporter
from pyramidvit.engine.run import build_run
from pyramidvit.engine.train import fit
from pyramidvit.structures import Classes
from pyramidvit.tasks.classification.config import ClassificationOptions, check_options


def timm_model(options: ClassificationOptions, classes: Classes) -> nn.Module:
    """timm's model of the same name, with the initial weights that ours has."""
    ours = CLASSIFICATION.build_model(options, classes)
    theirs = timm.create_model(
        options.model, num_classes=len(classes), drop_path_rate=options.drop_path_rate
    )
    theirs.load_state_dict({timm_key(name): v for name, v in ours.state_dict().items()})
    theirs.no_weight_decay = ours.no_weight_decay
    return theirs


def timm_key(name: str) -> str:
    """The name that timm's pvt_v2 gives a parameter."""
    first, _, rest = name.partition(".")
    stage = int(first[-1]) - 1 if first[-1].isdigit() else 0
    rest = rest.replace("dwconv.dwconv", "dwconv")
    if first.startswith("patch_embed"):
        return f"stages.{stage}.downsample.{rest}" if stage else f"patch_embed.{rest}"
    if first.startswith("block"):
        return f"stages.{stage}.blocks.{rest}"
    return f"stages.{stage}.norm.{rest}" if first.startswith("norm") else name


def train(options: ClassificationOptions, side: str, folder: Path) -> list[dict[str, float]]:
    """Trains one side; returns the rows of its epochs."""
    task = CLASSIFICATION
    if side == "timm":
        task = replace(CLASSIFICATION, build_model=timm_model)
    data = load_data("classification", options.data, seed=options.seed, held_out=options.held_out)
    fabric = build_fabric(options.device, options.devices, options.precision)
    run = build_run(task, options, data, fabric, Reporter())
    run.folder = make_folder(str(folder / side), "", "")
    fit(run)
    return run.progress.history


def losses(folder: Path, count: int) -> list[float]:
    with (folder / "steps.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)][:count]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--drop_path_rate", type=float, default=0.1)
    given = parser.parse_args()
    options = ClassificationOptions(
        data=given.data,
        epochs=given.epochs,
        image_size=given.image_size,
        drop_path_rate=given.drop_path_rate,
    )
    check_options(options)
    folder = Path(given.output)
    rows = {side: train(options, side, folder) for side in ("ours", "timm")}
    first = [losses(folder / side, 20) for side in ("ours", "timm")]
    apart = max(abs(a - b) for a, b in zip(*first, strict=True))

    lines = ["| | top-1 at the end | best top-1 | images/s |", "|---|---|---|---|"]
    for side, history in rows.items():
        speed = sorted(row["images_per_second"] for row in history)[len(history) // 2]
        best = max(row["top1"] for row in history)
        lines.append(f"| {side} | {history[-1]['top1']:.2f} | {best:.2f} | {speed:.0f} |")
    lines.append(f"\nlargest difference of the first 20 losses: {apart:.1e}")
    table = "\n".join(lines) + "\n"
    (folder / "table.md").write_text(table)
    print(table)


if __name__ == "__main__":
    main()
