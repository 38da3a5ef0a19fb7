"""The scenes of digits that come with a dependency."""

import hashlib
import time

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from pyramidvit.data.class_shares import class_shares
from pyramidvit.data.digits import load_arrays
from pyramidvit.data.scenes import (
    LEAST_CONTRAST,
    MOST_COVERED,
    SIDE,
    SceneSource,
    count_runs,
    covered,
    load_scene_data,
    load_scene_maps,
    place_glyphs,
)
from pyramidvit.ops.masks import decode_masks, encode_masks


def test_a_scene_has_two_to_five_digits_each_with_a_box_around_its_mask() -> None:
    source = load_scene_data(seed=0).splits["train"]
    counts = set()
    for number in range(60):
        sample = source[number]
        target = sample.target
        assert sample.image.size == sample.origin.size == (SIDE, SIDE)
        assert sample.image.mode == "RGB"
        counts.add(len(target.boxes))
        masks = decode_masks(target.masks)
        assert not (masks.sum(0) > 1).any()  # the one on top hides the one below
        for box, mask in zip(target.boxes, masks, strict=True):
            ys, xs = mask.nonzero(as_tuple=True)
            assert box.tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
            assert mask.sum() > 40
        assert not target.crowd.any()
        assert target.boxes.dtype == torch.float32
        assert target.labels.dtype == torch.int64
    assert counts == {2, 3, 4, 5}


def test_digits_hide_little_of_one_another() -> None:
    source = load_scene_data(seed=1).splits["train"]
    worst = 0.0
    for number in range(60):
        boxes = source[number].target.boxes
        overlaps = box_iou(boxes, boxes).fill_diagonal_(0)
        worst = max(worst, float(overlaps.max()))
    assert 0 < worst < 0.15


def test_digits_differ_in_brightness_from_what_is_around_them() -> None:
    source = load_scene_data(seed=0).splits["train"]
    weights = torch.tensor([0.30, 0.59, 0.11])
    contrasts = []
    for number in range(40):
        sample = source[number]
        grey = torch.from_numpy(np.array(sample.image)).float() @ weights
        masks = decode_masks(sample.target.masks)
        for (x0, y0, x1, y1), mask in zip(sample.target.boxes.long().tolist(), masks, strict=True):
            around = torch.zeros_like(mask)
            around[y0:y1, x0:x1] = True
            around &= ~masks.any(0)
            contrasts.append(float((grey[mask].mean() - grey[around].mean()).abs()))
    assert np.mean(contrasts) > LEAST_CONTRAST * 0.7
    assert np.quantile(contrasts, 0.02) > 20


def test_a_scene_is_the_same_whenever_and_wherever_it_is_made() -> None:
    first, again = (load_scene_data(seed=3).splits["train"] for _ in range(2))
    other = load_scene_data(seed=4).splits["train"]
    a, b = first[5], again[5]
    assert a.image.tobytes() == b.image.tobytes()
    assert torch.equal(a.target.boxes, b.target.boxes)
    assert a.image.tobytes() != first[6].image.tobytes()
    assert a.image.tobytes() != other[5].image.tobytes()
    content = b"".join(first[k].image.tobytes() for k in range(20))
    assert hashlib.sha256(content).hexdigest()[:16] == "638411de60e90985"


def test_held_out_scenes_show_digits_that_no_other_scene_shows() -> None:
    splits = load_scene_data(seed=0, train=7, validation=9).splits
    train, held_out = splits["train"], splits["validation"]
    assert isinstance(train, SceneSource)
    assert isinstance(held_out, SceneSource)
    assert (len(train), len(held_out)) == (7, 9)
    assert not set(train.digits) & set(held_out.digits)
    assert len(train.digits) + len(held_out.digits) == 1797
    assert train[0].image.tobytes() != held_out[0].image.tobytes()
    assert load_scene_data(seed=0).splits["validation"][0].target.labels.tolist() == (
        held_out[0].target.labels.tolist()
    )


def test_all_ten_classes_appear_about_equally_often() -> None:
    source = load_scene_data(seed=0).splits["validation"]
    labels = torch.cat([source[k].target.labels for k in range(100)])
    counts = torch.bincount(labels, minlength=10)
    assert int(counts.min()) > 15
    assert float(labels.numel()) / 100 == pytest.approx(3.5, abs=0.4)


def test_five_of_the_largest_digits_find_a_place() -> None:
    scans, _ = load_arrays()
    widest = sorted(scans, key=lambda scan: -int((scan > 60).sum()))[:5]
    for seed in range(30):
        glyphs = place_glyphs(list(widest), np.random.default_rng(seed))
        assert len(glyphs) == 5
        pairs = [(a, b) for i, a in enumerate(glyphs) for b in glyphs[:i]]
        assert all(covered(a, b) <= MOST_COVERED for a, b in pairs)


@pytest.mark.parametrize("corner", [False, True])
def test_runs_are_those_of_the_other_way_to_count_them(corner: bool) -> None:
    rng = np.random.default_rng(0)
    for height, width in ((1, 1), (5, 7), (9, 4)):
        bits = rng.integers(2, size=(height, width)).astype(bool)
        bits[0, 0] = bits[-1, -1] = corner
        expected = encode_masks(torch.from_numpy(bits)[None]).counts
        assert count_runs(bits).tolist() == expected.tolist()


def test_hundreds_of_scenes_are_made_in_a_second() -> None:
    source = load_scene_data(seed=0).splits["train"]
    source[0]
    started = time.process_time()
    for number in range(60):
        source[number]
    assert time.process_time() - started < 0.6  # a slow core makes 700 a second, 100 will do


def test_scene_maps_show_the_same_pictures_with_a_class_for_every_pixel() -> None:
    objects, maps = load_scene_data(seed=2), load_scene_maps(seed=2)
    assert maps.classes.names == ("background", *objects.classes.names)
    assert len(maps.classes.ids) == 11
    for part in ("train", "validation"):
        for number in range(5):
            one, other = objects.splits[part][number], maps.splits[part][number]
            assert one.image.tobytes() == other.image.tobytes()
            assert one.origin == other.origin
            expected = torch.zeros(SIDE, SIDE, dtype=torch.int16)
            masks = decode_masks(one.target.masks)
            for mask, label in zip(masks, one.target.labels.tolist(), strict=True):
                expected[mask] = label + 1
            assert torch.equal(other.target.labels, expected)
            assert other.target.labels.dtype == torch.int16
            again = maps.splits[part].read_target(number)  # type: ignore[attr-defined]
            assert torch.equal(again.labels, expected)


def test_most_of_a_scene_map_is_background() -> None:
    shares = class_shares(load_scene_maps(seed=0, validation=20).splits["validation"])
    assert 0.8 < float(shares[0]) < 0.95
    assert float(shares.sum()) == pytest.approx(1)
    assert len(shares) == 11
