"""Fused operators: what torch asks of them, and their kernels in Triton's interpreter.

A GPU is not needed: the interpreter runs each kernel's program on a CPU, step by step.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pyramidvit.nn.kernels import operators

TESTS = Path(__file__).parents[1]


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
def test_the_kernels_hold_in_tritons_interpreter() -> None:
    file = Path(__file__).with_name("interpreted_kernels.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", str(file)],
        cwd=TESTS.parent,
        env={**os.environ, "TRITON_INTERPRET": "1", "PYRAMIDVIT_KERNELS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_operators_are_sound_for_compilers(dtype: torch.dtype) -> None:
    """Schema, fake results, gradients and ahead-of-time tracing, by torch's own examination."""
    torch.manual_seed(0)
    x, branch = (torch.randn(2, 15, 16).to(dtype).requires_grad_() for _ in range(2))
    weight, bias = torch.randn(16, 1, 3, 3, requires_grad=True), torch.randn(16, requires_grad=True)
    torch.library.opcheck(operators.conv_gelu, (x, weight, bias, 3, 5))
    scale = torch.randn(16, requires_grad=True)
    torch.library.opcheck(operators.add_norm_operator, (x, branch, scale, bias, 1e-6, dtype))


def test_the_kernels_are_for_who_asks_and_for_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators, "HAS_TRITON", True)
    found = []
    for wanted in (False, True):
        for interpreted in (False, True):
            monkeypatch.setattr(operators, "WANTED", wanted)
            monkeypatch.setattr(operators, "INTERPRETED", interpreted)
            found.append(operators.fast(torch.zeros(1)))
            assert not operators.fast(torch.zeros(1, dtype=torch.float64))
    assert found == [False, False, False, True]
