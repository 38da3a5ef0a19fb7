"""Segmenters' figures: against slow Python, torchmetrics, and small cases counted by hand."""

import csv
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from pyramidvit.structures import (
    UNLABELLED,
    Batch,
    Classes,
    Origin,
    Sample,
    SegmentationPrediction,
    SegmentationTarget,
)
from pyramidvit.tasks.segmentation.metrics import SegmentationMetrics
from pyramidvit.tasks.segmentation.report import report
from pyramidvit.tasks.segmentation.truth import LabelledOrigin, keep_truth

Pair = tuple[np.ndarray, np.ndarray]  # truth and found, int16 [H, W]


def score(pairs: list[Pair], num_classes: int) -> SegmentationMetrics:
    metrics = SegmentationMetrics(num_classes)
    for number, (truth, found) in enumerate(pairs):
        size = (truth.shape[0], truth.shape[1])
        origin = LabelledOrigin(name=f"{number}.png", size=size, truth=truth)
        batch = Batch(
            images=torch.zeros(1, 3, 1, 1), sizes=((1, 1),), targets=(), origins=(origin,)
        )
        prediction = SegmentationPrediction(labels=torch.from_numpy(found.astype(np.uint8)))
        metrics.update(None, [prediction], batch)
    return metrics


def make_pairs(seed: int, num_classes: int, sizes: list[tuple[int, int]]) -> list[Pair]:
    """Maps of rectangles, some pixels unlabelled, and predictions that are wrong here and there."""
    random = np.random.default_rng(seed)
    pairs = []
    for height, width in sizes:
        truth = np.full((height, width), random.integers(0, num_classes), np.int16)
        for label in (*random.integers(0, num_classes, 4), UNLABELLED):
            y0, y1 = sorted(random.integers(0, height + 1, 2))
            x0, x1 = sorted(random.integers(0, width + 1, 2))
            truth[y0:y1, x0:x1] = label
        found = np.where(truth == UNLABELLED, 0, np.roll(truth, 1, axis=1)).clip(0)
        found[: height // 3] = random.integers(0, num_classes)
        pairs.append((truth, found.astype(np.int16)))
    return pairs


def mean(values: list[float]) -> float:
    present = [value for value in values if not math.isnan(value)]
    return sum(present) / len(present) if present else math.nan


def ratio(part: int, whole: int) -> float:
    return 100 * part / whole if whole else math.nan


def slow_band(mask: np.ndarray, distance: int) -> np.ndarray:
    """The pixels of a mask that a pixel outside it, or outside the image, is near to."""
    around = np.pad(mask, distance)
    band = mask.copy()
    for y, x in np.argwhere(mask):
        band[y, x] = not around[y : y + 2 * distance + 1, x : x + 2 * distance + 1].all()
    return band


def slow_figures(pairs: list[Pair], num_classes: int) -> dict[str, float]:
    """Class by class and mask by mask, as the definitions read."""
    ious, accuracies, boundaries = [], [], []
    known = [truth != UNLABELLED for truth, _ in pairs]
    for k in range(num_classes):
        both = either = true = edge_both = edge_either = 0
        for (truth, found), seen in zip(pairs, known, strict=True):
            is_true, is_found = (truth == k) & seen, (found == k) & seen
            both += int((is_true & is_found).sum())
            either += int((is_true | is_found).sum())
            true += int(is_true.sum())
            distance = max(1, round(0.02 * math.sqrt(truth.shape[0] ** 2 + truth.shape[1] ** 2)))
            edges = slow_band(is_true, distance), slow_band(is_found, distance)
            edge_both += int((edges[0] & edges[1]).sum())
            edge_either += int((edges[0] | edges[1]).sum())
        ious.append(ratio(both, either))
        accuracies.append(ratio(both, true))
        boundaries.append(ratio(edge_both, edge_either))
    right = sum(int(((t == f) & s).sum()) for (t, f), s in zip(pairs, known, strict=True))
    return {
        "images": len(pairs),
        "miou": mean(ious),
        "mean_accuracy": mean(accuracies),
        "pixel_accuracy": ratio(right, sum(int(s.sum()) for s in known)),
        "boundary_iou": mean(boundaries),
    }


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), num_classes=st.integers(1, 6))
def test_figures_are_those_of_slow_counting(seed: int, num_classes: int) -> None:
    pairs = make_pairs(seed, num_classes, [(12, 15), (1, 1), (90, 70)])
    figures = score(pairs, num_classes).compute()
    assert figures == pytest.approx(slow_figures(pairs, num_classes), nan_ok=True, abs=1e-9)


def test_figures_are_those_of_torchmetrics() -> None:
    classification = pytest.importorskip("torchmetrics.classification")
    pairs = make_pairs(3, 5, [(40, 50), (64, 64), (31, 17)])
    truth = torch.from_numpy(np.concatenate([t.ravel() for t, _ in pairs])).long()
    found = torch.from_numpy(np.concatenate([f.ravel() for _, f in pairs])).long()
    metrics = score(pairs, 5)
    rows, figures = metrics.per_class(), metrics.compute()

    def theirs(name: str, average: str) -> Tensor:
        counter = getattr(classification, f"Multiclass{name}")
        value: Tensor = counter(5, average=average, ignore_index=UNLABELLED)(found, truth)
        return 100 * value.double()

    assert set(truth.unique().tolist()) == {UNLABELLED, *range(5)}  # else they count absent ones
    torch.testing.assert_close(rows["iou"], theirs("JaccardIndex", "none"), atol=1e-4, rtol=0)
    torch.testing.assert_close(rows["accuracy"], theirs("Accuracy", "none"), atol=1e-4, rtol=0)
    assert figures["miou"] == pytest.approx(float(theirs("JaccardIndex", "macro")), abs=1e-4)
    assert figures["mean_accuracy"] == pytest.approx(float(theirs("Accuracy", "macro")), abs=1e-4)
    assert figures["pixel_accuracy"] == pytest.approx(float(theirs("Accuracy", "micro")), abs=1e-4)


def test_a_small_case_counted_by_hand() -> None:
    truth = np.array([[0, 0, 1, 1], [0, 0, 1, UNLABELLED]], np.int16)
    found = np.array([[0, 1, 1, 1], [0, 0, 2, 2]], np.int16)
    metrics = score([(truth, found)], 4)  # every pixel is near a boundary
    rows = {name: column.tolist() for name, column in metrics.per_class().items()}
    assert rows["iou"] == pytest.approx([75, 50, 0, math.nan], nan_ok=True)
    assert rows["accuracy"] == pytest.approx([75, 200 / 3, math.nan, math.nan], nan_ok=True)
    assert rows["boundary_iou"] == pytest.approx([75, 50, 0, math.nan], nan_ok=True)
    assert rows["share"] == pytest.approx([400 / 7, 300 / 7, 0, 0])
    figures = metrics.compute()
    assert figures["miou"] == pytest.approx(125 / 3)
    assert figures["mean_accuracy"] == pytest.approx((75 + 200 / 3) / 2)
    assert figures["pixel_accuracy"] == pytest.approx(500 / 7)


def test_a_map_found_exactly_scores_100_whatever_is_found_where_nothing_is_labelled() -> None:
    truth, _ = make_pairs(1, 3, [(60, 80)])[0]
    found = np.where(truth == UNLABELLED, 2, truth)
    assert (found != truth).any()
    figures = score([(truth, found)], 3).compute()
    assert [figures[name] for name in list(figures)[1:]] == [100] * 4


def test_boundary_iou_sees_what_iou_passes_over() -> None:
    truth = np.zeros((100, 100), np.int16)
    truth[20:80, 20:80] = 1
    found = np.zeros_like(truth)
    found[22:78, 22:78] = 1
    figures = score([(truth, found)], 2).compute()
    assert figures["boundary_iou"] < 65 < 85 < figures["miou"]


def test_where_nothing_is_labelled_there_is_no_figure() -> None:
    nothing = np.full((5, 5), UNLABELLED, np.int16)
    for pairs in ([], [(nothing, np.zeros_like(nothing))]):
        metrics = score(pairs, 3)
        figures = metrics.compute()
        assert figures.pop("images") == len(pairs)
        assert all(math.isnan(value) for value in figures.values())
        assert all(math.isnan(image.miou) for image in metrics.images)


def test_any_number_of_processes_gives_the_same_figures() -> None:
    pairs = make_pairs(5, 4, [(20, 30)] * 7)
    whole = score(pairs, 4)
    shares = [score(pairs[rank::3], 4) for rank in range(3)]
    states = [pickle.loads(pickle.dumps(share.state())) for share in shares]
    for share in shares:
        share.merge(states)
        assert share.compute() == whole.compute()
        assert len(share.images) == 7


def test_no_picture_travels_between_processes() -> None:
    few, many = (score(make_pairs(5, 4, [side]), 4) for side in ((8, 8), (200, 300)))
    assert len(pickle.dumps(many.state())) <= len(pickle.dumps(few.state())) + 8


def test_the_origin_takes_the_map_along_and_is_cheap_to_send() -> None:
    labels = torch.arange(6, dtype=torch.int16).view(2, 3)
    sample = Sample(
        image=Image.new("RGB", (3, 2)),
        target=SegmentationTarget(labels=labels),
        origin=Origin(name="a.png", size=(2, 3)),
    )
    kept = keep_truth(sample)
    assert isinstance(kept.origin, LabelledOrigin)
    assert kept.origin.truth.base is not None  # no copy
    sent = pickle.loads(pickle.dumps(kept.origin))
    np.testing.assert_array_equal(sent.truth, labels.numpy())
    assert keep_truth(kept) is kept


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_report_names_classes_and_the_worst_images_first(tmp_path: Path) -> None:
    pairs = make_pairs(7, 3, [(30, 30)] * 3)
    pairs.append((pairs[0][0], np.where(pairs[0][0] == UNLABELLED, 1, pairs[0][0])))
    metrics = score(pairs, 4)  # the last class is nowhere
    classes = Classes(names=("sky", "a $x_ road", "é" * 50, "none"), ids=(3, 5, 9, 11))
    written = report(metrics, classes, tmp_path)
    assert sorted(written) == sorted(tmp_path.iterdir())
    rows = read_rows(tmp_path / "per_class.csv")
    assert [row["id"] for row in rows] == ["3", "5", "9", "11"]
    assert float(rows[0]["iou"]) == pytest.approx(float(metrics.per_class()["iou"][0]), abs=1e-4)
    assert rows[3]["iou"] == "nan"
    images = read_rows(tmp_path / "images.csv")
    ious = [float(row["miou"]) for row in images]
    assert ious == sorted(ious)
    assert images[-1]["image"] == "3.png"
    for path in written:
        if path.suffix == ".png":
            with Image.open(path) as picture:
                assert min(picture.size) > 200


def test_a_report_of_many_classes_and_of_nothing_is_written(tmp_path: Path) -> None:
    classes = Classes(names=tuple(f"class {k}" for k in range(150)), ids=tuple(range(150)))
    assert len(report(SegmentationMetrics(150), classes, tmp_path)) == 5
    assert len(read_rows(tmp_path / "confusion.csv")) == 150
    assert read_rows(tmp_path / "images.csv") == []
