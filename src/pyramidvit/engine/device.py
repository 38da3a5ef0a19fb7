"""Devices, precision and processes, through Lightning Fabric."""

import ctypes
import logging
import os
import platform
from typing import Literal

import torch
from lightning_fabric import Fabric

from ..errors import UserError

PRECISIONS: dict[str, Literal["32-true", "bf16-mixed"]] = {
    "float32": "32-true",
    "bf16": "bf16-mixed",
}

# Of glibc's mallopt, malloc.h: environment variable, number, value in bytes.
MALLOC_OPTIONS = {
    "MALLOC_MMAP_THRESHOLD_": (-3, 32 << 20),  # the most that it takes
    "MALLOC_TRIM_THRESHOLD_": (-1, (1 << 31) - 1),
    "MALLOC_TOP_PAD_": (-2, 64 << 20),
}


def native_precision(device: str) -> Literal["float32", "bf16"]:
    """What is quickest on a device: bf16 where it has instructions for it."""
    if device == "cuda" or (device == "auto" and torch.cuda.is_available()):
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device == "mps" or (device == "auto" and torch.backends.mps.is_available()):
        native = False
    else:
        # torch's own, but private: without it bf16 might be emulated, many times slower.
        ask = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
        native = ask is not None and ask()
    return "bf16" if native else "float32"


def build_fabric(device: str, devices: int, precision: str) -> Fabric:
    """Fabric for the devices that were asked for, launched; under torchrun its counts win.

    Raises:
        UserError: A GPU is asked for where there is none, or more than there are.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no CUDA device is available here; use --device cpu")
    if device == "mps" and not torch.backends.mps.is_available():
        raise UserError("--device mps: no Apple GPU is available here; use --device cpu")
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # we say what was decided
    local = int(os.environ.get("LOCAL_WORLD_SIZE", devices))
    nodes = (
        int(os.environ.get("WORLD_SIZE", local)) // local if "LOCAL_WORLD_SIZE" in os.environ else 1
    )
    if device == "cuda" and local > torch.cuda.device_count():
        raise UserError(f"--devices {local}: {torch.cuda.device_count()} CUDA devices are here")
    fabric = Fabric(
        accelerator=device,
        devices=local,
        num_nodes=nodes,
        strategy="ddp" if local * nodes > 1 else "auto",
        precision=PRECISIONS[precision],
    )
    fabric.launch()
    return fabric


def keep_freed_memory() -> None:
    """Lets this process keep what it frees, for its next tensors of that size.

    glibc hands large blocks back to the system, which fills each new one with zeros: a training
    step of large maps on a CPU took a quarter longer for it. What the environment sets stays; does
    nothing elsewhere than with glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    set_option = ctypes.CDLL(None).mallopt
    for name, (number, value) in MALLOC_OPTIONS.items():
        if name not in os.environ:
            set_option(number, value)


def reading_processes(asked: int, *, in_memory: bool, ranks: int) -> int:
    """How many processes read images for one training process."""
    if asked >= 0:
        return asked
    return 0 if in_memory else max(1, min(8, (os.cpu_count() or 1) // ranks))
