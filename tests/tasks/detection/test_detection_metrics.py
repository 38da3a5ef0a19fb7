"""Detectors' figures: the published ones, COCO's own counting on random cases, and small cases that
can be counted by hand."""

import contextlib
import io
import json
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyramidvit.cli.kinds import KINDS
from pyramidvit.cli.train import task_of
from pyramidvit.data.detection import load_detection_data
from pyramidvit.data.outlines import Shapes, add_shape, read_runs
from pyramidvit.ops.masks import encode_masks, join_masks, select_masks
from pyramidvit.structures import (
    Batch,
    Classes,
    DetectionPrediction,
    DetectionTarget,
    Masks,
    Origin,
    Sample,
)
from pyramidvit.tasks.classification.config import ClassificationOptions
from pyramidvit.tasks.detection import coco
from pyramidvit.tasks.detection.coco import limits_up_to
from pyramidvit.tasks.detection.config import DetectionOptions
from pyramidvit.tasks.detection.metrics import DetectionMetrics, write_results
from pyramidvit.tasks.detection.scoring import best_cut, confusion, pascal_ap
from pyramidvit.tasks.detection.truth import AnnotatedOrigin, keep_truth

SIZE = (48, 64)  # (H, W) of small pictures
Rows = list[dict[str, Any]]


# ---- from COCO's files to ours


def to_masks(rows: Rows, size: tuple[int, int]) -> Masks | None:
    if any(not row.get("segmentation") for row in rows):
        return None
    shapes = Shapes()
    for row in rows:
        add_shape(shapes, row["segmentation"])
    runs = [torch.from_numpy(read_runs(shapes, k, size)) for k in range(len(rows))]
    return join_masks(
        size, [Masks(size=size, counts=r, num_runs=torch.tensor([len(r)])) for r in runs]
    )


def to_boxes(rows: Rows) -> torch.Tensor:
    boxes = torch.tensor([row["bbox"] for row in rows], dtype=torch.float64).reshape(-1, 4)
    return torch.cat((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), dim=1).float()


def metrics_of(
    frame: dict[str, Any], results: Rows, *, masks: bool, **options: int
) -> DetectionMetrics:
    """Our metrics on COCO's annotation and results, through our structures."""
    numbers = {c["id"]: k for k, c in enumerate(frame["categories"])}
    metrics = DetectionMetrics(len(numbers), **options)
    truths: dict[int, Rows] = {image["id"]: [] for image in frame["images"]}
    found: dict[int, Rows] = {image["id"]: [] for image in frame["images"]}
    for row in frame["annotations"]:
        truths[row["image_id"]].append(row)
    for row in results:
        found[row["image_id"]].append(row)
    for image in frame["images"]:
        size, rows, answers = (
            (image["height"], image["width"]), truths[image["id"]], found[image["id"]]
        )  # fmt: skip
        origin = AnnotatedOrigin(
            name=str(image["id"]),
            size=size,
            id=image["id"],
            truth=DetectionTarget(
                boxes=to_boxes(rows),
                labels=torch.tensor([numbers[r["category_id"]] for r in rows], dtype=torch.int64),
                crowd=torch.tensor([bool(r["iscrowd"]) for r in rows], dtype=torch.bool),
                masks=to_masks(rows, size) if masks else None,
            ),
            areas=np.asarray([r["area"] for r in rows], dtype=np.float64),
        )
        prediction = DetectionPrediction(
            boxes=to_boxes(answers),
            labels=torch.tensor([numbers[r["category_id"]] for r in answers], dtype=torch.int64),
            scores=torch.tensor([r["score"] for r in answers], dtype=torch.float32),
            masks=to_masks(answers, size) if masks else None,
        )
        metrics.add(prediction, origin)
    return metrics


def coco_figures(metrics: DetectionMetrics, kind: str) -> list[float]:
    """COCO's figures as its tools print them: shares, and -1 for none."""
    figures = metrics.coco(kind).figures()
    return [-1.0 if math.isnan(v) else v / 100 for v in figures.values()]


def pycocotools_figures(
    frame: dict[str, Any], results: Rows, kind: str, most: int
) -> tuple[list[float], list[float]]:
    """The figures that the reference counts, and AP of each class."""
    pytest.importorskip("pycocotools", reason="the reference of COCO's figures")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = json.loads(json.dumps(frame))
        truth.createIndex()
        rows = [{k: v for k, v in row.items() if k in KEYS[kind]} for row in results]
        answers = truth.loadRes(rows) if rows else empty_results(truth)
        reference = COCOeval(truth, answers, kind)
        reference.params.maxDets = list(limits_up_to(most))
        reference.evaluate()
        reference.accumulate()
    precision, recall = reference.eval["precision"], reference.eval["recall"]
    figures = [precision[..., 0, -1], precision[0, ..., 0, -1], precision[5, ..., 0, -1]]
    figures += [precision[..., k, -1] for k in (1, 2, 3)]
    figures += [recall[..., 0, k] for k in range(len(reference.params.maxDets))]
    figures += [recall[..., k, -1] for k in (1, 2, 3)]
    classes = [precision[:, :, k, 0, -1] for k in range(precision.shape[2])]
    return [mean(v) for v in figures], [mean(v) for v in classes]


KEYS = {
    "bbox": ("image_id", "category_id", "bbox", "score"),
    "segm": ("image_id", "category_id", "segmentation", "score"),
}


def empty_results(truth: Any) -> Any:
    from pycocotools.coco import COCO

    answers = COCO()
    answers.dataset = {**truth.dataset, "annotations": []}
    answers.createIndex()
    return answers


def mean(values: np.ndarray) -> float:
    present = values[values > -1]
    return float(present.mean()) if present.size else -1.0


# ---- published figures


@pytest.fixture(scope="module")
def published(data_dir: Path) -> dict[str, list[float]]:
    figures: dict[str, list[float]] = json.loads(
        (data_dir / "coco_eval" / "expected_pycocotools.json").read_text()
    )
    return figures


@pytest.fixture(scope="module")
def val2014(data_dir: Path) -> dict[str, Any]:
    folder = data_dir / "coco_eval" / "faster_coco_eval" / "dataset" / "cocoapi"
    frame: dict[str, Any] = json.loads((folder / "instances_val2014_100.json").read_text())
    return frame


def fake_results(data_dir: Path, name: str) -> Rows:
    rows: Rows = json.loads((data_dir / "coco_eval" / "cocoapi_results" / name).read_text())
    return rows


def with_boxes(rows: Rows, frame: dict[str, Any]) -> Rows:
    """Results of masks with the boxes around them, as COCO's tools put them."""
    from faster_coco_eval import mask

    return [{**row, "bbox": mask.toBbox(row["segmentation"]).tolist()} for row in rows]


def test_published_box_figures(
    data_dir: Path, val2014: dict[str, Any], published: dict[str, list[float]]
) -> None:
    name = "instances_val2014_fakebbox100_results.json"
    metrics = metrics_of(val2014, fake_results(data_dir, name), masks=False)
    expected = published[f"val2014_100 bbox {name}"]
    assert coco_figures(metrics, "bbox") == pytest.approx(expected, abs=6e-7)
    assert metrics.compute()["box_ap"] == pytest.approx(50.4581, abs=6e-5)
    assert "mask_ap" not in metrics.compute()


def test_published_mask_figures(
    data_dir: Path, val2014: dict[str, Any], published: dict[str, list[float]]
) -> None:
    name = "instances_val2014_fakesegm100_results.json"
    rows = with_boxes(fake_results(data_dir, name), val2014)
    metrics = metrics_of(val2014, rows, masks=True)
    expected = published[f"val2014_100 segm {name}"]
    assert coco_figures(metrics, "segm") == pytest.approx(expected, abs=6e-7)
    # COCO's tools size boxes that they drew around masks by the masks' areas; where a detector says
    # boxes itself, as here, the box counts. So AP by size (3 to 5) is another figure.
    expected, ours = published[f"val2014_100 bbox {name}"], coco_figures(metrics, "bbox")
    assert ours[:3] + ours[6:] == pytest.approx(expected[:3] + expected[6:], abs=6e-7)
    assert metrics.compute()["mask_ap"] == pytest.approx(31.9545, abs=6e-5)


def test_published_figures_of_one_class(data_dir: Path, published: dict[str, list[float]]) -> None:
    folder = data_dir / "coco_eval" / "sahi"
    frame = json.loads((folder / "dataset.json").read_text())
    rows = json.loads((folder / "result.json").read_text())
    metrics = metrics_of(frame, rows, masks=False)
    assert coco_figures(metrics, "bbox") == pytest.approx(published["sahi bbox"], abs=6e-7)


@pytest.mark.parametrize(
    "name", ["coco_mini/annotations/instances_val2017.json", "nuclei/instances_val.json"]
)
def test_the_truth_as_an_answer(
    data_dir: Path, published: dict[str, list[float]], name: str
) -> None:
    frame = json.loads((data_dir / name).read_text())
    answers = [{**row, "score": 1.0} for row in frame["annotations"] if not row["iscrowd"]]
    metrics = metrics_of(frame, answers, masks=True)
    for kind in ("segm", "bbox"):
        expected = published[f"self {kind} {name}"]
        assert coco_figures(metrics, kind) == pytest.approx(expected, abs=6e-7)


def test_pascal_figures_of_an_independent_tool(data_dir: Path) -> None:
    folder = data_dir / "coco_eval" / "rodm" / "test_case_1"
    metrics = DetectionMetrics(1)
    for path in sorted((folder / "gts").iterdir()):
        truth = [line.split()[1:] for line in path.read_text().splitlines()]
        found = [
            line.split()[1:] for line in (folder / "dets" / path.name).read_text().splitlines()
        ]
        boxes = inclusive([row[1:] for row in found])
        metrics.add(
            DetectionPrediction(
                boxes=boxes,
                labels=torch.zeros(len(boxes), dtype=torch.int64),
                scores=torch.tensor([float(row[0]) for row in found]),
            ),
            annotated(path.stem, truth=inclusive(truth)),
        )
    published = {0.1: 0.3371980676, 0.3: 0.2456866804, 0.5: 0.0222222222, 0.75: 0.0}
    for overlap, ap in published.items():
        assert pascal_ap(metrics.images, 1, overlap)[0] / 100 == pytest.approx(ap, abs=1e-9)


def inclusive(rows: list[list[str]]) -> torch.Tensor:
    """Boxes from x, y, width, height whose last pixel counts, as that tool measures them."""
    boxes = torch.tensor([[float(v) for v in row] for row in rows]).reshape(-1, 4)
    return torch.cat((boxes[:, :2], boxes[:, :2] + boxes[:, 2:] + 1), dim=1)


def annotated(
    name: str,
    truth: torch.Tensor,
    labels: list[int] | None = None,
    crowd: list[bool] | None = None,
    size: tuple[int, int] = SIZE,
) -> AnnotatedOrigin:
    target = DetectionTarget(
        boxes=truth.reshape(-1, 4).float(),
        labels=torch.tensor(labels or [0] * len(truth), dtype=torch.int64),
        crowd=torch.tensor(crowd or [False] * len(truth), dtype=torch.bool),
    )
    return AnnotatedOrigin(name=name, size=size, id=name, truth=target)


def found(boxes: list[list[float]], scores: list[float], labels: list[int]) -> DetectionPrediction:
    return DetectionPrediction(
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor(labels, dtype=torch.int64),
        scores=torch.tensor(scores, dtype=torch.float32),
    )


# ---- the reference on random cases


@st.composite
def cases(draw: Any) -> tuple[dict[str, Any], Rows]:
    """A few small images: ties in scores, crowds, empty images, classes without objects."""
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    ids = rng.permutation(50)[: draw(st.integers(1, 4))].tolist()
    frame: dict[str, Any] = {
        "images": [{"id": i, "height": SIZE[0], "width": SIZE[1]} for i in ids],
        "categories": [{"id": c, "name": str(c)} for c in (3, 0, 90)],
        "annotations": [],
    }
    results: Rows = []
    most = draw(st.integers(0, 8))
    for image in ids:
        for _ in range(rng.integers(0, most + 1)):
            shape = random_shape(rng)
            crowd = int(rng.random() < 0.2)
            area = float(rng.choice([shape["area"], 500, 1024, 3000, 9216, 10000]))
            row = {**shape, "area": area, "iscrowd": crowd}
            row |= {"image_id": image, "category_id": int(rng.choice([3, 90]))}
            frame["annotations"].append({**row, "id": len(frame["annotations"]) + 1})
            for _ in range(rng.integers(0, 3)):
                near = random_shape(rng, row["bbox"])
                results.append(answer(rng, image, near, row["category_id"]))
        for _ in range(rng.integers(0, 4)):
            results.append(answer(rng, image, random_shape(rng), int(rng.choice([3, 0, 90]))))
    return frame, results


def answer(rng: np.random.Generator, image: int, shape: dict[str, Any], category: int) -> Any:
    score = float(rng.integers(0, 5)) / 4  # many equal ones, exact in float32
    kept = {k: shape[k] for k in ("bbox", "segmentation")}
    return {**kept, "image_id": image, "category_id": category, "score": score}


def random_shape(rng: np.random.Generator, near: Any = None) -> dict[str, Any]:
    """A box of whole pixels and a mask in it, perhaps close to another box."""
    from faster_coco_eval import mask

    x, y, w, h = (
        [int(v) for v in near] if near else [int(v) for v in rng.integers(0, (40, 30, 1, 1))]
    )
    if near is None:
        w, h = (int(v) for v in rng.integers(1, (24, 18)))
    else:
        dx, dy, dw, dh = (int(v) for v in rng.integers(-1, 2, 4))
        x, y = max(0, x + dx), max(0, y + dy)
        w, h = max(1, min(w + dw, SIZE[1] - x)), max(1, min(h + dh, SIZE[0] - y))
    bits = np.zeros(SIZE, np.uint8, order="F")
    bits[y : y + h, x : x + w] = rng.random((h, w)) < 0.9
    packed = mask.encode(bits)
    text = packed["counts"]
    text = text.decode() if isinstance(text, bytes) else text
    return {
        "bbox": [float(x), float(y), float(w), float(h)],
        "segmentation": {"size": list(SIZE), "counts": text},
        "area": float(bits.sum()),
    }


@settings(max_examples=120, deadline=None)
@given(cases(), st.sampled_from([1, 2, 10, 100]))
def test_figures_are_those_of_the_reference(case: tuple[dict[str, Any], Rows], most: int) -> None:
    frame, results = case
    metrics = metrics_of(frame, results, masks=True, max_detections=most)
    for kind in ("bbox", "segm"):
        expected, classes = pycocotools_figures(frame, results, kind, most)
        assert coco_figures(metrics, kind) == pytest.approx(expected, abs=1e-9)
        ours = np.nan_to_num(metrics.coco(kind).per_class()["ap"] / 100, nan=-1)
        order = np.argsort([c["id"] for c in frame["categories"]])  # the reference sorts classes
        assert ours[order] == pytest.approx(np.asarray(classes), abs=1e-9)


@pytest.mark.parametrize("most", [100, 300])
def test_more_objects_than_count(most: int) -> None:
    rng = np.random.default_rng(0)
    boxes = [[8.0 * (k % 20), 8.0 * (k // 20), 7.0, 7.0] for k in range(150)]
    frame = {
        "images": [{"id": 7, "height": 64, "width": 160}],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [
            {"id": k + 1, "image_id": 7, "category_id": 1, "bbox": b, "area": 49.0, "iscrowd": 0}
            for k, b in enumerate(boxes)
        ],
    }
    results = [
        {"image_id": 7, "category_id": 1, "bbox": b, "score": float(np.float32(rng.random()))}
        for b in boxes
    ]
    metrics = metrics_of(frame, results, masks=False, max_detections=most)
    expected = pycocotools_figures(frame, results, "bbox", most)[0]
    assert coco_figures(metrics, "bbox") == pytest.approx(expected, abs=1e-9)
    figures = metrics.compute()
    assert figures[f"box_ar{most}"] == pytest.approx(100 * min(most, 150) / 150)
    assert figures["box_ap"] == pytest.approx(100.0 if most == 300 else 100 * 67 / 101)


# ---- gathering


@settings(max_examples=10, deadline=None)
@given(cases(), st.integers(1, 3))
def test_several_processes_give_the_figures_of_one(
    case: tuple[dict[str, Any], Rows], ranks: int
) -> None:
    whole = metrics_of(*case, masks=True)
    parts = [DetectionMetrics(3) for _ in range(ranks)]
    for k, record in enumerate(reversed(whole.state())):
        parts[k % ranks].take([record])
        parts[(k + 1) % ranks].take([record])  # seen twice
    gathered = DetectionMetrics(3)
    gathered.merge([pickle.loads(pickle.dumps(part.state())) for part in parts])
    np.testing.assert_equal(gathered.compute(), whole.compute())


def test_an_image_that_comes_again_counts_once() -> None:
    metrics = DetectionMetrics(1)
    origin = annotated("a", torch.tensor([[0.0, 0, 10, 10]]))
    metrics.add(found([[0, 0, 10, 10]], [0.9], [0]), origin)
    first = metrics.compute()
    metrics.add(found([[0, 0, 10, 10]], [0.9], [0]), origin)
    np.testing.assert_equal(metrics.compute(), first)
    assert first["images"] == 1


def test_a_batch_is_held_against_the_untransformed_truth() -> None:
    target = DetectionTarget(
        boxes=torch.tensor([[0.0, 0, 10, 10]]),
        labels=torch.tensor([0]),
        crowd=torch.tensor([False]),
    )
    origin = Origin(name="a", size=SIZE)
    kept = keep_truth(Sample(image=torch.zeros(3, 96, 128), target=target, origin=origin))
    assert keep_truth(kept) is kept
    assert isinstance(kept.origin, AnnotatedOrigin)
    assert kept.origin.areas is None
    batch = Batch(
        images=torch.zeros(1, 3, 96, 128), sizes=((96, 128),), targets=(), origins=(kept.origin,)
    )
    metrics = DetectionMetrics(1)
    metrics.update(None, [found([[0, 0, 10, 10]], [0.9], [0])], batch)
    assert metrics.compute()["box_ap"] == pytest.approx(100)
    assert metrics.images[0].id == "a"


def test_masks_are_kept_packed() -> None:
    size = (3000, 4000)
    bits = torch.zeros(1, *size, dtype=torch.bool)
    bits[0, 100:2900, 100:3900] = True
    masks = encode_masks(bits)
    prediction = found([[100, 100, 3900, 2900]], [0.5], [0])
    prediction = DetectionPrediction(
        boxes=prediction.boxes, labels=prediction.labels, scores=prediction.scores, masks=masks
    )
    metrics = DetectionMetrics(1)
    metrics.add(prediction, annotated("a", torch.zeros(0, 4), size=size))
    assert len(pickle.dumps(metrics.state())) < 20_000  # of 12 million pixels


# ---- small cases


def test_nothing_seen_and_nothing_to_find() -> None:
    figures = DetectionMetrics(2).compute()
    assert figures["images"] == 0
    assert math.isnan(figures["box_ap"])
    assert math.isnan(figures["pascal_ap50"])
    metrics = DetectionMetrics(2)
    metrics.add(found([], [], []), annotated("a", torch.zeros(0, 4)))
    assert math.isnan(metrics.compute()["box_ap"])
    assert metrics.worst(5) == []
    assert confusion(metrics.images, best_cut(metrics.images), 2).sum() == 0


def test_areas_are_the_annotations_own_then_the_masks_then_the_boxes() -> None:
    bits = torch.zeros(1, *SIZE, dtype=torch.bool)
    bits[0, :5, :4] = True
    target = DetectionTarget(
        boxes=torch.tensor([[0.0, 0, 10, 10]]),
        labels=torch.tensor([0]),
        crowd=torch.tensor([False]),
    )
    masked = DetectionTarget(
        boxes=target.boxes, labels=target.labels, crowd=target.crowd, masks=encode_masks(bits)
    )
    for truth, written, area in (
        (target, None, 100), (masked, None, 20),
        (masked, np.asarray([np.nan]), 20), (masked, np.asarray([702.5]), 702.5),
    ):  # fmt: skip
        metrics = DetectionMetrics(1)
        origin = AnnotatedOrigin(name="a", size=SIZE, id=1, truth=truth, areas=written)
        metrics.add(found([], [], []), origin)
        assert metrics.images[0].truth.areas.tolist() == [area]


def test_pascal_passes_over_what_is_difficult() -> None:
    """Two objects, one difficult: the two detections there are not counted, the second of the
    other object is wrong, and precision is 1 where the only countable object is found."""
    truth = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10]])
    answers = found(
        [[20, 0, 30, 10], [21, 0, 30, 10], [0, 0, 10, 10], [0, 1, 10, 10], [40, 40, 45, 45]],
        [0.9, 0.8, 0.7, 0.6, 0.5],
        [0] * 5,
    )
    metrics = DetectionMetrics(1)
    metrics.add(answers, annotated("a", truth, crowd=[False, True]))
    assert metrics.pascal()[0] == pytest.approx(100)
    plain = DetectionMetrics(1)
    plain.add(answers, annotated("a", truth))
    assert plain.pascal()[0] == pytest.approx(100 * (0.5 * 1 + 0.5 * 2 / 3))


def test_pascal_takes_the_nearest_object_even_if_taken() -> None:
    """The second detection overlaps both objects by half or more, the taken one most."""
    truth = torch.tensor([[0.0, 0, 10, 10], [0, 4, 10, 14]])
    answers = found([[0, 0, 10, 10], [0, 1, 10, 11]], [0.9, 0.8], [0, 0])
    metrics = DetectionMetrics(1)
    metrics.add(answers, annotated("a", truth))
    assert metrics.pascal()[0] == pytest.approx(50)
    assert metrics.compute()["box_ap50"] == pytest.approx(100)  # COCO gives it the free one


def test_confusion_counts_what_is_taken_for_what() -> None:
    truth = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10], [0, 20, 10, 30], [30, 20, 60, 40]])
    answers = found(
        [[0, 0, 10, 10], [0, 0, 10, 9], [20, 0, 30, 10], [40, 0, 45, 5], [32, 22, 40, 30]],
        [0.9, 0.9, 0.9, 0.9, 0.9],
        [0, 1, 0, 1, 0],
    )
    metrics = DetectionMetrics(2)
    metrics.add(answers, annotated("a", truth, [0, 1, 0, 0], [False, False, False, True]))
    cut = best_cut(metrics.images)
    counts = confusion(metrics.images, cut, 2)
    # rows: true 0, true 1, nothing; columns: found 0, found 1, missed
    assert counts.tolist() == [[1, 0, 1], [1, 0, 0], [0, 2, 0]]
    assert cut.f1 == pytest.approx(2 * 1 / (4 + 3))  # the one in the crowd is not counted


def test_the_best_cut_drops_what_is_wrong() -> None:
    metrics = DetectionMetrics(1)
    answers = found([[0, 0, 10, 10], [30, 30, 40, 40]], [0.75, 0.25], [0, 0])
    metrics.add(answers, annotated("a", torch.tensor([[0.0, 0, 10, 10]])))
    cut = best_cut(metrics.images)
    assert (cut.score, cut.f1) == (0.75, 1.0)


def test_the_worst_images_come_first() -> None:
    metrics = DetectionMetrics(1)
    box = torch.tensor([[0.0, 0, 10, 10]])
    metrics.add(found([[0, 0, 10, 10]], [0.9], [0]), annotated("good", box))
    metrics.add(found([[30, 30, 40, 40]], [0.9], [0]), annotated("bad", box))
    metrics.add(
        found([[0, 0, 10, 10], [30, 30, 40, 40]], [0.9, 0.9], [0, 0]), annotated("half", box)
    )
    worst = [(record.name, f1) for record, f1 in metrics.worst(5)]
    assert worst == [("bad", 0.0), ("half", pytest.approx(2 / 3))]


# ---- results


def test_written_results_give_the_same_figures_and_the_datas_own_ids(
    tmp_path: Path, data_dir: Path, val2014: dict[str, Any]
) -> None:
    name = "instances_val2014_fakesegm100_results.json"
    rows = with_boxes(fake_results(data_dir, name), val2014)
    metrics = metrics_of(val2014, rows, masks=True)
    ids = tuple(c["id"] for c in val2014["categories"])
    classes = Classes(names=tuple(c["name"] for c in val2014["categories"]), ids=ids)
    boxes, masks = write_results(metrics, classes, tmp_path)
    for path, kind in ((boxes, "bbox"), (masks, "segm")):
        written = json.loads(path.read_text())
        assert {row["category_id"] for row in written} == {row["category_id"] for row in rows}
        assert {row["image_id"] for row in written} == {row["image_id"] for row in rows}
        expected = pycocotools_figures(val2014, written, kind, 100)[0]
        assert coco_figures(metrics, kind) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "split", "file"),
    [
        ("coco_mini", "validation", "annotations/instances_val2017.json"),
        ("nuclei", "validation", "instances_val.json"),
    ],
)
def test_scores_of_read_data_are_those_of_its_annotation_file(
    tmp_path: Path, data_dir: Path, name: str, split: str, file: str
) -> None:
    """Answers are the truth with shaken boxes, and some are wrong; the reference sees nothing of
    ours but the written results."""
    frame = json.loads((data_dir / name / file).read_text())
    data = load_detection_data(data_dir / name, seed=0)
    metrics = DetectionMetrics(len(data.classes), max_detections=200)
    draws = torch.Generator().manual_seed(0)
    source = data.splits[split]
    for number in range(0, len(source), 4):
        sample = keep_truth(source[number])
        metrics.add(shaken(sample.target, draws), sample.origin)
    boxes, masks = write_results(metrics, data.classes, tmp_path)
    seen = {image.id for image in metrics.images}
    frame["images"] = [image for image in frame["images"] if image["id"] in seen]
    frame["annotations"] = [row for row in frame["annotations"] if row["image_id"] in seen]
    for path, kind in ((boxes, "bbox"), (masks, "segm")):
        expected = pycocotools_figures(frame, json.loads(path.read_text()), kind, 200)[0]
        assert 0.05 < expected[0] < 0.95
        assert coco_figures(metrics, kind) == pytest.approx(expected, abs=1e-9)


def shaken(target: DetectionTarget, draws: torch.Generator) -> DetectionPrediction:
    sides = (target.boxes[:, 2:] - target.boxes[:, :2]).repeat(1, 2)
    boxes = target.boxes + 0.05 * sides * torch.randn(len(sides), 4, generator=draws)
    boxes[:, 2:] = torch.maximum(boxes[:, 2:], boxes[:, :2] + 0.5)
    labels = target.labels.clone()
    labels[::5] = labels.flip(0)[::5]
    assert target.masks is not None
    order = torch.arange(len(labels))
    order[::3] = order.roll(1)[::3]  # a third of the masks are other objects'
    return DetectionPrediction(
        boxes=boxes,
        labels=labels,
        scores=torch.rand(len(labels), generator=draws),
        masks=select_masks(target.masks, order),
    )


def test_results_of_nothing_are_an_empty_list(tmp_path: Path) -> None:
    classes = Classes(names=("a",), ids=("a",))
    (path,) = write_results(DetectionMetrics(1), classes, tmp_path)
    assert json.loads(path.read_text()) == []


@settings(max_examples=10, deadline=None)
@given(cases(), st.integers(1, 30))
def test_classes_may_be_counted_in_parts(case: tuple[dict[str, Any], Rows], rows: int) -> None:
    whole = metrics_of(*case, masks=True)
    parts = metrics_of(*case, masks=True)
    with pytest.MonkeyPatch.context() as patch:
        figures = whole.compute()
        patch.setattr(coco, "ROWS_AT_ONCE", rows)
        np.testing.assert_equal(parts.compute(), figures)


def test_a_run_s_epochs_are_scored_with_as_many_detections_as_it_may_give() -> None:
    classes = Classes(names=("a",), ids=(1,))
    for asked, counted in ((0, 100), (300, 300)):
        task = task_of(KINDS["detection"], DetectionOptions(max_detections=asked))
        metrics = task.metrics(classes)
        assert isinstance(metrics, DetectionMetrics)
        assert metrics.max_detections == counted
    assert task_of(KINDS["classification"], ClassificationOptions()).name == "classification"
