"""Every way computes the same, and says why where it cannot."""

import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pyramidvit.backbones.pvt_v2 import PVTv2Pyramid, PVTv2Size
from pyramidvit.costs import ways
from pyramidvit.costs.ways import WAYS, Case, as_tensors, why_not
from pyramidvit.errors import UserError
from pyramidvit.export.write import difference

CASE = Case(model="pvt_v2_b0", size=(64, 64), batch=2)
OFFICIAL = (
    "from pyramidvit import create_model\n\ndef pvt_v2_b0(): return create_model('pvt_v2_b0')"
)


@cache
@torch.no_grad()
def right_outputs(case: Case) -> list[Tensor]:
    return as_tensors(WAYS["ours"].build(case)())


@torch.no_grad()
def share(name: str, case: Case) -> float:
    """The largest difference of a way from ours, as a share of the largest value."""
    found = as_tensors(WAYS[name].build(case)())
    right = right_outputs(replace(case, precision="float32", official=None))
    return max(difference(a, b) for a, b in zip(found, right, strict=True))


@pytest.mark.parametrize(
    ("name", "features"),
    [
        ("timm", False),
        ("timm-channels-last", True),
        ("transformers", False),
        ("transformers", True),
        ("optimize-packed", True),
    ],
)
def test_other_ways_give_what_ours_gives(name: str, features: bool) -> None:
    assert share(name, replace(CASE, features=features)) < 1e-4


def test_bf16_is_near() -> None:
    for name in ("timm", "ours", "optimize-packed"):
        assert 1e-5 < share(name, replace(CASE, precision="bf16")) < 0.1


def test_the_official_code_is_read_from_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "official_pvt", sys)  # put back afterwards
    (tmp_path / "pvt_v2.py").write_text(OFFICIAL)
    for place in (tmp_path, tmp_path / "pvt_v2.py"):
        assert share("official", replace(CASE, official=str(place))) < 1e-6
    with pytest.raises(UserError, match="classification folder"):
        WAYS["official"].build(replace(CASE, official=str(tmp_path / "nowhere")))


def test_runtimes_give_what_ours_gives_and_the_linear_models_pooling_is_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    small = PVTv2Pyramid(PVTv2Size(depths=(1, 1, 1, 1), dims=(32, 64, 80, 128), linear=True)).eval()
    monkeypatch.setattr(ways, "random_network", lambda case: small)
    case = Case(model="pvt_v2_b2_li", size=(64, 96), features=True)
    with torch.no_grad():
        graph = ways.onnx_of(ways.our_graph(case), ways.images_of(case))
        right = as_tensors(WAYS["ours"].build(case)())
    monkeypatch.setattr(ways, "onnx_of", lambda *_: graph)  # which is slow to make
    for name in ("ours-onnxruntime", "ours-openvino"):
        found = as_tensors(WAYS[name].build(case)())
        assert max(difference(a, b) for a, b in zip(found, right, strict=True)) < 1e-4


def test_what_cannot_be_measured_is_said() -> None:
    assert why_not("timm", replace(CASE, model="pvt_tiny")) == "timm has no PVT v1"
    assert why_not("timm-onnxruntime", replace(CASE, precision="bf16")) == "no bf16"
    assert why_not("official", CASE) == "--official names no code"
    assert "no maps" in why_not("official", replace(CASE, official=".", features=True))
    assert why_not("ours-openvino", replace(CASE, device="cuda")) == "measured on the CPU alone"
    assert "for a CPU" in why_not("optimize-packed", replace(CASE, device="cuda"))
    assert why_not("ours", CASE) == why_not("optimize-packed", CASE) == ""
