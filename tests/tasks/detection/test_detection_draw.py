"""Pictures, records and reports of detections."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFont

from pyramidvit.data.images import BrokenImage
from pyramidvit.ops.masks import decode_masks, encode_masks
from pyramidvit.structures import Classes, DetectionPrediction, DetectionTarget
from pyramidvit.tasks.detection import report as reports
from pyramidvit.tasks.detection.describe import caption, describe, describe_target
from pyramidvit.tasks.detection.draw import colour_of, draw
from pyramidvit.tasks.detection.labels import (
    COVER,
    Label,
    choose_style,
    ink_for,
    place_labels,
    readable,
)
from pyramidvit.tasks.detection.metrics import DetectionMetrics
from pyramidvit.tasks.detection.records import pack_masks, unpack_masks
from pyramidvit.tasks.detection.report import pair_of, report
from pyramidvit.tasks.detection.scoring import best_cut
from pyramidvit.tasks.detection.truth import AnnotatedOrigin

CLASSES = Classes(names=("cat", "dog", "bird"), ids=(17, 18, 16))
SIZES = [(32, 32), (1, 1), (640, 480), (3000, 2), (2, 3000), (1200, 1600)]  # (width, height)


def objects_in(
    size: tuple[int, int], count: int, *, masks: bool = True, seed: int = 0
) -> DetectionPrediction:
    """Random detections in a picture of (width, height), masks filling the middle of the boxes."""
    rng = torch.Generator().manual_seed(seed)
    sides = torch.tensor([size[0], size[1], size[0], size[1]])
    corners = torch.rand(count, 2, 2, generator=rng).sort(dim=1).values.flatten(1)
    boxes = corners * sides
    bits = torch.zeros(count, size[1], size[0], dtype=torch.bool)
    for row, box in zip(bits, boxes.round().int().tolist(), strict=True):
        row[box[1] : box[3], box[0] : box[2]] = True
    return DetectionPrediction(
        boxes=boxes,
        labels=torch.randint(0, 3, (count,), generator=rng),
        scores=torch.rand(count, generator=rng).sort(descending=True).values,
        masks=encode_masks(bits) if masks else None,
    )


def to_target(found: DetectionPrediction, crowd: bool = False) -> DetectionTarget:
    return DetectionTarget(
        boxes=found.boxes,
        labels=found.labels,
        crowd=torch.full((len(found.labels),), crowd),
        masks=found.masks,
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", [0, 1, 40])
@pytest.mark.parametrize("masks", [False, True])
def test_any_size_and_number_can_be_drawn(size: tuple[int, int], count: int, masks: bool) -> None:
    picture = Image.new("RGB", size, "grey")
    found = objects_in(size, count, masks=masks)
    before = picture.tobytes()
    for objects in (found, to_target(found), to_target(found, crowd=True)):
        page = draw(picture, objects, CLASSES, threshold=0)
        assert page.mode == "RGB"
        assert page.width % size[0] == 0
        assert page.width * size[1] == page.height * size[0]
    assert picture.tobytes() == before


def test_small_pictures_are_enlarged_and_large_ones_kept() -> None:
    one = objects_in((32, 24), 1)
    assert draw(Image.new("L", (32, 24)), one, CLASSES).size == (480, 360)
    large = objects_in((1000, 700), 1)
    assert draw(Image.new("RGBA", (1000, 700)), large, CLASSES).size == (1000, 700)


def test_a_picture_is_enlarged_for_what_is_drawn_alone() -> None:
    found = objects_in((32, 24), 40)
    few = float(found.scores[3])
    assert draw(Image.new("L", (32, 24)), found, CLASSES, few).size == (480, 360)
    assert draw(Image.new("L", (32, 24)), found, CLASSES, 0).size == (960, 720)
    assert draw(Image.new("L", (32, 24)), found, CLASSES, few, count=40).size == (960, 720)


def test_truth_and_answer_are_shown_in_one_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = to_target(objects_in((64, 48), 40))
    origin = AnnotatedOrigin(name="1.png", size=(48, 64), id=1, truth=truth)
    metrics = DetectionMetrics(3)
    metrics.add(objects_in((64, 48), 2), origin)
    sizes = []

    def watched(*words: Any, **named: Any) -> Image.Image:
        page = draw(*words, **named)
        sizes.append(page.size)
        return page

    monkeypatch.setattr(reports, "draw", watched)
    pair_of(metrics.images[0], 0.0, grey("1.png"), CLASSES, best_cut(metrics.images))
    assert sizes == [(960, 720)] * 2


def test_a_mask_is_drawn_where_it_is() -> None:
    """In a picture that is not enlarged the pixels that change are those of mask, box and label."""
    bits = torch.zeros(1, 600, 800, dtype=torch.bool)
    bits[0, 200:300, 350:500] = True
    found = DetectionPrediction(
        boxes=torch.tensor([[300.0, 100, 600, 400]]),
        labels=torch.tensor([0]),
        scores=torch.tensor([0.9]),
        masks=encode_masks(bits),
    )
    page = np.asarray(draw(Image.new("RGB", (800, 600), "white"), found, CLASSES))
    changed = (page != 255).any(axis=2)
    assert changed[200:300, 350:500].all()
    around = changed[120:380, 320:580].copy()  # within the box, away from its line
    around[80:180, 30:180] = False
    assert not around.any()
    assert not changed[:, :280].any()
    assert not changed[420:].any()
    assert tuple(page[100, 450]) == colour_of(0)


def test_weak_detections_are_left_out() -> None:
    weak = DetectionPrediction(
        boxes=torch.tensor([[10.0, 10, 100, 100]]),
        labels=torch.tensor([0]),
        scores=torch.tensor([0.1]),
    )
    picture = Image.new("RGB", (640, 480), "white")
    assert draw(picture, weak, CLASSES).tobytes() == picture.tobytes()
    assert draw(picture, weak, CLASSES, threshold=0.05).tobytes() != picture.tobytes()


def test_a_class_keeps_its_colour_and_no_two_of_eighty_share_one() -> None:
    colours = [colour_of(k) for k in range(80)]
    assert len(set(colours)) == 80
    distances = [np.abs(np.subtract(a, b)).sum() for a in colours for b in colours if a != b]
    assert min(distances) > 10


def test_labels_can_be_read_on_every_colour() -> None:
    """A contrast of 4.5 is what WCAG 2 asks for."""
    for k in range(200):
        a, b = (light(colour) for colour in (colour_of(k), ink_for(colour_of(k))))
        assert (max(a, b) + 0.05) / (min(a, b) + 0.05) >= 4.5


def light(colour: tuple[int, int, int]) -> float:
    parts = [v / 255 / 12.92 if v <= 10 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in colour]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 80), st.integers(0, 1000), st.sampled_from([(640, 480), (2000, 300)]))
def test_labels_lie_in_the_picture_and_hardly_on_each_other(
    count: int, seed: int, size: tuple[int, int]
) -> None:
    style = choose_style(size, count)
    found = objects_in(size, count, masks=False, seed=seed)
    rows = zip(found.boxes.tolist(), found.scores.tolist(), strict=True)
    labels = [Label(tuple(map(round, box)), ("a name", ".9"), (9, 9, 9), s) for box, s in rows]
    placed = [written.area for written in place_labels(labels, style, size)]
    assert bool(placed) == bool(count)  # the first always stands
    for number, (x0, y0, x1, y1) in enumerate(placed):
        assert 0 <= x0 < x1 <= size[0]
        assert 0 <= y0 < y1 <= size[1]
        covered = [
            max(0, min(x1, a[2]) - max(x0, a[0])) * max(0, min(y1, a[3]) - max(y0, a[1]))
            for a in placed[:number]
        ]
        assert sum(covered) <= COVER * (x1 - x0) * (y1 - y0) + 1e-6


def test_every_class_is_named_even_in_a_crowd() -> None:
    style = choose_style((640, 480), 200)
    crowd = [
        Label((300, 200, 306, 206), ("ant 0.90", ".90"), colour_of(k % 4), 0.9) for k in range(200)
    ]
    placed = list(place_labels(crowd, style, (640, 480)))
    assert {written.ground for written in placed} == {colour_of(k) for k in range(4)}
    assert len(placed) < 50


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_class_names_in_any_script_are_drawn_or_replaced(name: str) -> None:
    font = ImageFont.load_default(12)
    text = readable(name, 7, font)
    assert 0 < len(text) <= 30
    assert "\n" not in text
    assert font.getlength(text) >= 0


def test_scripts_that_the_font_lacks_become_numbers() -> None:
    font = ImageFont.load_default(12)
    assert readable("猫", 7, font) == "#7"
    assert readable("", 7, font) == "#7"
    assert readable("a\ncat ", 7, font) == "a cat"
    assert readable("\ud800x", 7, font) in ("?x", "#7")
    found = objects_in((64, 64), 3)
    names = Classes(names=("猫", "\ud800", "x" * 500), ids=(1, 2, 3))
    draw(Image.new("RGB", (64, 64)), found, names, threshold=0)


def test_packed_masks_unpack_to_the_same_bits() -> None:
    masks = objects_in((50, 40), 8).masks
    assert masks is not None
    texts, areas = pack_masks(masks)
    assert texts is not None
    assert areas is not None
    bits = decode_masks(masks)
    assert torch.equal(decode_masks(unpack_masks(texts, masks.size)), bits)
    assert areas.tolist() == bits.flatten(1).sum(1).tolist()


# ---- words


def test_a_record_has_the_datas_own_ids() -> None:
    found = objects_in((64, 48), 4)
    record = json.loads(json.dumps(describe(found, CLASSES)))
    first = record["objects"][0]
    label = int(found.labels[0])
    assert (first["id"], first["name"]) == (CLASSES.ids[label], CLASSES.names[label])
    assert first["box"] == pytest.approx(found.boxes[0].tolist(), abs=0.006)
    assert first["segmentation"]["size"] == [48, 64]
    assert len(record["objects"]) == 4
    assert describe(objects_in((64, 48), 0), CLASSES) == {"objects": []}


def test_captions_say_what_was_found() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30], [40, 40, 50, 50]])
    truth = DetectionTarget(
        boxes=boxes[:2], labels=torch.tensor([0, 1]), crowd=torch.tensor([False, False])
    )
    right = DetectionPrediction(
        boxes=boxes, labels=torch.tensor([0, 1, 2]), scores=torch.tensor([0.9, 0.8, 0.1])
    )
    wrong = DetectionPrediction(
        boxes=boxes, labels=torch.tensor([0, 0, 2]), scores=torch.tensor([0.9, 0.8, 0.7])
    )
    assert caption(right, CLASSES, truth) == ("2 of 2 found", True)
    assert caption(wrong, CLASSES, truth) == ("1 of 2 found, 2 wrong", False)
    assert caption(wrong, CLASSES, None) == ("2 cat, 1 bird", None)
    assert describe_target(truth, CLASSES) == "1 cat, 1 dog"
    nothing = objects_in((64, 48), 0)
    assert caption(nothing, CLASSES, to_target(nothing)) == ("0 of 0 found", True)
    assert caption(nothing, CLASSES, None) == ("nothing", None)


# ---- reports


def filled(count: int) -> DetectionMetrics:
    """Images whose truth is drawn, and found but for every third object."""
    metrics = DetectionMetrics(3)
    for number in range(count):
        found = objects_in((64, 48), 6, seed=number)
        truth = to_target(objects_in((64, 48), 4, seed=number + 1))
        origin = AnnotatedOrigin(name=f"{number}.png", size=(48, 64), id=number, truth=truth)
        metrics.add(found, origin)
    return metrics


def missing(name: str) -> Image.Image:
    raise BrokenImage(name, "there is no such file")


def grey(name: str) -> Image.Image:
    return Image.new("RGB", (64, 48), "grey")


@pytest.mark.parametrize("count", [0, 3])
def test_a_report_is_written_for_any_number_of_images(tmp_path: Path, count: int) -> None:
    paths = report(filled(count), CLASSES, tmp_path, grey)
    assert all(path.stat().st_size for path in paths)
    assert (tmp_path / "worst.png").exists() == (count > 0)
    rows = list(csv.reader((tmp_path / "per_class.csv").read_text().splitlines()))
    assert [row[0] for row in rows] == ["id", "17", "18", "16"]
    assert len({len(row) for row in rows}) == 1
    matrix = list(csv.reader((tmp_path / "confusion.csv").read_text().splitlines()))
    assert sum(int(v) for row in matrix[1:-1] for v in row[1:]) == 4 * count


def test_pictures_that_cannot_be_read_again_are_passed_over(tmp_path: Path) -> None:
    names = {path.name for path in report(filled(2), CLASSES, tmp_path, missing)}
    assert names == {"per_class.csv", "confusion.csv", "confusion.png", "precision_recall.png"}
