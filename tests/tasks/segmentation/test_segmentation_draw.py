"""Pictures, records and lines of maps of labels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pyramidvit.structures import (
    UNLABELLED,
    Batch,
    Classes,
    Origin,
    SegmentationPrediction,
    SegmentationTarget,
)
from pyramidvit.tasks.segmentation import draw as drawing
from pyramidvit.tasks.segmentation.describe import describe, summarise
from pyramidvit.tasks.segmentation.draw import borders, draw, draw_frame, palette
from pyramidvit.tasks.segmentation.show import at_size, show_prediction, show_target
from pyramidvit.tasks.segmentation.truth import LabelledOrigin

PLAIN = Classes(names=("road", "sky", "tree", "car"), ids=(7, 23, 21, 26))
FRAMED = Classes(names=("background", "road"), ids=(0, 255))
RECORD = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
SIZES = [(1, 1), (32, 24), (640, 480), (3000, 2), (2, 3000), (60, 8000)]  # (width, height)


def stripes(size: tuple[int, int], count: int = 4) -> torch.Tensor:
    """uint8 [H, W]: upright stripes of all labels."""
    row = torch.arange(size[0]) * count // size[0]
    return row.to(torch.uint8).expand(size[1], size[0]).contiguous()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("many", [False, True])
def test_any_size_can_be_drawn_with_its_legend(size: tuple[int, int], many: bool) -> None:
    classes = PLAIN
    labels = stripes(size)
    if many:
        classes = Classes(names=("a rather long name " * 3,) * 200, ids=tuple(range(200)))
        labels = torch.randint(0, 200, (size[1], size[0]), dtype=torch.uint8)
    picture = Image.new("RGB", size, "grey")
    before = picture.tobytes()
    page = draw(picture, SegmentationPrediction(labels=labels), classes)
    assert page.mode == "RGB"
    factor = -(-480 // max(size))
    width, height = size[0] * factor, size[1] * factor
    assert (page.height > height) if width >= height else (page.width > width)
    legend = page.crop((0, height, *page.size) if width >= height else (width, 0, *page.size))
    shown = {colour for _, colour in legend.getcolors(1 << 24) or []}
    assert palette(classes)[int(torch.mode(labels.flatten()).values)] in shown
    assert picture.tobytes() == before


@pytest.mark.parametrize("size", [(640, 480), (48, 64), (90, 30)])
@pytest.mark.parametrize("count", [1, 4, 200])
def test_frames_of_one_size_are_drawn_in_one_size(size: tuple[int, int], count: int) -> None:
    names = tuple(f"class {'x' * (k % 9)} {k}" for k in range(count))
    classes = Classes(names=names, ids=tuple(range(count)))
    picture = Image.new("RGB", size, "grey")
    maps = [torch.full((size[1], size[0]), k, dtype=torch.uint8) for k in (0, count - 1)]
    maps += [torch.randint(0, count, (size[1], size[0]), dtype=torch.uint8) for _ in range(3)]
    pages = [draw_frame(picture, SegmentationPrediction(labels=m), classes) for m in maps]
    assert len({page.size for page in pages}) == 1
    pages.append(draw_frame(picture, SegmentationTarget(labels=maps[0].short() * 0 - 1), classes))
    assert pages[-1].size == pages[0].size


def test_a_class_keeps_its_place_in_the_legend_of_frames() -> None:
    picture = Image.new("RGB", (640, 480), "grey")
    legends = []
    for k in range(4):
        labels = torch.full((480, 640), k, dtype=torch.uint8)
        page = draw_frame(picture, SegmentationPrediction(labels=labels), PLAIN)
        legends.append(np.asarray(page.crop((0, 480, *page.size))))
    for colour in palette(PLAIN):
        squares = [(legend == colour).all(axis=2) for legend in legends]
        assert squares[0].sum() > 50
        assert all((square == squares[0]).all() for square in squares)
    assert (legends[0] != legends[1]).any()  # the shares


def test_a_region_has_its_colour_over_the_picture_and_a_border() -> None:
    labels = torch.zeros(500, 500, dtype=torch.uint8)
    labels[:, 250:] = 1
    page = draw(Image.new("RGB", (500, 500), "white"), SegmentationPrediction(labels=labels), PLAIN)
    for x, colour in ((100, palette(PLAIN)[0]), (400, palette(PLAIN)[1])):
        half = [round((255 + c) / 2) for c in colour]
        assert np.abs(np.subtract(page.getpixel((x, 100)), half)).max() <= 1
    near = np.subtract(page.getpixel((249, 100)), palette(PLAIN)[0])
    assert np.abs(near).max() <= 26


def test_background_and_the_unlabelled_stay_as_they_are() -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (480, 480, 3), np.uint8))
    labels = torch.zeros(480, 480, dtype=torch.int16)
    labels[:, 200:300] = UNLABELLED
    page = draw(picture, SegmentationTarget(labels=labels), FRAMED)
    assert page.crop((0, 0, 480, 480)).tobytes() == picture.tobytes()


def test_a_gigantic_picture_is_shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "MAX_SIDE", 600)
    page = draw(
        Image.new("RGB", (1201, 500)), SegmentationPrediction(labels=stripes((1201, 500))), PLAIN
    )
    assert page.width == 401


def test_all_maps_without_any_label_can_be_drawn() -> None:
    labels = torch.full((5, 5), UNLABELLED, dtype=torch.int16)
    assert (
        draw(Image.new("RGB", (5, 5)), SegmentationTarget(labels=labels), PLAIN).size == (480,) * 2
    )


@given(st.integers(0, 3), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_borders_are_found_on_both_sides_band_by_band(top: int, width: int, seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, 2, (9, 7)).repeat(2, axis=0)
    whole = borders(labels, 0, 18, width)
    assert (borders(labels, top, 11, width) == whole[top:11]).all()
    if width == 1:
        wide = np.pad(labels, 1, mode="edge")
        plus = [wide[1 + y : 19 + y, 1 + x : 8 + x] for y, x in ((0, 1), (0, -1), (1, 0), (-1, 0))]
        touching = np.any([other != labels for other in plus], axis=0)
        assert (whole | ~touching).all()


def test_the_data_s_own_colours_are_taken() -> None:
    own = ((1, 2, 3), (4, 5, 6))
    assert palette(Classes(names=("a", "b"), ids=(0, 1), colours=own)) == list(own)


def test_made_colours_are_distinct_and_do_not_change_with_the_number_of_classes() -> None:
    colours = palette(Classes(names=("x",) * 150, ids=tuple(range(150))))
    apart = np.linalg.norm(np.subtract(colours, np.asarray(colours)[:, None]), axis=-1)
    assert (apart + 1000 * np.eye(150)).min() > 40
    assert palette(Classes(names=("x",) * 4, ids=(0, 1, 2, 3))) == colours[:4]
    assert palette(Classes(names=("Background", *"x" * 4), ids=(0, 1, 2, 3, 4)))[0] == (0, 0, 0)
    assert len(palette(Classes(names=("x",) * 2000, ids=tuple(range(2000))))) == 2000


def test_a_record_has_the_share_of_each_class_that_is_there() -> None:
    labels = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 3]], dtype=torch.uint8)
    record = describe(SegmentationPrediction(labels=labels), PLAIN)
    assert record == {
        "classes": [
            {"id": 23, "name": "sky", "share": 0.625},
            {"id": 7, "name": "road", "share": 0.25},
            {"id": 26, "name": "car", "share": 0.125},
        ]
    }
    assert summarise(record) == "sky 62 %, road 25 %, car 12 %"


def test_a_line_names_five_classes_and_counts_the_others() -> None:
    rows = [
        {"name": name, "share": share}
        for name, share in zip("abcdefg", [0.5, 0.49, *[0.002] * 5], strict=True)
    ]
    expected = "a 50 %, b 49 %, c <1 %, d <1 %, e <1 %, and 2 more"
    assert summarise({"classes": rows}) == expected
    assert summarise({"classes": []}) == "nothing"


@given(*(st.integers(1, 12) for _ in range(4)))
def test_a_map_is_sampled_at_the_centres_of_pixels(h: int, w: int, height: int, width: int) -> None:
    labels = torch.arange(h * w).view(h, w)
    found = at_size(labels, (height, width))
    for y in range(height):
        for x in range(width):
            assert found[y, x] == labels[int((y + 0.5) * h / height), int((x + 0.5) * w / width)]


def batch_of(origin: Origin) -> Batch[SegmentationTarget]:
    return Batch(images=torch.zeros(1, 3, 32, 32), sizes=((20, 30),), targets=(), origins=(origin,))


def test_a_page_says_how_many_labelled_pixels_are_right() -> None:
    truth = np.zeros((40, 60), np.int16)
    truth[:, 30:] = 1
    truth[:20] = UNLABELLED
    found = SegmentationPrediction(labels=torch.zeros(40, 60, dtype=torch.uint8))
    known = LabelledOrigin(name="x", size=(40, 60), truth=truth)
    pixels, line, right = show_prediction(batch_of(known), 0, found, PLAIN, RECORD)
    assert (line, right) == ("50 % of pixels right", None)
    assert pixels.shape[1] == 480
    assert pixels.shape[0] > 320
    unknown = batch_of(Origin(name="x", size=(40, 60)))
    assert show_prediction(unknown, 0, found, PLAIN, RECORD)[1] == "road 100 %"
    empty = LabelledOrigin(name="x", size=(40, 60), truth=np.full((40, 60), -1, np.int16))
    assert show_prediction(batch_of(empty), 0, found, PLAIN, RECORD)[1] == "unlabelled"


def test_a_padded_training_image_is_shown_with_its_classes() -> None:
    labels = torch.full((20, 30), UNLABELLED, dtype=torch.int16)
    labels[0] = 2
    target = SegmentationTarget(labels=labels)
    pixels, line, right = show_target(torch.zeros(3, 32, 32), target, PLAIN, RECORD)
    assert (line, right, pixels.shape[1]) == ("tree 100 %", None, 480)


def test_a_photograph_with_its_own_map_is_drawn(data_dir: Path) -> None:
    folder = data_dir / "camvid"
    file = sorted((folder / "labels" / "val").glob("*.png"))[0]
    labels = torch.from_numpy(np.asarray(Image.open(file)).astype(np.int16))
    labels[labels == 11] = UNLABELLED
    classes = Classes(names=tuple("abcdefghijk"), ids=tuple(range(11)))
    target = SegmentationTarget(labels=labels)
    page = draw(Image.open(folder / "images" / "val" / file.name), target, classes)
    assert page.size[0] == 480
    shares = [
        row["share"] for row in describe(SegmentationPrediction(labels=labels), classes)["classes"]
    ]
    assert sum(shares) == pytest.approx(1, abs=1e-5)
    assert shares == sorted(shares, reverse=True)


@pytest.mark.parametrize("size", [(8193, 3), (1, 9000), (9001, 1)])
def test_a_shrunk_page_is_coloured_to_its_last_row_and_column(size: tuple[int, int]) -> None:
    labels = torch.ones(size[1], size[0], dtype=torch.uint8)
    page, shown = drawing.fit(Image.new("RGB", size, "grey"), labels.numpy())
    assert shown.shape == (page.height, page.width)
    draw(Image.new("RGB", size, "grey"), SegmentationPrediction(labels=labels), PLAIN)
