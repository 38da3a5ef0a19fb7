"""Semantic FPN against recordings of the reference code."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dense_golden import DTYPES, TOLERANCES
from pyramidvit.tasks.segmentation.config import SegmentationOptions
from pyramidvit.tasks.segmentation.loss import build_loss
from pyramidvit.tasks.segmentation.model import Segmenter, build_segmenter
from segmentation_golden import SegmentationGolden
from segmenters import named

BACKBONES = ("pvt_tiny", "pvt_v2_b0")
CASES = [(backbone, precision) for backbone in BACKBONES for precision in DTYPES]
SHORT = {"t": "tiny", "s": "small", "m": "medium", "l": "large"}


@pytest.fixture(scope="module", params=BACKBONES)
def golden(request: pytest.FixtureRequest, golden_dir: Path) -> SegmentationGolden:
    return SegmentationGolden(golden_dir / "dense", f"mm2_semfpn_{request.param}")


@pytest.fixture
def model(request: pytest.FixtureRequest) -> Segmenter:
    backbone = request.node.callspec.params["golden"]
    return build_segmenter("semantic_fpn", backbone, 150, drop_path_rate=0.0, dropout=0.0)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_parameters_have_the_released_names_and_shapes(golden_dir: Path, backbone: str) -> None:
    text = (golden_dir / "dense" / f"keys_semfpn_{backbone}.json").read_text()
    state = build_segmenter("semantic_fpn", backbone, 150).state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == json.loads(text)


def test_parameter_counts_are_the_published_ones(golden_dir: Path) -> None:
    rows = json.loads((golden_dir / "dense" / "params_flops_seg.json").read_text())
    assert len(rows) == 11
    for name, (count, _) in rows.items():
        size = name.removeprefix("pvt_")
        with torch.device("meta"):
            model = build_segmenter("semantic_fpn", f"pvt_{SHORT.get(size, size)}", 150)
        assert sum(p.numel() for p in model.parameters()) == count, name


@pytest.mark.parametrize(("golden", "precision"), CASES, indirect=["golden"])
def test_maps_logits_and_loss_equal_the_reference(
    golden: SegmentationGolden, model: Segmenter, precision: str
) -> None:
    golden.fill(model.eval(), DTYPES[precision])
    batch = golden.batch(precision)
    with torch.no_grad():
        maps = model.neck(model.backbone(batch.images))
        outputs = model(batch.images)
        full = F.interpolate(outputs.logits, batch.images.shape[2:], mode="bilinear")
        files = F.interpolate(full, batch.origins[0].size, mode="bilinear")
    for i, x in enumerate(maps):
        golden.check(precision, f"neck.{i}", x)
    golden.check(precision, "logits_stride4", outputs.logits)
    golden.check(precision, "logits_full", full)
    golden.check(precision, "prob_ori", files.softmax(dim=1))
    recorded = golden.arrays[f"{precision}/argmax_ori"]
    assert np.mean(files.argmax(dim=1).numpy() != recorded) < (1e-4 if precision == "f32" else 1e-9)

    loss = build_loss(SegmentationOptions(mean_over="all"), (), named(150))(outputs, batch)
    wanted = golden.records[f"loss_eval.{precision}"]["loss_seg"]
    tolerance = TOLERANCES[precision].relative
    assert loss["cross_entropy"].item() == pytest.approx(wanted, rel=tolerance)


@pytest.mark.parametrize(("golden", "precision"), CASES, indirect=["golden"])
def test_loss_gradients_and_statistics_of_training_equal_the_reference(
    golden: SegmentationGolden, model: Segmenter, precision: str
) -> None:
    golden.fill(model.train(), DTYPES[precision])
    batch = golden.batch(precision)
    loss = build_loss(SegmentationOptions(mean_over="all"), (), named(150))
    (term,) = loss(model(batch.images), batch).values()
    term.backward()

    tolerance = TOLERANCES[precision].relative
    wanted = golden.records[f"loss_train_bn.{precision}"]["decode.loss_seg"]
    assert term.item() == pytest.approx(wanted, rel=tolerance)
    norms = {n: p.grad.double().norm().item() for n, p in model.named_parameters()}
    recorded = golden.records[f"grad_norm.{precision}"]
    assert norms == pytest.approx(recorded, rel=tolerance, abs=1e-9)
    state = model.state_dict()
    for name, values in golden.records[f"bn_after_step.{precision}"].items():
        spread = TOLERANCES[precision].relative * np.std(values)
        assert state[name][: len(values)].tolist() == pytest.approx(
            values, rel=tolerance, abs=spread
        )
