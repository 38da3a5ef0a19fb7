"""ATSS and GFL against recordings of the reference code."""

import json
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from dense_golden import DTYPES, TOLERANCES, DenseGolden, to_map
from pyramidvit.ops.boxes import centres_of, encode_boxes, side_distances
from pyramidvit.structures import Batch, DetectionTarget, Origin, Sample, collate
from pyramidvit.tasks.detection.detectors import SingleStageDetector
from pyramidvit.tasks.detection.heads.atss import (
    STDS,
    ATSSOutputs,
    atss_terms,
    centerness_of,
    detect_atss,
    nearest_targets,
)
from pyramidvit.tasks.detection.heads.gfl import FARTHEST, GFLOutputs, detect_gfl, gfl_terms
from pyramidvit.tasks.detection.loss import loss
from pyramidvit.tasks.detection.model import build_detector
from pyramidvit.tasks.detection.outputs import Decoding, RegionDetections, network_inputs, truths_of
from pyramidvit.tasks.detection.postprocess import postprocess

NAMES = ("atss", "gfl")
TAGS = ("single.f32", "batch.f32", "batch.f64")
TERMS = {  # our names and theirs
    "atss": {"classes": "loss_cls", "boxes": "loss_bbox", "centerness": "loss_centerness"},
    "gfl": {"classes": "loss_cls", "boxes": "loss_bbox", "sides": "loss_dfl"},
}


class Case(NamedTuple):
    name: str
    golden: DenseGolden
    model: SingleStageDetector

    def fill(self, tag: str) -> None:
        """Sets the recorded weights, in the precision of a tag; constants stay as they are."""
        self.golden.fill(self.model, DTYPES[tag.split(".")[1]])


@pytest.fixture(scope="module", params=NAMES)
def case(request: pytest.FixtureRequest, golden_dir: Path) -> Case:
    name = request.param
    golden = DenseGolden(golden_dir / "dense", f"mm2_{name}_pvt_v2_b0", independent=True)
    model = build_detector(name, "pvt_v2_b0", 80, drop_path_rate=0.0)
    return Case(name, golden, model.eval())


def head_maps(name: str, outputs: Any, level: int, like: Tensor) -> dict[str, Tensor]:
    """What the head says of a level, as recorded."""
    maps = {"cls": outputs.logits[level]}
    if name == "atss":
        maps |= {"reg": outputs.deltas[level], "ctr": outputs.centerness[level]}
    else:
        maps["reg"] = outputs.sides[level].flatten(2)
    return {key: to_map(rows, like) for key, rows in maps.items()}


@pytest.mark.parametrize("name", NAMES)
def test_parameters_have_the_released_names_and_shapes(golden_dir: Path, name: str) -> None:
    text = (golden_dir / "dense" / f"keys_{name}_pvt_v2_b0.json").read_text()
    state = build_detector(name, "pvt_v2_b0", 80).state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == json.loads(text)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", ["b2", "b2_li"])
def test_parameter_counts_are_the_published_ones(golden_dir: Path, name: str, size: str) -> None:
    rows = json.loads((golden_dir / "dense" / "params_flops_det.json").read_text())
    with torch.device("meta"):
        model = build_detector(name, f"pvt_v2_{size}", 80)
    counted = sum(parameter.numel() for parameter in model.parameters())
    assert counted == rows[f"{name}_pvt_v2_{size}"]["params"]


@pytest.mark.parametrize("tag", TAGS)
def test_maps_outputs_and_detections_equal_the_reference(case: Case, tag: str) -> None:
    name, golden, model = case
    case.fill(tag)
    batch = golden.batch(tag)
    with torch.no_grad():
        maps = model.neck(model.backbone(batch.images))
        outputs = model(batch.images)

    for i, x in enumerate(maps):
        golden.check(tag, f"neck.{i}", x)
        for key, found in head_maps(name, outputs, i, x).items():
            golden.check(tag, f"head.{key}.{i}", found)
    if tag == "batch.f64":  # of which no detections are recorded
        return
    for frame in ("net", "ori"):
        files = golden.batch(tag, frame=frame)
        for i, found in enumerate(postprocess(outputs, files, model.decoding)):
            golden.pair(tag, frame, i, found)


@pytest.mark.parametrize(
    ("case", "precision"), list(product(("atss", "gfl"), ("f32", "f64"))), indirect=["case"]
)
def test_losses_and_gradients_equal_the_reference(case: Case, precision: str) -> None:
    name, golden, model = case
    case.fill(f"batch.{precision}")
    batch = golden.batch(f"batch.{precision}")
    outputs = model.train()(batch.images, **network_inputs(batch, learn=True))
    terms = loss(outputs, batch)
    model.eval()

    exact = f"loss_train.{precision}" in golden.records  # of GFL float32 alone was recorded
    recorded = golden.records[f"loss_train.{precision if exact else 'f32'}"]
    tolerance = TOLERANCES[precision if exact else "f32"].relative
    assert {TERMS[name][key]: term.item() for key, term in terms.items()} == pytest.approx(
        {key: sum(levels) for key, levels in recorded.items()}, rel=tolerance
    )
    golden.check_gradients(model, torch.stack(list(terms.values())).sum(), precision)


def batch_of(*objects: Tensor, size: tuple[int, int] = (64, 96)) -> Batch[DetectionTarget]:
    """One image of `size` for each list of boxes [n, 4]."""
    torch.manual_seed(1)
    samples = [
        Sample(
            image=torch.randn(3, *size),
            target=DetectionTarget(
                boxes=boxes,
                labels=torch.arange(len(boxes)) % 3,
                crowd=torch.zeros(len(boxes), dtype=torch.bool),
            ),
            origin=Origin(name=str(i), size=size),
        )
        for i, boxes in enumerate(objects)
    ]
    return collate(samples, divisor=32)


def light(name: str, width: int = 16) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_detector(name, "pvt_v2_b0", 3, width=width)


# As large as the anchors of strides 8, 16 and 32, and a little beside their places.
BOXES = torch.tensor([[17.0, 18, 81, 82], [165, 137, 293, 265], [201, 17, 457, 273]])
BIG = (288, 480)
CERTAIN = 40.0  # a logit


def knowing(name: str) -> tuple[Any, Batch[DetectionTarget], Tensor]:
    """What a head would say that knew the objects: with the batch, and the labels of anchors."""
    batch = batch_of(BOXES, size=BIG)
    with torch.no_grad():
        anchors = light(name)(batch.images).anchors
    targets = nearest_targets(anchors, truths_of(batch.targets), batch.sizes)
    labels = targets.labels[0]
    known = labels >= 0
    boxes = torch.where(known[:, None], targets.boxes[0], torch.cat(anchors))
    counts = [len(level) for level in anchors]
    logits = torch.full((len(labels), 3), -CERTAIN)
    logits[known, labels[known]] = CERTAIN

    def levels(rows: Tensor) -> tuple[Tensor, ...]:
        return torch.split(rows[None], counts, dim=1)

    points = centres_of(torch.cat(anchors))
    if name == "atss":
        deltas = encode_boxes(boxes, torch.cat(anchors), STDS)
        central = torch.zeros(len(labels))
        central[known] = centerness_of(points[known], boxes[known])
        parts = levels(logits), levels(deltas), levels(central.logit(eps=1e-6))
        return ATSSOutputs(*parts, anchors), batch, labels
    strides = torch.cat([torch.full((n,), 8.0 * 2**i) for i, n in enumerate(counts)])
    steps = side_distances(points, boxes) / strides[:, None]
    bins = torch.arange(FARTHEST + 1.0)
    shares = (1 - (bins - steps[..., None]).abs()).clamp(min=1e-12)  # the two around each
    distances = steps * strides[:, None]
    parts = levels(logits), levels(shares.log()), levels(distances)
    return GFLOutputs(*parts, anchors), batch, labels


@pytest.mark.parametrize(("name", "terms"), [("atss", atss_terms), ("gfl", gfl_terms)])
def test_who_knows_the_objects_on_all_levels_has_nothing_to_learn(name: str, terms: Any) -> None:
    outputs, batch, labels = knowing(name)
    counts = [len(level) for level in outputs.anchors]
    matched = [int((level >= 0).sum()) for level in torch.split(labels, counts)]
    assert sum(count > 0 for count in matched) >= 3  # levels
    assert set(labels.tolist()) == {-1, 0, 1, 2}

    found = terms(outputs, batch)
    assert found["classes"].item() == pytest.approx(0, abs=1e-5)
    assert found["boxes"].item() == pytest.approx(0, abs=1e-5)
    # Of what is neither yes nor no, and of sides between whole strides, the entropy is left.
    if name == "atss":
        central = torch.cat(outputs.centerness, dim=1)[0, labels >= 0].sigmoid()
        left = torch.distributions.Bernoulli(central).entropy().mean()
        assert found["centerness"].item() == pytest.approx(left.item(), rel=1e-4)
    else:
        sides = torch.cat(outputs.sides, dim=1)[0, labels >= 0]
        left = 0.25 * torch.distributions.Categorical(logits=sides).entropy().mean()
        assert found["sides"].item() == pytest.approx(left.item(), rel=1e-4)


@pytest.mark.parametrize(("name", "detect"), [("atss", detect_atss), ("gfl", detect_gfl)])
def test_who_knows_the_objects_detects_them(name: str, detect: Any) -> None:
    outputs, batch, _ = knowing(name)
    found: RegionDetections = detect(outputs, batch.sizes, Decoding(nms_threshold=0.6))
    order = found.detections.labels.argsort()
    torch.testing.assert_close(found.detections.boxes[order], BOXES)
    assert found.detections.labels[order].tolist() == [0, 1, 2]
    assert found.mask_logits is None


def test_atss_asks_the_class_alone_and_orders_by_the_product() -> None:
    anchors = torch.tensor([[0.0, 0, 8, 8], [20, 20, 28, 28], [40, 40, 48, 48]])
    classes, central = torch.tensor([0.5, 0.06, 0.04]), torch.tensor([0.1, 0.2, 0.9])
    outputs = ATSSOutputs(
        (classes.logit()[None, :, None],), (torch.zeros(1, 3, 4),), (central.logit()[None],),
        (anchors,),
    )  # fmt: skip
    (boxes, _, scores, _), _ = detect_atss(outputs, [(64, 64)], Decoding())
    torch.testing.assert_close(scores, torch.tensor([0.05, 0.012]))  # both at or below 0.05
    torch.testing.assert_close(boxes, anchors[:2])


def test_centerness_is_one_in_the_middle_and_falls_to_the_sides() -> None:
    box = torch.tensor([[0.0, 0, 8, 20]])
    points = torch.tensor([[4.0, 10], [2, 10], [4, 4], [2, 4], [0, 10]])
    found = centerness_of(points, box.expand(5, -1))
    expected = [1, (1 / 3) ** 0.5, (1 / 4) ** 0.5, (1 / 12) ** 0.5, 0]
    torch.testing.assert_close(found, torch.tensor(expected))


ONE = torch.tensor([[8.0, 8, 60, 56]])
NONE = torch.zeros(0, 4)
CASES = {
    "no image has an object": lambda: batch_of(NONE, NONE),
    "one image has no object": lambda: batch_of(ONE, NONE),
    "an object of one pixel": lambda: batch_of(torch.tensor([[20.0, 20, 21, 21]])),
    "an object between all centres": lambda: batch_of(torch.tensor([[1.0, 1, 7, 7]])),
    "one pixel": lambda: batch_of(torch.tensor([[0.0, 0, 1, 1]]), size=(1, 1)),
    "one pixel without objects": lambda: batch_of(NONE, size=(1, 1)),
    "a thousand objects": lambda: batch_of(thousand(), NONE),
}


def thousand() -> Tensor:
    corners = torch.rand(1000, 2) * torch.tensor([80.0, 50.0])
    return torch.cat((corners, corners + 1 + torch.rand(1000, 2) * 13), dim=1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("key", CASES)
def test_any_number_of_objects_can_be_learnt_and_detected(name: str, key: str) -> None:
    model, batch = light(name), CASES[key]()
    terms = loss(model.train()(batch.images, **network_inputs(batch, learn=True)), batch)
    torch.stack(list(terms.values())).sum().backward()
    assert all(term.ndim == 0 and bool(term.isfinite()) for term in terms.values())
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert bool(parameter.grad.isfinite().all()), parameter_name
    if not sum(len(target.boxes) for target in batch.targets):
        assert {key for key, term in terms.items() if term.item()} == {"classes"}

    model.eval()
    with torch.no_grad():
        outputs = model(batch.images, sizes=batch.sizes)
    for decoding in (Decoding(score_threshold=0.0), Decoding(score_threshold=0.9999)):
        found = postprocess(outputs, batch, decoding)
        assert len(found) == len(batch.sizes)
        assert all(bool(one.boxes.isfinite().all()) for one in found)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [8, 20, 32, 64])
def test_any_width_learns_from_one_image_of_one_cell(name: str, width: int) -> None:
    batch = batch_of(torch.tensor([[0.0, 0, 30, 30]]), size=(32, 32))
    model = light(name, width).train()
    assert all(bool(term.isfinite()) for term in loss(model(batch.images), batch).values())
