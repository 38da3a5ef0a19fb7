"""RetinaNet against recordings of the reference code."""

import json
from pathlib import Path

import pytest
import torch

from dense_golden import DTYPES, TOLERANCES, DenseGolden, to_map
from pyramidvit.tasks.detection.baseline_losses import retinanet_losses
from pyramidvit.tasks.detection.detectors import SingleStageDetector
from pyramidvit.tasks.detection.loss import loss
from pyramidvit.tasks.detection.model import build_detector
from pyramidvit.tasks.detection.outputs import network_inputs, truths_of
from pyramidvit.tasks.detection.postprocess import postprocess

NAMES = ("mm2_retinanet_pvt_v2_b0", "mm2_retinanet_pvt_v2_b0_224x288")
CASES = [
    *((NAMES[0], tag) for tag in ("single.f32", "batch.f32", "batch.f64")),
    *((NAMES[1], tag) for tag in ("single.f32", "batch.f64")),
]


@pytest.fixture(scope="module", params=NAMES)
def golden(request: pytest.FixtureRequest, golden_dir: Path) -> DenseGolden:
    return DenseGolden(golden_dir / "dense", request.param, independent=True)


@pytest.fixture(scope="module")
def model() -> SingleStageDetector:
    return build_detector("retinanet", "pvt_v2_b0", 80, drop_path_rate=0.0)


@pytest.mark.parametrize("backbone", ["pvt_v2_b0", "pvt_tiny"])
def test_parameters_have_the_released_names_and_shapes(golden_dir: Path, backbone: str) -> None:
    text = (golden_dir / "dense" / f"keys_retinanet_{backbone}.json").read_text()
    state = build_detector("retinanet", backbone, 80).state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == json.loads(text)


@pytest.mark.parametrize(("golden", "tag"), CASES, indirect=["golden"])
def test_maps_outputs_and_detections_equal_the_reference(
    golden: DenseGolden, model: SingleStageDetector, tag: str
) -> None:
    golden.fill(model, DTYPES[tag.split(".")[1]])
    batch = golden.batch(tag)
    with torch.no_grad():
        stages = model.backbone(batch.images)
        maps = model.neck(stages)
        outputs = model(batch.images)

    for i, x in enumerate(stages):
        golden.check(tag, f"backbone.{i + 1}", x)
    for i, x in enumerate(maps):
        golden.check(tag, f"neck.{i}", x)
        golden.check(tag, f"head.cls.{i}", to_map(outputs.logits[i], x))
        golden.check(tag, f"head.reg.{i}", to_map(outputs.deltas[i], x))
    for frame in ("net", "ori"):
        for i, found in enumerate(postprocess(outputs, golden.batch(tag, frame=frame))):
            golden.pair(tag, frame, i, found)


@pytest.mark.parametrize("precision", DTYPES)
def test_losses_and_gradients_equal_the_reference(
    golden: DenseGolden, model: SingleStageDetector, precision: str
) -> None:
    golden.fill(model, DTYPES[precision])
    batch = golden.batch(f"batch.{precision}")
    outputs = model.train()(batch.images, **network_inputs(batch, learn=True))
    levels = retinanet_losses(outputs, truths_of(batch.targets), batch.sizes)
    total = torch.stack(list(loss(outputs, batch).values())).sum()
    model.eval()

    recorded = golden.records[f"loss_train.{precision}"]
    tolerance = TOLERANCES[precision].relative
    for column, name in enumerate(("loss_cls", "loss_bbox")):
        terms = [level[column].item() for level in levels]
        assert terms == pytest.approx(recorded[name], rel=tolerance, abs=1e-8)
    assert total.item() == pytest.approx(sum(map(sum, recorded.values())), rel=tolerance)

    if "grad_norm.f32" in golden.records:
        golden.check_gradients(model, total, precision)
