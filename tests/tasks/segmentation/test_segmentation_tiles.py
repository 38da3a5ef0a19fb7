"""Windows that are looked at one by one give the labels of the whole picture, away from seams."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from pyramidvit.errors import UserError
from pyramidvit.structures import Origin, Sample, SegmentationTarget, collate
from pyramidvit.task import Tiling
from pyramidvit.tasks.segmentation import tiles
from pyramidvit.tasks.segmentation.config import SegmentationOptions
from pyramidvit.tasks.segmentation.model import build_segmenter
from pyramidvit.tasks.segmentation.outputs import SegmentationOutputs
from pyramidvit.tasks.segmentation.postprocess import postprocess
from pyramidvit.tasks.segmentation.tiles import blend, cells, plan, predict_tiled
from pyramidvit.tasks.segmentation.transforms import describe_input, eval_transform

RECORD = describe_input(SegmentationOptions())
NEAR = 10.0  # pixels from a window's edge within which `Local` sees that something is missing


class Local(nn.Module):
    """Answers at a quarter of the size, from what is near: cells of 4 pixels, and two around."""

    def __init__(self, classes: int = 7, *, factor: int = 1) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 4, stride=4),
            nn.Tanh(),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.Tanh(),
            nn.Conv2d(8, classes, 3, padding=1),
        )
        self.factor = factor
        self.sides: list[int] = []

    def forward(self, images: Tensor) -> SegmentationOutputs:
        self.sides += [max(images.shape[2:])]
        logits = self.layers(images)
        return SegmentationOutputs(logits.repeat_interleave(self.factor, 2))  # odd strides


@pytest.fixture
def model() -> Local:
    torch.manual_seed(0)
    return Local().eval()


def sample_of(size: tuple[int, int]) -> Sample[SegmentationTarget]:
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8))
    return Sample(image=picture, target=None, origin=Origin(name="x", size=size))


def whole_labels(model: nn.Module, sample: Sample[SegmentationTarget]) -> Tensor:
    """Labels of the picture looked at whole, in its own size."""
    sides = {"short_side": min(sample.origin.size), "long_side": max(sample.origin.size)}
    batch = collate([eval_transform({**RECORD, **sides})(sample)], divisor=32)
    with torch.inference_mode():
        return postprocess(model(batch.images), batch)[0].labels


def distance_to_seams(size: tuple[int, int], tiling: Tiling) -> np.ndarray:
    """[H, W]: how far a pixel's centre is from the nearest inner edge of the windows over it."""
    grid = plan(size, tiling, 32)
    sides = []
    for starts, length in zip((grid.tops, grid.lefts), size, strict=True):
        nearest = np.full(length, np.inf)
        for start in starts:
            end = min(start + grid.side, length)
            pixels = np.arange(start, end) + 0.5
            for edge in [e for e in (start, end) if 0 < e < length]:
                nearest[start:end] = np.minimum(nearest[start:end], np.abs(pixels - edge))
        sides.append(nearest)
    return np.minimum(sides[0][:, None], sides[1])


@pytest.mark.parametrize(("side", "overlap"), [(128, 0.25), (64, 0.0), (96, 0.6), (200, 0.1)])
def test_labels_are_those_of_the_whole_picture_but_at_seams(
    model: Local, side: int, overlap: float
) -> None:
    sample, tiling = sample_of((333, 250)), Tiling(side=side, overlap=overlap)
    found = predict_tiled(model, sample, RECORD, tiling).labels
    wrong = (found != whole_labels(model, sample)).numpy()
    far = distance_to_seams((333, 250), tiling)
    assert found.dtype == torch.uint8
    assert far[wrong].max() < NEAR
    assert wrong.mean() < 0.2
    assert (far >= NEAR).mean() > 0.1


def test_one_window_over_everything_is_the_whole_picture(model: Local) -> None:
    for size in ((1, 1), (31, 33), (100, 70)):
        sample = sample_of(size)
        found = predict_tiled(model, sample, RECORD, Tiling(side=128)).labels
        assert (found == whole_labels(model, sample)).all()


def test_blending_leaves_fewer_seams_than_windows_side_by_side(model: Local) -> None:
    sample = sample_of((256, 256))
    whole = whole_labels(model, sample)
    wrong = [
        int(
            (predict_tiled(model, sample, RECORD, Tiling(side=64, overlap=o)).labels != whole).sum()
        )
        for o in (0.0, 0.5)
    ]
    assert 0 < wrong[1] < wrong[0] / 2


def test_no_window_is_larger_than_asked_for(model: Local) -> None:
    predict_tiled(model, sample_of((300, 200)), RECORD, Tiling(side=90))
    assert max(model.sides) == 96


@pytest.mark.parametrize("carried", [1, 40_000])
def test_little_memory_changes_no_label(
    model: Local, monkeypatch: pytest.MonkeyPatch, carried: int
) -> None:
    sample, tiling = sample_of((300, 333)), Tiling(side=96, overlap=0.4)
    ample = predict_tiled(model, sample, RECORD, tiling).labels
    windows = len(model.sides)
    monkeypatch.setattr(tiles, "CARRIED", carried)
    monkeypatch.setattr(tiles, "NUMBERS_AT_ONCE", 5000)
    assert (predict_tiled(model, sample, RECORD, tiling).labels == ample).all()
    assert len(model.sides) > 2 * windows  # some were looked at twice


def test_logits_of_another_stride_are_stretched_first() -> None:
    torch.manual_seed(0)
    sample = sample_of((90, 70))
    for factor in (2, 4, 8):  # logits of 2, 1 and 1/2 pixels high
        model = Local(factor=factor).eval()
        found = predict_tiled(model, sample, RECORD, Tiling(side=128)).labels
        assert (found == whole_labels(model, sample)).float().mean() > 0.999


def test_more_than_255_classes_are_told_apart() -> None:
    labels = predict_tiled(Local(300).eval(), sample_of((64, 64)), RECORD, Tiling(side=64)).labels
    assert labels.dtype == torch.int16
    assert labels.max() > 255


@given(st.integers(1, 3000), st.integers(1, 700), st.floats(0, 0.9))
def test_windows_cover_everything_with_the_overlap_asked_for(
    length: int, side: int, overlap: float
) -> None:
    grid = plan((length, 1), Tiling(side=side, overlap=overlap), 32)
    steps = np.diff(grid.tops)
    assert grid.lefts == (0,)
    assert grid.tops[0] == 0
    assert grid.tops[-1] < length <= grid.tops[-1] + grid.side
    assert side <= grid.side < side + 32
    assert all(top % 32 == 0 for top in grid.tops)
    assert (steps > 0).all()
    assert (steps <= max(32, grid.side * (1 - overlap) + 1e-6)).all()


class Weighed(nn.Module):
    """A model with one logit more, of 1: blended, it is the sum of the windows' weights."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> SegmentationOutputs:
        return SegmentationOutputs(F.pad(self.model(images).logits, (0, 0, 0, 0, 0, 1), value=1.0))


def shares_of(model: nn.Module, sample: Sample[SegmentationTarget], tiling: Tiling) -> Tensor:
    """Probabilities [K, H, W] from the blended logits."""
    grid = plan(sample.origin.size, tiling, 32)
    found = torch.zeros(7, *grid.size)
    with torch.inference_mode():
        columns = range(len(grid.lefts))
        for area, answers in cells(Weighed(model), sample.image, grid, RECORD, columns):
            total = blend(area, answers, grid)
            y0, y1, x0, x1 = area
            found[:, y0:y1, x0:x1] = (total[:-1] / total[-1]).softmax(dim=0)
    return found


@pytest.mark.parametrize(("side", "overlap"), [(128, 0.25), (96, 0.5)])
def test_probabilities_are_those_of_the_whole_picture_but_at_seams(
    model: Local, side: int, overlap: float
) -> None:
    sample, tiling = sample_of((192, 256)), Tiling(side=side, overlap=overlap)
    found = shares_of(model, sample, tiling)
    difference = (found - shares_of(model, sample, Tiling(side=256))).abs().amax(dim=0).numpy()
    far = distance_to_seams((192, 256), tiling)
    assert difference[far >= NEAR].max() < 1e-5
    assert difference[far < NEAR].max() > 1e-3
    assert difference.max() < 0.1  # at seams, what is missing is outweighed by the neighbour


def test_a_transformer_in_windows_says_nearly_what_it_says_of_the_whole_picture() -> None:
    """Attention sees its window alone, so no pixel is exactly what it was; bounds were measured."""
    torch.manual_seed(0)
    model = build_segmenter("semantic_fpn", "pvt_v2_b0", 7, width=32).eval()
    small = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    picture = Image.fromarray(small).resize((256, 192), Image.Resampling.BICUBIC)
    sample = Sample(image=picture, target=None, origin=Origin(name="x", size=(192, 256)))
    tiling = Tiling(side=128)
    found, whole = shares_of(model, sample, tiling), shares_of(model, sample, Tiling(side=256))
    assert len(whole.argmax(dim=0).unique()) > 3
    same = (found.argmax(dim=0) == whole.argmax(dim=0)).numpy()
    far = distance_to_seams((192, 256), tiling) >= 32
    assert same[far].mean() > 0.95
    assert same[~far].mean() > 0.85
    assert (found - whole).abs().mean() < 0.02


MEMORY = """
import resource, sys
from pathlib import Path
import numpy as np
import torch
from PIL import Image
from pyramidvit.structures import Classes, Origin, Sample
from pyramidvit.task import Tiling
from pyramidvit.tasks.segmentation.config import SegmentationOptions
from pyramidvit.tasks.segmentation.draw import draw
from pyramidvit.tasks.segmentation.outputs import SegmentationOutputs
from pyramidvit.tasks.segmentation.results import FORMATS, open_results
from pyramidvit.tasks.segmentation.tiles import predict_tiled
from pyramidvit.tasks.segmentation.transforms import describe_input

class Colours(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 24, 4, stride=4)

    def forward(self, images):
        return SegmentationOutputs(self.layer(images))

torch.manual_seed(0)
small = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
picture = Image.fromarray(small).resize((3072, 3072), Image.Resampling.NEAREST)
origin = Origin(name="large.png", size=(3072, 3072))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
sample = Sample(image=picture, target=None, origin=origin)
record = describe_input(SegmentationOptions())
found = predict_tiled(Colours().eval(), sample, record, Tiling(side=512))
names = tuple(f"c{k}" for k in range(24))
classes = Classes(names=names, ids=tuple(range(24)))
draw(picture, found, classes).save(Path(sys.argv[1]) / "large.jpg")
files = open_results(Path(sys.argv[1]), classes, FORMATS)
files.add(origin, found)
files.close()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count memory otherwise")
def test_a_large_picture_with_all_its_files_takes_little_memory(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path)], capture_output=True, text=True, check=True
    )
    most = 250_000  # KiB, over twice what was measured; all logits would be 900,000
    assert int(done.stdout) < most
    assert {path.suffix for path in tmp_path.iterdir()} == {
        *(".jpg", ".png", ".geojson", ".json", ".csv")
    }


@pytest.mark.parametrize(("side", "overlap"), [(0, 0.25), (64, 1.0), (64, -0.1)])
def test_a_tiling_that_makes_no_sense_is_refused(model: Local, side: int, overlap: float) -> None:
    with pytest.raises(UserError, match="tiles need a side"):
        predict_tiled(model, sample_of((9, 9)), RECORD, Tiling(side=side, overlap=overlap))


def test_a_segmenter_labels_a_picture_in_windows() -> None:
    torch.manual_seed(0)
    model = build_segmenter("semantic_fpn", "pvt_v2_b0", 5, width=32).eval()
    sample = sample_of((70, 130))
    found = predict_tiled(model, sample, RECORD, Tiling(side=64)).labels
    assert found.shape == (70, 130)
    whole = predict_tiled(model, sample, RECORD, Tiling(side=160)).labels
    assert (whole == whole_labels(model, sample)).all()
