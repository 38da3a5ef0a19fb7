"""Masks between runs and pixels, cut out of regions and pasted into images."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torchvision.ops import roi_align

from pyramidvit.ops import masks as masks_module
from pyramidvit.ops.masks import (
    crop_masks,
    decode_masks,
    decode_window,
    encode_masks,
    encode_window,
    join_masks,
    mask_areas,
    paste_masks,
    select_masks,
    split_runs,
)

stacks = hnp.arrays(bool, st.tuples(*[st.integers(0, 4), st.integers(1, 9), st.integers(1, 9)]))


def runs_slowly(bits: np.ndarray) -> list[int]:
    """Runs of a mask [H, W], pixel after pixel."""
    runs, value = [0], False
    for bit in bits.T.flatten().tolist():
        if bit != value:
            runs.append(0)
            value = bit
        runs[-1] += 1
    return runs


@settings(deadline=None)
@given(stacks)
def test_runs_are_cocos_and_lead_back_to_the_pixels(bits: np.ndarray) -> None:
    masks = encode_masks(torch.from_numpy(bits))
    assert [runs.tolist() for runs in split_runs(masks)] == [runs_slowly(one) for one in bits]
    assert (decode_masks(masks).numpy() == bits).all()
    assert mask_areas(masks).tolist() == bits.sum((1, 2)).tolist()
    order = torch.arange(len(bits)).flip(0)
    assert (decode_masks(select_masks(masks, order)).numpy() == bits[::-1]).all()
    halves = [select_masks(masks, order[:1]), select_masks(masks, order[1:])]
    joined = join_masks(masks.size, halves)
    assert torch.equal(joined.counts, select_masks(masks, order).counts)


@settings(deadline=None)
@given(hnp.arrays(bool, st.tuples(st.integers(0, 5), st.integers(0, 5))), *[st.integers(0, 4)] * 4)
def test_a_window_is_encoded_at_its_place(
    bits: np.ndarray, x: int, y: int, below: int, beside: int
) -> None:
    height, width = bits.shape
    size = (y + height + below + 1, x + width + beside + 1)
    full = torch.zeros(size, dtype=torch.bool)
    full[y : y + height, x : x + width] = torch.from_numpy(bits)
    found = encode_window(torch.from_numpy(bits), (x, y), size)
    assert torch.equal(decode_masks(found)[0], full)
    assert found.counts.tolist() == runs_slowly(full.numpy())


@settings(deadline=None)
@given(hnp.arrays(bool, (7, 6)), *[st.integers(0, 6)] * 4)
def test_a_window_is_decoded_from_its_place(
    bits: np.ndarray, x: int, y: int, right: int, below: int
) -> None:
    window = (min(x, 6), min(y, 7), min(x + right, 6), min(y + below, 7))
    runs = split_runs(encode_masks(torch.from_numpy(bits)[None]))[0]
    found = decode_window(runs, 7, window)
    assert (found.numpy() == bits[window[1] : window[3], window[0] : window[2]]).all()


@settings(deadline=None)
@given(
    st.lists(st.tuples(*[st.floats(-5, 60)] * 2, *[st.floats(0.5, 50)] * 2), max_size=5),
    st.integers(0, 2**16),
)
def test_cut_masks_equal_those_cut_from_the_whole_image(
    places: list[tuple[float, ...]], seed: int
) -> None:
    stream = torch.Generator().manual_seed(seed)
    coarse = torch.rand(3, 1, 9, 11, generator=stream)
    bits = torch.nn.functional.interpolate(coarse, (50, 60), mode="bilinear")[:, 0] > 0.5
    boxes = torch.tensor([(x, y, x + w, y + h) for x, y, w, h in places]).double().reshape(-1, 4)
    boxes[:, 0::2] = boxes[:, 0::2].clamp(0, 60)
    boxes[:, 1::2] = boxes[:, 1::2].clamp(0, 50)
    owners = torch.randint(3, (len(boxes),), generator=stream)

    found = crop_masks(encode_masks(bits), boxes, owners, side=14)
    rois = torch.cat((owners[:, None].double(), boxes), dim=1)
    shares = roi_align(bits[:, None].double(), rois, 14, sampling_ratio=0, aligned=True)[:, 0]
    sure = (shares - 0.5).abs() > 1e-9
    assert torch.equal(found[sure], shares[sure] >= 0.5)


@pytest.mark.parametrize("pixels_at_once", [1, 1 << 22])
def test_a_full_mask_fills_the_pixels_whose_centre_lies_in_its_box(
    pixels_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masks_module, "PIXELS_AT_ONCE", pixels_at_once)
    boxes = torch.tensor([[2.0, 3, 7, 5], [2.4, 3.6, 7.6, 5.4], [-4, -4, 30, 30], [5, 5, 5, 9]])
    shares = torch.full((4, 28, 28), 0.999)
    found = decode_masks(paste_masks(shares, boxes, (10, 12)))
    for mask, (x0, y0, x1, y1) in zip(found[:3], boxes[:3].tolist(), strict=True):
        wanted = [[x0 < x + 0.5 < x1 and y0 < y + 0.5 < y1 for x in range(12)] for y in range(10)]
        assert mask.tolist() == wanted
    assert not found[3].any()  # a box without width


def test_masks_at_the_edge_of_nothing_are_empty() -> None:
    assert len(paste_masks(torch.zeros(0, 28, 28), torch.zeros(0, 4), (5, 5))) == 0
    outside = torch.tensor([[20.0, 20, 30, 30]])
    assert mask_areas(paste_masks(torch.ones(1, 28, 28), outside, (5, 5))).tolist() == [0]
    one = paste_masks(torch.ones(1, 28, 28), torch.tensor([[0.0, 0, 1, 1]]), (1, 1))
    assert decode_masks(one).tolist() == [[[True]]]


def test_a_thousand_masks_of_a_large_image_take_little_room() -> None:
    size = (6000, 8000)
    corners = torch.rand(1000, 2) * torch.tensor([7900.0, 5900.0])
    boxes = torch.cat((corners, corners + torch.rand(1000, 2) * 60 + 20), dim=1)
    found = paste_masks(torch.full((1000, 28, 28), 0.9), boxes, size)
    assert found.counts.nbytes < 5_000_000  # pixel by pixel they are 48 GB
    assert int(mask_areas(found).min()) > 300
