"""Time and memory against input size: SRA (b2), linear SRA (b2_li) and a plain ViT (timm's).

    OMP_NUM_THREADS=1 python benchmarks/cost_against_size.py --output cost-against-size

One image at a time, float32, without gradients, one thread. Each model has a process of its own; at
each size they take turns, and the median of their CPU seconds is taken (from 1024 pixels on, one
look of each). Memory is what the process held at most up to this size, beyond what it held before
the model was built. Writes a table (CSV) and a chart, anew after every size.
"""

import argparse
import csv
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import timm
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator
from torch import nn

from pyramidvit import create_model
from pyramidvit.costs.clock import peak_memory, time_calls
from pyramidvit.costs.turns import one_process, settings
from pyramidvit.engine.plots import save_figure

SIZES = (224, 320, 448, 640, 896, 1344, 2048)


def plain_vit() -> nn.Module:
    return timm.create_model("vit_small_patch16_224", dynamic_img_size=True)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "pvt_v2_b2": lambda: create_model("pvt_v2_b2"),
    "pvt_v2_b2_li": lambda: create_model("pvt_v2_b2_li"),
    "vit_small": plain_vit,
}
LARGE = 1024  # sides from which one look is enough
BUILT: list[nn.Module] = []  # in the process of a model
BEFORE: list[float] = []  # bytes that it held before the model was built


class Cost(NamedTuple):
    model: str
    size: int
    seconds: float  # of the CPU, median
    memory: float  # bytes, at the peak


@torch.no_grad()
def cost_at(name: str, size: int) -> tuple[float, float]:
    """In a model's process: CPU seconds of one image, and bytes at the peak so far."""
    if not BUILT:
        torch.set_num_threads(1)
        BEFORE.append(peak_memory() or 0.0)
        torch.manual_seed(0)
        BUILT.append(MODELS[name]().eval())
    images = torch.randn(1, 3, size, size)
    if size < LARGE:
        seconds = time_calls(lambda: BUILT[0](images), lambda: None, least=0.3).cpu
    else:
        start = time.process_time()
        BUILT[0](images)
        seconds = time.process_time() - start
    return seconds, (peak_memory() or 0.0) - BEFORE[0]


def measure(sizes: list[int], rounds: int, output: Path) -> list[Cost]:
    found: list[Cost] = []
    with settings(1), ExitStack() as stack:
        pools = {name: stack.enter_context(one_process()) for name in MODELS}
        for size in sizes:
            costs: dict[str, list[tuple[float, float]]] = {name: [] for name in MODELS}
            for _ in range(rounds if size < LARGE else 1):
                for name, pool in pools.items():
                    costs[name].append(pool.submit(cost_at, name, size).result())
            for name, values in costs.items():
                seconds = statistics.median(taken for taken, _ in values)
                found.append(Cost(name, size, seconds, values[0][1]))
                print(row_of(found[-1]), flush=True)
            write(found, output)
    return found


def write(found: list[Cost], output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    with (output / "costs.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(Cost._fields)
        table.writerows(found)
    draw(found, output / "costs.png")


def row_of(cost: Cost) -> str:
    nanoseconds = cost.seconds / cost.size**2 * 1e9
    return (
        f"| {cost.model} | {cost.size} | {cost.seconds * 1e3:.0f} | {nanoseconds:.0f} |"
        f" {cost.memory / 1e6:.0f} |"
    )


def draw(found: list[Cost], path: Path) -> None:
    figure = Figure(figsize=(14, 4.2), layout="constrained")
    panels = {
        "CPU seconds of one image": lambda cost: cost.seconds,
        "nanoseconds a pixel": lambda cost: cost.seconds / cost.size**2 * 1e9,
        "peak memory (MB)": lambda cost: cost.memory / 1e6,
    }
    for axes, (title, value) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        for name in MODELS:
            own = [cost for cost in found if cost.model == name]
            axes.plot([c.size for c in own], [value(c) for c in own], marker=".", label=name)
        axes.set(title=title, xlabel="side of the image (pixels)", xscale="log", yscale="log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_xticks([c.size for c in own], [str(c.size) for c in own], rotation=45)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend()
    save_figure(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("cost-against-size"))
    given = parser.parse_args()
    print("| model | side | CPU ms | ns a pixel | peak MB |\n|---|---:|---:|---:|---:|")
    found = measure(sorted(given.sizes), given.rounds, given.output)
    linear = [c.seconds / c.size**2 for c in found if c.model == "pvt_v2_b2_li"]
    middle = statistics.median(linear)
    low, high = min(linear) / middle - 1, max(linear) / middle - 1
    print(f"\nlinear SRA, time per pixel: {low:+.0%} to {high:+.0%} of its median over the sizes")


if __name__ == "__main__":
    main()
