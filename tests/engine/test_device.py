"""What a device computes with."""

import os
import platform
import subprocess
import sys

import pytest
import torch

from pyramidvit.engine.device import native_precision


def test_a_processor_without_bf16_keeps_to_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    assert native_precision("cpu") == "bf16"
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert native_precision("cpu") == "float32"
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    assert native_precision("cpu") == "float32"


def test_apples_gpu_keeps_to_float32() -> None:
    assert native_precision("mps") == "float32"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone has mallopt")
def test_a_training_process_keeps_what_it_frees() -> None:
    assert kept_blocks({}) == (False, True)
    assert not kept_blocks({"MALLOC_MMAP_THRESHOLD_": "131072"})[1]  # what the user sets, stays


def kept_blocks(variables: dict[str, str]) -> tuple[bool, bool]:
    """Whether a freed block of 20 MB stays with a process, before and after it is told to."""
    code = """
from pathlib import Path
import numpy
from pyramidvit.engine.device import keep_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

def stays():
    before = resident()
    block = numpy.ones(20 << 20, dtype=numpy.uint8)
    del block
    return resident() - before > 10 << 20

print(stays())
keep_freed_memory()
print(stays())
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    first, second = done.stdout.split()
    return first == "True", second == "True"
