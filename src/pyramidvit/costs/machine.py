"""How fast a device is, measured in about two seconds, and how long operations would take on it.

On a CPU every kind of operation is timed in the shapes that a PVT has. None comes near the
processor's peak, and how far it stays away differs by processor: where that has units for products
of matrices in bfloat16, a large product is seven times as fast as in float32, those of a model are
four times as fast, and a GELU is no faster at all.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .clock import spread, time_calls, waiter
from .trace import KEPT, Operation, size_of
from .ways import DTYPES, Case, Precision, product, product_side

Kind = Literal[
    "products",
    "attention",
    "attention_backward",
    "depthwise",
    "depthwise_backward",
    "functions",
    "moves",
]
MOVED = {"cpu": 8 << 20, "cuda": 256 << 20}  # float32 numbers that are copied to tell bandwidth
CALL = {"cpu": 5e-6, "cuda": 8e-6}  # seconds of an operation that has nothing to do
LOOKS = 5  # at each kind, of which the median is taken
# What a model takes for each second that its operations take over and over by themselves, with all
# in the cache that they need. Set by `benchmarks/plan_against_measured.py --others`.
IN_A_MODEL = 1.35
LEAST = 0.02  # seconds of a look: a clock may tick 60 times a second
FUNCTIONS = ("gelu", "layer_norm", "softmax")  # parts of names: bytes that are computed with

# What kinds reach of the peak, or of the bandwidth, on a device that is described and not measured.
SHARES: dict[Kind, float] = {
    "products": 0.7,
    "attention": 0.7,
    "attention_backward": 0.7,
    "depthwise": 0.15,
    "depthwise_backward": 0.15,
}
MOVES = 0.75

# Tokens, channels, hidden channels: the feed-forward networks of b2's four stages at 224x224.
LAYERS = ((3136, 64, 512), (784, 128, 1024), (196, 320, 1280), (49, 512, 2048))
HIDDEN = (2, 256, 56, 56)  # a map behind the first layer
QUERIES, KEYS = (2, 1, 3136, 64), (2, 1, 49, 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a device can do.

    Attributes:
        device: "cpu" or "cuda".
        macs: Multiply-adds a second in large products of matrices, by precision.
        bandwidth: Bytes a second, read and written, of a copy.
        rates: What operations of a kind reach: multiply-adds a second, or for "functions" and
            "moves" bytes a second.
        zeroing: Seconds a byte that the system takes to hand out memory.
        timed: Whether the rates were measured, and not taken from the peaks.
    """

    device: str
    macs: Mapping[Precision, float]
    bandwidth: float
    rates: Mapping[tuple[Kind, Precision], float]
    zeroing: float = 0.0
    timed: bool = False


def describe_machine(device: str, macs: Mapping[Precision, float], bandwidth: float) -> Machine:
    """A device whose peaks are known, and nothing else."""
    rates: dict[tuple[Kind, Precision], float] = {}
    for precision, peak in macs.items():
        rates |= {(kind, precision): share * peak for kind, share in SHARES.items()}
        rates["functions", precision] = rates["moves", precision] = MOVES * bandwidth
    return Machine(device=device, macs=macs, bandwidth=bandwidth, rates=rates)


def measure_machine(device: str) -> Machine:
    """Measures with torch's present number of threads; medians.

    A CPU's seconds are those that it worked, so that what else it does is no matter.
    """
    macs: dict[Precision, float] = {}
    precisions: tuple[Precision, ...] = ("float32", "bf16")
    for precision in precisions:
        run = product(Case(model="", precision=precision, device=device))
        macs[precision] = product_side(device) ** 3 / seconds_for(run, device)
    source = torch.ones(MOVED["cpu" if device == "cpu" else "cuda"], device=device)
    copy = partial(torch.empty_like(source).copy_, source)
    bandwidth = 2 * size_of(source) / seconds_for(copy, device)
    if device != "cpu":
        return describe_machine(device, macs, bandwidth)
    rates: dict[tuple[Kind, Precision], float] = {}
    for precision in precisions:
        for kind, (run, amount) in samples(DTYPES[precision]).items():
            rates[kind, precision] = amount / seconds_for(run, device)
        rates["moves", precision] = bandwidth
    return Machine(
        device=device,
        macs=macs,
        bandwidth=bandwidth,
        rates=rates,
        zeroing=zeroing_seconds(),
        timed=True,
    )


def samples(dtype: torch.dtype) -> dict[Kind, tuple[Callable[[], Any], float]]:
    """Operations of each kind on a CPU, and the multiply-adds or bytes that they take."""
    make = partial(torch.randn, dtype=dtype)
    layers = [(make(n, c), make(hidden, c), make(c, hidden)) for n, c, hidden in LAYERS]
    maps = make(HIDDEN).contiguous(memory_format=torch.channels_last)
    channels = HIDDEN[1]
    kernel = make(channels, 1, 3, 3)
    tokens = maps.permute(0, 2, 3, 1)  # [B, H, W, C], in this order in memory too
    queries, keys, values = make(QUERIES), make(KEYS), make(KEYS)
    aten: Any = torch.ops.aten  # for the ways back
    attended, sums = aten._scaled_dot_product_flash_attention_for_cpu(queries, keys, values)

    def multiply() -> None:
        for x, widen, narrow in layers:
            F.linear(F.linear(x, widen), narrow)

    def convolve() -> Tensor:
        return F.conv2d(maps, kernel, padding=1, groups=channels)

    def convolve_back() -> Any:
        return aten.convolution_backward(
            maps, maps, kernel, [channels], [1, 1], [1, 1], [1, 1], False, [0, 0], channels,
            [True, True, True],
        )  # fmt: skip

    def attend_back() -> Any:
        return aten._scaled_dot_product_flash_attention_for_cpu_backward(
            queries, queries, keys, values, attended, sums, 0.0, False
        )

    def compute() -> None:
        F.layer_norm(F.gelu(tokens), (channels,))

    taps, pairs = 9.0 * maps.numel(), float(queries.numel() * KEYS[2])
    return {
        "products": (multiply, 2.0 * sum(n * c * hidden for n, c, hidden in LAYERS)),
        "attention": (
            partial(F.scaled_dot_product_attention, queries, keys, values),
            2 * pairs,
        ),
        "attention_backward": (attend_back, 5 * pairs),
        "depthwise": (convolve, taps),
        "depthwise_backward": (convolve_back, 2 * taps),
        "functions": (compute, 4.0 * size_of(maps)),
    }


def zeroing_seconds() -> float:
    """Seconds a byte by which the first writing to a large block takes longer than the second."""
    first: list[float] = []
    again: list[float] = []
    for _ in range(LOOKS):
        block = torch.empty(2 * KEPT, dtype=torch.uint8)
        for found in (first, again):
            start = time.process_time()
            block.fill_(1)
            found.append(time.process_time() - start)
    seconds = spread(first).median - spread(again).median
    return max(0.0, seconds) / block.numel() / torch.get_num_threads()


@torch.no_grad()
def seconds_for(run: Callable[[], Any], device: str) -> float:
    """Seconds of a call, the median of some."""
    found = [time_calls(run, waiter(device), LEAST) for _ in range(LOOKS)]
    if device == "cpu":
        return spread([taken.cpu for taken in found]).median / torch.get_num_threads()
    return spread([taken.wall for taken in found]).median


def estimate(operations: Sequence[Operation], machine: Machine) -> float:
    """Seconds of operations, one after the other."""
    seconds = sum(seconds_of(operation, machine) for operation in operations)
    return IN_A_MODEL * seconds if machine.timed else seconds


def seconds_of(operation: Operation, machine: Machine) -> float:
    """As long as its arithmetic or its bytes take, whichever is longer, and what a call takes."""
    precision: Precision = "bf16" if operation.dtype == DTYPES["bf16"] else "float32"
    kind = kind_of(operation)
    rate = machine.rates[kind, precision]
    bandwidth = rate if kind in ("functions", "moves") else machine.rates["moves", precision]
    moving = operation.bytes / bandwidth
    call = CALL["cpu" if machine.device == "cpu" else "cuda"] + operation.large * machine.zeroing
    return max(operation.macs / rate, moving) + call


def kind_of(operation: Operation) -> Kind:
    back = operation.name.endswith("backward")
    if operation.depthwise:
        return "depthwise_backward" if back else "depthwise"
    if "attention" in operation.name:
        return "attention_backward" if back else "attention"
    if operation.macs:
        return "products"
    return "functions" if any(part in operation.name for part in FUNCTIONS) else "moves"
