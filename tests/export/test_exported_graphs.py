"""Exported files compute what eager execution does, at sizes that the graph was not made with."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pyramidvit import PVTv1Classifier, PVTv2Classifier, PVTv2Pyramid
from pyramidvit.backbones.pvt_v1 import PVTv1Size
from pyramidvit.backbones.pvt_v2 import PVTv2Size
from pyramidvit.export.formats import open_onnx, open_openvino, to_onnx
from pyramidvit.export.graph import AverageBins, Exportable, averages, capture, write_out_bins
from pyramidvit.export.write import TOLERANCE, difference
from pyramidvit.necks.fpn import FPN
from pyramidvit.tasks.segmentation.heads.semantic_fpn import SemanticFPNHead
from pyramidvit.tasks.segmentation.heads.trans2seg import Trans2SegHead
from pyramidvit.tasks.segmentation.model import Segmenter
from pyramidvit.weights.inputs import PUBLISHED

# Every operator of a model stands in the first block of a stage, so one is enough here, and narrow
# ones do; benchmarks/check_exports.py takes the published sizes.
ONE_EACH = (1, 1, 1, 1)
DIMS = (16, 32, 40, 64)
FIRST = PVTv1Size(depths=ONE_EACH, dims=DIMS)
SECOND = PVTv2Size(depths=ONE_EACH, dims=DIMS)
LINEAR = PVTv2Size(depths=ONE_EACH, dims=DIMS, linear=True)


def semantic_fpn() -> Segmenter:
    neck = FPN(DIMS, 32, num_outs=4, extra="pool")
    return Segmenter(PVTv2Pyramid(SECOND), neck, SemanticFPNHead(5, in_dim=32, dim=16))


def trans2seg() -> Segmenter:
    head = Trans2SegHead(11, (16, 64), dim=32, depth=2, hidden=8, side=2)
    return Segmenter(PVTv2Pyramid(SECOND, out_indices=(0, 3)), nn.Identity(), head)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "v1 classifier": lambda: PVTv1Classifier(FIRST, num_classes=7),
    "linear features": lambda: PVTv2Pyramid(LINEAR),
    "semantic_fpn": semantic_fpn,
    "trans2seg": trans2seg,
}


def exportable(network: nn.Module) -> Exportable:
    """With weights so large that every part matters."""
    torch.manual_seed(0)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return Exportable(network, PUBLISHED["mean"], PUBLISHED["std"]).eval()


@torch.no_grad()
@pytest.mark.parametrize("name", NETWORKS)
def test_the_graph_equals_the_model_in_both_runtimes_at_any_size(name: str, tmp_path: Path) -> None:
    network = exportable(NETWORKS[name]())
    count = len(network(torch.rand(1, 3, 64, 64)))
    model = to_onnx(capture(write_out_bins(network)), [f"map{k}" for k in range(count)])
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    for run in (open_onnx(path), open_openvino(path)):
        for shape in ((1, 3, 224, 224), (3, 3, 97, 131), (1, 3, 32, 32), (1, 3, 480, 640)):
            images = torch.rand(shape)
            for found, expected in zip(run(images), network(images), strict=True):
                assert difference(found, expected) < TOLERANCE, shape


@torch.no_grad()
def test_the_axes_that_may_change_have_names() -> None:
    network = exportable(nn.Conv2d(3, 4, 3))
    graph = to_onnx(capture(network), ["map"]).graph
    (images,), (output,) = graph.input, graph.output
    axes = [axis.dim_param or axis.dim_value for axis in images.type.tensor_type.shape.dim]
    assert axes == ["batch", 3, "height", "width"]
    axes = [axis.dim_param or axis.dim_value for axis in output.type.tensor_type.shape.dim]
    assert axes[:2] == ["batch", 4]
    assert "height" in axes[2]


@given(bins=st.integers(1, 9), height=st.integers(1, 40), width=st.integers(1, 40))
def test_bins_written_out_are_those_of_adaptive_pooling(bins: int, height: int, width: int) -> None:
    maps = torch.rand(2, 3, height, width)
    expected = F.adaptive_avg_pool2d(maps, bins)
    torch.testing.assert_close(AverageBins(bins)(maps), expected, rtol=1e-6, atol=1e-6)


def test_bins_of_seven_values_in_three_overlap() -> None:
    third = 1 / 3
    rows = [[third] * 3 + [0] * 4, [0] * 2 + [third] * 3 + [0] * 2, [0] * 4 + [third] * 3]
    torch.testing.assert_close(averages(3, 7), torch.tensor(rows))


def test_writing_out_leaves_the_model_as_it_is() -> None:
    model = PVTv2Classifier(LINEAR)
    kinds = [type(part) for part in model.modules()]
    copy = write_out_bins(model)
    assert [type(part) for part in model.modules()] == kinds
    assert sum(isinstance(part, AverageBins) for part in copy.modules()) == 4
    assert not any(isinstance(part, nn.AdaptiveAvgPool2d) for part in copy.modules())
