"""Compares `pvt plan` with what runs really take: peak memory and seconds, on this machine's CPU.

    OMP_NUM_THREADS=1 python benchmarks/plan_against_measured.py

Each setting runs in a process of its own: the model is built, and looks three times, or makes three
training steps with AdamW. Memory is the peak of the process beyond what it held before the model
was built.
"""

import argparse
import multiprocessing
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext

import torch

from pyramidvit import create_model
from pyramidvit.costs.clock import peak_memory
from pyramidvit.costs.plan import RECOMPUTATIONS, Setting, autocast, loss_of, plan

SETTINGS = (
    Setting(model="pvt_v2_b0", size=(224, 224), batch=32),
    Setting(model="pvt_v2_b2", size=(512, 512), batch=4),
    Setting(model="pvt_v2_b2", size=(384, 384), batch=8, precision="bf16"),
    Setting(model="pvt_v2_b2_li", size=(512, 512), batch=4),
    Setting(model="pvt_small", size=(384, 384), batch=8),
    Setting(model="pvt_v2_b0", size=(224, 224), batch=16, use="training"),
    Setting(model="pvt_v2_b0", size=(512, 512), batch=4, use="training", precision="bf16"),
    Setting(model="pvt_v2_b2", size=(224, 224), batch=8, use="training"),
    Setting(model="pvt_v2_b2", size=(512, 512), batch=2, use="training", recompute="blocks"),
    Setting(model="pvt_v2_b2_li", size=(320, 320), batch=4, use="training"),
    Setting(model="pvt_tiny", size=(224, 224), batch=8, use="training", precision="bf16"),
    Setting(model="pvt_small", size=(448, 448), batch=4, use="training", recompute="blocks"),
)
OTHERS = (  # by which the constants of `costs/plan.py` were set
    Setting(model="pvt_v2_b1", size=(256, 256), batch=8),
    Setting(model="pvt_v2_b1", size=(448, 448), batch=4, precision="bf16"),
    Setting(model="pvt_tiny", size=(320, 320), batch=4),
    Setting(model="pvt_v2_b1", size=(256, 256), batch=8, use="training"),
    Setting(model="pvt_v2_b1", size=(384, 384), batch=2, use="training", precision="bf16"),
    Setting(model="pvt_v2_b3", size=(224, 224), batch=4, use="training", recompute="blocks"),
    Setting(model="pvt_v2_b2_li", size=(256, 256), batch=4, use="training", precision="bf16"),
    Setting(model="pvt_tiny", size=(256, 256), batch=8, use="training"),
)
STEPS = 3


def measure(setting: Setting) -> tuple[float, float]:
    """Bytes at the peak beyond those before the model was built, and seconds of a step."""
    before = peak_memory() or 0.0
    torch.manual_seed(0)
    model = create_model(setting.model, features_only=setting.features)
    images = torch.randn(setting.batch, 3, *setting.size)
    training = setting.use == "training"
    model.train(training)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    if training:
        RECOMPUTATIONS[setting.recompute](model)
    taken = []
    with nullcontext() if training else torch.no_grad():
        for _ in range(STEPS):
            start = time.process_time()
            with autocast(setting):
                outputs = model(images)
                loss = loss_of(outputs) if training else None
            del outputs
            if loss is not None:
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            taken.append(time.process_time() - start)
    return (peak_memory() or 0.0) - before, statistics.median(taken[1:])


def describe(setting: Setting) -> str:
    what = f"{setting.use}, {setting.precision}"
    if setting.recompute != "nothing":
        what += f", recomputes {setting.recompute}"
    height, width = setting.size
    return f"| `{setting.model}` | {what} | {height}x{width} | {setting.batch} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--others", action="store_true", help="Those that set the constants.")
    given = parser.parse_args()
    print("| model | what | size | batch | planned MB | measured MB | planned / measured |")
    print("|---|---|---|---:|---:|---:|---:|", flush=True)
    for setting in OTHERS if given.others else SETTINGS:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
            taken, seconds = pool.submit(measure, setting).result()
        planned = plan(setting)
        row = f"{planned.memory / 1e6:.0f} | {taken / 1e6:.0f} | {planned.memory / taken:.3f} |"
        print(f"{describe(setting)} {row} {seconds:.2f}", flush=True)


if __name__ == "__main__":
    main()
