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
from pyramidvit.weights.describe import HEADS, describe_checkpoint
from pyramidvit.weights.detr_names import our_names
from pyramidvit.weights.load_detector import load_detector, read_whole

State = dict[str, Tensor]
COCO = 80
OFFICIAL = {  # recorded names: the detector and its backbone
    "retinanet_pvt_v2_b0": ("retinanet", "pvt_v2_b0"),
    "retinanet_pvt_tiny": ("retinanet", "pvt_tiny"),
    "mask_rcnn_pvt_v2_b0": ("mask_rcnn", "pvt_v2_b0"),
    "mask_rcnn_pvt_tiny": ("mask_rcnn", "pvt_tiny"),
    "cascade_pvt_v2_b0": ("cascade_mask_rcnn", "pvt_v2_b0"),
    "atss_pvt_v2_b0": ("atss", "pvt_v2_b0"),
    "gfl_pvt_v2_b0": ("gfl", "pvt_v2_b0"),
    "sparse_rcnn_pvt_v2_b0": ("sparse_rcnn", "pvt_v2_b0"),
    "detr_pvt_small": ("detr", "pvt_small"),
}
NUMBERS = {  # that the published files tell
    "retinanet": {"width": 256},
    "mask_rcnn": {"width": 256, "hidden": 1024},
    "cascade_mask_rcnn": {"width": 256, "hidden": 1024},
    "atss": {"width": 256},
    "gfl": {"width": 256},
    "sparse_rcnn": {"width": 256, "hidden": 2048, "proposals": 300, "depth": 6},
    "detr": {"width": 256, "hidden": 2048, "queries": 100, "depth": 6},
}
LIGHT: dict[str, Any] = {"width": 8, "num_classes": 2, "drop_path_rate": 0.0}
SMALL: dict[str, dict[str, int]] = {  # what makes each detector small, beside that
    "faster_rcnn": {"hidden": 8},
    "mask_rcnn": {"hidden": 8},
    "cascade_mask_rcnn": {"hidden": 8},
    "atss": {},
    "gfl": {},
    "sparse_rcnn": {"hidden": 16, "proposals": 5, "depth": 2},
    "detr": {"hidden": 16, "queries": 5, "depth": 2},
}


def recorded(golden_dir: Path, name: str) -> dict[str, Any]:
    shapes: dict[str, Any] = json.loads((golden_dir / f"dense/keys_{name}.json").read_text())
    return shapes


def shaped(shapes: Mapping[str, Sequence[int]]) -> State:
    """Tensors of these shapes without any numbers: a hundred million take no time."""
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def light(head: str, backbone: str = "pvt_v2_b0", **numbers: Any) -> State:
    torch.manual_seed(0)
    numbers = LIGHT | SMALL.get(head, {}) | numbers
    return dict(create_model(head, backbone=backbone, **numbers).state_dict())


def read(state: State, where: str = "it") -> tuple[dict[str, Any], State]:
    """The record and the tensors of the detector in a state dict."""
    checkpoint = Checkpoint(state=state)
    record = describe_file(checkpoint, where)
    return record, read_whole(rebuild(record), checkpoint, where)


@pytest.mark.parametrize("recording", OFFICIAL)
def test_every_key_of_an_official_checkpoint_is_ours_and_is_written_back(
    recording: str, golden_dir: Path, tmp_path: Path
) -> None:
    head, backbone = OFFICIAL[recording]
    theirs = shaped(recorded(golden_dir, recording))
    checkpoint = Checkpoint(state=theirs)
    record = describe_file(checkpoint, "it")
    found = {name: record[name] for name in ("name", "backbone", "num_classes", "in_chans")}
    assert found == {"name": head, "backbone": backbone, "num_classes": COCO, "in_chans": 3}
    assert record["numbers"] == NUMBERS[head]

    with torch.device("meta"):
        model = rebuild(record)
    report = load_detector(model, checkpoint, "it", exact=True)
    assert set(report.loaded) == set(theirs)
    assert not any((report.ignored, report.resized, report.reinitialised))

    ours = light(head, backbone, **{"depth": 6} if "depth" in NUMBERS[head] else {})
    assert ours.keys() == theirs.keys()
    write_mmdetection(tmp_path / "out.pth", ours, ("a", "b"))
    content = torch.load(tmp_path / "out.pth", weights_only=True)
    assert content.keys() == {"meta", "state_dict"}
    assert content["meta"] == {"CLASSES": ("a", "b")}
    assert_bits(content["state_dict"], ours)
    assert_bits(read(content["state_dict"])[1], ours)


@pytest.mark.parametrize(
    ("key", "backbone"), [("retinanet", "pvt_v2_b0"), ("retinanet_pvt_tiny", "pvt_tiny")]
)
def test_every_key_of_mmdetection_3_becomes_ours_and_is_written_back(
    key: str, backbone: str, golden_dir: Path, tmp_path: Path
) -> None:
    theirs = shaped(recorded(golden_dir, "mmdet3")[key])
    record = describe_file(Checkpoint(state=theirs), "it")
    assert (record["name"], record["backbone"]) == ("retinanet", backbone)
    with torch.device("meta"):
        ours = read_whole(rebuild(record), Checkpoint(state=theirs), "it")
    shapes = {name: list(value.shape) for name, value in ours.items()}
    assert shapes == recorded(golden_dir, f"retinanet_{backbone}")
    written = {name: list(value.shape) for name, value in mmdetection3_names(ours).items()}
    assert written == {name: list(value.shape) for name, value in theirs.items()}

    write_mmdetection(tmp_path / "out.pth", light("retinanet", backbone), ("a", "b"), version=3)
    content = torch.load(tmp_path / "out.pth", weights_only=True)
    assert content["meta"] == {"dataset_meta": {"classes": ("a", "b")}}
    assert content["state_dict"].keys() == theirs.keys()


def test_heads_of_mask_rcnn_have_the_same_names_in_mmdetection_3(golden_dir: Path) -> None:
    theirs = recorded(golden_dir, "mmdet3")["mask_rcnn"]  # recorded without a PVT
    ours = recorded(golden_dir, "mask_rcnn_pvt_tiny")
    heads = {name: shape for name, shape in ours.items() if not name.startswith("backbone.")}
    assert theirs.keys() == heads.keys()
    wide = {name for name in heads if theirs[name] != heads[name]}  # they read a ResNet's maps
    assert wide == {f"neck.lateral_convs.{i}.conv.weight" for i in range(4)}


# mmdetection 3's heads, recorded behind a ResNet: whose maps have other channels. There is no list
# of Cascade Mask R-CNN's nor of Faster R-CNN's, which are taken to be as in version 2.
BEHIND_RESNET = ("mask_rcnn", "atss", "gfl", "sparse_rcnn", "detr")


@pytest.mark.parametrize("head", BEHIND_RESNET)
def test_every_key_of_a_head_of_mmdetection_3_becomes_ours_and_is_written_back(
    head: str, golden_dir: Path
) -> None:
    recording = next(name for name, row in OFFICIAL.items() if row[0] == head)
    own = recorded(golden_dir, recording)
    backbone = {n: s for n, s in own.items() if n.startswith("backbone.")}
    heads = recorded(golden_dir, "mmdet3")[head]
    ours = our_names(heads)
    assert ours.keys() == heads.keys()
    assert set(ours.values()) | set(backbone) == set(own)
    assert (ours == {name: name for name in heads}) is (head != "detr")
    changed = {name for name, same in ours.items() if heads[name] != own[same]}
    assert all("lateral_convs" in name or name == "neck.convs.0.conv.weight" for name in changed)

    theirs = shaped(backbone | {name: own[same] for name, same in ours.items()})
    record = describe_file(Checkpoint(state=theirs), "it")
    assert (record["name"], record["numbers"]) == (head, NUMBERS[head])
    with torch.device("meta"):
        whole = read_whole(rebuild(record), Checkpoint(state=theirs), "it")
    assert {name: list(value.shape) for name, value in whole.items()} == own
    written = mmdetection3_names(whole)
    assert {n for n in written if not n.startswith("backbone.")} == set(heads)
    assert {name: written[name].shape for name in heads} == {n: theirs[n].shape for n in heads}


def test_names_of_detr_before_mmdetection_2_8_become_ours() -> None:
    ours = light("detr")
    changes = {
        "decoder.layers.0.attentions.1.": "decoder.layers.0.multihead_attn.",
        "decoder.layers.1.attentions.1.": "decoder.layers.1.multihead_attn.",
        ".attentions.0.": ".self_attn.",
        ".ffns.0.": ".ffn.",
        ".decoder.post_norm.": ".decoder.norm.",
    }
    old = {}
    for name, value in ours.items():
        for new, before in changes.items():
            name = name.replace(new, before)
        old[name] = value
    assert len(old.keys() - ours.keys()) == 2 * (4 + 4) + 2 * (8 + 4) + 2
    record, same = read(old)
    assert record["name"] == "detr"
    assert_bits(same, ours)


def test_two_names_of_one_parameter_are_not_both_taken() -> None:
    state = light("detr")
    state["query_embedding.weight"] = state["bbox_head.query_embedding.weight"] + 1
    # The name of the other version is one that nothing explains, and no part of a detector's.
    assert our_names(state)["query_embedding.weight"] == "query_embedding.weight"
    _, same = read(state)
    assert_bits(same, light("detr"))


@pytest.mark.parametrize(
    ("head", "backbone"),
    [(head, "pvt_v2_b0") for head in ("retinanet", *SMALL)]
    + [("retinanet", "pvt_tiny"), ("detr", "pvt_tiny")],
)
def test_both_ways_keep_every_bit(head: str, backbone: str) -> None:
    ours = light(head, backbone)
    record, same = read(prefixed(ours, "module."))
    numbers = {"width": 8} | SMALL.get(head, {})
    assert (record["name"], record["numbers"]) == (head, numbers)
    assert_bits(same, ours)
    said = describe_checkpoint(Checkpoint(state=prefixed(ours, "module.")), "it")
    assert (said.head, said.task, said.num_classes) == (head, "detection", 2)
    assert not said.unknown
    assert not said.missing
    if backbone == "pvt_tiny":
        ours["backbone.pos_embed4"][:, 0] = 0  # the class token's, which mmdetection 3 has not
    _, again = read(mmdetection3_names(ours))
    assert_bits(again, ours)


def test_half_precision_stays_half() -> None:
    ours = {name: value.half() for name, value in light("retinanet").items()}
    _, again = read(mmdetection3_names(ours))
    assert_bits(again, ours)


@pytest.mark.parametrize("head", ["retinanet", *SMALL])
def test_a_detector_of_other_classes_keeps_all_that_has_no_row_for_each(head: str) -> None:
    torch.manual_seed(0)
    numbers = LIGHT | SMALL.get(head, {}) | {"num_classes": 3}
    model = create_model(head, backbone="pvt_v2_b0", **numbers)
    state = light(head)
    report = load_detector(model, Checkpoint(state=state), "it", classes=("a", "b", "c"))
    grown = {n for n, v in model.state_dict().items() if v.shape != state[n].shape}
    assert set(report.reinitialised) == grown
    assert set(report.reinitialised.values()) == {"the file has another number of classes"}

    model = create_model(head, backbone="pvt_v2_b0", **numbers | {"num_classes": 2})
    other = Checkpoint(state=state, classes=("c", "d"))
    report = load_detector(model, other, "it", classes=("a", "b"))
    assert set(report.reinitialised) == grown
    assert set(report.reinitialised.values()) == {"the file's classes have other names"}


def test_a_cascade_that_counts_no_batches_is_whole() -> None:
    state = light("cascade_mask_rcnn")
    kept = {n: v for n, v in state.items() if not n.endswith("num_batches_tracked")}
    assert len(kept) == len(state) - 3 * 4
    _, again = read(kept)
    assert_bits(again, state)  # which counted none either


def test_what_inspect_knows_as_a_detector_can_be_opened() -> None:
    known = {signs.head for signs in HEADS if signs.task == "detection"}
    assert known == {"retinanet", *SMALL}


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


def test_what_is_no_whole_detector_is_refused() -> None:
    retina = light("retinanet")
    backbone = {n: v for n, v in retina.items() if n.startswith("backbone.")}
    head, neck = "bbox_head.retina_cls.weight", "neck.fpn_convs.0.conv"
    atss, detr = light("atss"), light("detr")
    layers = "bbox_head.transformer.encoder.layers"
    deep = {f"{layers}.{i}.norms.0.bias": torch.ones(8) for i in range(200)}
    for state, message in (
        (backbone, "it holds no detector; known are retinanet, faster_rcnn, mask_rcnn"),
        (without(atss, "bbox_head.scales.1.scale"), "scales.1.scale missing"),
        (detr | {"bbox_head.input_proj.bias": torch.zeros(12)}, "a detr that cannot be built"),
        (detr | deep, "a detr of 200 layers: too many"),
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
    assert holds_detector(Checkpoint(state=atss))


def test_tables_for_another_grid_are_not_resized_in_silence() -> None:
    state = light("retinanet", "pvt_tiny")
    state["backbone.pos_embed1"] = torch.zeros(1, 28 * 28, 64)
    with pytest.raises(UserError, match=r"pos_embed1 would have to change .position table 28x28"):
        read(state)
