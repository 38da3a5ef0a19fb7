"""How fast a device is, measured in about two seconds, and how long operations would take on it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .clock import spread, time_calls, waiter
from .trace import Operation
from .ways import DTYPES, Case, Precision, product, product_side

MOVED = {"cpu": 8 << 20, "cuda": 256 << 20}  # float32 numbers that are copied to tell bandwidth

# What operations reach of the peak and of the bandwidth; fitted, see docs/benchmarks.md.
PRODUCTS = 0.7
DEPTHWISE = 0.15
MOVES = 0.75
CALL = {"cpu": 5e-6, "cuda": 8e-6}  # seconds of an operation that has nothing to do


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a device can do at most.

    Attributes:
        device: "cpu" or "cuda".
        macs: Multiply-adds a second in products of matrices, by precision.
        bandwidth: Bytes a second, read and written.
    """

    device: str
    macs: dict[Precision, float]
    bandwidth: float


def measure_machine(device: str) -> Machine:
    """Measures with torch's present number of threads; medians of five.

    A CPU's seconds are those that it worked, so that what else it does is no matter.
    """
    macs: dict[Precision, float] = {}
    precision: Precision
    for precision in ("float32", "bf16"):
        run = product(Case(model="", precision=precision, device=device))
        seconds = spread([time_once(run, device) for _ in range(5)]).median
        macs[precision] = product_side(device) ** 3 / seconds
    source = torch.ones(MOVED["cpu" if device == "cpu" else "cuda"], device=device)
    target = torch.empty_like(source)
    copies = [time_once(lambda: target.copy_(source), device) for _ in range(5)]
    return Machine(
        device=device,
        macs=macs,
        bandwidth=2 * source.numel() * source.element_size() / spread(copies).median,
    )


def time_once(run: Callable[[], Any], device: str) -> float:
    taken = time_calls(run, waiter(device), 0.0)
    return taken.cpu / torch.get_num_threads() if device == "cpu" else taken.wall


def estimate(operations: Sequence[Operation], machine: Machine) -> float:
    """Seconds of operations, one after the other."""
    return sum(seconds_of(operation, machine) for operation in operations)


def seconds_of(operation: Operation, machine: Machine) -> float:
    precision: Precision = "bf16" if operation.dtype == DTYPES["bf16"] else "float32"
    share = DEPTHWISE if operation.depthwise else PRODUCTS
    computing = operation.macs / (machine.macs[precision] * share)
    moving = operation.bytes / (machine.bandwidth * MOVES)
    return max(computing, moving) + CALL["cpu" if machine.device == "cpu" else "cuda"]
