"""Filling a segmenter: from released names, from other classes, and from a classifier."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dense_golden import load_rule
from pyramidvit.backbones.pvt_v2 import SIZES, PVTv2Classifier
from pyramidvit.errors import UserError
from pyramidvit.tasks.segmentation.model import build_segmenter
from pyramidvit.weights.checkpoint import Checkpoint
from pyramidvit.weights.load import LoadReport
from pyramidvit.weights.load_detector import load_detector

CLASSES = ("a", "b", "c")
LIGHT: dict[str, dict[str, Any]] = {
    "semantic_fpn": {"width": 16},
    "trans2seg": {"width": 16, "depth": 1, "image_size": 64},
}


def light(head: str = "semantic_fpn", classes: int = 3) -> nn.Module:
    return build_segmenter(head, "pvt_v2_b0", classes, **LIGHT[head])


def checkpoint(state: dict[str, Tensor], classes: tuple[str, ...] | None = CLASSES) -> Checkpoint:
    return Checkpoint(state=state, where="file", classes=classes)


def fill(model: nn.Module, state: dict[str, Tensor], **options: Any) -> LoadReport:
    return load_detector(model, checkpoint(state), "file", **{"classes": CLASSES, **options})


def made(model: nn.Module) -> dict[str, Tensor]:
    """Other numbers for all parameters of a model, and 7 for what counts."""
    return {
        name: torch.randn_like(v) if v.is_floating_point() else torch.full_like(v, 7)
        for name, v in model.state_dict().items()
    }


@pytest.mark.parametrize("backbone", ["pvt_tiny", "pvt_v2_b0"])
def test_a_released_file_maps_completely(golden_dir: Path, backbone: str) -> None:
    folder = golden_dir / "dense"
    shapes = json.loads((folder / f"keys_semfpn_{backbone}.json").read_text())
    rule = load_rule(folder / "rule.py")
    state = {}
    for name, shape in shapes.items():
        value = rule.tensor(name, shape)
        state[name] = torch.tensor(40_000) if value is None else torch.from_numpy(value)
    averaged = {f"ema_{name.replace('.', '_')}": value for name, value in state.items()}
    others = {"auxiliary_head.conv_seg.weight": torch.zeros(150, 8, 1, 1)}
    model = build_segmenter("semantic_fpn", backbone, 150)
    file = checkpoint({**state, **averaged, **others}, classes=None)
    report = load_detector(model, file, "file", exact=True)
    assert set(report.loaded) == set(shapes)
    assert set(report.ignored) == {*averaged, *others}
    assert not report.resized
    assert not report.reinitialised
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name


@pytest.mark.parametrize("head", LIGHT)
def test_a_segmenter_comes_back_as_it_was(head: str) -> None:
    model = light(head)
    state = made(model)
    fill(model, state, exact=True)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("head", LIGHT)
def test_rows_of_other_classes_start_afresh(head: str) -> None:
    rows = {
        "semantic_fpn": {"decode_head.conv_seg.weight", "decode_head.conv_seg.bias"},
        "trans2seg": {"decode_head.transformer.vit.cls_embed"},
    }[head]
    state = made(light(head, classes=5))
    fresh = fill(light(head), state).reinitialised
    assert fresh == dict.fromkeys(rows, "the file has another number of classes")
    fresh = fill(light(head, classes=5), state, classes=tuple("vwxyz")).reinitialised
    assert fresh == dict.fromkeys(rows, "the file's classes have other names")
    with pytest.raises(UserError, match="does not fit Segmenter: the file has another number"):
        fill(light(head), state, exact=True)


def test_a_classifier_fills_the_backbone() -> None:
    model = light()
    classifier = PVTv2Classifier(SIZES["pvt_v2_b0"], num_classes=4)
    report = fill(model, classifier.state_dict())
    assert set(report.reinitialised.values()) == {"the file has no segmenter"}
    assert set(report.ignored) == {"head.weight", "head.bias"}
    own = classifier.state_dict()
    for name, value in model.get_submodule("backbone").state_dict().items():
        assert torch.equal(value, own[name])


def test_old_files_that_count_no_batches_fit() -> None:
    state = {k: v for k, v in made(light()).items() if not k.endswith("num_batches_tracked")}
    fresh = fill(light(), state, exact=True).reinitialised
    assert len(fresh) == 7
    assert set(fresh.values()) == {"the file counts no batches"}


def test_a_file_that_does_not_fit_leaves_the_model_as_it_was() -> None:
    model, state = light(), made(light())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    name = "decode_head.scale_heads.2.0.conv.weight"
    broken: dict[str, tuple[dict[str, Tensor], str]] = {
        "a part missing": ({k: v for k, v in state.items() if k != name}, "missing in it"),
        "another shape": ({**state, name: torch.zeros(8, 8, 3, 3)}, r"is \[8, 8, 3, 3\]"),
        "no number": ({**state, name: state[name] * torch.nan}, "not finite"),
        "a part too much": (
            {**state, "decode_head.fpn_convs.0.weight": torch.zeros(1)},
            "decode_head.fpn_convs.0.weight not known to Segmenter",
        ),
        "a detector": (
            {**state, "bbox_head.retina_cls.weight": torch.zeros(1)},
            "bbox_head.retina_cls.weight not known",
        ),
        "counters of another shape": (
            {k: v.repeat(3) if v.ndim == 0 else v for k, v in state.items()},
            r"num_batches_tracked is \[3\] in the file",
        ),
    }
    for case, (content, reason) in broken.items():
        with pytest.raises(UserError, match=reason):
            fill(model, content)
        for key, value in model.state_dict().items():
            assert torch.equal(value, before[key]), case
