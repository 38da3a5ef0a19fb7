"""Masks as annotation files write them become the runs that pycocotools makes of them."""

import json
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as reference

from pyramidvit.data.outlines import (
    BadMask,
    Shapes,
    add_shape,
    draw_polygons,
    read_runs,
    to_coco_runs,
    unpack_runs,
)
from pyramidvit.ops.masks import decode_masks, encode_masks
from pyramidvit.structures import Masks

FILES = (
    "coco_mini/annotations/instances_train2017.json",
    "coco_mini/annotations/instances_val2017.json",
    "fruits_nuts/trainval.json",
    "nuclei/instances_train.json",
)


def runs_of(written: object, size: tuple[int, int]) -> np.ndarray:
    shapes = Shapes()
    add_shape(shapes, written)
    return read_runs(shapes, 0, size)


def pixels_of(runs: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bool [H, W], drawn run by run."""
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return flat.reshape(size[1], size[0]).T


def reference_pixels(written: Any, size: tuple[int, int]) -> np.ndarray:
    packed = reference.frPyObjects(written, *size) if not is_packed(written) else written
    packed = reference.merge(packed) if isinstance(packed, list) else packed
    return reference.decode(packed).astype(bool)


def is_packed(written: Any) -> bool:
    return isinstance(written, dict) and isinstance(written["counts"], str | bytes)


@pytest.mark.parametrize("file", FILES)
def test_every_mask_of_real_data_is_the_references_to_the_last_pixel(
    data_dir: Path, file: str
) -> None:
    record = json.loads((data_dir / file).read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in record["images"]}
    for annotation in record["annotations"]:
        size, written = sizes[annotation["image_id"]], annotation["segmentation"]
        ours = pixels_of(runs_of(written, size), size)
        assert np.array_equal(ours, reference_pixels(written, size)), annotation["id"]


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.lists(
        st.lists(st.floats(-30, 70, width=32), min_size=6, max_size=20).filter(
            lambda part: len(part) % 2 == 0
        ),
        min_size=1,
        max_size=3,
    ),
)
def test_any_polygons_are_drawn_as_the_reference_draws_them(
    height: int, width: int, parts: list[list[float]]
) -> None:
    ours = draw_polygons([np.asarray(part) for part in parts], (height, width))
    assert np.array_equal(
        pixels_of(ours, (height, width)), reference_pixels(parts, (height, width))
    )


@given(st.integers(1, 12), st.integers(1, 12), st.randoms(use_true_random=False))
def test_packing_and_unpacking_give_the_mask_back(height: int, width: int, random: Any) -> None:
    bits = torch.tensor([[random.random() < 0.4 for _ in range(width)] for _ in range(height)])
    masks = encode_masks(bits[None])
    (packed,) = to_coco_runs(masks)
    assert packed["counts"] == reference.encode(np.asfortranarray(bits.byte()))["counts"].decode()
    unpacked = torch.from_numpy(runs_of(packed, (height, width)))
    again = Masks(size=masks.size, counts=unpacked, num_runs=torch.tensor([len(unpacked)]))
    assert torch.equal(decode_masks(again)[0], bits)


@given(st.lists(st.integers(0, 1 << 40), min_size=1, max_size=30))
def test_runs_of_any_length_survive_cocos_text(runs: list[int]) -> None:
    assert unpack_runs(slow_pack(runs)).tolist() == runs


def slow_pack(runs: list[int]) -> bytes:
    """COCO's text for runs, a letter at a time."""
    text = bytearray()
    for k, run in enumerate(runs):
        rest = run - runs[k - 2] if k > 2 else run
        more = True
        while more:
            letter = rest & 31
            rest >>= 5
            more = rest != (-1 if letter & 16 else 0)
            text.append(48 + letter + 32 * more)
    return bytes(text)


def test_runs_may_be_written_as_numbers_too() -> None:
    assert runs_of({"size": [2, 3], "counts": [1, 2, 3]}, (2, 3)).tolist() == [1, 2, 3]


def test_an_object_without_a_mask_covers_nothing() -> None:
    assert runs_of([], (4, 5)).tolist() == [20]
    assert runs_of(None, (4, 5)).tolist() == [20]


def test_two_points_cover_nothing_and_leave_the_other_parts_alone() -> None:
    square = [1.0, 1, 4, 1, 4, 4, 1, 4]
    both = runs_of([[0.0, 0, 9, 9], square], (10, 10))
    assert both.tolist() == runs_of([square], (10, 10)).tolist()
    assert runs_of([[0.0, 0, 9, 9]], (10, 10)).tolist() == [100]


def test_shares_of_the_sides_are_scaled_before_they_are_drawn() -> None:
    shares = np.asarray([0.1, 0.2, 0.5, 0.2, 0.5, 0.6, 0.1, 0.6])
    pixels = shares * np.asarray([30, 20] * 4)
    ours = draw_polygons([shares], (20, 30), (30, 20))
    assert ours.tolist() == draw_polygons([pixels], (20, 30)).tolist()


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ({"size": [5, 4], "counts": [20]}, "is for 4x5 pixels, not 5x4 pixels"),
        ({"size": [4, 5], "counts": [19]}, "cover 19 pixels of 20"),
        ({"size": [4, 5], "counts": [30, -10]}, "cover 20 pixels of 20"),
        ({"size": [4, 5], "counts": [1.5, 18.5]}, "whole numbers"),
        ({"size": [4, 5], "counts": [1e30]}, "damaged"),
        ({"size": [4, 5], "counts": [float("nan")]}, "whole numbers"),
        ({"size": [4, 5], "counts": "~~~"}, "damaged"),
        ({"size": [4, 5], "counts": "o" * 40}, "damaged"),
        ({"size": [4, 5], "counts": "P"}, "damaged"),
        ({"size": [4, 5], "counts": ""}, "cover 0 pixels"),
        ([[1.0, 2, 3, 4, 5, 6, 7]], "pairs"),
        ([[1.0, 2, float("inf"), 4, 5, 6]], "finite"),
        ([[1.0, 2, 1e30, 4, 5, 6]], "absurdly far"),
        ([[0.0, 0, 1e6, 0, 0, 0] * 40], "absurdly far"),
    ],
)
def test_a_damaged_mask_is_refused_before_it_is_drawn(written: object, reason: str) -> None:
    with pytest.raises(BadMask, match=reason):
        runs_of(written, (4, 5))


@pytest.mark.parametrize(
    "written",
    [
        "text",
        5,
        [1, 2, 3, 4, 5, 6],
        [["a", "b"]],
        [None],
        {},
        {"size": [4], "counts": [20]},
        {"size": [4, 5], "counts": None},
        {"size": [4, -5], "counts": [20]},
        {"size": [4, 1e400], "counts": [20]},
        {"size": [4, 5], "counts": "é"},
    ],
)
def test_what_is_no_mask_at_all_is_refused_when_it_is_read(written: object) -> None:
    with pytest.raises(TypeError, match="segmentation must be"):
        add_shape(Shapes(), written)


def test_masks_are_found_again_among_others() -> None:
    shapes = Shapes()
    written: list[Any] = [
        [],
        [[0.0, 0, 4, 0, 4, 4], [5.0, 5, 9, 5, 9, 9]],
        {"size": [10, 10], "counts": [7, 3, 90]},
        to_coco_runs(encode_masks(torch.eye(10, dtype=torch.bool)[None]))[0],
    ]
    for one in written:
        add_shape(shapes, one)
    for row, one in enumerate(written):
        assert read_runs(shapes, row, (10, 10)).tolist() == runs_of(one, (10, 10)).tolist()
    assert [len(shapes.parts(row)) for row in range(4)] == [0, 2, 1, 1]
    assert array("d", shapes.parts(2)[0]).tolist() == [7, 3, 90]
