"""Mask R-CNN against recordings of the reference code."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dense_golden import DTYPES, TOLERANCES, DenseGolden, gradient_norms, paste, to_map
from pyramidvit.ops.masks import decode_masks, mask_areas
from pyramidvit.ops.regions import pool_regions
from pyramidvit.tasks.detection.baseline_losses import mask_losses, proposal_losses, region_losses
from pyramidvit.tasks.detection.detectors import TwoStageDetector
from pyramidvit.tasks.detection.heads.rpn import propose
from pyramidvit.tasks.detection.model import build_detector
from pyramidvit.tasks.detection.outputs import network_inputs, truths_of
from pyramidvit.tasks.detection.postprocess import postprocess

TAGS = ("single.f32", "batch.f32", "batch.f64")
ALL = 10**7  # the recordings draw no sample: all regions are learnt from


@pytest.fixture(scope="module")
def golden(golden_dir: Path) -> DenseGolden:
    return DenseGolden(golden_dir / "dense", "mm2_mask_rcnn_pvt_v2_b0", independent=False)


@pytest.fixture(scope="module")
def model() -> TwoStageDetector:
    built = build_detector(
        "mask_rcnn", "pvt_v2_b0", 80, drop_path_rate=0.0, proposals=300, region_samples=ALL
    )
    assert isinstance(built, TwoStageDetector)
    return built.eval()


@pytest.mark.parametrize("backbone", ["pvt_v2_b0", "pvt_tiny"])
def test_parameters_have_the_released_names_and_shapes(golden_dir: Path, backbone: str) -> None:
    text = (golden_dir / "dense" / f"keys_mask_rcnn_{backbone}.json").read_text()
    state = build_detector("mask_rcnn", backbone, 80).state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == json.loads(text)

    boxes_only = build_detector("faster_rcnn", backbone, 80).state_dict()
    assert set(boxes_only) == {key for key in state if "mask_head" not in key}


@pytest.mark.parametrize("tag", TAGS)
def test_maps_proposals_and_regions_equal_the_reference(
    golden: DenseGolden, model: TwoStageDetector, tag: str
) -> None:
    dtype = DTYPES[tag.split(".")[1]]
    golden.fill(model, dtype)
    batch = golden.batch(tag)
    with torch.no_grad():
        stages = model.backbone(batch.images)
        maps = model.neck(stages)
        dense = model.rpn_head(maps)
    for i, x in enumerate(stages):
        golden.check(tag, f"backbone.{i}", x)
    for i, x in enumerate(maps):
        golden.check(tag, f"neck.{i}", x)
        golden.check(tag, f"rpn.cls.{i}", to_map(dense.logits[i], x))
        golden.check(tag, f"rpn.reg.{i}", to_map(dense.deltas[i], x))

    found = propose(dense, batch.sizes, candidates=1000, most=300)
    recorded = []
    for i in range(len(batch.images)):
        theirs = torch.from_numpy(golden.arrays[f"{tag}/proposals{i}"])
        rows = found.images == i
        ours = torch.cat((found.boxes, found.scores[:, None]), dim=1)[rows].to(theirs)
        assert len(ours) == len(theirs)
        off = (ours[None] - theirs[:, None]).abs() / theirs.new_tensor((100, 100, 100, 100, 1))
        pairs = off.amax(dim=2).min(dim=1)
        assert len(set(pairs.indices.tolist())) == len(theirs)
        assert float(pairs.values.max()) < 1e-4  # hundredths of a pixel, and of a score
        recorded.append(theirs[:, :4])

    # From here on with the recorded proposals, whose ties have settled the order.
    boxes = torch.cat(recorded).to(dtype)
    images = torch.arange(len(recorded)).repeat_interleave(300)
    with torch.no_grad():
        features = pool_regions(maps[:4], (4, 8, 16, 32), boxes, images, 7)
        logits, deltas = model.roi_head(maps[:4], boxes, images)
    golden.check(tag, "roi.feat", features)
    golden.check(tag, "roi.cls", logits)
    golden.check(tag, "roi.reg", deltas.flatten(1))


@pytest.mark.parametrize("tag", ["single.f32", "batch.f32"])
def test_mask_maps_equal_the_reference(
    golden: DenseGolden, model: TwoStageDetector, tag: str
) -> None:
    golden.fill(model, torch.float32)
    batch = golden.batch(tag)
    boxes = torch.from_numpy(golden.arrays[f"{tag}/proposals0"])[:8, :4]
    images = torch.zeros(8, dtype=torch.int64)
    drawn: list[Tensor] = []  # the maps of all classes, of the first 8 regions
    assert model.roi_head.mask_head is not None
    layer = model.roi_head.mask_head.conv_logits
    hook = layer.register_forward_hook(lambda module, args, y: drawn.append(y))
    with torch.no_grad():
        maps = model.neck(model.backbone(batch.images))
        chosen = model.roi_head.forward_masks(maps[:4], boxes, images, torch.arange(8))
    hook.remove()
    golden.check(tag, "mask.logits", drawn[0])
    assert chosen is not None
    assert torch.equal(chosen, drawn[0][range(8), range(8)])


@pytest.mark.parametrize("tag", ["single.f32", "batch.f32"])
def test_detections_and_masks_equal_the_reference(
    golden: DenseGolden, model: TwoStageDetector, tag: str
) -> None:
    golden.fill(model, torch.float32)
    batch = golden.batch(tag)
    with torch.no_grad():
        outputs = model(batch.images, sizes=batch.sizes)

    for frame in ("net", "ori"):
        files = golden.batch(tag, frame=frame)
        for i, found in enumerate(postprocess(outputs, files)):
            assert found.masks is not None
            pairs = golden.pair(tag, frame, i, found)
            size = files.origins[i].size
            assert list(size) == golden.records[f"{tag}/mask_shape{i}.{frame}"]
            shares = outputs.mask_logits[outputs.detections.images == i].sigmoid()
            full = torch.stack(
                [paste(*pair, size) for pair in zip(shares, found.boxes, strict=True)]
            )
            masks = decode_masks(found.masks)
            sure = (full - 0.5).abs() > 6e-5  # float32 programs may differ on the others
            assert torch.equal(masks[sure], full[sure] >= 0.5)
            assert torch.equal(mask_areas(found.masks), masks.sum((1, 2)))
            golden.check_masks(f"{tag}/mask_", f"{i}.{frame}", masks[pairs], sure[pairs])


@pytest.mark.parametrize("precision", DTYPES)
def test_losses_and_gradients_equal_the_reference(
    golden: DenseGolden, model: TwoStageDetector, precision: str
) -> None:
    golden.fill(model, DTYPES[precision])
    batch = golden.batch(f"batch.{precision}")
    truths = truths_of(batch.targets)
    outputs = model.train()(batch.images, **network_inputs(batch, learn=True))
    levels = proposal_losses(outputs.proposals, truths, batch.sizes, samples=ALL)
    terms = {**region_losses(outputs, truths), **mask_losses(outputs, batch.targets)}
    total = torch.stack([*(term for level in levels for term in level), *terms.values()]).sum()
    model.eval()

    recorded = golden.records[f"loss_train.{precision}"]
    tolerance = TOLERANCES[precision].relative
    for column, name in enumerate(("loss_rpn_cls", "loss_rpn_bbox")):
        found = [level[column].item() for level in levels]
        assert found == pytest.approx(recorded[name], rel=tolerance, abs=1e-8)
    names = {"classes": "loss_cls", "boxes": "loss_bbox", "masks": "loss_mask"}
    assert {names[name]: term.item() for name, term in terms.items()} == pytest.approx(
        {name: recorded[name] for name in names.values()}, rel=tolerance
    )
    if precision == "f32":  # in float64 other anchors are learnt, as ties fall otherwise
        golden.check_total(total, precision)
        golden.check_norms(gradient_norms(model, total), precision, share=1.5e-4)
