"""Every detector learns from scenes of digits for some updates, in float32 and in bf16.

    OMP_NUM_THREADS=1 python benchmarks/detectors_on_scenes.py --pretrained classifier.safetensors

The recipe is `scenes`, as `pvt train` takes it, with its rates spread over the updates that are
asked for. A loss or gradient that is not finite ends it with the error that `pvt train` would give.
Printed is the mean loss of the first and of the last tenth of the updates.
"""

import argparse
import statistics
import time
from typing import Literal

import torch

from pyramidvit.cli.tasks import TASKS
from pyramidvit.data.scenes import load_scene_data
from pyramidvit.engine.device import build_fabric
from pyramidvit.engine.loader import training_loader
from pyramidvit.engine.report import Reporter
from pyramidvit.engine.run import build_run
from pyramidvit.engine.train import train_step
from pyramidvit.tasks.detection.config import DETECTORS, DetectionOptions, recipe_changes

Precision = Literal["float32", "bf16"]
PRECISIONS: tuple[Precision, ...] = ("float32", "bf16")


def learn(
    model: str, backbone: str, precision: Precision, updates: int, pretrained: str | None
) -> list[float]:
    """The loss of each update; refuses one that is not finite.

    Raises:
        UserError: A loss or a gradient is not finite.
    """
    changes = recipe_changes("scenes", model, backbone)
    given = {"model": model, "backbone": backbone, "precision": precision, "pretrained": pretrained}
    options = DetectionOptions(**{**changes, **given, "epochs": 1})
    task = TASKS["detection"]
    data = load_scene_data(seed=0, train=updates * options.batch_size, validation=1)
    run = build_run(task, options, data, build_fabric("cpu", 1, precision), Reporter(speaks=False))
    mix = task.mix(options, len(data.classes))
    loader = training_loader(
        data.splits["train"], run.transform, run.batches, seed=0, workers=0, divisor=task.divisor
    )
    losses = [float(train_step(run, delivery, mix)["loss"]) for delivery in loader]
    finite = all(bool(p.isfinite().all()) for p in run.bare.parameters())
    assert finite, f"{model} in {precision} has weights that are not finite"
    return losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(DETECTORS), choices=DETECTORS)
    parser.add_argument("--backbone", default="pvt_v2_b0")
    parser.add_argument("--updates", type=int, default=60)
    parser.add_argument("--pretrained", help="A classifier for the backbone.")
    given = parser.parse_args()

    print("| detector | precision | loss, first tenth | last tenth | seconds |")
    print("|---|---|---:|---:|---:|")
    for model in given.models:
        for precision in PRECISIONS:
            started = time.process_time()
            torch.manual_seed(0)
            losses = learn(model, given.backbone, precision, given.updates, given.pretrained)
            few = max(1, given.updates // 10)
            first, last = statistics.mean(losses[:few]), statistics.mean(losses[-few:])
            seconds = time.process_time() - started
            row = f"| {model} | {precision} | {first:.2f} | {last:.2f} | {seconds:.0f} |"
            print(row, flush=True)


if __name__ == "__main__":
    main()
