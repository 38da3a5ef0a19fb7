"""Boxes as corrections of others, and anchors in closed form."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyramidvit.ops.anchors import anchor_shapes, grid_anchors, inside_padded
from pyramidvit.ops.boxes import clip_boxes, decode_boxes, encode_boxes

side = st.floats(1, 100)
place = st.floats(-50, 150)
boxes = st.lists(
    st.tuples(place, place, side, side).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])),
    min_size=1,
    max_size=8,
)
stds = st.tuples(*[st.floats(0.05, 1)] * 4)


def tensor(rows: object) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64).reshape(-1, 4)


@settings(deadline=None)
@given(boxes, boxes, stds)
def test_corrections_lead_back_to_the_boxes(
    first: list[tuple[float, ...]], second: list[tuple[float, ...]], divisors: tuple[float, ...]
) -> None:
    n = min(len(first), len(second))
    wanted, anchors = tensor(first[:n]), tensor(second[:n])
    ratio = (wanted[:, 2:] - wanted[:, :2]) / (anchors[:, 2:] - anchors[:, :2])
    found = decode_boxes(encode_boxes(wanted, anchors, divisors), anchors, divisors)
    within = (ratio.log().abs() < math.log(1000 / 16)).all(dim=1)
    torch.testing.assert_close(found[within], wanted[within], rtol=1e-9, atol=1e-9)


def test_corrections_are_shifts_in_sizes_and_logarithms_of_ratios() -> None:
    anchors, wanted = tensor((0, 0, 10, 20)), tensor((10, 5, 30, 15))
    found = encode_boxes(wanted, anchors, (0.1, 0.1, 0.2, 0.2))
    expected = [15 / 10 / 0.1, 0, math.log(2) / 0.2, math.log(0.5) / 0.2]
    assert found[0].tolist() == pytest.approx(expected)


def test_no_side_changes_more_than_62_times() -> None:
    found = decode_boxes(tensor((0, 0, 100, -100)), tensor((0, 0, 16, 16)))
    width, height = (found[0, 2:] - found[0, :2]).tolist()
    assert (width, height) == (pytest.approx(1000), pytest.approx(16 * 16 / 1000))


def test_each_class_has_corrections_of_its_own() -> None:
    anchors = tensor(((0, 0, 10, 10), (5, 5, 25, 25)))
    deltas = torch.randn(2, 3, 4, dtype=torch.float64)
    found = decode_boxes(deltas, anchors[:, None])
    for k in range(3):
        torch.testing.assert_close(found[:, k], decode_boxes(deltas[:, k], anchors))


@settings(deadline=None)
@given(boxes, st.integers(1, 100), st.integers(1, 100))
def test_clipped_boxes_lie_in_the_image(
    rows: list[tuple[float, ...]], height: int, width: int
) -> None:
    found = clip_boxes(tensor(rows), (height, width))
    for before, after in zip(tensor(rows).tolist(), found.tolist(), strict=True):
        limits = (width, height, width, height)
        assert after == [min(max(a, 0), limit) for a, limit in zip(before, limits, strict=True)]


def test_anchors_are_the_published_ones() -> None:
    shapes = anchor_shapes(8, [4 * 2 ** (i / 3) for i in range(3)], [0.5, 1, 2])
    size = shapes[:, 2:] - shapes[:, :2]
    wanted = []
    for ratio in (0.5, 1, 2):
        for octave in range(3):
            length = 32 * 2 ** (octave / 3)
            wanted.append([length / math.sqrt(ratio), length * math.sqrt(ratio)])
    torch.testing.assert_close(size, torch.tensor(wanted))
    assert torch.equal(shapes[:, :2], -shapes[:, 2:])


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.sampled_from([4, 8, 128]))
def test_anchors_lie_around_the_corners_of_cells(height: int, width: int, stride: int) -> None:
    shapes = torch.tensor([[-2.0, -1, 2, 1], [-3, -3, 3, 3]])
    found = grid_anchors(shapes, (height, width), stride)
    wanted = [
        [x * stride + a, y * stride + b, x * stride + c, y * stride + d]
        for y in range(height)
        for x in range(width)
        for a, b, c, d in shapes.tolist()
    ]
    assert found.tolist() == wanted


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(1, 200), st.sampled_from([4, 8, 16, 32, 64, 128]))
def test_anchors_count_where_their_cell_sees_the_padded_image(
    height: int, width: int, stride: int
) -> None:
    grid = (256 // stride, 256 // stride)
    shapes = anchor_shapes(stride, [8], [0.5, 1, 2])
    found = inside_padded(grid_anchors(shapes, grid, stride), (height, width))
    rows = math.ceil(math.ceil(height / 32) * 32 / stride)
    columns = math.ceil(math.ceil(width / 32) * 32 / stride)
    wanted = torch.zeros(*grid, 3, dtype=torch.bool)
    wanted[:rows, :columns] = True
    assert torch.equal(found, wanted.flatten())
