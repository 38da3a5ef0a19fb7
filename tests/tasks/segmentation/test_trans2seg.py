"""Trans2Seg's head: its published size, its oddities, and images of other sizes."""

import pytest
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from pyramidvit.tasks.segmentation.heads import trans2seg
from pyramidvit.tasks.segmentation.heads.class_transformer import (
    TABLE_SIDE,
    DecoderBlock,
    EncoderBlock,
    table_for,
)
from pyramidvit.tasks.segmentation.heads.trans2seg import Trans2SegHead
from pyramidvit.tasks.segmentation.model import build_segmenter

RAW = (
    "pos_embed1",
    "pos_embed2",
    "pos_embed3",
    "pos_embed4",
    "cls_token",
    "pos_embed",
    "cls_embed",
)


def light(classes: int = 5, **numbers: int) -> Trans2SegHead:
    """A quick head whose parameters all show in its output: no ReLU is shut."""
    torch.manual_seed(0)
    options = {"dim": 16, "depth": 2, "num_heads": 2, "hidden": 4, "side": 3, **numbers}
    head = Trans2SegHead(classes, (6, 10), **options).double().eval()
    for name, parameter in head.named_parameters():
        nn.init.normal_(parameter, mean=float(name.endswith("bias")), std=0.3)
    for norm in head.modules():
        if isinstance(norm, nn.BatchNorm2d | nn.LayerNorm):
            nn.init.ones_(norm.weight)
    return head


def maps(grid: tuple[int, int], batch: int = 2) -> list[Tensor]:
    torch.manual_seed(1)
    fine, coarse = (8 * grid[0], 8 * grid[1]), grid
    return [
        torch.randn(batch, dim, *size, dtype=torch.float64)
        for dim, size in ((6, fine), (10, coarse))
    ]


def test_it_has_the_published_number_of_parameters() -> None:
    """Of the paper's 32.1 M, whose counter passes over what is in no layer."""
    with torch.device("meta"):
        model = build_segmenter("trans2seg", "pvt_small", 150)
    counted = [p for n, p in model.named_parameters() if n.rsplit(".", 1)[-1] not in RAW]
    assert sum(p.numel() for p in counted) == 32_169_241


def test_parameters_have_the_names_of_the_reference() -> None:
    names = set(light().state_dict())
    vit = "transformer.vit"
    assert {
        *(f"{vit}.{table}" for table in ("cls_token", "pos_embed", "cls_embed")),
        *(f"{vit}.hybrid_embed.proj.weight", f"{vit}.norm.bias"),
        *(f"{vit}.blocks_encoder.1.{n}.weight" for n in ("norm1", "attn.qkv", "mlp.fc2")),
        *(
            f"{vit}.blocks_decoder.0.{n}.weight"
            for n in ("norm1_clsembed", "attn.fc_kv", "mlp3.fc1")
        ),
        *("conv_c1.bn.running_mean", "lay1.block.bn_depth.weight", "pred.bias"),
    } <= names
    assert not any(f"{n}.bias" in name for name in names for n in ("qkv", "fc_q", "fc_kv"))


def test_classes_ask_as_the_reference_has_them_ask() -> None:
    torch.manual_seed(0)
    batch, classes, tokens, dim, heads = 2, 5, 9, 8, 2
    block = DecoderBlock(dim, heads, hidden=12, side=3).double()
    query = torch.randn(batch, classes, dim, dtype=torch.float64)
    feature = torch.randn(batch, tokens, dim, dtype=torch.float64)
    width = dim // heads
    with torch.no_grad():
        found, asked = block.ask(query, feature)
        q = block.attn["fc_q"](block.norm1_clsembed(query))
        kv = block.attn["fc_kv"](block.norm1(feature))
        mixed = torch.zeros(batch, classes * dim, dtype=torch.float64)
        for b in range(batch):
            row = q[b].flatten().view(-1, width)  # heads change after classes: interleaved
            for h in range(heads):
                keys = kv[b, :, h * width : (h + 1) * width]
                values = kv[b, :, dim + h * width : dim + (h + 1) * width]
                for k in range(classes):
                    place = h * classes + k
                    scores = keys @ row[place] / width**0.5
                    torch.testing.assert_close(found[b, k, h], scores)
                    seen = scores.softmax(0) @ values
                    mixed[b, place * width : (place + 1) * width] = seen
        wanted = 2 * block.attn["proj"](mixed.view(batch, classes, dim))
        torch.testing.assert_close(asked, wanted + block.mlp(block.norm2(wanted)))


def test_maps_of_attention_are_refined_on_the_grid_they_were_built_for() -> None:
    torch.manual_seed(0)
    block = DecoderBlock(8, 2, hidden=12, side=3).double()
    with torch.no_grad():
        same = torch.randn(1, 4, 2, 3, 3, dtype=torch.float64)
        flat = 2 * same.flatten(3)
        wanted = (flat + block.mlp3(block.norm4(flat))).view_as(same)
        torch.testing.assert_close(block.refine(same), wanted)

        other = torch.randn(1, 4, 2, 6, 2, dtype=torch.float64)
        small = F.interpolate(2 * other[0], (3, 3), mode="bilinear")
        change = block.mlp3(block.norm4(small.flatten(2))).view_as(small)
        wanted = 2 * other[0] + F.interpolate(change, (6, 2), mode="bilinear")
        torch.testing.assert_close(block.refine(other)[0], wanted)


def test_the_position_table_keeps_its_corners() -> None:
    table = torch.randn(1, 1 + TABLE_SIDE**2, 4)
    assert table_for(table, (TABLE_SIDE, TABLE_SIDE)) is table
    for grid in ((16, 16), (5, 9)):
        fitted = table_for(table, grid)
        assert fitted.shape == (1, 1 + grid[0] * grid[1], 4)
        torch.testing.assert_close(fitted[:, [0, 1, grid[1], -1]], table[:, [0, 1, TABLE_SIDE, -1]])


@pytest.mark.parametrize("count", [1, 2, 5, 100])
def test_few_classes_at_a_time_give_what_all_together_give(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, inputs = light(classes=7), maps((3, 4))
    with torch.no_grad():
        monkeypatch.setattr(trans2seg, "CLASSES_AT_ONCE", 7)
        together = head(inputs, (96, 128))
        monkeypatch.setattr(trans2seg, "CLASSES_AT_ONCE", count)
        torch.testing.assert_close(head(inputs, (96, 128)), together)
    assert together.shape == (2, 7, 96, 128)


def test_each_class_has_an_answer_of_its_own() -> None:
    """With one block nothing is interleaved: a class depends on its own query alone."""
    head, inputs = light(depth=1, num_heads=1), maps((3, 3))
    with torch.no_grad():
        before = head(inputs, (96, 96))
        head.transformer["vit"].cls_embed[0, 2] += torch.arange(16)
        after = head(inputs, (96, 96))
    changed = (before != after).flatten(2).any(dim=2).any(dim=0)
    assert changed.tolist() == [False, False, True, False, False]


def test_what_goes_nowhere_is_not_learnt() -> None:
    head, inputs = light(), maps((3, 3))
    before = head(inputs, (96, 96))
    idle = {name: p for name, p in head.named_parameters() if not p.requires_grad}
    parts = {name.removeprefix("transformer.vit.blocks_decoder.") for name in idle}
    assert {".".join(part.split(".")[:2]) for part in parts} == {
        *("0.norm4", "0.mlp3", "1.attn", "1.norm2", "1.mlp", "1.norm3", "1.mlp2")
    }
    before.sum().backward()
    learnt = [name for name, p in head.named_parameters() if p.grad is not None]
    assert len(learnt) + len(idle) == len(list(head.parameters()))
    with torch.no_grad():
        for parameter in idle.values():
            parameter.add_(1)
        assert torch.equal(head(inputs, (96, 96)), before)


def test_a_block_of_the_encoder_is_timm_s() -> None:
    torch.manual_seed(0)
    ours = EncoderBlock(32, 4, 96).double()
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.3)
    theirs = Block(32, 4, mlp_ratio=3, qkv_bias=False, norm_layer=nn.LayerNorm).double()
    theirs.load_state_dict(ours.state_dict())
    tokens = torch.randn(2, 9, 32, dtype=torch.float64)
    torch.testing.assert_close(ours(tokens), theirs(tokens))
