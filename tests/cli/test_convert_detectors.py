"""`pvt convert` for whole detectors, and `pvt predict` with what it wrote."""

import json
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from PIL import Image

from foreign import assert_bits
from pyramidvit import create_model, read_checkpoint, save_checkpoint
from pyramidvit.cli import main
from pyramidvit.cli.tasks import PUBLISHED, make_record, open_checkpoint
from pyramidvit.structures import Classes
from pyramidvit.tasks.detection.config import DetectionOptions
from pyramidvit.tasks.detection.network import build_model
from pyramidvit.tasks.detection.table import head_named
from pyramidvit.tasks.detection.task import DETECTION
from pyramidvit.weights.checkpoint import Checkpoint
from pyramidvit.weights.convert import write_mmdetection

LIGHT: dict[str, Any] = {"width": 8, "num_classes": 2, "backbone": "pvt_v2_b0"}
NAMES = ("cat", "dog")
SMALL: dict[str, dict[str, int]] = {  # the numbers that make each detector small
    "retinanet": {"width": 8},
    "mask_rcnn": {"width": 8, "hidden": 8},
    "cascade_mask_rcnn": {"width": 8, "hidden": 8},
    "atss": {"width": 8},
    "gfl": {"width": 8},
    "sparse_rcnn": {"width": 8, "hidden": 8, "proposals": 5, "depth": 2},
    "detr": {"width": 8, "hidden": 8, "queries": 5, "depth": 2},
}
YOUNG = tuple(SMALL)[2:]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def mistake(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Runs the command, which must fail in one line; returns it."""
    assert main(list(words)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


def light(head: str = "retinanet") -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return dict(create_model(head, **LIGHT | SMALL[head]).state_dict())


def write_mmcv(name: str, state: dict[str, torch.Tensor]) -> None:
    """A checkpoint as mmdetection 2 writes it."""
    content = {"meta": {"CLASSES": NAMES, "epoch": 12}, "state_dict": state, "optimizer": {}}
    torch.save(content, name)


@pytest.mark.parametrize("between", ["mmdetection", "mmdetection3"])
@pytest.mark.parametrize("head", SMALL)
def test_ours_to_mmdetection_and_back_is_the_same_bit_for_bit(
    head: str, between: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    state = light(head)
    numbers: dict[str, Any] = dict(SMALL[head])
    if head not in ("sparse_rcnn", "detr"):
        numbers["anchor_scale"] = 2.0
    model = {"name": head, "backbone": "pvt_v2_b0", "num_classes": 2, "in_chans": 3}
    model |= {"numbers": numbers, "decoding": {}}
    classes = Classes(names=NAMES, ids=(17, 18)).to_records()
    record = {"task": "detection", "model": model, "classes": classes}
    save_checkpoint(tmp_path / "in.safetensors", state, record)

    assert main(["convert", "in.safetensors", "mm.pth", "--to", between]) == 0
    said = capsys.readouterr().out
    assert f"{head} on pvt_v2_b0, {len(state)} tensors, official names" in said
    for name, value in numbers.items():
        assert f"{name} {value}" in said.partition("it too: ")[2]
    written = torch.load("mm.pth", weights_only=True)
    assert_bits(read_checkpoint("mm.pth").state, written["state_dict"])
    assert read_checkpoint("mm.pth").classes == NAMES
    assert ("backbone.patch_embed1.proj.weight" in written["state_dict"]) == (
        between == "mmdetection"
    )

    assert main(["convert", "mm.pth", "back.safetensors", "--to", "pyramidvit"]) == 0
    assert_bits(read_checkpoint("back.safetensors").state, state)
    assert {path.name for path in tmp_path.iterdir()} == {
        *("in.safetensors", "mm.pth", "back.safetensors")
    }


def test_our_own_detector_stays_whole_with_its_record(tmp_path: Path) -> None:
    state, record = light(), {"task": "detection", "model": {"name": "retinanet", "numbers": {}}}
    save_checkpoint(tmp_path / "in.safetensors", state, record)
    assert main(["convert", "in.safetensors", "out.safetensors", "--to", "pyramidvit"]) == 0
    again = read_checkpoint("out.safetensors")
    assert again.record == record
    assert_bits(again.state, state)


def test_predict_takes_an_official_detector_once_it_is_converted(tmp_path: Path) -> None:
    state = light()
    state["bbox_head.retina_cls.bias"][:] = 0.0  # so that there is something to find
    write_mmcv("in.pth", state)
    assert main(["convert", "in.pth", "ours.safetensors", "--to", "pyramidvit"]) == 0
    record = read_checkpoint("ours.safetensors").record
    assert [row["name"] for row in record["classes"]] == list(NAMES)
    assert (record["input"]["short_side"], record["input"]["long_side"]) == (800, 1333)
    Image.new("RGB", (8, 8), (200, 30, 90)).save(tmp_path / "picture.png")
    words = ["predict", "ours.safetensors", "picture.png", "--draw", "false", "--workers", "0"]
    assert main([*words, "--output", "found"]) == 0
    (line,) = (tmp_path / "found" / "results.jsonl").read_text().splitlines()
    assert {row["name"] for row in json.loads(line)["objects"]} <= set(NAMES)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("head", YOUNG)
def test_the_younger_detectors_open_as_they_are(
    head: str, version: Literal[2, 3], capsys: pytest.CaptureFixture[str]
) -> None:
    state = light(head)
    write_mmdetection(Path("in.pth"), state, NAMES, version)
    opened = open_checkpoint("in.pth")
    assert (opened.name, opened.classes.names, opened.named) == (head, NAMES, True)
    assert opened.input_record["short_side"] == 800
    assert_bits(opened.model.state_dict(), state)
    published = head_named(head).build.__kwdefaults__["decoding"]
    assert opened.model.decoding == published

    assert main(["inspect", "in.pth", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["head"], said["num_classes"], said["model"]) == (head, 2, "pvt_v2_b0")
    assert said["unknown"] == said["missing"] == []

    options = DetectionOptions(
        model=head, pretrained="in.pth", **{n: v for n, v in SMALL[head].items() if n in OPTIONS}
    )
    three = Classes(names=("cat", "dog", "cow"), ids=(1, 2, 3))
    if options_tell_all(head):
        model = build_model(options, three)
        kept = {n for n, v in model.state_dict().items() if v.shape == state[n].shape}
        assert_bits({n: model.state_dict()[n] for n in kept}, {n: state[n] for n in kept})
        assert 1 <= len(state) - len(kept) <= 18
    assert "no logits of" in mistake(capsys, "verify", "in.pth")


OPTIONS = {"width", "hidden", "proposals"}


def options_tell_all(head: str) -> bool:
    """Whether `pvt train` can ask for these small sizes: it has no option for depths."""
    return set(SMALL[head]) <= OPTIONS


def test_predict_takes_an_official_detr_as_it_is(tmp_path: Path) -> None:
    write_mmcv("in.pth", light("detr"))
    Image.new("RGB", (8, 8), (200, 30, 90)).save(tmp_path / "picture.png")
    words = ["predict", "in.pth", "picture.png", "--draw", "false", "--workers", "0"]
    assert main([*words, "--output", "found"]) == 0
    (line,) = (tmp_path / "found" / "results.jsonl").read_text().splitlines()
    objects = json.loads(line)["objects"]
    assert len(objects) == 5  # each query says the likelier class
    assert {row["name"] for row in objects} <= set(NAMES)


def test_a_record_without_names_numbers_its_classes() -> None:
    model = {"name": "retinanet", "num_classes": 2}
    for names in (None, ("a", "b", "c")):
        record = make_record(Checkpoint(state={}, classes=names), model)
        assert [row["name"] for row in record["classes"]] == ["class 0", "class 1"]
        assert record["named"] is False
    assert record["input"] == DETECTION.describe_input(PUBLISHED["detection"][1])


def test_a_prefix_takes_the_backbone_alone(capsys: pytest.CaptureFixture[str]) -> None:
    state = light()
    write_mmcv("in.pth", state)
    own = {n.removeprefix("backbone."): v for n, v in state.items() if n.startswith("backbone.")}
    words = ["convert", "in.pth", "b.safetensors", "--to", "pyramidvit", "--prefix", "backbone."]
    assert main(words) == 0
    assert_bits(read_checkpoint("b.safetensors").state, own)
    assert main(["convert", "in.pth", "b.pth", "--to", "official"]) == 0
    assert_bits(read_checkpoint("b.pth").state, own)


def test_what_cannot_be_converted_is_refused_and_leaves_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write_mmcv("in.pth", light())
    state = light()
    del state["neck.lateral_convs.0.conv.bias"]
    write_mmcv("part.pth", state)
    classifier = create_model("pvt_v2_b0", num_classes=2)
    torch.save(classifier.state_dict(), "c.pth")
    before = sorted(tmp_path.iterdir())
    for words, message in (
        (("c.pth", "out.pth", "--to", "mmdetection"), "c.pth holds no detector; known are"),
        (("part.pth", "out.pth", "--to", "mmdetection"), "lateral_convs.0.conv.bias missing"),
        (("part.pth", "out.safetensors", "--to", "pyramidvit"), "conv.bias missing"),
        (("in.pth", "out.pt", "--to", "mmdetection"), "error: out.pt: give the file a name that"),
        (("in.pth", "out.pth", "--to", "pyramidvit"), "error: out.pth: give the file a name that"),
        (("in.pth", "out.pth", "--to", "mmdetection", "--prefix", "a."), "takes a PVT alone"),
        (("in.pth", "c.pth", "--to", "mmdetection"), "c.pth exists already"),
    ):
        assert message in mistake(capsys, "convert", *words), words
        assert sorted(tmp_path.iterdir()) == before
