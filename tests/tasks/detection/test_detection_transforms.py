"""Pictures, boxes and masks that move together."""

import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from pyramidvit.ops.masks import decode_masks, encode_masks, mask_areas
from pyramidvit.structures import DetectionTarget, Masks, Origin, Sample
from pyramidvit.tasks.detection.config import DetectionOptions, recipe_changes
from pyramidvit.tasks.detection.moves import (
    OUTSIDE,
    View,
    crop,
    flip,
    move_target,
    place,
    remap_masks,
    resize,
    whole_view,
)
from pyramidvit.tasks.detection.transforms import (
    augment,
    denormalise,
    describe_input,
    draw_side,
    eval_transform,
    fit_size,
    random_crop,
    train_transform,
)
from pyramidvit.tasks.detection.truth import AnnotatedOrigin

PLAIN = DetectionOptions(
    min_scale=1.0,
    num_scales=1,
    flip=0.0,
    crop=0.0,
    zoom_out=1.0,
    jitter=0.0,
    short_side=64,
    long_side=96,
)


def picture(height: int, width: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def box_masks(boxes: list[tuple[int, int, int, int]], size: tuple[int, int]) -> Masks:
    bits = torch.zeros(len(boxes), *size, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(bits, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    return encode_masks(bits)


def sample_of(
    boxes: list[tuple[int, int, int, int]], size: tuple[int, int], *, masks: bool = True
) -> Sample[DetectionTarget]:
    target = DetectionTarget(
        boxes=torch.tensor(boxes, dtype=torch.float32).view(-1, 4),
        labels=torch.arange(len(boxes)),
        crowd=torch.arange(len(boxes)) % 2 == 1,
        masks=box_masks(boxes, size) if masks else None,
    )
    return Sample(image=picture(*size), target=target, origin=Origin(name="x", size=size))


@st.composite
def boxes_in(draw: Any, size: tuple[int, int]) -> tuple[int, int, int, int]:
    x0, y0 = draw(st.integers(0, size[1] - 1)), draw(st.integers(0, size[0] - 1))
    return x0, y0, draw(st.integers(x0 + 1, size[1])), draw(st.integers(y0 + 1, size[0]))


@st.composite
def moved(draw: Any, view: View) -> View:
    """A view after some random moves."""
    for move in draw(st.lists(st.sampled_from(["flip", "crop", "resize", "place"]), max_size=4)):
        height, width = view.size
        if move == "flip":
            view = flip(view)
        elif move == "crop":
            top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
            rest = (st.integers(1, height - top), st.integers(1, width - left))
            view = crop(view, top, left, draw(rest[0]), draw(rest[1]))
        elif move == "resize":
            view = resize(view, (draw(st.integers(1, 40)), draw(st.integers(1, 40))))
        else:
            top, left, below, beside = (draw(st.integers(0, 5)) for _ in range(4))
            size = (height + top + below, width + left + beside)
            view = place(view, size, top, left, (1, 2, 3))
    return view


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_masks_are_seen_through_columns_and_rows(data: Any) -> None:
    shape = st.tuples(st.integers(0, 4), st.integers(1, 9), st.integers(1, 9))
    bits = torch.from_numpy(data.draw(hnp.arrays(bool, shape)))
    n, height, width = bits.shape
    plain = whole_view(picture(height, width), torch.zeros(0, 4))
    view = data.draw(moved(plain))
    chosen = torch.from_numpy(data.draw(hnp.arrays(bool, n)))
    slow = bits[chosen][:, view.rows.clamp(min=0)][:, :, view.columns.clamp(min=0)]
    slow = slow & (view.rows != OUTSIDE)[:, None] & (view.columns != OUTSIDE)
    seen = remap_masks(encode_masks(bits), chosen, view.columns, view.rows)
    expected = encode_masks(slow)
    assert seen.size == view.size
    assert torch.equal(seen.counts, expected.counts)
    assert torch.equal(seen.num_runs, expected.num_runs)


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_a_box_drawn_into_a_mask_stays_around_it(data: Any) -> None:
    size = data.draw(st.tuples(st.integers(1, 30), st.integers(1, 30)))
    boxes = data.draw(st.lists(boxes_in(size), max_size=4))
    sample = sample_of(boxes, size)
    assert sample.target is not None
    view = whole_view(sample.image, sample.target.boxes)
    if data.draw(st.booleans()):
        view = flip(view)
    window = data.draw(boxes_in(size))
    view = crop(view, window[1], window[0], window[3] - window[1], window[2] - window[0])
    view = resize(view, (data.draw(st.integers(1, 60)), data.draw(st.integers(1, 60))))
    if data.draw(st.booleans()):
        view = place(view, (view.size[0] + 7, view.size[1] + 5), 3, 2, (0, 0, 0))
    target = move_target(sample.target, view)
    assert target.masks is not None
    assert target.masks.size == view.size
    for box, mask in zip(target.boxes, decode_masks(target.masks), strict=True):
        assert (box[2:] > box[:2]).all()
        ys, xs = mask.nonzero(as_tuple=True)
        if len(ys):  # a thin object may lie between the pixels' centres
            found = torch.tensor([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
            assert float((found - box).abs().max()) <= 0.5 + 1e-3
        else:
            assert float((box[2:] - box[:2]).min()) <= 1 + 1e-3


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_two_flips_are_none(data: Any) -> None:
    size = data.draw(st.tuples(st.integers(1, 20), st.integers(1, 20)))
    sample = sample_of(data.draw(st.lists(boxes_in(size), max_size=3)), size)
    assert sample.target is not None
    view = whole_view(sample.image, sample.target.boxes)
    back = flip(flip(view))
    assert all(torch.equal(a, b) for a, b in zip(view, back, strict=True))
    once = move_target(sample.target, flip(view)).masks
    assert once is not None
    bits = decode_masks(sample.target.masks)  # type: ignore[arg-type]
    assert torch.equal(decode_masks(once), bits.flip(2))


def test_objects_without_a_part_in_the_window_are_dropped_and_crowds_are_kept() -> None:
    boxes = [(0, 0, 4, 4), (2, 2, 9, 9), (5, 5, 10, 10), (4, 0, 6, 2)]
    sample = sample_of(boxes, (12, 12))
    assert sample.target is not None
    view = crop(whole_view(sample.image, sample.target.boxes), 4, 4, 6, 6)
    target = move_target(sample.target, view)
    # The first ends where the window begins, the last lies above it.
    assert target.labels.tolist() == [1, 2]
    assert target.crowd.tolist() == [True, False]
    assert target.boxes.tolist() == [[0, 0, 5, 5], [1, 1, 6, 6]]
    assert target.masks is not None
    assert mask_areas(target.masks).tolist() == [25, 25]


def test_a_box_is_kept_where_all_pixels_of_its_mask_are_gone() -> None:
    bits = torch.zeros(1, 10, 10, dtype=torch.bool)
    bits[0, 0, 0] = True
    target = DetectionTarget(
        boxes=torch.tensor([[0.0, 0, 10, 10]]),
        labels=torch.tensor([3]),
        crowd=torch.tensor([False]),
        masks=encode_masks(bits),
    )
    view = crop(whole_view(picture(10, 10), target.boxes), 5, 5, 5, 5)
    left = move_target(target, view)
    assert left.boxes.tolist() == [[0, 0, 5, 5]]
    assert left.masks is not None
    assert mask_areas(left.masks).tolist() == [0]


def test_boxes_that_reach_out_of_the_picture_are_clipped() -> None:
    view = whole_view(picture(10, 20), torch.tensor([[-3.0, 2, 25, 11]]))
    assert view.boxes.tolist() == [[0, 2, 20, 10]]


@settings(max_examples=200)
@given(st.integers(1, 9000), st.integers(1, 9000))
def test_sizes_are_the_references(height: int, width: int) -> None:
    """Closed form: the short side becomes 800, unless the long one would pass 1333."""
    new = fit_size((height, width), 800, 1333)
    short, long = sorted((height, width))
    new_short, new_long = sorted(new)
    if long * 800 <= 1333 * short:
        assert new_short == 800
        assert abs(new_long - long * 800 / short) <= 0.5 + 1e-9
    else:
        assert new_long == 1333
        assert new_short == max(1, new_short)
        assert abs(new_short - short * 1333 / long) <= 0.5 + 1e-9 or new_short == 1
    assert (new[0] >= new[1]) == (height >= width) or new[0] == new[1]


@pytest.mark.parametrize(
    ("size", "new"),
    [
        ((480, 640), (800, 1067)),  # 1066.67 up
        ((427, 640), (800, 1199)),  # 1199.06 down
        ((640, 426), (1202, 800)),
        ((375, 500), (800, 1067)),
        ((333, 500), (800, 1201)),  # 1201.2
        ((612, 612), (800, 800)),
        ((240, 640), (500, 1333)),  # 499.875 up: the long side decides
        ((1, 1), (800, 800)),
        ((1, 8000), (1, 1333)),  # the reference would round to no pixel
    ],
)
def test_sizes_known_by_hand(size: tuple[int, int], new: tuple[int, int]) -> None:
    assert fit_size(size, 800, 1333) == new


def test_short_sides_are_drawn_as_published() -> None:
    torch.manual_seed(0)
    v2 = DetectionOptions(**recipe_changes("3x", "mask_rcnn", "pvt_v2_b2"))
    assert {draw_side(v2) for _ in range(400)} == set(range(480, 801, 32))
    v1 = DetectionOptions(**recipe_changes("3x", "retinanet", "pvt_small"))
    drawn = {draw_side(v1) for _ in range(2000)}
    assert (min(drawn), max(drawn)) == (640, 800)
    assert len(drawn) > 150
    short = DetectionOptions(**recipe_changes("1x", "retinanet", "pvt_small"))
    assert {draw_side(short) for _ in range(20)} == {800}


def test_the_published_policy_cuts_windows_of_384_to_600_pixels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from pyramidvit.tasks.detection import transforms

    seen: list[tuple[tuple[int, int], tuple[int, int]]] = []

    def watched(view: View, size: tuple[int, int]) -> View:
        seen.append((view.size, size))
        return random_crop(view, size)

    monkeypatch.setattr(transforms, "random_crop", watched)
    torch.manual_seed(0)
    options = DetectionOptions(**recipe_changes("3x", "mask_rcnn", "pvt_v2_b2"))
    start = whole_view(picture(30, 40), torch.zeros(0, 4))
    sizes = [augment(start, options).size for _ in range(60)]
    assert 15 < len(seen) < 45
    assert {min(before) for before, _ in seen} == {400, 500, 600}
    for before, (height, width) in seen:
        assert 384 <= height <= min(600, before[0])
        assert 384 <= width <= min(600, before[1])
    assert all(min(size) in range(480, 801, 32) or max(size) == 1333 for size in sizes)


def test_augmentation_follows_from_torchs_generator_alone() -> None:
    sample = sample_of([(1, 2, 30, 20), (10, 10, 25, 40)], (48, 60))
    options = replace(
        PLAIN, min_scale=0.5, num_scales=0, flip=0.5, crop=0.5, zoom_out=2.0, jitter=0.3, tile=40
    )
    transform = train_transform(options)
    again = pickle.loads(pickle.dumps(transform))
    images = []
    for seed in range(12):
        torch.manual_seed(seed)
        np.random.seed(0)
        first = transform(sample)
        torch.manual_seed(seed)
        np.random.seed(1)
        second = again(sample)
        assert torch.equal(first.image, second.image)
        assert torch.equal(first.target.boxes, second.target.boxes)
        assert torch.equal(first.target.masks.counts, second.target.masks.counts)
        assert first.target.masks.size == tuple(first.image.shape[1:])
        images.append(first.image)
    assert len({float(image.sum()) for image in images}) > 10


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_augmented_objects_stay_where_their_colour_is(data: Any) -> None:
    """A box drawn in red is found again, by its colour, where the moved box says."""
    size = (50, 70)
    x0, y0, x1, y1 = data.draw(boxes_in(size))
    if min(x1 - x0, y1 - y0) < 4:
        return
    pixels = np.zeros((*size, 3), np.uint8)
    pixels[y0:y1, x0:x1, 0] = 255
    sample = replace(sample_of([(x0, y0, x1, y1)], size), image=Image.fromarray(pixels))
    options = replace(PLAIN, min_scale=0.7, num_scales=0, flip=0.5, crop=0.5, zoom_out=1.5)
    torch.manual_seed(data.draw(st.integers(0, 10_000)))
    out = train_transform(options)(sample)
    if not len(out.target.boxes):
        return
    picture = denormalise(out.image, describe_input(options)).astype(int)
    red = picture[:, :, 0] - picture[:, :, 1] > 127
    ys, xs = red.nonzero()
    box = out.target.boxes[0]
    if not len(ys):
        assert float((box[2:] - box[:2]).min()) < 2
        return
    found = torch.tensor([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
    assert float((found - box).abs().max()) <= 2  # bilinear edges, resized twice at most


def test_a_canvas_may_shrink_to_a_pixel() -> None:
    view = place(whole_view(picture(3, 2), torch.zeros(0, 4)), (5, 5), 1, 1, (0, 0, 0))
    assert resize(view, (1, 1)).image.shape == (3, 1, 1)


def test_zooming_out_puts_the_picture_on_a_canvas_without_signal() -> None:
    torch.manual_seed(1)
    sample = sample_of([(0, 0, 64, 64)], (64, 64))
    out = train_transform(replace(PLAIN, zoom_out=3.0))(sample)
    assert out.image.shape == (3, 64, 64)
    x0, y0, x1, y1 = (round(v) for v in out.target.boxes[0].tolist())
    assert x1 - x0 < 60
    around = torch.ones(64, 64, dtype=torch.bool)
    around[y0:y1, x0:x1] = False
    assert float(out.image[:, around].abs().max()) < 0.02  # zero is what padding has


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (5, 5)])
def test_tiny_pictures_pass(size: tuple[int, int]) -> None:
    options = replace(PLAIN, flip=0.5, crop=1.0, zoom_out=4.0, jitter=0.5, tile=40, min_scale=0.5)
    sample = sample_of([(0, 0, size[1], size[0])], size)
    for seed in range(5):
        torch.manual_seed(seed)
        out = train_transform(options)(sample)
        assert out.image.isfinite().all()
        assert min(out.image.shape) >= 1
        assert max(out.image.shape) <= 96
    out = eval_transform(describe_input(options))(sample)
    assert max(out.image.shape) <= 96


def test_a_thousand_objects_in_a_picture_of_48_megapixels_pass() -> None:
    size = (6000, 8000)
    boxes = [(80 * (i % 100), 500 * (i // 100), 80 * (i % 100) + 70, 500 * (i // 100) + 400)
             for i in range(1000)]  # fmt: skip
    runs = [np.asarray([x0 * 6000 + y0, *[y1 - y0, 6000 - (y1 - y0)] * (x1 - x0 - 1), y1 - y0])
            for x0, y0, x1, y1 in boxes]  # fmt: skip
    runs = [np.append(r, 48_000_000 - r.sum()) for r in runs]
    masks = Masks(
        size=size,
        counts=torch.from_numpy(np.concatenate(runs)),
        num_runs=torch.tensor([len(r) for r in runs]),
    )
    target = DetectionTarget(
        boxes=torch.tensor(boxes, dtype=torch.float32),
        labels=torch.zeros(1000, dtype=torch.int64),
        crowd=torch.zeros(1000, dtype=torch.bool),
        masks=masks,
    )
    image = Image.new("RGB", (8000, 6000))
    sample = Sample(image=image, target=target, origin=Origin(name="x", size=size))
    record = {**describe_input(PLAIN), "short_side": 600, "long_side": 1000}
    out = eval_transform(record)(sample)
    assert out.image.shape == (3, 600, 800)
    assert len(out.target.masks) == 1000
    assert mask_areas(out.target.masks).tolist() == [7 * 40] * 1000


def test_a_tile_is_cut_at_full_resolution() -> None:
    options = replace(PLAIN, tile=64, short_side=64, long_side=64)
    sample = sample_of([(0, 0, 300, 200)], (200, 300))
    torch.manual_seed(0)
    image = train_transform(options)(sample).image
    pixels = denormalise(image, describe_input(options))
    whole = np.asarray(sample.image)
    places = [
        (y, x) for y in range(137) for x in range(237)
        if (whole[y, x] == pixels[0, 0]).all() and (whole[y + 63, x + 63] == pixels[63, 63]).all()
    ]  # fmt: skip
    assert any((whole[y : y + 64, x : x + 64] == pixels).all() for y, x in places)


def test_evaluation_moves_the_target_and_keeps_the_truth() -> None:
    sample = sample_of([(2, 3, 20, 30)], (32, 48))
    out = eval_transform(describe_input(PLAIN))(sample)
    assert out.image.shape == (3, 64, 96)
    assert out.target.boxes.tolist() == [[4, 6, 40, 60]]
    assert isinstance(out.origin, AnnotatedOrigin)
    assert out.origin.truth is sample.target
    assert out.origin.size == (32, 48)


def test_pictures_to_predict_need_no_target() -> None:
    sample: Sample[Any] = replace(sample_of([], (20, 30)), target=None)
    assert eval_transform(describe_input(PLAIN))(sample).target is None
    assert train_transform(PLAIN)(sample).target is None


@pytest.mark.parametrize("masks", [False, True])
def test_pictures_without_objects_pass(masks: bool) -> None:
    sample = sample_of([], (20, 30), masks=masks)
    torch.manual_seed(0)
    target = train_transform(replace(PLAIN, crop=1.0, zoom_out=2.0))(sample).target
    assert target.boxes.shape == (0, 4)
    assert (target.masks is not None) == masks


@pytest.mark.parametrize(
    "change",
    [{"short_side": 0}, {"long_side": 3}, {"std": [0, 1, 1]}, {"mean": [0]},
     {"interpolation": "bicubic"}],
)  # fmt: skip
def test_a_damaged_input_record_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no usable input"):
        eval_transform({**describe_input(PLAIN), **change})


def test_a_picture_survives_normalisation_and_back() -> None:
    sample = sample_of([], (64, 64))
    record = describe_input(PLAIN)
    image = eval_transform(record)(sample).image
    assert isinstance(image, torch.Tensor)
    assert type(image) is torch.Tensor
    assert (denormalise(image, record) == np.asarray(sample.image)).all()
