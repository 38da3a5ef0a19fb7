"""Compares `pvt plan` with what runs really take: peak memory and seconds, on this machine's CPU.

    OMP_NUM_THREADS=1 python benchmarks/plan_against_measured.py

Each setting runs in a process of its own: the model is built, and looks twice, or makes two
training steps with AdamW. Memory is the peak of the process beyond what it held before the model
was built; seconds are the CPU's, of one thread.
"""

import argparse
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext

import torch

from pyramidvit import create_model
from pyramidvit.costs.clock import peak_memory
from pyramidvit.costs.machine import estimate, measure_machine
from pyramidvit.costs.plan import RECOMPUTATIONS, Setting, autocast, loss_of, plan
from pyramidvit.engine.device import keep_freed_memory

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
    Setting(model="pvt_v2_b0", size=(224, 224), batch=16, use="training", recompute="feed_forward"),
    Setting(model="pvt_v2_b2", size=(224, 224), batch=8, use="training", recompute="feed_forward"),
    Setting(model="pvt_v2_b2_li", size=(256, 256), batch=4, use="training", precision="bf16"),
    Setting(model="pvt_tiny", size=(256, 256), batch=8, use="training"),
)
STEPS = 2  # the optimizer's moments are there from the second on


def measure(setting: Setting) -> tuple[float, float]:
    """Bytes at the peak beyond those before the model was built, and CPU seconds of a step."""
    keep_freed_memory()  # as `pvt train` and `pvt predict` do
    torch.set_num_threads(1)
    before = peak_memory() or 0.0
    torch.manual_seed(0)
    model = create_model(setting.model, features_only=setting.features)
    images = torch.randn(setting.batch, 3, *setting.size)
    training = setting.use == "training"
    model.train(training)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    if training:
        RECOMPUTATIONS[setting.recompute].switch_on(model)
    taken = []
    with nullcontext() if training else torch.no_grad():
        for _ in range(STEPS):
            start = time.process_time()
            optimizer.zero_grad()  # before the forward pass, as `pvt train` does
            with autocast(setting):
                outputs = model(images)
                loss = loss_of(outputs) if training else None
            del outputs
            if loss is not None:
                loss.backward()
                optimizer.step()
            taken.append(time.process_time() - start)
    return (peak_memory() or 0.0) - before, taken[-1]


def describe(setting: Setting) -> str:
    what = f"{setting.use}, {setting.precision}"
    if setting.recompute != "none":
        what += f", recomputes {setting.recompute}"
    height, width = setting.size
    return f"| `{setting.model}` | {what} | {height}x{width} | {setting.batch} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--others", action="store_true", help="Those that set the constants.")
    given = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    machine = measure_machine("cpu")
    headings = "planned MB | measured MB | ratio | planned s | measured s | ratio"
    print(f"| model | what | size | batch | {headings} |")
    print(f"|---|---|---|---:|{'---:|' * 6}", flush=True)
    for setting in OTHERS if given.others else SETTINGS:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
            taken, seconds = pool.submit(measure, setting).result()
        planned = plan(setting)
        expected = estimate(planned.operations, machine)
        cells = (
            f"{planned.memory / 1e6:.0f}",
            f"{taken / 1e6:.0f}",
            f"{planned.memory / taken:.2f}",
            f"{expected:.2f}",
            f"{seconds:.2f}",
            f"{expected / seconds:.2f}",
        )
        print(f"{describe(setting)} {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
