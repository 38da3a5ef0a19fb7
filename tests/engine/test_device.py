"""What a device computes with."""

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
