"""Time and memory against input size: SRA (b2), linear SRA (b2_li) and a plain ViT (timm's).

    OMP_NUM_THREADS=1 python benchmarks/cost_against_size.py --output cost-against-size

One image a time, float32, without gradients. Each model has a process of its own for time, in turn
at every size, CPU seconds, medians; and one for each size for memory, its peak beyond what the
process held before the model was built. Writes a table (CSV) and a chart of both.
"""

import argparse
import csv
import statistics
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import timm
import torch
from matplotlib.figure import Figure
from torch import nn

from pyramidvit import create_model
from pyramidvit.costs.clock import peak_memory, time_calls
from pyramidvit.costs.turns import one_process, settings
from pyramidvit.engine.plots import save_figure

SIZES = (224, 320, 448, 640, 896, 1280, 1792, 2048)


def plain_vit() -> nn.Module:
    return timm.create_model("vit_small_patch16_224", dynamic_img_size=True)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "pvt_v2_b2": lambda: create_model("pvt_v2_b2"),
    "pvt_v2_b2_li": lambda: create_model("pvt_v2_b2_li"),
    "vit_small": plain_vit,
}
BUILT: list[nn.Module] = []  # in the process of a model


class Cost(NamedTuple):
    model: str
    size: int
    seconds: float  # of the CPU, median
    memory: float  # bytes, at the peak


@torch.no_grad()
def time_at(name: str, size: int) -> float:
    """In a model's process: CPU seconds of one image."""
    torch.set_num_threads(1)
    if not BUILT:
        torch.manual_seed(0)
        BUILT.append(MODELS[name]().eval())
    images = torch.randn(1, 3, size, size)
    return time_calls(lambda: BUILT[0](images), lambda: None, least=0.3).cpu


@torch.no_grad()
def memory_at(name: str, size: int) -> float:
    """In a process of its own: bytes at the peak."""
    torch.set_num_threads(1)
    before = peak_memory() or 0.0
    MODELS[name]().eval()(torch.randn(1, 3, size, size))
    return (peak_memory() or 0.0) - before


def measure(sizes: list[int], rounds: int) -> list[Cost]:
    found = []
    with settings(1), ExitStack() as stack:
        pools = {name: stack.enter_context(one_process()) for name in MODELS}
        for size in sizes:
            seconds: dict[str, list[float]] = {name: [] for name in MODELS}
            for _ in range(rounds if size < 1280 else 1):
                for name, pool in pools.items():
                    seconds[name].append(pool.submit(time_at, name, size).result())
            for name, values in seconds.items():
                cost = Cost(name, size, statistics.median(values), alone(name, size))
                found.append(cost)
                print(row_of(cost), flush=True)
    return found


def alone(name: str, size: int) -> float:
    with one_process() as pool:
        return pool.submit(memory_at, name, size).result()


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
    found = measure(given.sizes, given.rounds)
    given.output.mkdir(parents=True, exist_ok=True)
    with (given.output / "costs.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(Cost._fields)
        table.writerows(found)
    draw(found, given.output / "costs.png")
    linear = [c.seconds / c.size**2 for c in found if c.model == "pvt_v2_b2_li"]
    middle = statistics.median(linear)
    low, high = min(linear) / middle - 1, max(linear) / middle - 1
    print(f"\nlinear SRA, time per pixel: {low:+.0%} to {high:+.0%} of its median over the sizes")


if __name__ == "__main__":
    main()
