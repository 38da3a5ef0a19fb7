"""From logits to maps in the frame of the file."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pyramidvit.structures import Batch, Origin
from pyramidvit.tasks.segmentation import postprocess as module
from pyramidvit.tasks.segmentation.model import build_segmenter
from pyramidvit.tasks.segmentation.outputs import SegmentationOutputs
from pyramidvit.tasks.segmentation.postprocess import best_classes, postprocess, stretch
from segmentation_golden import SegmentationGolden

Size = tuple[int, int]


def make_batch(padded: Size, sizes: list[Size], files: list[Size]) -> Batch[None]:
    origins = tuple(Origin(name=str(i), size=size) for i, size in enumerate(files))
    images = torch.zeros(len(sizes), 3, *padded)
    return Batch(images=images, sizes=tuple(sizes), targets=(), origins=origins)


def plain(logits: Tensor, padded: Size, size: Size, file_size: Size) -> Tensor:
    """All classes at once: what the reference does."""
    values = F.interpolate(logits[None].float(), padded, mode="bilinear", align_corners=False)
    values = values[:, :, : size[0], : size[1]]
    return F.interpolate(values, file_size, mode="bilinear", align_corners=False)[0].argmax(0)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    classes=st.integers(1, 9),
    file_size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    size=st.tuples(st.integers(1, 64), st.integers(1, 64)),
    at_once=st.sampled_from([1, 5000, 1 << 24]),
)
def test_a_few_classes_at_a_time_give_the_same_map(
    seed: int, classes: int, file_size: Size, size: Size, at_once: int
) -> None:
    logits = torch.randn(classes, 16, 16, generator=torch.Generator().manual_seed(seed))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "NUMBERS_AT_ONCE", at_once)
        found = best_classes(logits, (64, 64), size, file_size)
    assert found.dtype == torch.uint8
    assert torch.equal(found.long(), plain(logits, (64, 64), size, file_size))


@given(
    height=st.integers(1, 40),
    size=st.tuples(st.integers(1, 90), st.integers(1, 9)),
    cut=st.tuples(st.integers(0, 89), st.integers(1, 90)),
)
def test_rows_are_those_of_the_whole_stretched_map(height: int, size: Size, cut: Size) -> None:
    values = torch.randn(1, 2, height, 5, generator=torch.Generator().manual_seed(height))
    first = min(cut[0], size[0] - 1)
    end = min(first + cut[1], size[0])
    rows = module.stretch_rows(values, size, first, end)
    assert torch.allclose(rows, stretch(values, size)[:, :, first:end], atol=1e-5)


def test_each_image_of_a_batch_comes_back_at_the_size_of_its_file() -> None:
    logits = torch.randn(2, 4, 16, 24, generator=torch.Generator().manual_seed(0))
    batch = make_batch((64, 96), [(64, 80), (40, 96)], [(128, 160), (33, 77)])
    found = postprocess(SegmentationOutputs(logits=logits), batch)
    for k, prediction in enumerate(found):
        size, file_size = batch.sizes[k], batch.origins[k].size
        expected = plain(logits[k], (64, 96), size, file_size)
        assert torch.equal(prediction.labels.long(), expected)


def test_padding_is_cut_off_before_the_map_is_stretched() -> None:
    logits = torch.zeros(1, 2, 8, 8)
    logits[:, 1, :, 4:] = 1  # class 1 in the right half, which is padding
    batch = make_batch((32, 32), [(32, 12)], [(64, 24)])
    assert not postprocess(SegmentationOutputs(logits=logits), batch)[0].labels.any()


def test_of_equal_logits_the_first_class_wins() -> None:
    batch = make_batch((4, 4), [(4, 4)], [(3, 5)])
    for value in (0.0, -torch.inf):
        outputs = SegmentationOutputs(logits=torch.full((1, 5, 1, 1), value))
        assert not postprocess(outputs, batch)[0].labels.any()


@pytest.mark.parametrize(("classes", "dtype"), [(255, torch.uint8), (256, torch.int16)])
def test_many_classes_take_two_bytes(classes: int, dtype: torch.dtype) -> None:
    logits = torch.zeros(1, classes, 2, 2)
    logits[:, -1] = 1
    labels = postprocess(SegmentationOutputs(logits), make_batch((8, 8), [(8, 8)], [(8, 8)]))
    assert labels[0].labels.dtype == dtype
    assert (labels[0].labels == classes - 1).all()


def test_maps_equal_the_reference(golden_dir: Path) -> None:
    golden = SegmentationGolden(golden_dir / "dense", "mm2_semfpn_pvt_v2_b0")
    model = build_segmenter("semantic_fpn", "pvt_v2_b0", 150).eval()
    golden.fill(model, torch.float64)
    batch = golden.batch("f64")
    with torch.no_grad():
        found = postprocess(model(batch.images), batch)
    recorded = torch.from_numpy(golden.arrays["f64/argmax_ori"])
    assert torch.equal(torch.stack([prediction.labels for prediction in found]), recorded)


def test_all_logits_are_never_there_at_the_size_of_the_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = []

    def note(values: Tensor, size: Size) -> Tensor:
        stretched = stretch(values, size)
        made.append(stretched.numel())
        return stretched

    monkeypatch.setattr(module, "stretch", note)
    monkeypatch.setattr(module, "NUMBERS_AT_ONCE", 10_000)
    best_classes(torch.randn(40, 8, 8), (32, 32), (32, 32), (60, 80))
    assert max(made) == 2 * 60 * 80  # two classes of forty
    made.clear()
    best_classes(torch.randn(3, 8, 8), (32, 32), (32, 32), (300, 400))
    assert max(made) <= 10_000  # rows of one class, however large the file
    assert len(made) == 2 * 3 * 12
