"""`create_model` for detectors: names, backbones, weights to start from."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from foreign import assert_bits
from pyramidvit import create_model, list_heads, list_models
from pyramidvit.cli.models import say_heads
from pyramidvit.errors import UserError
from pyramidvit.tasks.detection.detectors import SingleStageDetector, TwoStageDetector
from pyramidvit.tasks.detection.heads.cascade import CascadeDetector
from pyramidvit.tasks.detection.heads.detr import DETR
from pyramidvit.tasks.detection.heads.sparse_rcnn import SparseRCNN
from pyramidvit.tasks.detection.table import DETECTORS

LIGHT: dict[str, Any] = {"width": 16, "backbone": "pvt_v2_b0"}
MADE_OF: dict[str, tuple[type, list[int]]] = {  # and the strides of the maps that it reads
    "retinanet": (SingleStageDetector, [8, 16, 32]),
    "faster_rcnn": (TwoStageDetector, [4, 8, 16, 32]),
    "mask_rcnn": (TwoStageDetector, [4, 8, 16, 32]),
    "cascade_mask_rcnn": (CascadeDetector, [4, 8, 16, 32]),
    "atss": (SingleStageDetector, [8, 16, 32]),
    "gfl": (SingleStageDetector, [8, 16, 32]),
    "sparse_rcnn": (SparseRCNN, [4, 8, 16, 32]),
    "detr": (DETR, [32]),
}


def test_heads_are_listed_apart_from_backbones() -> None:
    assert set(DETECTORS) <= set(list_heads())
    assert list_heads("*mask_rcnn") == ["mask_rcnn", "cascade_mask_rcnn"]
    assert not set(list_heads()) & set(list_models())


def test_pvt_models_says_what_else_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    say_heads()
    said = capsys.readouterr().out
    assert said.startswith("on any of them: retinanet, faster_rcnn, mask_rcnn")
    assert "pvt train --model retinanet --backbone NAME" in said


@pytest.mark.parametrize("backbone", list_models())
def test_every_detector_stands_on_every_backbone(backbone: str) -> None:
    for head in MADE_OF:
        with torch.device("meta"):
            model = create_model(head, backbone=backbone)
        kind, strides = MADE_OF[head]
        assert type(model) is kind
        assert model.backbone.feature_info.reduction() == strides
        layer = "bbox_head.input_proj" if kind is DETR else "neck.lateral_convs.0.conv"
        first = model.get_parameter(f"{layer}.weight")
        assert first.shape[:2] == (256, model.backbone.feature_info.channels()[0])


def test_numbers_reach_the_detector() -> None:
    with torch.device("meta"):
        model = create_model(
            "mask_rcnn", num_classes=5, in_chans=4, drop_path_rate=0.3, hidden=32, **LIGHT
        )
    assert model.roi_head.bbox_head.fc_cls.weight.shape == (6, 32)
    assert model.backbone.get_parameter("patch_embed1.proj.weight").shape[1] == 4
    assert model.neck.get_parameter("fpn_convs.0.conv.weight").shape[0] == 16
    rates = [m.p for name, m in model.backbone.named_modules() if name.endswith("drop_path")]
    assert max(rates) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("retinanet", {}, 'retinanet stands on a backbone: name one, such as backbone="pvt_v2_b2"'),
        ("pvt_v2_b0", {"backbone": "pvt_tiny"}, "pvt_v2_b0 is a backbone itself: leave backbone="),
        ("mask_rnn", {"backbone": "pvt_tiny"}, "unknown model mask_rnn; nearest: mask_rcnn, "),
        ("retina_net", {}, "unknown model retina_net; nearest: retinanet"),
        ("pvt_v2_b22", {"backbone": "pvt_tiny"}, "unknown model pvt_v2_b22; nearest: pvt_v2_b2, "),
        ("retinanet", {"backbone": "pvt_tony"}, "unknown backbone pvt_tony; nearest: pvt_tiny"),
        ("retinanet", {"backbone": "mask_rcnn"}, "unknown backbone mask_rcnn"),
        ("retinanet", {"backbone": "pvt_tiny", "features_only": True}, "gives no pyramid"),
        ("retinanet", {"backbone": "pvt_tiny", "out_indices": (1, 2)}, "gives no pyramid"),
        ("retinanet", {"backbone": "pvt_tiny", "pretrained": "no.pth"}, "no such checkpoint"),
        ("retinanet", {"backbone": "pvt_tiny", "num_classes": 0}, "must be 1 or more, got 0"),
        ("retinanet", {"backbone": "pvt_tiny", "in_chans": 0}, "in_chans must be 1 or more"),
        ("retinanet", {"backbone": "pvt_tiny", "drop_path_rate": 1.0}, "from 0 to below 1"),
    ],
)
def test_a_mistake_is_one_line(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        create_model(name, **options)
    assert "\n" not in str(error.value)


def test_numbers_of_another_model_are_refused() -> None:
    with pytest.raises(TypeError, match="'hidden'"):
        create_model("retinanet", hidden=64, **LIGHT)
    with pytest.raises(TypeError, match="pvt_v2_b0 takes no width"):
        create_model("pvt_v2_b0", width=64)  # type: ignore[call-overload]


def test_a_detector_starts_from_a_detector(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    first = create_model("retinanet", num_classes=4, **LIGHT)
    torch.save({"state_dict": first.state_dict()}, tmp_path / "d.pth")
    with caplog.at_level(logging.INFO, logger="pyramidvit"):
        again = create_model("retinanet", num_classes=4, pretrained=tmp_path / "d.pth", **LIGHT)
    assert_bits(again.state_dict(), first.state_dict())
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert f"retinanet on pvt_v2_b0 from {tmp_path / 'd.pth'}" in caplog.text

    caplog.clear()
    other = create_model("retinanet", num_classes=7, pretrained=tmp_path / "d.pth", **LIGHT)
    assert "2 reinitialised (the file has another number of classes)" in caplog.text
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    same = [n for n, v in other.state_dict().items() if torch.equal(v, first.state_dict()[n])]
    assert len(same) == len(first.state_dict()) - 2

    with pytest.raises(UserError, match="not known to TwoStageDetector"):
        create_model("mask_rcnn", pretrained=tmp_path / "d.pth", **LIGHT)


def test_a_detector_starts_from_a_classifier_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    classifier = create_model("pvt_v2_b0", num_classes=3)
    classifier.save_pretrained(tmp_path / "c")
    model = create_model("faster_rcnn", pretrained=tmp_path / "c", hidden=16, **LIGHT)
    own = classifier.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in model.backbone.state_dict().items())
    assert "reinitialised (the file has no detector)" in caplog.text
    assert [record.levelname for record in caplog.records] == ["WARNING"]
