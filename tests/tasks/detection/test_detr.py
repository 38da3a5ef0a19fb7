"""DETR against recordings of the reference code."""

import json
from pathlib import Path

import pytest
import torch

from dense_golden import DTYPES, TOLERANCES, DenseGolden
from pyramidvit.tasks.detection.heads.detr import DETR, layer_losses
from pyramidvit.tasks.detection.loss import loss
from pyramidvit.tasks.detection.model import build_detector
from pyramidvit.tasks.detection.outputs import network_inputs, truths_of
from pyramidvit.tasks.detection.postprocess import postprocess

TAGS = ("single.f32", "batch.f64")

# The recording's own rounding: in float64 our norms are as far off it, and in float32 within 2e-5
# of those in float64 (queries: 9e-5). It grows from 1e-7 in the heads to 1.4e-4 in early blocks,
# most in sums over all tokens. The first layer's queries know nothing yet, so that the gradient of
# their attention to each other is 0, which was recorded as 7e-7.
UNCERTAIN = {
    "bbox_head.query_embedding.weight": 3e-4,
    "bbox_head.transformer.decoder.layers.0.attentions.0.attn.in_proj_weight": 2.0,
    "backbone.patch_embed1.norm.bias": 1.5e-4,
    "backbone.block1.*": 1.5e-4,
    "backbone.block2.*.bias": 1.2e-4,
}


@pytest.fixture(scope="module")
def golden(golden_dir: Path) -> DenseGolden:
    return DenseGolden(golden_dir / "dense", "mm2_detr_pvt_small", independent=False)


@pytest.fixture(scope="module")
def model(golden: DenseGolden) -> DETR:
    with torch.device("meta"):
        built = build_detector("detr", "pvt_small", 80, drop_path_rate=0.0, drop_rate=0.0)
    assert isinstance(built, DETR)
    golden.fill(built.to_empty(device="cpu"), torch.float32)
    return built.eval()


def test_parameters_have_the_released_names_and_shapes(golden_dir: Path) -> None:
    text = (golden_dir / "dense" / "keys_detr_pvt_small.json").read_text()
    with torch.device("meta"):
        state = build_detector("detr", "pvt_small", 80).state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == json.loads(text)
    rows = json.loads((golden_dir / "dense" / "params_flops_det.json").read_text())
    assert sum(value.numel() for value in state.values()) == rows["detr_pvt_s"]["params"]


@pytest.mark.parametrize("tag", TAGS)
def test_map_layers_and_detections_equal_the_reference(
    golden: DenseGolden, model: DETR, tag: str
) -> None:
    model.to(DTYPES[tag.split(".")[1]])
    batch = golden.batch(tag)
    with torch.no_grad():
        golden.check(tag, "backbone.0", model.backbone(batch.images)[0])
        outputs = model(batch.images, sizes=batch.sizes)
    golden.check(tag, "head.cls.0", outputs.logits)
    golden.check(tag, "head.box.0", outputs.boxes)
    for frame in ("net", "ori"):
        files = golden.batch(tag, frame=frame)
        for i, found in enumerate(postprocess(outputs, files, model.decoding)):
            golden.pair(tag, frame, i, found)


@pytest.mark.parametrize("precision", DTYPES)
def test_losses_and_gradients_equal_the_reference(
    golden: DenseGolden, model: DETR, precision: str
) -> None:
    model.to(DTYPES[precision])
    batch = golden.batch(f"batch.{precision}")
    outputs = model.train()(batch.images, **network_inputs(batch, learn=True))
    terms = loss(outputs, batch)
    total = torch.stack(list(terms.values())).sum()
    model.eval()

    recorded = golden.records[f"loss_train.{precision}"]
    near = {"rel": TOLERANCES[precision].relative}
    prefixes = [*(f"d{i}." for i in range(5)), ""]
    for prefix, *layer in zip(prefixes, *outputs, strict=True):
        found = layer_losses(*layer, truths_of(batch.targets), batch.sizes)
        names = [f"{prefix}loss_{name}" for name in ("cls", "bbox", "iou")]
        wanted = [recorded[name] for name in names]
        assert [term.item() for term in found] == pytest.approx(wanted, **near)
    for name, term in zip(terms, ("cls", "bbox", "iou"), strict=True):
        layers = [recorded[f"{prefix}loss_{term}"] for prefix in prefixes]
        assert terms[name].item() == pytest.approx(sum(layers), **near)
    if f"grad_norm.{precision}" in golden.records:
        golden.check_gradients(model, total, precision, uncertain=UNCERTAIN)
