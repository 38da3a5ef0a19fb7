"""Polygons of a map of labels cover the pixels of its regions, exactly."""

import time
from collections.abc import Iterable, Iterator
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as reference

from pyramidvit.ops import polygons, rings, runs
from pyramidvit.ops.polygons import (
    Polygon,
    signed_area,
    trace_polygons,
    without_holes,
)
from pyramidvit.ops.rings import TooManySides

MAPS = arrays.arrays(
    np.int16, arrays.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(-1, 2)
)


def pixels_of(polygon: Polygon, shape: tuple[int, int]) -> np.ndarray:
    """Bool [H, W]: pixels from which an odd number of a polygon's sides lie to the left."""
    inside = np.zeros(shape, bool)
    for ring in polygon.rings:
        for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            assert (x0 == x1) != (y0 == y1)
            if x0 == x1:
                inside[min(y0, y1) : max(y0, y1), x0:] ^= True
    return inside


def regions_of(labels: np.ndarray) -> Iterator[tuple[int, frozenset[tuple[int, int]]]]:
    """The label and the pixels of each region, found pixel by pixel, in the order of the first."""
    seen = set()
    for start in np.ndindex(labels.shape):
        if start in seen or labels[start] < 0:
            continue
        region, waiting = set(), [start]
        while waiting:
            y, x = place = waiting.pop()
            inside = 0 <= y < labels.shape[0] and 0 <= x < labels.shape[1]
            if not inside or place in region or labels[place] != labels[start]:
                continue
            region.add(place)
            waiting += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
        seen |= region
        yield int(labels[start]), frozenset(region)


def plain_map(side: int, points: int, labels: int) -> np.ndarray:
    """uint8 [side, side]: the label of the nearest of some random points."""
    rng = np.random.default_rng(0)
    columns, rows = np.meshgrid(np.arange(side), np.arange(side))
    nearest = np.full((side, side), np.inf)
    found = np.zeros((side, side), np.uint8)
    for number, (x, y) in enumerate(rng.random((points, 2)) * side):
        distance = (columns - x) ** 2 + (rows - y) ** 2
        found[distance < nearest] = number % labels
        nearest = np.minimum(nearest, distance)
    return found


@given(MAPS)
def test_drawn_polygons_are_the_regions_to_the_last_pixel(labels: np.ndarray) -> None:
    found = list(trace_polygons(labels))
    drawn = [(p.label, pixels_of(p, labels.shape)) for p in found]
    expected = list(regions_of(labels))
    assert [(k, frozenset(zip(*np.nonzero(bits), strict=True))) for k, bits in drawn] == expected
    assert [p.area for p in found] == [len(pixels) for _, pixels in expected]


@given(MAPS)
def test_rings_turn_the_right_way_and_never_touch_themselves(labels: np.ndarray) -> None:
    for polygon in trace_polygons(labels):
        assert signed_area(polygon.rings[0]) > 0
        assert all(signed_area(hole) < 0 for hole in polygon.rings[1:])
        assert sum(signed_area(ring) for ring in polygon.rings) == polygon.area
        for ring in polygon.rings:
            assert len({tuple(point) for point in ring.tolist()}) == len(ring)
            bends = np.cross(np.diff(ring, axis=0, append=ring[:1]), ring - np.roll(ring, 1, 0))
            assert (bends != 0).all()  # no point stands in the middle of a straight line


@given(MAPS)
def test_coco_draws_a_ring_with_cuts_as_the_region_with_its_holes(labels: np.ndarray) -> None:
    for polygon in trace_polygons(labels):
        ring = without_holes(polygon.rings).ravel().tolist()
        packed = reference.merge(reference.frPyObjects([ring], *labels.shape))
        assert (reference.decode(packed) == pixels_of(polygon, labels.shape)).all()


def test_the_polygons_of_small_maps_are_known() -> None:
    assert list(trace_polygons(np.zeros((0, 0), np.uint8))) == []
    assert list(trace_polygons(np.full((3, 4), -1, np.int16))) == []
    (one,) = trace_polygons(np.asarray([[7]], np.uint8))
    assert (one.label, one.area) == (7, 1)
    assert one.rings[0].tolist() == [[1, 0], [1, 1], [0, 1], [0, 0]]
    frame = np.ones((3, 3), np.uint8)
    frame[1, 1] = 0
    around, inner = trace_polygons(frame)
    assert (around.area, len(around.rings), inner.area) == (8, 2, 1)
    assert sorted(around.rings[1].tolist()) == sorted(inner.rings[0].tolist())


def test_pixels_that_touch_at_a_corner_are_two_regions() -> None:
    assert len(list(trace_polygons(np.eye(2, dtype=np.uint8)))) == 4


def test_small_regions_go_to_those_beside_them_in_their_rows() -> None:
    labels = np.zeros((5, 5), np.uint8)
    labels[2, 2] = 1
    (left,) = trace_polygons(labels, min_area=2)
    assert (left.area, len(left.rings)) == (25, 1)
    labels = np.asarray([[3, 0, 0], [0, 4, 1], [2, 2, 2]], np.uint8)
    assert drawn(trace_polygons(labels, min_area=2), (3, 3)) == [[0, 0, 0], [-1, -1, -1], [2, 2, 2]]


def drawn(polygons: Iterable[Polygon], shape: tuple[int, int]) -> list[list[int]]:
    found = np.full(shape, -1)
    for polygon in polygons:
        found[pixels_of(polygon, shape)] = polygon.label
    return found.tolist()


@given(MAPS, st.integers(1, 9))
def test_no_region_is_smaller_than_asked_for_and_the_large_ones_stay(
    labels: np.ndarray, min_area: int
) -> None:
    found = list(trace_polygons(labels, min_area=min_area))
    new = np.asarray(drawn(found, labels.shape)).reshape(labels.shape)
    assert all(p.area >= min_area for p in found)
    assert [p.area for p in found] == [len(pixels) for _, pixels in regions_of(new)]
    for label, pixels in regions_of(labels):
        if len(pixels) >= min_area:
            assert {new[place] for place in pixels} == {label}


@given(MAPS, st.integers(0, 2))
def test_unwanted_labels_have_no_polygons_and_change_no_other(
    labels: np.ndarray, label: int
) -> None:
    found = list(trace_polygons(labels, left_out=(label,), min_area=2))
    all_of_them = [p for p in trace_polygons(labels, min_area=2) if p.label != label]
    assert [as_lists(p) for p in found] == [as_lists(p) for p in all_of_them]


def as_lists(polygon: Polygon) -> tuple[int, int, list[list[list[int]]]]:
    return polygon.label, polygon.area, [ring.tolist() for ring in polygon.rings]


@given(MAPS)
def test_little_memory_at_once_changes_no_polygon(labels: np.ndarray) -> None:
    ample = [as_lists(p) for p in trace_polygons(labels)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "AT_ONCE", 5)
        patch.setattr(rings, "AT_ONCE", 7)
        assert [as_lists(p) for p in trace_polygons(labels)] == ample


@pytest.mark.parametrize("where", [(polygons, "MOST_RUNS"), (rings, "MOST_SIDES")])
def test_a_map_with_too_many_borders_is_refused(
    monkeypatch: pytest.MonkeyPatch, where: tuple[ModuleType, str]
) -> None:
    monkeypatch.setattr(*where, 20)
    assert len(list(trace_polygons(np.zeros((4, 4), np.uint8)))) == 1
    with pytest.raises(TooManySides):
        trace_polygons(np.eye(7, dtype=np.uint8))


@pytest.mark.parametrize("tolerance", [0.8, 2.0])
def test_simplified_neighbours_still_fit_together(tolerance: float) -> None:
    labels = plain_map(120, 25, 25)
    labels[40:50, 40:50] = 25  # an island has no fork
    exact = list(trace_polygons(labels))
    found = list(trace_polygons(labels, tolerance=tolerance))
    assert {p.area for p in found} <= {p.area for p in exact}
    assert total_points(found) < total_points(exact) / 3
    lines = [
        (tuple(a), tuple(b))
        for polygon in found
        for ring in polygon.rings
        for a, b in zip(ring.tolist(), np.roll(ring, -1, axis=0).tolist(), strict=True)
    ]
    outside = {
        line
        for line in lines
        if any(line[0][i] == line[1][i] and line[0][i] in (0, 120) for i in (0, 1))
    }
    assert {(b, a) for a, b in set(lines) - outside} == set(lines) - outside
    assert sum(signed_area(ring) for p in found for ring in p.rings) == labels.size


@settings(max_examples=50)
@given(MAPS, st.floats(0.1, 5))
def test_simplified_rings_enclose_something_with_points_of_the_exact_ones(
    labels: np.ndarray, tolerance: float
) -> None:
    for polygon in trace_polygons(labels, tolerance=tolerance):
        assert signed_area(polygon.rings[0]) > 0
        assert all(signed_area(hole) < 0 for hole in polygon.rings[1:])


def test_a_megapixel_with_hundreds_of_regions_takes_less_than_two_seconds() -> None:
    labels = plain_map(500, 400, 20).repeat(2, axis=0).repeat(2, axis=1)
    start = time.process_time()
    found = list(trace_polygons(labels))
    assert time.process_time() - start < 2
    assert len(found) > 300
    assert sum(p.area for p in found) == labels.size


def total_points(polygons: list[Polygon]) -> int:
    return sum(len(ring) for p in polygons for ring in p.rings)
