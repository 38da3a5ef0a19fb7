"""Every detector learns from the embedded scenes, in either precision, through the real loop."""

from typing import Literal

import pytest
import torch

from pyramidvit.cli.tasks import TASKS
from pyramidvit.data.scenes import load_scene_data
from pyramidvit.engine.device import build_fabric
from pyramidvit.engine.loader import training_loader
from pyramidvit.engine.report import Reporter
from pyramidvit.engine.run import build_run
from pyramidvit.engine.train import train_step
from pyramidvit.tasks.detection.config import DetectionOptions, recipe_changes
from pyramidvit.tasks.detection.table import DETECTORS

SMALL = {"width": 16, "hidden": 16, "short_side": 64, "long_side": 64, "batch_size": 2}
FEW = {"proposals": 20, "candidates": 20, "region_samples": 8}


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("model", DETECTORS)
def test_two_updates_on_scenes_are_finite(
    model: str, precision: Literal["float32", "bf16"]
) -> None:
    changes = {**recipe_changes("scenes", model, "pvt_v2_b0"), **SMALL, **FEW, "model": model}
    options = DetectionOptions(**{**changes, "precision": precision, "warmup": 0.0})
    task, data = TASKS["detection"], load_scene_data(seed=0, train=4, validation=1)
    fabric = build_fabric("cpu", 1, precision)
    run = build_run(task, options, data, fabric, Reporter(speaks=False))
    before = {name: p.detach().clone() for name, p in run.bare.named_parameters()}
    rows = []
    for delivery in training_loader(
        data.splits["train"], run.transform, run.batches, seed=0, workers=0, divisor=task.divisor
    ):
        rows.append(train_step(run, delivery, task.mix(options, 10)))  # refuses what is not finite
    assert len(rows) == 2
    assert all(row["loss"] > 0 and row["grad_norm"] > 0 for row in rows)
    still = [name for name, p in run.bare.named_parameters() if torch.equal(p, before[name])]
    assert len(still) < len(before) / 4, still  # a level without objects learns nothing
    for name, parameter in run.bare.named_parameters():
        assert parameter.dtype == torch.float32
        assert bool(parameter.isfinite().all()), name
