"""ATSS's matching, overlaps in pairs and GFL's losses, against slow plain Python."""

import math
import statistics

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

from pyramidvit.ops import matching
from pyramidvit.ops.anchors import anchor_shapes, grid_anchors
from pyramidvit.ops.boxes import centres_of, paired_iou, place_boxes, side_distances
from pyramidvit.ops.losses import distribution_loss, quality_focal_loss
from pyramidvit.ops.matching import BACKGROUND, match_nearest

Box = tuple[float, float, float, float]

# Corners off the grid of anchors, so that distances to an object hardly ever tie.
corner, side = st.floats(0.3, 50).map(lambda x: x + math.pi / 100), st.floats(2, 40)
box = st.tuples(corner, corner, side, side).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))

LEVELS = [
    grid_anchors(anchor_shapes(stride, [scale], [1.0]), (64 // stride, 64 // stride), stride)
    for stride, scale in ((8, 2.0), (16, 2.0), (32, 1.5), (64, 1.0))
]


def overlap_of(a: Box, b: Box) -> float:
    return float(box_iou(torch.tensor([a]).double(), torch.tensor([b]).double()))


def sure(distance: float) -> None:
    """Passes over cases that rounding decides."""
    assume(abs(distance) > 1e-4)


def match_slowly(levels: list[list[Box]], objects: list[Box], nearest: int) -> list[int]:
    """Object after object, as the paper has it."""
    anchors = [anchor for level in levels for anchor in level]
    owners, best = [BACKGROUND] * len(anchors), [0.0] * len(anchors)
    for number, (x0, y0, x1, y1) in enumerate(objects):
        middle, candidates, first = ((x0 + x1) / 2, (y0 + y1) / 2), [], 0
        for level in levels:
            centres = [((a + c) / 2, (b + d) / 2) for a, b, c, d in level]
            order = sorted(range(len(level)), key=lambda i: math.dist(centres[i], middle))
            if len(order) > nearest:
                last, beyond = (math.dist(centres[i], middle) for i in order[nearest - 1 :][:2])
                sure(beyond - last)
            candidates += [first + i for i in order[:nearest]]
            first += len(level)
        overlaps = [overlap_of(anchors[i], objects[number]) for i in candidates]
        limit = statistics.mean(overlaps)
        limit += statistics.stdev(overlaps) if len(overlaps) > 1 else 0
        for i, overlap in zip(candidates, overlaps, strict=True):
            a, b, c, d = anchors[i]
            x, y = (a + c) / 2, (b + d) / 2
            margin = min(x - x0, y - y0, x1 - x, y1 - y) - 0.01
            sure(margin)
            sure(overlap - limit)
            if overlap >= limit and margin > 0:
                if owners[i] != BACKGROUND:
                    sure(overlap - best[i])
                if overlap > best[i]:
                    owners[i], best[i] = number, overlap
    return owners


@settings(max_examples=60, deadline=None)
@given(
    st.lists(box, max_size=5),
    st.integers(1, len(LEVELS)),
    st.sampled_from([2, 9]),
    st.sampled_from([1, 200, 1 << 21]),
)
def test_objects_choose_anchors_as_in_plain_python(
    objects: list[Box], num_levels: int, nearest: int, pairs_at_once: int
) -> None:
    levels = LEVELS[:num_levels]
    expected = match_slowly([level.tolist() for level in levels], objects, nearest)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matching, "PAIRS_AT_ONCE", pairs_at_once)
        found = match_nearest(levels, torch.tensor(objects).reshape(-1, 4), nearest=nearest)
    assert found.tolist() == expected


def test_an_anchor_that_several_objects_want_goes_to_the_one_it_overlaps_most() -> None:
    anchor = torch.tensor([[0.0, 0, 10, 10]])
    wide, close = [-6.0, -6, 16, 16], [0.0, 0, 11, 11]
    for objects, owner in (([wide], 0), ([wide, close], 1), ([close, wide], 0), ([close] * 2, 0)):
        assert match_nearest([anchor], torch.tensor(objects)).tolist() == [owner]


@pytest.mark.parametrize("count", [0, 3])
def test_without_anchors_or_objects_nothing_is_matched(count: int) -> None:
    objects = torch.tensor([[1.0, 1, 9, 9]]).expand(count, -1)
    empty = torch.zeros(0, 4)
    assert match_nearest([empty, empty], objects).tolist() == []
    found = match_nearest([LEVELS[0], empty], objects[:0])
    assert found.tolist() == [BACKGROUND] * len(LEVELS[0])
    assert match_nearest([LEVELS[0], empty], objects).shape == found.shape


def test_an_object_without_an_area_takes_no_anchor() -> None:
    point = torch.tensor([[8.0, 8, 8, 8]])
    assert set(match_nearest(LEVELS, point).tolist()) == {BACKGROUND}


def test_a_thousand_objects_choose_among_many_anchors() -> None:
    torch.manual_seed(0)
    levels = [
        grid_anchors(anchor_shapes(s, [8.0], [1.0]), (512 // s, 512 // s), s)
        for s in (8, 16, 32, 64, 128)
    ]
    corners = torch.rand(1000, 2) * 400
    objects = torch.cat((corners, corners + 20 + torch.rand(1000, 2) * 90), dim=1)
    found = match_nearest(levels, objects)
    taken = found >= 0
    anchors = torch.cat(levels)[taken]
    assert int(taken.sum()) > 500
    margins = side_distances(centres_of(anchors), objects[found[taken]])
    assert float(margins.min()) > 0.01


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(box, box), min_size=1, max_size=9))
def test_overlaps_in_pairs_are_the_diagonal_of_all(pairs: list[tuple[Box, Box]]) -> None:
    first, second = torch.tensor(pairs).double().unbind(dim=1)
    every = box_iou(first, second)
    torch.testing.assert_close(paired_iou(first, second), every.diagonal())
    torch.testing.assert_close(paired_iou(first[:, None], second), every)


def test_overlaps_of_boxes_without_an_area_are_zero() -> None:
    assert paired_iou(torch.zeros(2, 4), torch.zeros(2, 4)).tolist() == [0, 0]


@settings(max_examples=40, deadline=None)
@given(box, st.tuples(corner, corner))
def test_distances_lead_back_to_the_box(one: Box, point: tuple[float, float]) -> None:
    box, place = torch.tensor(one).double(), torch.tensor(point).double()
    distances = side_distances(place, box)
    x, y = point
    expected = [x - one[0], y - one[1], one[2] - x, one[3] - y]
    torch.testing.assert_close(distances, torch.tensor(expected).double(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(place_boxes(place, distances), box)


logit = st.floats(-8, 8)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(logit, logit, logit, st.integers(-1, 2), st.floats(0, 1)), min_size=1))
def test_the_quality_focal_loss_is_its_formula(
    rows: list[tuple[float, float, float, int, float]],
) -> None:
    expected = 0.0
    for *logits, label, quality in rows:
        for k, value in enumerate(logits):
            said, truth = 1 / (1 + math.exp(-value)), quality if k == label else 0.0
            entropy = -truth * math.log(said) - (1 - truth) * math.log(1 - said)
            expected += entropy * (truth - said) ** 2
    table = torch.tensor(rows, dtype=torch.float64)
    found = quality_focal_loss(table[:, :3], table[:, 3].long(), table[:, 4])
    assert found.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.lists(logit, min_size=4, max_size=4), st.floats(0, 2.99))
def test_the_distribution_loss_is_its_formula(logits: list[float], target: float) -> None:
    total = sum(math.exp(value) for value in logits)
    below = int(target)
    said = [math.log(math.exp(value) / total) for value in logits]
    expected = -(below + 1 - target) * said[below] - (target - below) * said[below + 1]
    double = {"dtype": torch.float64}
    found = distribution_loss(torch.tensor([logits], **double), torch.tensor([target], **double))
    assert found.shape == (1,)
    assert found.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_losses_of_nothing_are_zero() -> None:
    labels = torch.zeros(0, dtype=torch.int64)
    assert float(quality_focal_loss(torch.zeros(0, 3), labels, torch.zeros(0))) == 0
    assert distribution_loss(torch.zeros(0, 17), torch.zeros(0)).shape == (0,)
