"""What DETR and Sparse R-CNN learn and find, on outputs that are easy to judge."""

import json
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyramidvit.structures import Batch, Classes, DetectionTarget, Origin
from pyramidvit.tasks.detection.config import DetectionOptions
from pyramidvit.tasks.detection.heads.detr import (
    DETR,
    DETROutputs,
    build_detr,
    detect_detr,
    detr_terms,
    match_layer,
    sine_positions,
    valid_cells,
)
from pyramidvit.tasks.detection.heads.sparse_rcnn import (
    SparseRCNNOutputs,
    detect_sparse_rcnn,
    match_stage,
    sparse_rcnn_terms,
)
from pyramidvit.tasks.detection.loss import loss
from pyramidvit.tasks.detection.model import build_detector
from pyramidvit.tasks.detection.network import describe_model, rebuild
from pyramidvit.tasks.detection.outputs import Decoding, network_inputs, truths_of

SIZE = (40, 80)
BOXES = torch.tensor([[0.0, 0, 40, 20], [20, 10, 60, 30]])
SHARES = torch.tensor([[0.25, 0.25, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5]])  # the same, as DETR has them
FAR = torch.tensor([[70.0, 35, 75, 39]])
FAR_SHARE = torch.tensor([[0.90625, 0.925, 0.0625, 0.1]])


def batch_of(boxes: Tensor, labels: list[int]) -> Batch[DetectionTarget]:
    target = DetectionTarget(
        boxes=boxes,
        labels=torch.tensor(labels, dtype=torch.int64),
        crowd=torch.zeros(len(boxes), dtype=torch.bool),
    )
    return Batch(
        images=torch.zeros(1, 3, 64, 96),
        sizes=(SIZE,),
        targets=(target,),
        origins=(Origin(name="", size=SIZE),),
    )


def sure(labels: list[int], num_logits: int, height: float = 30.0) -> Tensor:
    """Logits [1, 1, Q, num_logits] that name a label each; none of them for -1."""
    rows = [[height if k == label else -height for k in range(num_logits)] for label in labels]
    return torch.tensor([[rows]])


def test_boxes_that_are_right_cost_nothing() -> None:
    batch = batch_of(BOXES, [1, 0])
    boxes = torch.cat((FAR, BOXES.flip(0)))[None, None]
    sparse = SparseRCNNOutputs(sure([-1, 0, 1], 2), boxes)
    shares = torch.cat((FAR_SHARE, SHARES.flip(0)))[None, None]
    detr = DETROutputs(sure([2, 0, 1], 3), shares)
    matched = match_stage(sparse.logits[0], boxes[0], truths_of(batch.targets), (SIZE,))
    assert matched.labels.tolist() == [[-1, 0, 1]]
    for terms in (sparse_rcnn_terms(sparse, batch), detr_terms(detr, batch)):
        assert {name: term.item() for name, term in terms.items()} == pytest.approx(
            {"classes": 0, "boxes": 0, "overlaps": 0}, abs=1e-5
        )


def test_a_shifted_box_costs_what_the_papers_say() -> None:
    batch = batch_of(BOXES[:1], [0])
    moved = BOXES[:1] + torch.tensor([8.0, 0, 8, 0])  # a tenth of the width
    sparse = sparse_rcnn_terms(SparseRCNNOutputs(sure([0], 1), moved[None, None]), batch)
    share = SHARES[:1] + torch.tensor([0.1, 0, 0, 0])
    detr = detr_terms(DETROutputs(sure([0], 2), share[None, None]), batch)
    overlap = 32 / 48  # of the hull, too, which has no gaps
    assert sparse["boxes"].item() == pytest.approx(5 * 0.2)  # both corners
    assert detr["boxes"].item() == pytest.approx(5 * 0.1)  # the centre
    for terms in (sparse, detr):
        assert terms["overlaps"].item() == pytest.approx(2 * (1 - overlap))


def test_classes_without_objects_cost_what_the_papers_say() -> None:
    batch = batch_of(torch.zeros(0, 4), [])
    boxes = torch.rand(2, 1, 3, 4)
    sparse = sparse_rcnn_terms(SparseRCNNOutputs(torch.zeros(2, 1, 3, 5), boxes), batch)
    focal = 0.75 * 0.5**2 * math.log(2)
    assert sparse["classes"].item() == pytest.approx(2 * 2 * 3 * 5 * focal, rel=1e-6)
    detr = detr_terms(DETROutputs(torch.zeros(2, 1, 30, 6), boxes.repeat(1, 1, 10, 1)), batch)
    assert detr["classes"].item() == pytest.approx(2 * math.log(6), rel=1e-6)
    assert sparse["boxes"] == sparse["overlaps"] == detr["boxes"] == detr["overlaps"] == 0


def test_of_more_objects_than_queries_the_nearest_are_learnt() -> None:
    truths = truths_of(batch_of(torch.cat((FAR, BOXES)), [1, 1, 0]).targets)
    found = match_stage(torch.zeros(1, 2, 2), BOXES.flip(0)[None] + 1, truths, (SIZE,))
    assert found.labels.tolist() == [[0, 1]]
    assert torch.equal(found.boxes[0], BOXES.flip(0))
    found = match_layer(torch.zeros(1, 2, 3), SHARES.flip(0)[None] + 0.01, truths, (SIZE,))
    assert found.labels.tolist() == [[0, 1]]
    torch.testing.assert_close(found.boxes[0], SHARES.flip(0))


def test_a_query_of_detr_names_one_class_a_box_of_sparse_rcnn_several() -> None:
    decoding = Decoding(score_threshold=0.0, nms_threshold=1.0, max_detections=3)
    logits = torch.tensor([[[[2.0, 1.0], [0.0, 3.0]]]])
    sparse = detect_sparse_rcnn(
        SparseRCNNOutputs(logits, BOXES[None, None]), (SIZE,), decoding
    ).detections
    assert sparse.labels.tolist() == [1, 0, 1]  # the best three of four
    assert sparse.scores.tolist() == pytest.approx(torch.tensor([3.0, 2, 1]).sigmoid().tolist())
    assert torch.equal(sparse.boxes, BOXES[[1, 0, 0]])

    with_none = torch.cat((logits, torch.full((1, 1, 2, 1), -5.0)), dim=-1)
    detr = detect_detr(DETROutputs(with_none, SHARES[None, None]), (SIZE,), decoding).detections
    assert detr.labels.tolist() == [1, 0]
    assert detr.scores.tolist() == pytest.approx(
        [with_none[0, 0, q].softmax(0)[k].item() for q, k in ((1, 1), (0, 0))]
    )
    assert torch.equal(detr.boxes, BOXES[[1, 0]])


def test_detections_obey_a_decoding_of_ones_own() -> None:
    same = SHARES[[0, 0, 1]][None, None]
    outputs = DETROutputs(sure([0, 0, 1], 3, height=3.0), same)
    strict = Decoding(score_threshold=0.9, nms_threshold=0.5, max_detections=100)
    assert detect_detr(outputs, (SIZE,), strict).detections.labels.tolist() == [0, 1]
    none = Decoding(score_threshold=0.999, nms_threshold=1.0, max_detections=100)
    assert len(detect_detr(outputs, (SIZE,), none).detections.boxes) == 0


def test_boxes_of_detr_end_at_the_border_of_the_image() -> None:
    outputs = DETROutputs(sure([0], 2), torch.tensor([[[[0.9, 0.9, 0.6, 0.6]]]]))
    decoding = Decoding(score_threshold=0.0, nms_threshold=1.0, max_detections=100)
    found = detect_detr(outputs, (SIZE,), decoding).detections.boxes
    torch.testing.assert_close(found, torch.tensor([[48.0, 24, 80, 40]]))


def test_positions_are_waves_over_the_image_alone() -> None:
    valid = valid_cells([(64, 70), (96, 128)], (96, 128), (3, 4))
    assert valid[0].tolist() == [[True] * 3 + [False]] * 2 + [[False] * 4]
    assert bool(valid[1].all())
    found = sine_positions(valid, 8).reshape(2, 3, 4, 8)
    for image, (rows, columns) in enumerate(((2, 3), (3, 4))):
        for y in range(rows):
            for x in range(columns):
                wanted = []
                for step, steps in ((y + 1, rows), (x + 1, columns)):
                    for period in (1, 100):
                        angle = 2 * math.pi * step / steps / period
                        wanted += [math.sin(angle), math.cos(angle)]
                assert found[image, y, x].tolist() == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize(("side", "cells"), [(96, 3), (50, 1), (50, 2), (224, 7)])
def test_cells_are_those_of_a_mask_that_is_made_smaller(side: int, cells: int) -> None:
    for length in range(1, side + 1):
        mask = torch.zeros(1, 1, side, side)
        mask[..., :length, :length] = 1
        wanted = F.interpolate(mask, (cells, cells))[0].bool()
        assert torch.equal(valid_cells([(length, length)], (side, side), (cells, cells)), wanted)


def light_detr() -> DETR:
    torch.manual_seed(0)
    return build_detr("pvt_v2_b0", 3, width=16, hidden=16, queries=5, depth=2).eval()


def test_what_lies_beyond_an_image_is_not_read() -> None:
    head = light_detr().bbox_head
    x, valid = torch.randn(1, 256, 3, 4), valid_cells([(64, 70)], (96, 128), (3, 4))
    with torch.no_grad():
        first = head(x, valid)
        second = head(torch.where(valid[:, None], x, 100.0), valid)
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize(
    ("head", "numbers"),
    [("detr", {"queries": 5, "drop_rate": 0.0}), ("sparse_rcnn", {"proposals": 5})],
)
def test_a_few_steps_teach_something(head: str, numbers: dict[str, Any]) -> None:
    torch.manual_seed(0)
    small = {"width": 16, "hidden": 16, "depth": 2, "drop_path_rate": 0.0}
    model = build_detector(head, "pvt_v2_b0", 3, **small, **numbers)
    batch = batch_of(BOXES, [1, 0])
    batch.images.normal_()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(40):
        outputs = model.train()(batch.images, **network_inputs(batch, learn=True))
        total = torch.stack(list(loss(outputs, batch).values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append(total.item())
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_the_dropout_of_a_run_reaches_the_transformer_and_its_record(rate: float) -> None:
    options = DetectionOptions(model="detr", width=16, hidden=32, drop_rate=rate)
    record = json.loads(json.dumps(describe_model(options, Classes(names=("a",), ids=(1,)))))
    with torch.device("meta"):
        model = rebuild(record)
    rates = {
        part.p for part in model.bbox_head.transformer.modules() if isinstance(part, nn.Dropout)
    }
    assert rates == {rate}
