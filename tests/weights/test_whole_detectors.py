"""Whole detectors between our names, mmdetection 2's and mmdetection 3's.

The names and shapes are those that their own builders gave (`golden_dir`).
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from foreign import assert_bits, prefixed
from pyramidvit import create_model, list_models, read_checkpoint
from pyramidvit.errors import UserError
from pyramidvit.tasks.detection.foreign import describe_file, holds_detector
from pyramidvit.tasks.detection.network import rebuild
from pyramidvit.weights.checkpoint import Checkpoint
from pyramidvit.weights.convert import mmdetection3_names, write_mmdetection
from pyramidvit.weights.load_detector import load_detector, read_whole

State = dict[str, Tensor]
COCO = 80
OFFICIAL = tuple(
    (head, name) for head in ("retinanet", "mask_rcnn") for name in ("pvt_v2_b0", "pvt_tiny")
)
LIGHT: dict[str, Any] = {"width": 8, "num_classes": 2, "drop_path_rate": 0.0}


def recorded(golden_dir: Path, name: str) -> dict[str, Any]:
    shapes: dict[str, Any] = json.loads((golden_dir / f"dense/keys_{name}.json").read_text())
    return shapes


def numbered(shapes: Mapping[str, Sequence[int]]) -> State:
    """Tensors of these shapes with numbers of their own, so that nothing can change places."""
    state = {}
    for index, (name, shape) in enumerate(shapes.items()):
        count = torch.Size(shape).numel()
        state[name] = (torch.arange(count) % 1009 + index).float().view(*shape)
    return state


def light(head: str, backbone: str = "pvt_v2_b0", **numbers: Any) -> State:
    torch.manual_seed(0)
    numbers = LIGHT | ({} if head == "retinanet" else {"hidden": 8}) | numbers
    return dict(create_model(head, backbone=backbone, **numbers).state_dict())


def read(state: State, where: str = "it") -> tuple[dict[str, Any], State]:
    """The record and the tensors of the detector in a state dict."""
    checkpoint = Checkpoint(state=state)
    record = describe_file(checkpoint, where)
    return record, read_whole(rebuild(record), checkpoint, where)


@pytest.mark.parametrize(("head", "backbone"), OFFICIAL)
def test_every_key_of_an_official_checkpoint_is_ours_and_is_written_back(
    head: str, backbone: str, golden_dir: Path, tmp_path: Path
) -> None:
    theirs = numbered(recorded(golden_dir, f"{head}_{backbone}"))
    checkpoint = Checkpoint(state=theirs)
    record = describe_file(checkpoint, "it")
    found = {name: record[name] for name in ("name", "backbone", "num_classes", "in_chans")}
    assert found == {"name": head, "backbone": backbone, "num_classes": COCO, "in_chans": 3}
    assert record["numbers"] == {"width": 256} | ({} if head == "retinanet" else {"hidden": 1024})

    model = rebuild(record)
    report = load_detector(model, checkpoint, "it", exact=True)
    assert set(report.loaded) == set(theirs)
    assert not any((report.ignored, report.resized, report.reinitialised))
    assert_bits(model.state_dict(), theirs)

    write_mmdetection(tmp_path / "out.pth", model.state_dict(), ("a", "b"))
    content = torch.load(tmp_path / "out.pth", weights_only=True)
    assert content.keys() == {"meta", "state_dict"}
    assert content["meta"] == {"CLASSES": ("a", "b")}
    assert_bits(content["state_dict"], theirs)


@pytest.mark.parametrize(
    ("key", "backbone"), [("retinanet", "pvt_v2_b0"), ("retinanet_pvt_tiny", "pvt_tiny")]
)
def test_every_key_of_mmdetection_3_becomes_ours_and_is_written_back(
    key: str, backbone: str, golden_dir: Path, tmp_path: Path
) -> None:
    theirs = numbered(recorded(golden_dir, "mmdet3")[key])
    record, ours = read(theirs)
    assert (record["name"], record["backbone"]) == ("retinanet", backbone)
    shapes = {name: list(value.shape) for name, value in ours.items()}
    assert shapes == recorded(golden_dir, f"retinanet_{backbone}")

    write_mmdetection(tmp_path / "out.pth", ours, ("a", "b"), version=3)
    content = torch.load(tmp_path / "out.pth", weights_only=True)
    assert content["meta"] == {"dataset_meta": {"classes": ("a", "b")}}
    assert_bits(content["state_dict"], theirs)


def test_heads_of_mask_rcnn_have_the_same_names_in_mmdetection_3(golden_dir: Path) -> None:
    theirs = recorded(golden_dir, "mmdet3")["mask_rcnn"]  # recorded without a PVT
    ours = recorded(golden_dir, "mask_rcnn_pvt_tiny")
    heads = {name: shape for name, shape in ours.items() if not name.startswith("backbone.")}
    assert theirs.keys() == heads.keys()
    wide = {name for name in heads if theirs[name] != heads[name]}  # they read a ResNet's maps
    assert wide == {f"neck.lateral_convs.{i}.conv.weight" for i in range(4)}


@pytest.mark.parametrize("head", ["retinanet", "faster_rcnn", "mask_rcnn"])
@pytest.mark.parametrize("backbone", ["pvt_v2_b0", "pvt_tiny"])
def test_both_ways_keep_every_bit(head: str, backbone: str) -> None:
    ours = light(head, backbone)
    record, same = read(prefixed(ours, "module."))
    assert (record["name"], record["numbers"]["width"]) == (head, 8)
    assert_bits(same, ours)
    if backbone == "pvt_tiny":
        ours["backbone.pos_embed4"][:, 0] = 0  # the class token's, which mmdetection 3 has not
    _, again = read(mmdetection3_names(ours))
    assert_bits(again, ours)


def test_half_precision_stays_half() -> None:
    ours = {name: value.half() for name, value in light("retinanet").items()}
    _, again = read(mmdetection3_names(ours))
    assert_bits(again, ours)


@pytest.mark.parametrize("backbone", list_models("pvt_v2*"))
def test_mmdetection_3_has_no_linear_attention(backbone: str) -> None:
    with torch.device("meta"):
        state = create_model("retinanet", backbone=backbone, **LIGHT).state_dict()
    if backbone == "pvt_v2_b2_li":
        with pytest.raises(UserError, match=r"no PVT with linear attention .--to mmdetection"):
            mmdetection3_names(state)
    else:
        assert len(mmdetection3_names(state)) < len(state)


def test_names_of_classes_are_written_where_there_are_any(tmp_path: Path) -> None:
    state = {"backbone.x": torch.zeros(1)}
    write_mmdetection(tmp_path / "a.pth", state, None)
    assert torch.load(tmp_path / "a.pth", weights_only=True)["meta"] == {}
    write_mmdetection(tmp_path / "b.pth", state, ["a", "b"])
    assert read_checkpoint(tmp_path / "b.pth").classes == ("a", "b")
    with pytest.raises(UserError, match=r"a name that ends in \.pth"):
        write_mmdetection(tmp_path / "c.safetensors", state, None)


def without(state: State, name: str) -> State:
    return {key: value for key, value in state.items() if key != name}


def test_what_is_no_whole_detector_is_refused(golden_dir: Path) -> None:
    retina = light("retinanet")
    backbone = {n: v for n, v in retina.items() if n.startswith("backbone.")}
    head, neck = "bbox_head.retina_cls.weight", "neck.fpn_convs.0.conv"
    atss = {n: torch.zeros(s) for n, s in recorded(golden_dir, "atss_pvt_v2_b0").items()}
    for state, message in (
        (backbone, "it holds no detector; known are retinanet, faster_rcnn, mask_rcnn"),
        (atss, "it holds atss, which is not here"),
        (without(retina, head), f"{head} missing"),
        (without(retina, f"{neck}.bias"), f"{neck}.bias is missing"),
        (without(retina, "backbone.norm4.bias"), "norm4.bias missing"),
        (retina | {"bbox_head.extra": torch.zeros(1)}, "bbox_head.extra not known"),
        (retina | {head: torch.zeros(18, 9, 3, 3)}, r"retina_cls.weight is \[18, 9, 3, 3\]"),
        (retina | {f"{neck}.bias": torch.zeros(10**6)}, "in the model"),
        (retina | {f"{neck}.bias": torch.zeros(())}, "without classes or channels"),
        (retina | {"bbox_head.retina_cls.bias": torch.zeros(0)}, "without classes or channels"),
        (retina | {head: torch.full_like(retina[head], torch.inf)}, "not finite"),
    ):
        with pytest.raises(UserError, match=message) as error:
            read(state)
        assert "\n" not in str(error.value)
    assert holds_detector(Checkpoint(state=retina))
    assert not holds_detector(Checkpoint(state=backbone))
    assert not holds_detector(Checkpoint(state=atss))


def test_tables_for_another_grid_are_not_resized_in_silence() -> None:
    state = light("retinanet", "pvt_tiny")
    state["backbone.pos_embed1"] = torch.zeros(1, 28 * 28, 64)
    with pytest.raises(UserError, match=r"pos_embed1 would have to change .position table 28x28"):
        read(state)
