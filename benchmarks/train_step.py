"""One training step of ours and of timm's PVT v2, in turn: CPU time, and what autograd keeps.

    python benchmarks/train_step.py --model pvt_v2_b0 --batch_size 8
    python benchmarks/train_step.py --model pvt_v2_b2 --batch_size 4 --precision bf16

A step is forward pass, loss, backward pass and an update by fused AdamW. All sides start from the
same weights and see the same images, without stochastic depth. In every round each side makes a
step, so whatever else the machine does meets all of them; the table has medians, and quartiles.

The first process fixes glibc's allocator and starts the script anew: its threshold drifts with what
a process did before, and alone moves a step's time by half.
"""

import argparse
import gc
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pyramidvit
from pyramidvit.engine.memory import kept_bytes
from train_vs_timm import timm_key

FIXED = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 33),
    "MALLOC_TOP_PAD_": str(1 << 26),
}
OURS = ("none", "feed_forward", "blocks")
SIDES = ("timm", "timm blocks", *OURS)


class Side(NamedTuple):
    model: nn.Module
    step: Callable[[], float]  # returns the loss
    kept: int  # bytes
    gradients: dict[str, Tensor]  # by our names


def build(side: str, given: argparse.Namespace) -> nn.Module:
    """A side's network in training mode; weights follow from the seed alone."""
    torch.manual_seed(0)
    ours = pyramidvit.create_model(given.model, drop_path_rate=0.0)
    if not side.startswith("timm"):
        ours.set_recompute(side)
        return ours.to(memory_format=torch.channels_last).train()
    theirs = timm.create_model(given.model)
    theirs.load_state_dict({timm_key(name): v for name, v in ours.state_dict().items()})
    theirs.set_grad_checkpointing(side == "timm blocks")
    return theirs.train()


def prepare(side: str, given: argparse.Namespace) -> Side:
    """Builds a side, counts what it keeps, and takes the gradients of the first step."""
    torch.manual_seed(1)
    images = torch.randn(given.batch_size, 3, given.side, given.side)
    labels = torch.randint(1000, (given.batch_size,))
    model = build(side, given)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    half = given.precision == "bf16"

    def loss() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            logits = model(images)
        return F.cross_entropy(logits.float(), labels)

    def step() -> float:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        return float(value.detach())

    kept = kept_bytes(model, loss)
    loss().backward()
    ours = {
        timm_key(name): name for name, _ in pyramidvit.create_model(given.model).named_parameters()
    }
    gradients = {
        ours.get(name, name): p.grad.clone()
        for name, p in model.named_parameters()
        if p.grad is not None
    }
    return Side(model, step, kept, gradients)


def measure(sides: dict[str, Side], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each side's steps, after one that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, side in sides.items():
            gc.collect()
            started = time.process_time()
            side.step()
            if turn:
                seconds[name].append(time.process_time() - started)
    return seconds


def apart(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    """The largest distance of two gradients, as a share of the first one's length."""
    return max(float((second[n] - g).norm() / g.norm()) for n, g in first.items() if g.norm() > 0)


def table(
    sides: dict[str, Side], kept: dict[str, int], seconds: dict[str, list[float]], first: str
) -> str:
    lines = [
        "| | CPU s a step | quartiles | speed | kept MiB | kept | gradients apart |",
        "|---|---|---|---|---|---|---|",
    ]
    base = statistics.median(seconds[first])
    for name, side in sides.items():
        low, middle, high = statistics.quantiles(seconds[name], n=4)
        distance = apart(sides[first].gradients, side.gradients)
        lines.append(
            f"| {name} | {middle:.3f} | {low:.3f} to {high:.3f} | {base / middle:.2f}"
            f" | {kept[name] / 2**20:.0f} | {kept[name] / kept[first]:.3f} | {distance:.1e} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="pvt_v2_b0")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sides", default=",".join(SIDES), help="the first one is the measure")
    parser.add_argument("--output", help="a file for the table")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    names = given.sides.split(",")
    sides = {name: prepare(name, given) for name in names}
    kept = {name: side.kept for name, side in sides.items()}
    seconds = measure(sides, given.rounds)
    text = table(sides, kept, seconds, names[0])
    print(f"{given.model}, batch {given.batch_size}, {given.side} px, {given.precision}\n\n{text}")
    if given.output:
        Path(given.output).write_text(text + "\n")


if __name__ == "__main__":
    if any(os.environ.get(name) != value for name, value in FIXED.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **FIXED})
    main()
