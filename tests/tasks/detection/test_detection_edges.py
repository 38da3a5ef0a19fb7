"""Nothing to find, too much to find, nowhere to find it: training and scores stay numbers."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pyramidvit import create_model
from pyramidvit.ops.masks import encode_masks
from pyramidvit.structures import (
    Batch,
    DetectionPrediction,
    DetectionTarget,
    Origin,
    Sample,
    collate,
)
from pyramidvit.tasks.detection.loss import loss
from pyramidvit.tasks.detection.metrics import DetectionMetrics
from pyramidvit.tasks.detection.outputs import Decoding, network_inputs
from pyramidvit.tasks.detection.postprocess import postprocess
from pyramidvit.tasks.detection.table import DETECTORS
from pyramidvit.tasks.detection.truth import AnnotatedOrigin

SIDE = 32


def truth(boxes: Tensor, *, crowd: bool = False, size: tuple[int, int]) -> DetectionTarget:
    masks = torch.zeros(len(boxes), *size, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.round().int().tolist(), strict=True):
        mask[y0 : y1 + 1, x0 : x1 + 1] = True
    return DetectionTarget(
        boxes=boxes,
        labels=torch.arange(len(boxes)) % 3,
        crowd=torch.full((len(boxes),), crowd),
        masks=encode_masks(masks),
    )


def batch_of(*targets: tuple[DetectionTarget, tuple[int, int]]) -> Batch[DetectionTarget]:
    torch.manual_seed(1)
    samples = [
        Sample(image=torch.randn(3, *size), target=target, origin=Origin(name="", size=size))
        for target, size in targets
    ]
    return collate(samples, divisor=32)


def light(head: str, **numbers: Any) -> torch.nn.Module:
    """A narrow detector of three classes, at its first weights."""
    torch.manual_seed(0)
    narrow = {"width": 16} | ({"hidden": 16} if "rcnn" in head or head == "detr" else {})
    model: torch.nn.Module = create_model(
        head, backbone="pvt_v2_b0", num_classes=3, **narrow, **numbers
    )
    return model


def terms_of(
    head: str, batch: Batch[DetectionTarget], **numbers: Any
) -> tuple[dict[str, Tensor], torch.nn.Module]:
    model = light(head, **numbers).train()
    return loss(model(batch.images, **network_inputs(batch, learn=True)), batch), model


def empty(size: tuple[int, int]) -> DetectionTarget:
    return truth(torch.zeros(0, 4), size=size)


def thousand() -> Tensor:
    corners = torch.rand(1000, 2) * (SIDE - 4)
    return torch.cat((corners, corners + 1 + torch.rand(1000, 2) * 2), dim=1)


PLAIN, PIXEL = (SIDE, SIDE), (1, 1)
BOX = torch.tensor([[4.0, 4, 20, 20]])
CASES = {
    "no image has an object": lambda: batch_of((empty(PLAIN), PLAIN), (empty(PLAIN), PLAIN)),
    "all objects are crowds": lambda: batch_of((truth(BOX, crowd=True, size=PLAIN), PLAIN)),
    "one pixel without objects": lambda: batch_of((empty(PIXEL), PIXEL)),
    "one pixel beside a picture": lambda: batch_of(
        (truth(torch.tensor([[0.0, 0, 1, 1]]), size=PIXEL), PIXEL), (truth(BOX, size=PLAIN), PLAIN)
    ),
    "a thousand objects beside none": lambda: batch_of(
        (truth(thousand(), size=PLAIN), PLAIN), (empty(PLAIN), PLAIN)
    ),
}


@pytest.mark.parametrize("head", DETECTORS)
@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients_are_finite(head: str, case: str) -> None:
    terms, model = terms_of(head, CASES[case]())
    torch.stack(list(terms.values())).sum().backward()
    assert all(bool(term.isfinite()) for term in terms.values())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name


@pytest.mark.parametrize("case", ["no image has an object", "all objects are crowds"])
def test_nothing_to_find_costs_no_boxes_and_no_masks(case: str) -> None:
    for head, names in (
        ("retinanet", {"boxes"}),
        ("mask_rcnn", {"boxes", "proposal_boxes", "masks"}),
    ):
        terms, _ = terms_of(head, CASES[case]())
        assert {name for name, term in terms.items() if not term.item()} == names


@pytest.mark.parametrize("head", DETECTORS)
@pytest.mark.parametrize("case", CASES)
def test_answers_lie_in_their_image_whatever_is_in_it(head: str, case: str) -> None:
    """As in the reference, boxes of Sparse R-CNN may reach beyond."""
    batch = CASES[case]()
    decoding = Decoding(score_threshold=0.0, nms_threshold=0.9, max_detections=5)
    model = light(head, decoding=decoding).eval()
    with torch.no_grad():
        outputs = model(batch.images, **network_inputs(batch, learn=False))
    found = postprocess(outputs, batch, decoding)
    assert len(found) == len(batch.sizes)
    for prediction, (height, width) in zip(found, batch.sizes, strict=True):
        assert len(prediction.boxes) <= 5
        assert bool(prediction.scores.isfinite().all())
        limits = torch.tensor([width, height, width, height]) + 1e-3
        inside = (prediction.boxes >= 0) & (prediction.boxes <= limits)
        assert bool(inside.all() if head != "sparse_rcnn" else prediction.boxes.isfinite().all())
        assert prediction.masks is None or prediction.masks.size == (height, width)


QUERIES = {"detr": {"queries": 3}, "sparse_rcnn": {"proposals": 3}}


@pytest.mark.parametrize("head", QUERIES)
def test_of_ten_objects_three_queries_learn_and_find_three(head: str) -> None:
    size = (64, 96)  # of a single token all of DETR's queries would read the same
    batch = batch_of((truth(thousand()[:10], size=size), size), (empty(size), size))
    terms, model = terms_of(head, batch, **QUERIES[head])
    torch.stack(list(terms.values())).sum().backward()
    assert all(bool(term.isfinite()) for term in terms.values())
    for name, parameter in model.named_parameters():
        assert bool(parameter.grad.isfinite().all()), name
    assert terms["boxes"] > 0

    model.eval()
    with torch.no_grad():
        outputs = model(batch.images, **network_inputs(batch, learn=False))
    decoding = Decoding(score_threshold=0.0, nms_threshold=1.0, max_detections=100)
    for prediction in postprocess(outputs, batch, decoding):
        # A query of DETR has one answer, a box of Sparse R-CNN one for each class.
        assert len(prediction.boxes) == (3 if head == "detr" else 9)
        assert len(prediction.boxes.unique(dim=0)) == 3


def scores_of(answers: list[tuple[int, float]]) -> DetectionMetrics:
    """Of one image with an object of class 0 and one of class 1, and of three classes.

    Args:
        answers: (label, score), each at the box of the first object but for class 1.
    """
    places = torch.tensor([[0.0, 0, 40, 40], [50, 50, 90, 90]])
    target = DetectionTarget(
        boxes=places, labels=torch.tensor([0, 1]), crowd=torch.zeros(2, dtype=torch.bool)
    )
    labels = torch.tensor([label for label, _ in answers])
    found = DetectionPrediction(
        boxes=places[(labels == 1).long()],
        labels=labels,
        scores=torch.tensor([score for _, score in answers]),
    )
    metrics = DetectionMetrics(3)
    metrics.add(found, AnnotatedOrigin(name="a", size=(100, 100), id=1, truth=target))
    return metrics


def test_a_category_without_instances_is_left_out_of_every_mean() -> None:
    for answers in ([(0, 0.9), (1, 0.8)], [(2, 0.95), (0, 0.9), (1, 0.8)]):
        metrics = scores_of(answers)
        figures = metrics.compute()
        for name in ("box_ap", "box_ap50", "box_ar100", "pascal_ap50"):
            assert figures[name] == pytest.approx(100), name
        np.testing.assert_allclose(metrics.coco("bbox").per_class()["ap"], [100, 100, math.nan])
        np.testing.assert_allclose(metrics.pascal(), [100, 100, math.nan])
    half = scores_of([(0, 0.9)])  # one category found, one missed: 50, not 33
    assert half.compute()["box_ap"] == pytest.approx(50)
    assert math.isnan(half.compute()["box_ap_small"])


def test_of_a_thousand_objects_the_hundred_best_answers_count() -> None:
    rows = torch.arange(1000)
    corners = torch.stack((rows % 40 * 12, rows // 40 * 12), dim=1).float()
    boxes = torch.cat((corners, corners + 10), dim=1)
    target = DetectionTarget(
        boxes=boxes, labels=torch.zeros(1000, dtype=torch.int64), crowd=torch.zeros(1000).bool()
    )
    found = DetectionPrediction(
        boxes=boxes, labels=target.labels, scores=torch.linspace(1, 0.1, 1000)
    )
    for most, recall in ((100, 10.0), (1000, 100.0)):
        metrics = DetectionMetrics(1, max_detections=most)
        metrics.add(found, AnnotatedOrigin(name="a", size=(480, 480), id=1, truth=target))
        assert metrics.compute()[f"box_ar{most}"] == pytest.approx(recall)
