"""Averages over windows, sizes and mirrored images, with networks whose answers are known."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from pyramidvit.errors import UserError
from pyramidvit.structures import Origin, Sample
from pyramidvit.task import Looks
from pyramidvit.tasks.segmentation import postprocess
from pyramidvit.tasks.segmentation.looks import look_again, predict_sizes, starts
from pyramidvit.tasks.segmentation.outputs import SegmentationOutputs
from pyramidvit.tasks.segmentation.transforms import eval_transform


class Pooled(nn.Module):
    """Two classes from 4 x 4 pixels each; notes the sizes of what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> SegmentationOutputs:
        self.sizes.append(tuple(images.shape[2:]))
        means = F.avg_pool2d(images, 4, ceil_mode=True)
        return SegmentationOutputs(logits=means[:, :2])


class Sided(nn.Module):
    """Says more of class 1 the further right in the image, whatever is seen there."""

    def forward(self, images: Tensor) -> SegmentationOutputs:
        across = torch.arange(images.shape[3]).expand_as(images[:, :1]).float()
        return SegmentationOutputs(logits=torch.cat((across * 0, across), dim=1))


class Pixelwise(nn.Module):
    """Each pixel by itself, at full size: windows cannot change it."""

    def forward(self, images: Tensor) -> SegmentationOutputs:
        return SegmentationOutputs(logits=images * torch.tensor([1.0, 2, 3])[:, None, None])


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def full(logits: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(logits, size, mode="bilinear", align_corners=False)


def slide(model: nn.Module, images: Tensor, side: int, stride: int) -> Tensor:
    """Mean logits over windows, as the reference slides them, added up pixel by pixel."""
    height, width = images.shape[2:]
    total = torch.zeros(len(images), 2, height, width)
    count = torch.zeros(height, width)
    for row in range(max(height - side + stride - 1, 0) // stride + 1):
        for column in range(max(width - side + stride - 1, 0) // stride + 1):
            y1, x1 = min(row * stride + side, height), min(column * stride + side, width)
            y0, x0 = max(y1 - side, 0), max(x1 - side, 0)
            logits = model(images[:, :, y0:y1, x0:x1]).logits
            total[:, :, y0:y1, x0:x1] += full(logits, (y1 - y0, x1 - x0))
            count[y0:y1, x0:x1] += 1
    return total / count


def test_one_look_is_the_model_itself() -> None:
    model = Pooled()
    assert look_again(model, Looks()) is model
    assert look_again(model, Looks(overlap=0)) is model


@pytest.mark.parametrize(
    ("length", "side", "step", "found"),
    [
        (10, 4, 3, [0, 3, 6]),
        (11, 4, 3, [0, 3, 6, 7]),
        (4, 4, 3, [0]),
        (3, 4, 3, [0]),
        (8, 4, 4, [0, 4]),
        (9, 4, 4, [0, 4, 5]),
        (1, 1, 1, [0]),
    ],
)
def test_the_last_window_is_shifted_back(
    length: int, side: int, step: int, found: list[int]
) -> None:
    assert starts(length, side, step) == found


@pytest.mark.parametrize("size", [(64, 96), (32, 45), (20, 70), (1, 1)])
@pytest.mark.parametrize(("overlap", "stride"), [(0, 32), (1 / 3, 21), (0.5, 16)])
def test_windows_average_logits_as_the_reference_does(
    size: tuple[int, int], overlap: float, stride: int
) -> None:
    images = noise(2, 3, *size)
    found = look_again(Pooled(), Looks(window=32, overlap=overlap))(images).logits
    expected = slide(Pooled(), images, 32, stride).log_softmax(1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_windows_leave_what_looks_at_single_pixels_as_it_was() -> None:
    images = noise(1, 3, 50, 70)
    found = look_again(Pixelwise(), Looks(window=32))(images).logits
    expected = Pixelwise()(images).logits.log_softmax(1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_an_image_smaller_than_the_window_is_seen_whole() -> None:
    model = Pooled()
    look_again(model, Looks(window=64))(noise(1, 3, 20, 30))
    assert model.sizes == [(20, 30)]


def test_mirrored_answers_are_turned_back() -> None:
    images = noise(2, 3, 8, 32)
    found = look_again(Pooled(), Looks(flip=True))(images).logits
    expected = full(Pooled()(images).logits, (8, 32)).log_softmax(1)  # it knows no left and right
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)

    shares = look_again(Sided(), Looks(flip=True))(images).logits.exp()
    torch.testing.assert_close(shares, shares.flip(3))


def test_sizes_and_mirrors_average_probabilities() -> None:
    images = noise(1, 3, 64, 96)
    looks = Looks(scales=(0.5, 1.0, 1.25), flip=True)
    model = Pooled()
    found = look_again(model, looks)(images).logits.exp()
    assert model.sizes == [(32, 64)] * 2 + [(64, 96)] * 2 + [(96, 128)] * 2

    shares = []
    for size in ((32, 64), (64, 96), (96, 128)):
        view = full(images, size)
        for turned in (view, view.flip(3)):
            logits = full(Pooled()(turned).logits, size)
            logits = logits if turned is view else logits.flip(3)
            shares.append(full(logits, (64, 96)).softmax(1))
    torch.testing.assert_close(found, torch.stack(shares).mean(0), atol=1e-5, rtol=1e-5)


RECORD = {
    "short_side": 32,
    "long_side": 64,
    "resize": "padded",
    "mean": [0.5] * 3,
    "std": [0.5] * 3,
    "interpolation": "bilinear",
}


def picture_of(pixels: np.ndarray) -> Sample:
    image = Image.fromarray(pixels)
    return Sample(image=image, target=None, origin=Origin(name="a", size=pixels.shape[:2]))


def test_an_enlarged_look_sees_what_the_file_has(monkeypatch: pytest.MonkeyPatch) -> None:
    bright = np.indices((64, 96)).sum(axis=0) % 2  # a chessboard, a pixel a field
    pixels = (np.stack([1 - bright, bright, 0 * bright], axis=-1) * 255).astype(np.uint8)
    monkeypatch.setattr(postprocess, "NUMBERS_AT_ONCE", 3 * 96 * 10)  # ten rows at a time
    found = predict_sizes(Pixelwise(), picture_of(pixels), RECORD | {"long_side": 96}, (2.0,))
    assert (found.labels.numpy() == bright).all()


@pytest.mark.parametrize("rows", [5, 1000])
@pytest.mark.parametrize("resize", ["padded", "aligned"])
def test_sizes_made_of_the_file_average_probabilities_in_its_frame(
    resize: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 71, 3), dtype=np.uint8)
    sample, record, scales = picture_of(pixels), RECORD | {"resize": resize}, (0.5, 1.0, 1.75)
    total = torch.zeros(2, 50, 71)
    for scale in scales:
        sides = {"short_side": int(32 * scale), "long_side": int(64 * scale)}
        image = eval_transform(record | sides)(sample).image
        assert isinstance(image, Tensor)
        below, beside = (-side % 32 for side in image.shape[1:])
        padded = F.pad(image, (0, beside, 0, below))[None]
        logits = full(Pooled()(padded).logits, tuple(padded.shape[2:]))
        logits = logits[:, :, : image.shape[1], : image.shape[2]]
        total += full(logits, (50, 71)).softmax(1)[0]
    monkeypatch.setattr(postprocess, "NUMBERS_AT_ONCE", 2 * 71 * rows)
    found = predict_sizes(Pooled(), sample, record, scales).labels
    sure = (total[0] - total[1]).abs() > 1e-4
    assert sure.float().mean() > 0.99
    assert (found == total.argmax(0))[sure].all()


def test_probabilities_that_round_to_zero_stay_finite() -> None:
    model = look_again(Pixelwise(), Looks(flip=True))
    assert model(1e4 * noise(1, 3, 8, 8)).logits.isfinite().all()


def test_a_wrapped_model_goes_into_evaluation_with_its_wrapper() -> None:
    model = Pooled()
    again = look_again(model, Looks(flip=True))
    again.eval()
    assert not model.training


@pytest.mark.parametrize(
    ("looks", "words"),
    [
        (Looks(window=-1), "window of -1"),
        (Looks(window=31), "32 or more"),
        (Looks(window=32, overlap=1), "overlap by 1"),
        (Looks(scales=()), "scales"),
        (Looks(scales=(1.0, 0.0)), "above 0"),
        (Looks(scales=(float("nan"),)), "above 0"),
    ],
)
def test_looks_without_sense_are_refused(looks: Looks, words: str) -> None:
    with pytest.raises(UserError, match=words):
        look_again(Pooled(), looks)
