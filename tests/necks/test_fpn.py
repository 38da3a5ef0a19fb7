"""The feature pyramid: each kind of further levels, against recordings and in closed form."""

from pathlib import Path

import pytest
import torch
from torch import nn

from dense_golden import DenseGolden
from pyramidvit.backbones.pvt_v2 import pvt_v2_b0
from pyramidvit.necks.fpn import FPN, Extra

RECORDED: dict[str, tuple[tuple[int, ...], int, Extra]] = {  # maps in, number out, further ones
    "mm2_retinanet_pvt_v2_b0": ((1, 2, 3), 5, "on_input"),
    "mm2_atss_pvt_v2_b0": ((1, 2, 3), 5, "on_output"),
    "mm2_mask_rcnn_pvt_v2_b0": ((0, 1, 2, 3), 5, "pool"),
    "mm2_sparse_rcnn_pvt_v2_b0": ((0, 1, 2, 3), 4, "pool"),
}


@pytest.mark.parametrize("name", RECORDED)
def test_maps_equal_the_reference(golden_dir: Path, name: str) -> None:
    indices, num_outs, extra = RECORDED[name]
    golden = DenseGolden(golden_dir / "dense", name, independent=False)
    backbone = pvt_v2_b0(out_indices=indices)
    neck = FPN(backbone.feature_info.channels(), num_outs=num_outs, extra=extra)
    model = nn.ModuleDict({"backbone": backbone, "neck": neck}).eval()
    golden.fill(model, torch.float32)
    with torch.no_grad():
        maps = neck(backbone(golden.batch("single.f32").images))
    assert len(maps) == num_outs
    for i, x in enumerate(maps):
        golden.check("single.f32", f"neck.{i}", x)


def test_further_levels_start_where_they_are_said_to() -> None:
    torch.manual_seed(0)
    maps = [torch.randn(1, 4, 9, 7), torch.randn(1, 6, 5, 4)]
    for extra in ("on_input", "on_lateral", "on_output", "pool"):
        neck = FPN((4, 6), 8, num_outs=4, extra=extra)
        outs = neck(maps)
        lateral = neck.lateral_convs[1](maps[1])  # nothing lies above the last one
        source = {"on_input": maps[1], "on_lateral": lateral, "on_output": outs[1]}.get(extra)
        if source is None:
            assert torch.equal(outs[2], outs[1][:, :, ::2, ::2])
            assert torch.equal(outs[3], outs[2][:, :, ::2, ::2])
        else:
            torch.testing.assert_close(outs[2], neck.fpn_convs[2](source))
            torch.testing.assert_close(outs[3], neck.fpn_convs[3](outs[2]))
        sizes = [tuple(x.shape[1:]) for x in outs]
        assert sizes == [(8, 9, 7), (8, 5, 4), (8, 3, 2), (8, 2, 1)]


def test_each_cell_sees_the_nearest_one_of_the_map_above() -> None:
    neck = FPN((1, 1), 1, num_outs=2, extra="pool")
    for name, layer in neck.named_modules():
        if isinstance(layer, nn.Conv2d):  # identities
            assert layer.bias is not None, name
            nn.init.zeros_(layer.bias)
            nn.init.dirac_(layer.weight)
    below, above = torch.zeros(1, 1, 5, 3), torch.arange(6.0).reshape(1, 1, 3, 2)
    wanted = [[0, 0, 1], [0, 0, 1], [2, 2, 3], [2, 2, 3], [4, 4, 5]]
    assert neck([below, above])[0][0, 0].tolist() == wanted


def test_fewer_maps_out_than_in_are_refused() -> None:
    with pytest.raises(ValueError, match="num_outs must be 2 or more, got 1"):
        FPN((4, 6), 8, num_outs=1, extra="pool")


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (5, 1)])
def test_gradients_in_bfloat16_are_numbers_on_maps_of_one_column(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    neck = FPN((16,), 16, num_outs=2, extra="on_input").bfloat16()
    x = torch.randn(2, 16, *size).bfloat16()
    wanted = None
    for _ in range(5):
        for count in (2048, 2304, 4608):  # what memory may hold where gradients come to lie
            torch.full((count,), 1e30)
            torch.full((count,), 1e30, dtype=torch.bfloat16)
        neck.zero_grad()
        neck([x])[-1].sum().backward()
        gradient = neck.fpn_convs[1].conv.weight.grad
        wanted = gradient.clone() if wanted is None else wanted
        assert torch.equal(gradient, wanted)
        assert float(gradient.abs().max()) < 100
