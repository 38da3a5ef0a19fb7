"""Large pictures in windows: every object is found once, and whole."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from pyramidvit.ops.masks import decode_masks, encode_masks
from pyramidvit.structures import DetectionPrediction, Origin, Sample
from pyramidvit.task import Tiling
from pyramidvit.tasks.detection.outputs import Decoding, Detections, RegionDetections, Sizes
from pyramidvit.tasks.detection.tiles import (
    AT_ONCE,
    MORE,
    Look,
    cut_windows,
    merge_looks,
    place,
    predict_tiled,
    spread,
)

SIZE = (100, 200)  # (H, W) of a picture that is looked at
LEFT, RIGHT, WHOLE = (0, 0, 100, 100), (80, 0, 180, 100), (0, 0, 200, 100)


def found(*rows: tuple[tuple[float, float, float, float], float, int]) -> DetectionPrediction:
    """Detections from (box, score, label), the best first."""
    return DetectionPrediction(
        boxes=torch.tensor([box for box, _, _ in rows], dtype=torch.float32).reshape(-1, 4),
        scores=torch.tensor([score for _, score, _ in rows], dtype=torch.float32),
        labels=torch.tensor([label for _, _, label in rows], dtype=torch.int64),
    )


def merged(*looks: Look, most: int = 100) -> list[tuple[list[float], float]]:
    result = merge_looks(looks, SIZE, overlap=0.5, most=most)
    assert result.masks is None
    scores = [round(score, 4) for score in result.scores.tolist()]
    assert scores == sorted(scores, reverse=True)
    return list(zip(result.boxes.tolist(), scores, strict=True))


# ---- windows

sides, overlaps = st.integers(1, 300), st.floats(0, 0.9)


@given(st.integers(1, 2000), sides, overlaps)
def test_windows_cover_a_side_and_share_the_overlap(length: int, side: int, overlap: float) -> None:
    starts = spread(length, Tiling(side=side, overlap=overlap))
    assert starts[0] == 0
    assert starts[-1] == max(0, length - side)
    gaps = np.diff(starts)
    assert (gaps > 0).all()
    assert (gaps <= max(1, int(side * (1 - overlap)))).all()


def test_a_picture_is_cut_row_by_row_and_a_short_side_once() -> None:
    windows = cut_windows((50, 250), Tiling(side=100, overlap=0.25))
    assert windows == [(0, 0, 100, 50), (75, 0, 175, 50), (150, 0, 250, 50)]
    assert cut_windows((50, 90), Tiling(side=100)) == [(0, 0, 90, 50)]


# ---- merging


def test_two_halves_vanish_in_favour_of_the_whole() -> None:
    halves = (
        place(found(((60, 20, 100, 60), 0.9, 0)), LEFT, SIZE),
        place(found(((0, 20, 40, 60), 0.8, 0)), RIGHT, SIZE),
    )
    whole = place(found(((60, 20, 120, 60), 0.6, 0)), WHOLE, SIZE)
    assert [look.pieces.tolist() for look in (*halves, whole)] == [[True], [True], [False]]
    assert merged(whole, *halves) == [([60, 20, 120, 60], 0.6)]
    assert len(merged(*halves)) == 2  # where nobody saw the whole, its parts are what there is


def test_a_doubtful_whole_does_not_take_the_place_of_sure_parts() -> None:
    half = place(found(((40, 20, 100, 60), 0.9, 0)), LEFT, SIZE)
    whole = place(found(((0, 0, 200, 100), 0.4, 0)), WHOLE, SIZE)
    assert [score for _, score in merged(whole, half)] == [0.9, 0.4]


def test_an_object_that_two_windows_show_is_there_once() -> None:
    left = place(found(((82, 20, 96, 40), 0.7, 0)), LEFT, SIZE)
    right = place(found(((3, 20, 17, 40), 0.8, 0)), RIGHT, SIZE)
    assert merged(left, right) == [([83, 20, 97, 40], 0.8)]


def test_a_small_object_in_front_of_a_large_one_stays() -> None:
    look = place(found(((10, 10, 90, 90), 0.9, 0), ((30, 30, 50, 50), 0.8, 0)), LEFT, SIZE)
    assert len(merged(look)) == 2


def test_a_part_is_not_covered_by_another_class() -> None:
    half = place(found(((60, 20, 100, 60), 0.5, 1)), LEFT, SIZE)
    whole = place(found(((60, 20, 120, 60), 0.9, 0)), WHOLE, SIZE)
    assert len(merged(whole, half)) == 2


def test_a_border_of_the_picture_is_no_seam() -> None:
    corner = found(((0, 0, 30, 100), 0.9, 0))
    assert place(corner, LEFT, SIZE).pieces.tolist() == [False]
    assert place(corner, RIGHT, SIZE).pieces.tolist() == [True]


def test_the_best_are_kept_of_too_many() -> None:
    rows = [((10.0 * k, 0.0, 10.0 * k + 5, 5.0), 0.9 - 0.1 * k, 0) for k in range(5)]
    assert [score for _, score in merged(place(found(*rows), WHOLE, SIZE), most=2)] == [0.9, 0.8]


def test_masks_come_along_into_the_frame_of_the_file() -> None:
    looks, expected = [], torch.zeros(2, *SIZE, dtype=torch.bool)
    for number, (window, score) in enumerate(((LEFT, 0.6), (RIGHT, 0.9))):
        bits = torch.zeros(1, 100, 100, dtype=torch.bool)
        bits[0, 10:30, 40 : 50 + number] = True
        bits[0, 12, 45] = False
        row = found(((40, 10, 50 + number, 30), score, 0))
        row = DetectionPrediction(
            boxes=row.boxes, labels=row.labels, scores=row.scores, masks=encode_masks(bits)
        )
        looks.append(place(row, window, SIZE))
        expected[1 - number, :, window[0] : window[2]] = bits[0]
    result = merge_looks(looks, SIZE, overlap=0.5, most=100)
    assert result.masks is not None
    assert (decode_masks(result.masks) == expected).all()


@pytest.mark.parametrize("masks", [True, False])
def test_nothing_found_is_nothing(masks: bool) -> None:
    none = encode_masks(torch.zeros(0, 100, 100, dtype=torch.bool)) if masks else None
    empty = DetectionPrediction(
        boxes=torch.zeros(0, 4),
        labels=torch.zeros(0, dtype=torch.int64),
        scores=torch.zeros(0),
        masks=none,
    )
    looks = [place(empty, LEFT, SIZE), place(empty, RIGHT, SIZE)]
    result = merge_looks(looks, SIZE, overlap=0.5, most=100)
    assert result.boxes.shape == (0, 4)
    assert (result.masks is not None) == masks
    assert result.masks is None or result.masks.size == SIZE


# ---- looking


class GreyFinder(nn.Module):
    """Finds what has one of the grey levels 60, 70, 80 ... in a black picture, by its pixels."""

    def __init__(self, most: int = 100) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.decoding = Decoding(max_detections=most)
        self.seen: list[tuple[int, ...]] = []

    def forward(self, images: Tensor, *, sizes: Sizes, targets: object = None) -> RegionDetections:
        assert targets is None
        self.seen.append(tuple(images.shape))
        boxes, places = [], []
        for place_in_batch, (image, (height, width)) in enumerate(zip(images, sizes, strict=True)):
            levels = (image[0, :height, :width] * 255).round()
            for level in range(60, 256, 10):
                rows, columns = (levels == level).nonzero(as_tuple=True)
                if len(rows) > 3:  # a few pixels may be the blurred edge of another object
                    corner = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
                    boxes.append([float(v) for v in corner])
                    places.append(place_in_batch)
        count = len(boxes)
        found = Detections(
            boxes=torch.tensor(boxes).reshape(-1, 4),
            labels=torch.zeros(count, dtype=torch.int64),
            scores=torch.linspace(0.9, 0.8, count),
            images=torch.tensor(places, dtype=torch.int64),
        )
        return RegionDetections(found, torch.full((count, 28, 28), 9.0))


def record_of(side: int) -> dict[str, Any]:
    zeros_and_ones = {"mean": [0.0] * 3, "std": [1.0] * 3}
    return {"short_side": side, "long_side": 4 * side, "interpolation": "bilinear"} | zeros_and_ones


def sample_of(picture: Image.Image) -> Sample[Any]:
    origin = Origin(name="a.png", size=(picture.height, picture.width))
    return Sample(image=picture, target=None, origin=origin)


@pytest.mark.parametrize("nms_threshold", [0.5, 1.0])  # DETR's hides nothing in a single look
def test_every_object_of_a_large_picture_is_found_once(nms_threshold: float) -> None:
    boxes = [(5, 5, 11, 11), (60, 8, 68, 14), (100, 100, 110, 104), (130, 10, 133, 13)]
    boxes += [(20, 90, 180, 119)]  # larger than a window
    pixels = np.zeros((120, 200, 3), np.uint8)
    for number, (x0, y0, x1, y1) in enumerate(boxes):
        pixels[y0:y1, x0:x1] = 60 + 10 * number
    pixels[100:104, 100:110] = 80  # lies on the large one
    finder = GreyFinder()
    finder.decoding = Decoding(nms_threshold=nms_threshold)
    tiling = Tiling(side=64, overlap=0.25)
    answer = predict_tiled(finder, sample_of(Image.fromarray(pixels)), record_of(64), tiling)
    order = answer.boxes[:, 0].argsort()
    small = [box for box in answer.boxes[order].tolist() if tuple(box) in set(boxes[:4])]
    assert small == [[float(v) for v in box] for box in sorted(boxes[:4])]
    rest = [box for box in answer.boxes.tolist() if tuple(box) not in set(boxes[:4])]
    assert len(rest) == 1  # its parts are gone; the first look sees half of its pixels
    assert np.abs(np.subtract(rest[0], boxes[4])).max() <= 2

    assert answer.masks is not None
    for box, mask in zip(answer.boxes.tolist(), decode_masks(answer.masks), strict=True):
        x0, y0, x1, y1 = (round(v) for v in box)
        inside = torch.zeros(120, 200, dtype=torch.bool)
        inside[y0:y1, x0:x1] = True
        assert (mask == inside).float().mean() > 0.98
        assert mask[y0 + 1 : y1 - 1, x0 + 1 : x1 - 1].all()


def test_a_picture_that_fits_a_window_is_looked_at_once() -> None:
    finder = GreyFinder()
    picture = Image.new("RGB", (1, 1), (60, 60, 60))
    answer = predict_tiled(finder, sample_of(picture), record_of(64), Tiling(side=64))
    assert finder.seen == [(1, 3, 64, 64)]
    assert answer.boxes.tolist() == [[0, 0, 1, 1]]
    assert answer.masks is not None
    assert answer.masks.size == (1, 1)


def test_of_a_picture_of_48_megapixels_a_few_windows_are_held() -> None:
    picture = Image.new("RGB", (8000, 6000))
    picture.paste((60, 60, 60), (4000, 3000, 4012, 3012))
    finder = GreyFinder()
    tiling = Tiling(side=1600, overlap=0.25)
    answer = predict_tiled(finder, sample_of(picture), record_of(320), tiling)
    assert answer.boxes.tolist() == pytest.approx(np.array([[4000, 3000, 4012, 3012]]), abs=6)
    assert answer.masks is not None
    assert answer.masks.size == (6000, 8000)
    assert max(images[0] for images in finder.seen) == AT_ONCE
    assert all(images[1:] == (3, 320, 320) for images in finder.seen[1:])


def test_the_detectors_own_limit_counts_tenfold() -> None:
    pixels = np.zeros((64, 256, 3), np.uint8)
    for k in range(20):
        pixels[4 + 8 * (k % 5) : 8 + 8 * (k % 5), 5 + 60 * (k // 5) : 15 + 60 * (k // 5)] = (
            60 + 10 * k
        )
    sample = sample_of(Image.fromarray(pixels))
    finder, strict = GreyFinder(), GreyFinder(most=1)
    assert len(predict_tiled(finder, sample, record_of(64), Tiling(side=64)).labels) == 20
    assert len(predict_tiled(strict, sample, record_of(64), Tiling(side=64)).labels) == MORE
