"""Seconds and bytes: CPU time and wall of a call, medians and quartiles, peak memory."""

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple


class Seconds(NamedTuple):
    """Of one call: of the processor, over all threads, and as clocks have it."""

    cpu: float
    wall: float


class Spread(NamedTuple):
    """Median and quartiles."""

    median: float
    lower: float
    upper: float


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles of one value or more."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, lower, upper)


def time_calls(call: Callable[[], Any], wait: Callable[[], None], least: float) -> Seconds:
    """Seconds of a call: the mean of as many as take `least` seconds, after one that finds caches
    as somebody else left them and is not counted. `wait` returns when the device is done."""
    call()
    wait()
    count = 0
    wall, cpu = time.perf_counter(), time.process_time()
    while not count or time.perf_counter() - wall < least:
        call()
        wait()
        count += 1
    return Seconds((time.process_time() - cpu) / count, (time.perf_counter() - wall) / count)


def peak_memory() -> float | None:
    """Bytes that this process held in memory at most; None where the system does not tell."""
    status = Path("/proc/self/status")  # Linux; getrusage counts the parent process in there
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return float(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # macOS: bytes


def waiter(device: str) -> Callable[[], None]:
    """What returns when a device has done what it was told."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.synchronize
    return torch.mps.synchronize if device.startswith("mps") else lambda: None
