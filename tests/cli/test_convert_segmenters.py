"""Whole segmenters under the names of other libraries and back, and in use as they come."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pyramidvit import create_model, read_checkpoint, save_checkpoint
from pyramidvit.cli import main
from pyramidvit.structures import Classes

NAMES = ("wall", "floor", "lamp")
LIGHT: dict[str, dict[str, Any]] = {
    "semantic_fpn": {"width": 16, "dropout": 0.1},
    "trans2seg": {
        "width": 16, "depth": 1, "num_heads": 2, "mlp_ratio": 2, "hidden": 8, "image_size": 64,
    },
}  # fmt: skip
KNOWN = {  # as Trans2Seg's own code names them
    "encoder.patch_embed1.proj.weight",
    "transformer_head.transformer.vit.hybrid_embed.proj.weight",
    "transformer_head.transformer.vit.blocks_encoder.0.attn.qkv.weight",
    "transformer_head.transformer.vit.blocks_decoder.0.attn.fc_kv.weight",
    "transformer_head.transformer.vit.blocks_decoder.0.norm1_clsembed.bias",
    "transformer_head.transformer.vit.blocks_decoder.0.mlp3.fc2.bias",
    "transformer_head.conv_c1.bn.running_mean",
    "transformer_head.lay1.block.depthwise.weight",
    "transformer_head.lay3.block.bn_point.weight",
    "transformer_head.pred.bias",
}
TARGETS = {"semantic_fpn": "mmsegmentation", "trans2seg": "trans2seg"}


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def light(head: str) -> dict[str, Tensor]:
    torch.manual_seed(0)
    model = create_model(head, backbone="pvt_v2_b0", num_classes=3, **LIGHT[head])
    return dict(model.state_dict())


def record_of(head: str) -> dict[str, Any]:
    model = {"name": head, "backbone": "pvt_v2_b0", "num_classes": 3, "in_chans": 3}
    classes = Classes(names=NAMES, ids=(0, 1, 2)).to_records()
    return {"task": "segmentation", "model": {**model, "numbers": LIGHT[head]}, "classes": classes}


def assert_bits(state: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert state.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in state.items())


def theirs(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names of Trans2Seg's own code."""
    changes = (("backbone.", "encoder."), ("decode_head.", "transformer_head."))
    for ours, other in changes:
        state = {
            other + name.removeprefix(ours) if name.startswith(ours) else name: value
            for name, value in state.items()
        }
    return state


@pytest.mark.parametrize("head", LIGHT)
def test_a_segmenter_goes_to_its_own_code_and_back_the_same_bit_for_bit(
    head: str, capsys: pytest.CaptureFixture[str]
) -> None:
    state = light(head)
    save_checkpoint(Path("in.safetensors"), state, record_of(head))
    assert main(["convert", "in.safetensors", "out.pth", "--to", TARGETS[head]]) == 0
    said = capsys.readouterr().out
    assert f"{head} on pvt_v2_b0, {len(state)} tensors" in said
    assert "width 16" in said
    written = torch.load("out.pth", weights_only=True)
    if head == "semantic_fpn":
        assert written["meta"] == {"CLASSES": NAMES}
        assert_bits(written["state_dict"], state)
    else:
        assert_bits(written, theirs(state))
        assert written.keys() >= KNOWN
    assert main(["convert", "out.pth", "back.safetensors", "--to", "pyramidvit"]) == 0
    back = read_checkpoint("back.safetensors")
    assert_bits(back.state, state)
    assert back.record["model"] == record_of(head)["model"]
    assert back.record["input"]["resize"] == "aligned"
    assert main(["convert", "in.safetensors", "same.safetensors", "--to", "pyramidvit"]) == 0
    assert read_checkpoint("same.safetensors").record == record_of(head)


def test_a_published_trans2seg_is_known_and_predicts_as_it_comes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    state = theirs(light("trans2seg")) | {"auxlayer.block.4.bias": torch.zeros(3)}
    torch.save({"state_dict": {f"module.{n}": v for n, v in state.items()}}, "theirs.pth")
    assert main(["inspect", "theirs.pth", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["head"], found["task"], found["num_classes"]) == ("trans2seg", "segmentation", 3)
    assert found["model"] == "pvt_v2_b0"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("picture.png")
    assert main(["convert", "theirs.pth", "ours.safetensors", "--to", "pyramidvit"]) == 0
    for name in ("theirs.pth", "ours.safetensors"):
        words = ["predict", name, "picture.png", "--draw", "false", "--formats", "none"]
        assert main([*words, "--output", f"by {name}"]) == 0
    lines = [
        Path(f"by {n}", "results.jsonl").read_text() for n in ("theirs.pth", "ours.safetensors")
    ]
    assert lines[0] == lines[1]
    assert {row["name"] for row in json.loads(lines[0])["classes"]} <= {
        "class 0", "class 1", "class 2",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ("convert", "theirs.pth", "x.pth", "--to", "mmsegmentation"),
            "--to mmsegmentation writes",
        ),
        (("convert", "theirs.pth", "x.pth", "--to", "mmdetection"), "holds trans2seg"),
        (
            ("convert", "theirs.pth", "x.pth", "--to", "trans2seg", "--prefix", "encoder."),
            "for whole segmenters",
        ),
        (("convert", "partly.pth", "x.safetensors", "--to", "pyramidvit"), "is missing in it"),
        (
            ("train", "--model", "trans2seg", "--pretrained", "theirs.pth"),
            "holds another size of trans2seg: add --width 16 --attention_size 64",
        ),
        (
            ("train", "--model", "semantic_fpn", "--pretrained", "theirs.pth"),
            "theirs.pth holds trans2seg, not semantic_fpn",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    words: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    state = theirs(light("trans2seg"))
    torch.save(state, "theirs.pth")
    torch.save({n: v for n, v in state.items() if "norm4" not in n}, "partly.pth")
    assert main(list(words)) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert not Path("x.pth").exists()
