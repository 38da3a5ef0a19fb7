"""What masked padding costs: seconds of a forward and a training step, both sides in turn.

    OMP_NUM_THREADS=1 python benchmarks/padding_cost.py --model retinanet --backbone pvt_v2_b0

A batch has an image of 320x480 and one of 480x320, so that a third of it is padding. "alone" runs
the two one after the other, without any padding. Weights are random, seconds are a processor's.

Before that, what it is for: how far the features of the first image move by its padding, as a share
of the largest one, map by map.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch

from pyramidvit import create_model
from pyramidvit.structures import Batch, DetectionTarget, Origin, Sample, collate
from pyramidvit.tasks.detection.loss import loss
from pyramidvit.tasks.detection.outputs import network_inputs
from pyramidvit.tasks.detection.trunk import bounds_of, read_maps

SIZES = ((320, 480), (480, 320))
BOXES = torch.tensor([[20.0, 30, 90, 140], [100, 100, 300, 260]])
Run = Callable[[], None]


def build_batch(sizes: tuple[tuple[int, int], ...]) -> Batch[DetectionTarget]:
    samples = []
    for size in sizes:
        target = DetectionTarget(
            boxes=BOXES, labels=torch.tensor([0, 1]), crowd=torch.zeros(2, dtype=torch.bool)
        )
        origin = Origin(name="", size=size)
        samples.append(Sample(image=torch.randn(3, *size), target=target, origin=origin))
    return collate(samples, divisor=32)


@torch.no_grad()
def look(model: torch.nn.Module, batches: list[Batch[DetectionTarget]]) -> None:
    model.eval()
    for batch in batches:
        model(batch.images, **network_inputs(batch, learn=False))


def step(model: torch.nn.Module, batches: list[Batch[DetectionTarget]]) -> None:
    model.train()
    model.zero_grad()
    for batch in batches:
        terms = loss(model(batch.images, **network_inputs(batch, learn=True)), batch)
        torch.stack(list(terms.values())).sum().backward()


@torch.no_grad()
def shifts(model: torch.nn.Module, padding: str) -> list[float]:
    """The largest change of a feature of the first image in the batch, over the largest feature."""
    model.eval()
    batch = build_batch(SIZES)
    bounds = bounds_of(batch.images, batch.sizes, padding)
    height, width = SIZES[0]
    alone = model.backbone(batch.images[:1, :, :height, :width])
    shared = read_maps(model.backbone, batch.images, bounds)
    cut = [x[:1, :, : y.shape[2], : y.shape[3]] for x, y in zip(shared, alone, strict=True)]
    return [float((x - y).abs().max() / y.abs().max()) for x, y in zip(cut, alone, strict=True)]


def measure(runs: dict[str, Run], rounds: int) -> dict[str, float]:
    """The median of each one's seconds; they take turns, after a round to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            start = time.process_time()
            run()
            if number:
                seconds[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="retinanet")
    parser.add_argument("--backbone", default="pvt_v2_b0")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()

    models = {}
    for padding in ("published", "masked"):
        torch.manual_seed(0)
        models[padding] = create_model(
            arguments.model, backbone=arguments.backbone, num_classes=3, padding=padding
        )
        moved = ", ".join(f"{share:.2e}" for share in shifts(models[padding], padding))
        print(f"features move, {padding}: {moved}", flush=True)
    batches = {"published": [build_batch(SIZES)], "alone": [build_batch((s,)) for s in SIZES]}
    batches["masked"] = batches["published"]
    models["alone"] = models["published"]
    for what, function in (("forward", look), ("training step", step)):
        runs = {name: partial(function, model, batches[name]) for name, model in models.items()}
        medians = measure(runs, arguments.rounds)
        first = medians["published"]
        line = ", ".join(f"{n} {s:.2f} s ({s / first:.3f})" for n, s in medians.items())
        print(f"{what}: {line}", flush=True)


if __name__ == "__main__":
    main()
