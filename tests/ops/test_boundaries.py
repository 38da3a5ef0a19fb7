"""Bands along boundaries against erosion done step by step."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pyramidvit.ops.boundaries import boundary_distance, near_boundary


def erode(mask: np.ndarray, times: int) -> np.ndarray:
    """What is left of a mask when its outermost pixels are taken off, again and again."""
    for _ in range(times):
        around = np.pad(mask, 1)
        height, width = mask.shape
        shifted = [around[y : y + height, x : x + width] for y in range(3) for x in range(3)]
        mask = np.logical_and.reduce(shifted)
    return mask


def slow_band(labels: np.ndarray, distance: int) -> np.ndarray:
    band = np.zeros(labels.shape, dtype=bool)
    for label in np.unique(labels):
        mask = labels == label
        band |= mask & ~erode(mask, distance)
    return band


@settings(max_examples=100, deadline=None)
@given(
    height=st.integers(1, 14),
    width=st.integers(1, 14),
    distance=st.integers(1, 5),
    seed=st.integers(0, 2**31),
)
def test_a_band_is_what_erosion_takes_off_each_mask(
    height: int, width: int, distance: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    labels = np.zeros((height, width), np.int16)
    for label in range(-1, 4):  # rectangles over each other, so that inner pixels remain
        y0, y1 = sorted(random.integers(0, height + 1, 2))
        x0, x1 = sorted(random.integers(0, width + 1, 2))
        labels[y0:y1, x0:x1] = label
    found = near_boundary(torch.from_numpy(labels), distance)
    np.testing.assert_array_equal(found.numpy(), slow_band(labels, distance))


def test_a_map_of_one_label_has_a_band_along_its_edge_alone() -> None:
    band = near_boundary(torch.zeros(9, 11, dtype=torch.int16), 2)
    assert not band[2:-2, 2:-2].any()
    assert int(band.sum()) == 9 * 11 - 5 * 7


def test_a_corner_counts_as_near_as_a_side() -> None:
    labels = torch.zeros(9, 9, dtype=torch.int16)
    labels[4, 4] = 1
    inner: Tensor = near_boundary(labels, 2)[2:7, 2:7]
    assert inner.all()
    assert not near_boundary(labels, 1)[2, 4]


def test_a_single_pixel_is_its_own_boundary() -> None:
    assert near_boundary(torch.zeros(1, 1, dtype=torch.uint8), 1).all()


@pytest.mark.parametrize(
    ("size", "distance"), [((1024, 2048), 46), ((480, 640), 16), ((1, 1), 1), ((20, 20), 1)]
)
def test_the_distance_is_two_percent_of_the_diagonal(size: tuple[int, int], distance: int) -> None:
    assert boundary_distance(size) == distance
