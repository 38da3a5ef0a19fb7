"""Pictures and maps of labels that move together."""

import colorsys
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import tv_tensors

from pyramidvit.errors import UserError
from pyramidvit.structures import UNLABELLED, Origin, Sample, SegmentationTarget, collate
from pyramidvit.tasks.segmentation.balance import weights_of
from pyramidvit.tasks.segmentation.config import (
    LOSSES,
    SegmentationOptions,
    check_options,
    recipe_changes,
)
from pyramidvit.tasks.segmentation.moves import View, crop, is_varied, resize
from pyramidvit.tasks.segmentation.transforms import (
    DIVISOR,
    MEAN,
    STD,
    align_size,
    denormalise,
    describe_input,
    distort,
    eval_transform,
    fit_size,
    saturate,
    train_transform,
    view_of,
)
from pyramidvit.tasks.segmentation.truth import LabelledOrigin

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))
PLAIN = SegmentationOptions(
    short_side=64,
    long_side=96,
    crop_side=64,
    min_scale=1.0,
    max_scale=1.0,
    cat_max_ratio=1.0,
    flip=0.0,
    distortion=0.0,
)


def blocks(height: int, width: int, *, classes: int = 7) -> Sample[SegmentationTarget]:
    """A map of random blocks of 5 pixels, and a picture whose red is ten times the label."""
    rng = np.random.default_rng(0)
    cells = rng.integers(-1, classes, (-(-height // 5), -(-width // 5)))
    labels = cells.repeat(5, 0).repeat(5, 1)[:height, :width].astype(np.int16)
    pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
    pixels[:, :, 0] = 20 + 10 * labels
    return Sample(
        image=Image.fromarray(pixels),
        target=SegmentationTarget(labels=torch.from_numpy(labels)),
        origin=Origin(name="x", size=(height, width)),
    )


def red(image: Any) -> torch.Tensor:
    """The red channel of a model's input, from 0 to 255."""
    return (image[0] * STD[0] + MEAN[0]) * 255


def labels_of(sample: Sample[SegmentationTarget]) -> torch.Tensor:
    assert sample.target is not None
    return sample.target.labels


@settings(deadline=None, max_examples=60)
@given(SIZES, SIZES)
def test_labels_are_those_at_the_centres_of_the_new_pixels(
    size: tuple[int, int], new: tuple[int, int]
) -> None:
    view = view_of(blocks(*size))
    seen = resize(view, new).labels
    assert seen.dtype == torch.int16
    rows, columns = (
        [(2 * k + 1) * old // (2 * count) for k in range(count)]
        for old, count in zip(size, new, strict=True)
    )
    slow = torch.tensor([[int(view.labels[y, x]) for x in columns] for y in rows])
    assert torch.equal(torch.as_tensor(seen).long(), slow)


def test_an_enlarged_picture_and_its_map_lie_on_each_other() -> None:
    view = view_of(blocks(20, 30))
    large = resize(view, (160, 240))
    # Away from borders, where bilinear interpolation mixes nothing.
    inner = slice(20, 28), slice(20, 28)
    assert torch.equal(large.image[0][inner].long(), 20 + 10 * large.labels[inner].long())


def test_window_and_flip_move_the_picture_and_its_map_alike() -> None:
    options = replace(PLAIN, crop_side=32, flip=0.5, cat_max_ratio=0.9)
    sample = blocks(64, 80)
    torch.manual_seed(0)
    seen = [train_transform(options)(sample) for _ in range(20)]
    for moved in seen:
        assert torch.equal(red(moved.image).round().int(), 20 + 10 * labels_of(moved).int())
        assert labels_of(moved).shape == (32, 32)
    assert len({labels_of(moved).numpy().tobytes() for moved in seen}) > 10


def test_the_size_is_drawn_between_the_least_and_the_largest_scale() -> None:
    options = replace(PLAIN, min_scale=0.5, max_scale=2.0, crop_side=256, long_side=128)
    torch.manual_seed(0)
    sides = []
    for _ in range(40):
        labels = labels_of(train_transform(options)(plain_sample(32, 64)))
        sides.append(int((labels[:, 0] != UNLABELLED).sum()))
        assert int((labels[0] != UNLABELLED).sum()) == 2 * sides[-1]
    assert 32 <= min(sides) < 40
    assert 118 < max(sides) <= 128


def plain_sample(height: int, width: int) -> Sample[SegmentationTarget]:
    return Sample(
        image=Image.new("RGB", (width, height), (10, 200, 30)),
        target=SegmentationTarget(labels=torch.full((height, width), 3, dtype=torch.int16)),
        origin=Origin(name="x", size=(height, width)),
    )


def test_what_a_small_image_leaves_of_the_window_is_zero_and_unlabelled() -> None:
    options = replace(PLAIN, short_side=32, long_side=48, crop_side=64)
    done = train_transform(options)(plain_sample(32, 48))
    assert isinstance(done.image, torch.Tensor)
    assert done.image.shape == (3, 64, 64)
    labels = labels_of(done)
    assert (labels[:32, :48] == 3).all()
    assert (labels[32:] == UNLABELLED).all()
    assert (labels[:, 48:] == UNLABELLED).all()
    assert (done.image[:, 32:] == 0).all()
    assert (done.image[:, :, 48:] == 0).all()
    assert (done.image[:, :32, :48] != 0).all()


def test_a_window_with_several_classes_is_looked_for() -> None:
    labels = torch.zeros(64, 640, dtype=torch.int16)
    labels[:, 320:] = 1  # windows of 64 pixels see both in one of nine places
    view = View(tv_tensors.Image(torch.zeros(3, 64, 640, dtype=torch.uint8)), labels)
    view = view._replace(labels=tv_tensors.Mask(labels))
    torch.manual_seed(0)
    mixed = {
        most: sum(is_varied(torch.as_tensor(crop(view, 64, most).labels), 0.75) for _ in range(300))
        for most in (0.75, 1.0)
    }
    # A window's place is drawn from 577, 31 of which show enough of both: within eleven draws
    # 1 - (1 - 31/577)^11 = 45 % of the time, in one draw 5 %.
    assert 100 < mixed[0.75] < 175
    assert mixed[1.0] < 35


def test_the_share_of_a_class_is_that_of_the_labelled_pixels() -> None:
    labels = torch.full((10, 10), UNLABELLED, dtype=torch.int16)
    assert not is_varied(labels, 0.75)
    labels[0, :4] = 5
    assert not is_varied(labels, 0.75)
    labels[1, 0] = 2
    assert not is_varied(labels, 0.75)  # four of five
    labels[1, 1] = 2
    assert is_varied(labels, 0.75)  # four of six
    labels[2, :2] = 5
    assert not is_varied(labels, 0.75)  # six of eight: as much as the limit is too much


@settings(deadline=None, max_examples=100)
@given(st.tuples(*[st.integers(0, 255)] * 3), st.floats(0.5, 1.5))
def test_saturation_is_multiplied_in_hsv(colour: tuple[int, int, int], factor: float) -> None:
    hue, saturation, value = colorsys.rgb_to_hsv(*(x / 255 for x in colour))
    expected = colorsys.hsv_to_rgb(hue, min(1.0, saturation * factor), value)
    image = torch.tensor(colour).view(3, 1, 1) / 255
    assert saturate(image, factor).flatten().tolist() == pytest.approx(expected, abs=1e-5)


def test_colours_change_as_much_as_published_and_no_more() -> None:
    grey = torch.full((3, 4, 4), 0.5)
    torch.manual_seed(0)
    values = torch.stack([distort(grey, 1.0)[0, 0, 0] for _ in range(2000)])
    # Of a grey pixel only brightness and contrast change: each in half of the images.
    assert float((values == 0.5).float().mean()) == pytest.approx(0.25, abs=0.04)
    low, high = 0.5 - 32 / 255, 0.5 + 32 / 255
    assert low * 0.5 - 1e-6 <= float(values.min()) < low * 0.5 + 0.02
    assert high * 1.5 - 0.04 < float(values.max()) <= high * 1.5 + 1e-6
    weak = torch.stack([distort(grey, 0.5)[0, 0, 0] for _ in range(500)])
    assert float(weak.max()) <= (0.5 + 16 / 255) * 1.25 + 1e-6
    assert torch.equal(distort(grey, 0.0), grey)


def test_hue_turns_by_a_tenth_of_the_circle_at_most() -> None:
    dark_red = torch.tensor([0.5, 0.0, 0.0]).view(3, 1, 1).expand(3, 2, 2)
    torch.manual_seed(0)
    hues = []
    for _ in range(300):
        pixel = distort(dark_red, 1.0)[:, 0, 0].tolist()
        hues.append(colorsys.rgb_to_hsv(*pixel)[0])
    turned = [min(h, 1 - h) for h in hues]
    assert 0.09 < max(turned) <= 0.1 + 1e-3
    assert 0.4 < sum(t < 1e-6 for t in turned) / 300 < 0.6


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 5000), st.integers(1, 5000))
def test_an_aligned_size_is_the_next_multiple_of_32(height: int, width: int) -> None:
    aligned = align_size((height, width))
    for side, new in zip((height, width), aligned, strict=True):
        assert new % DIVISOR == 0
        assert 0 <= new - side < DIVISOR


def test_sizes_are_rounded_as_in_the_reference() -> None:
    assert fit_size((512, 683), 512, 2048) == (512, 683)
    assert fit_size((300, 400), 512, 2048) == (512, 683)
    assert fit_size((100, 1000), 512, 2048) == (205, 2048)
    assert fit_size((1, 9000), 512, 2048) == (1, 2048)


def test_an_aligned_image_fills_its_batch_and_a_padded_one_does_not() -> None:
    sample = blocks(50, 80)
    for aligned, size in ((True, (64, 128)), (False, (64, 102))):
        record = describe_input(replace(PLAIN, aligned=aligned, long_side=128))
        done = eval_transform(record)(sample)
        assert isinstance(done.image, torch.Tensor)
        assert done.image.shape[1:] == labels_of(done).shape == size
        batch = collate([done], divisor=DIVISOR)
        assert batch.images.shape == (1, 3, 64, 128)
        assert batch.sizes == (size,)


def test_the_truth_stays_as_the_file_has_it() -> None:
    sample = blocks(50, 80)
    before = labels_of(sample).clone()
    done = eval_transform(describe_input(PLAIN))(sample)
    assert isinstance(done.origin, LabelledOrigin)
    assert (done.origin.name, done.origin.size) == ("x", (50, 80))
    assert (done.origin.truth == before.numpy()).all()
    assert labels_of(done).shape == (60, 96)
    same = eval_transform(describe_input(replace(PLAIN, short_side=50)))(sample)
    labels_of(same).fill_(5)
    assert (labels_of(sample) == before).all()


def test_the_picture_comes_back_from_the_models_input() -> None:
    options = replace(PLAIN, short_side=50, long_side=80)
    sample = blocks(50, 80)
    done = eval_transform(describe_input(options))(sample)
    assert isinstance(done.image, torch.Tensor)
    assert (denormalise(done.image, describe_input(options)) == np.asarray(sample.image)).all()


def test_a_picture_without_a_map_is_prepared_alike() -> None:
    sample = blocks(50, 80)
    transform = eval_transform(describe_input(replace(PLAIN, aligned=True)))
    bare = transform(replace(sample, target=None))
    assert bare.target is None
    assert isinstance(bare.image, torch.Tensor)
    whole = transform(sample).image
    assert isinstance(whole, torch.Tensor)
    assert torch.equal(bare.image, whole)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (3, 2)])
@pytest.mark.parametrize("aligned", [True, False])
def test_images_of_a_few_pixels_are_prepared(size: tuple[int, int], aligned: bool) -> None:
    options = SegmentationOptions(
        short_side=64, long_side=128, crop_side=64, aligned=aligned, distortion=1.0
    )
    torch.manual_seed(0)
    for transform in (train_transform(options), eval_transform(describe_input(options))):
        for _ in range(5):
            done = transform(blocks(*size))
            assert isinstance(done.image, torch.Tensor)
            assert done.image.shape[1:] == labels_of(done).shape
            assert bool(done.image.isfinite().all())


def test_an_unlabelled_map_goes_through() -> None:
    sample = plain_sample(40, 50)
    assert sample.target is not None
    sample.target.labels.fill_(UNLABELLED)
    done = train_transform(replace(PLAIN, cat_max_ratio=0.75))(sample)
    assert (labels_of(done) == UNLABELLED).all()


def test_transforms_are_drawn_from_torchs_generator_alone_and_travel_to_processes() -> None:
    options = SegmentationOptions(short_side=64, long_side=96, crop_side=64, distortion=1.0)
    first = train_transform(options)
    second = pickle.loads(pickle.dumps(first))
    results = []
    for number, transform in enumerate((first, second)):
        np.random.seed(number)
        torch.manual_seed(3)
        results.append(transform(blocks(70, 90)))
    one, other = results
    assert torch.equal(one.image, other.image)
    assert torch.equal(labels_of(one), labels_of(other))
    assert pickle.loads(pickle.dumps(eval_transform(describe_input(options)))) is not None


@pytest.mark.parametrize(
    "change",
    [
        {"resize": "stretched"},
        {"interpolation": "bicubic"},
        {"short_side": 0},
        {"long_side": 8},
        {"std": [0, 1, 1]},
        {"mean": [0.5]},
    ],
)
def test_a_damaged_input_record_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no usable input"):
        eval_transform({**describe_input(PLAIN), **change})


def test_classes_are_weighed_by_their_shares() -> None:
    shares = torch.tensor([0.5, 0.25, 0.25, 0.0], dtype=torch.float64)
    assert weights_of(shares, "median") == (0.5, 1.0, 1.0, 1.0)
    inverse = weights_of(shares, "inverse")
    assert inverse == pytest.approx((2 / 3, 4 / 3, 4 / 3, 1.0), rel=1e-5)
    assert float((shares * torch.tensor(inverse)).sum()) == pytest.approx(1, rel=1e-5)
    assert weights_of(torch.zeros(2, dtype=torch.float64), "median") == (1.0, 1.0)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"model": "semantic_fpm"}, "nearest: semantic_fpn"),
        ({"loss": "cross_entropy+dise"}, "unknown loss dise; nearest: dice"),
        ({"loss": "dice+dice"}, "--loss must be a sum of different losses, got dice+dice"),
        ({"crop_side": 32, "batch_size": 1}, "--crop_side must be above 32 where each process"),
        ({"crop_side": 32, "accumulate": 4, "devices": 2}, "--crop_side must be above 32"),
        ({"long_side": 100}, "--long_side must be the short side of 320 or more, got 100"),
        ({"short_side": 8}, "--short_side must be 32 or more, got 8"),
        ({"crop_side": 8}, "--crop_side must be 32 or more, got 8"),
        ({"min_scale": 0.0}, "--min_scale must be above 0"),
        ({"max_scale": 0.4}, "--max_scale must be the min_scale of 0.5 or more, got 0.4"),
        ({"cat_max_ratio": 0.0}, "--cat_max_ratio"),
        ({"distortion": 1.5}, "--distortion must be from 0 to 1, got 1.5"),
        ({"class_weights": (0.0, 0.0)}, "--class_weights"),
        ({"class_weights": (1.0, -1.0)}, "--class_weights"),
        ({"dropout": 1.0}, "--dropout"),
        ({"drop_path_rate": -2.0}, "--drop_path_rate"),
        ({"poly_power": 0.0}, "--poly_power must be above 0"),
        ({"model": "trans2seg", "width": 100}, "--width must be a multiple of 8 for trans2seg"),
        ({"epochs": 0}, "--epochs"),
    ],
)
def test_numbers_out_of_range_are_refused(change: dict[str, Any], word: str) -> None:
    with pytest.raises(UserError, match=word.replace("+", "\\+")):
        check_options(SegmentationOptions(**change))


def test_every_loss_and_a_sum_of_two_are_known() -> None:
    for loss in (*LOSSES, "cross_entropy+dice", "focal+lovasz"):
        check_options(SegmentationOptions(loss=loss))


def test_one_image_at_a_time_may_be_small_where_a_pixel_is_no_batch_norms_batch() -> None:
    for change in ({"crop_side": 33}, {"batch_size": 2}, {"model": "trans2seg"}):
        small = {"crop_side": 32, "batch_size": 1, **change}
        check_options(SegmentationOptions(**small))


def test_scenes_are_never_mirrored() -> None:
    options = SegmentationOptions(**recipe_changes("scenes", "semantic_fpn", "pvt_v2_b0"))
    sample = blocks(128, 128)
    done = train_transform(options)(sample)
    assert torch.equal(labels_of(done), labels_of(sample))


def test_every_option_is_explained() -> None:
    for option in SegmentationOptions.__dataclass_fields__:
        documented = [kind.__doc__ or "" for kind in SegmentationOptions.__mro__]
        assert any(f"    {option}: " in text for text in documented), option
