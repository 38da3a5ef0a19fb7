"""Ways side by side: each in a process of its own, in turn, over and over.

Processes, because a runtime's threads, its allocator's habits and its settings are its process's.
They begin with the same allocator's thresholds: glibc's drift with what a process did before, which
alone can make a model half as fast again. All are on, so memory is kept instead of given back to
the system at each call.
"""

import io
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from ..errors import one_line
from .clock import Seconds, time_calls, waiter
from .ways import WAYS, Case, Precision, Run, as_tensors, product, why_not

ALLOCATOR = {
    "MALLOC_MMAP_MAX_": "0",  # or blocks of 32 MB and more would go back, whatever the thresholds
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(4 << 30),
    "MALLOC_TOP_PAD_": str(64 << 20),
}
PRODUCT = "product"  # stands among the ways for what the device can do at most
Key = tuple[str, Precision]  # a way, and what it computes in


@dataclass(kw_only=True)
class Timed:
    """What was measured of a way.

    Attributes:
        seconds: Of a call, in each round.
        outputs: What it computed; None before a way was asked.
        starting: Seconds until it could run: building, converting, compiling.
        reason: Why there are no seconds; "" where there are.
    """

    seconds: list[Seconds] = field(default_factory=list)
    outputs: list[Tensor] | None = None
    starting: float = 0.0
    reason: str = ""


def measure(
    case: Case,
    ways: Sequence[str],
    precisions: Sequence[Precision],
    *,
    rounds: int,
    threads: int,
    least: float = 0.2,
    step: Callable[[str], None] = lambda _: None,
) -> dict[Key, Timed]:
    """Times ways on a case, in each precision, in turn.

    Args:
        case: Its precision is not read.
        ways: Names of `ways.WAYS`.
        precisions: What to compute in.
        rounds: How often each is timed.
        threads: Of the CPU, for each; 0 leaves their number to torch.
        least: Seconds that a turn takes, or more.
        step: Called when something is done, with what it was; as often as `count_steps` says.

    Returns:
        A record for each way and precision, those that cannot run included, and for PRODUCT.
    """
    cases: dict[Key, Case] = {
        (way, precision): replace(case, precision=precision)
        for way in (PRODUCT, *ways)
        for precision in precisions
    }
    timed = {key: Timed() for key in cases}
    with ExitStack() as stack, settings(threads):
        pools = {way: stack.enter_context(one_process()) for way in (PRODUCT, *ways)}
        for key, own in cases.items():
            timed[key].reason = "" if key[0] == PRODUCT else why_not(key[0], own)
            if not timed[key].reason:
                start_way(pools[key[0]], key, own, threads, timed[key])
            step(f"{key[0]} starts")
        for _ in range(rounds):
            for key, record in timed.items():
                if not record.reason:
                    ask(pools[key[0]], key, least, record)
                step(key[0])
    return timed


def count_steps(ways: Sequence[str], precisions: Sequence[Precision], rounds: int) -> int:
    """How often `measure` calls `step`."""
    return (1 + rounds) * (1 + len(ways)) * len(precisions)


def one_process() -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")  # a fork would keep this one's allocator
    return ProcessPoolExecutor(max_workers=1, mp_context=context)


@contextmanager
def settings(threads: int) -> Iterator[None]:
    """The environment that processes are started with."""
    wanted = dict(ALLOCATOR)
    if threads:
        wanted["OMP_NUM_THREADS"] = str(threads)
    with changed_environment(wanted):
        yield


@contextmanager
def changed_environment(wanted: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def start_way(pool: ProcessPoolExecutor, key: Key, case: Case, threads: int, record: Timed) -> None:
    try:
        record.starting, arrays = pool.submit(start, key, case, threads).result()
        record.outputs = [torch.from_numpy(array) for array in arrays]
    except BrokenProcessPool:
        record.reason = "its process died"
    except Exception as error:  # whatever somebody's runtime raises is what its row says
        record.reason = one_line(error)


def ask(pool: ProcessPoolExecutor, key: Key, least: float, record: Timed) -> None:
    try:
        record.seconds.append(pool.submit(take_turn, key, least).result())
    except BrokenProcessPool:
        record.reason = "its process died"


RUNS: dict[Key, tuple[Run, Callable[[], None]]] = {}  # in the process of a way: what it can do


def start(key: Key, case: Case, threads: int) -> tuple[float, list[np.ndarray]]:
    """In a way's process: makes it ready; returns the seconds that took, and its outputs."""
    begun = time.perf_counter()
    if threads:
        torch.set_num_threads(threads)
    quiet = io.StringIO()  # exporters talk
    with torch.no_grad(), redirect_stdout(quiet), redirect_stderr(quiet):
        run = product(case) if key[0] == PRODUCT else WAYS[key[0]].build(case)
        RUNS[key] = run, waiter(case.device)
        result = run()
    taken = time.perf_counter() - begun
    return taken, [] if key[0] == PRODUCT else [x.numpy() for x in as_tensors(result)]


def take_turn(key: Key, least: float) -> Seconds:
    """In a way's process: times it."""
    run, wait = RUNS[key]
    with torch.no_grad():  # and not inference mode, which compiled graphs do not all know
        return time_calls(run, wait, least)
