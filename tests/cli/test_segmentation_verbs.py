"""Segmentation by the verbs that users type, on pictures of coloured rectangles."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from command import Command, pvt_process
from pyramidvit import create_model, read_checkpoint, save_checkpoint
from pyramidvit.cli import main
from pyramidvit.cli.kinds import KINDS
from pyramidvit.cli.measure import measure
from pyramidvit.cli.tasks import load_data
from pyramidvit.engine.report import Reporter
from pyramidvit.errors import UserError
from pyramidvit.tasks.segmentation.config import SegmentationOptions

KIND = KINDS["segmentation"]
SIZES = ((48, 64), (64, 48), (56, 56))
COLOURS = {3: (200, 30, 30), 17: (30, 30, 200)}  # by value in the maps, which has gaps
SMALL = (
    *("--short_side", "64", "--long_side", "96", "--crop_side", "64", "--width", "16"),
    *("--batch_size", "4", "--workers", "0"),
)


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight training and four validation pictures with maps: two colours on a ground, 0, which
    is a class too, and a frame of unlabelled pixels."""
    root = tmp_path_factory.mktemp("maps")
    rng = np.random.default_rng(0)
    for part, count in (("train", 8), ("validation", 4)):
        (root / "images" / part).mkdir(parents=True)
        (root / "labels" / part).mkdir(parents=True)
        for number in range(count):
            height, width = SIZES[number % 3]
            pixels = rng.integers(90, 140, (height, width, 3), dtype=np.uint8)
            labels = np.zeros((height, width), np.uint8)
            for value, colour in COLOURS.items():
                x, y = (int(v) for v in rng.integers(0, 20, 2))
                pixels[y : y + 20, x : x + 24] = colour
                labels[y : y + 20, x : x + 24] = value
            labels[:2] = 255
            Image.fromarray(pixels).save(root / "images" / part / f"{number}.jpg", quality=95)
            Image.fromarray(labels).save(root / "labels" / part / f"{number}.png")
    names = {"names": {0: "ground", 3: "red", 17: "blue"}}
    (root / "classes.yaml").write_text(yaml.safe_dump(names), encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def run(maps: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a short run that starts from a classifier, and what it said."""
    folder = tmp_path_factory.mktemp("run")
    save_checkpoint(folder / "b0.safetensors", create_model("pvt_v2_b0").state_dict(), {})
    words = ("train", "--model", "semantic_fpn", "--data", str(maps), "--epochs", "1", *SMALL)
    words += ("--balance", "inverse", "--loss", "cross_entropy+dice", "--accumulate", "2")
    words += ("--pretrained", "b0.safetensors", "--output", "run")
    process = pvt_process(*words, cwd=folder)
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    return folder / "run", out


def test_a_segmenter_is_trained_scored_and_predicts(
    run: tuple[Path, str], maps: Path, tmp_path: Path, pvt: Command
) -> None:
    folder, said = run
    assert "semantic_fpn on pvt_v2_b0, 3 classes" in said
    assert "the file has no segmenter" in said
    assert "mIoU" in said
    best = str(folder / "best.safetensors")
    record = read_checkpoint(best).record
    assert record["task"] == "segmentation"
    assert record["model"]["name"] == "semantic_fpn"
    named = [(c["id"], c["name"]) for c in record["classes"]]
    assert named == [(0, "ground"), (3, "red"), (17, "blue")]
    for name in ("samples.png", "predictions.png", "per_class.csv", "confusion.png"):
        assert (folder / name).is_file()

    done = pvt("evaluate", best, "--output", "scores", "--workers", "0", "--batch_size", "4")
    assert done.returncode == 0, done.stderr
    scored = json.loads((tmp_path / "scores" / "metrics.json").read_text(encoding="utf-8"))
    assert scored["images"] == 4
    for name in ("miou", "mean_accuracy", "pixel_accuracy"):
        assert scored[name] == pytest.approx(record["figures"][name])

    picture = str(maps / "images" / "validation" / "0.jpg")
    done = pvt("predict", best, picture, "--output", "found")
    assert done.returncode == 0, done.stderr
    line = json.loads((tmp_path / "found" / "results.jsonl").read_text(encoding="utf-8"))
    assert {found["id"] for found in line["classes"]} <= {0, 3, 17}
    assert sum(found["share"] for found in line["classes"]) == pytest.approx(1, abs=1e-4)
    assert (tmp_path / "found" / line["picture"]).is_file()


def test_the_weights_of_the_classes_are_measured_and_recorded(
    run: tuple[Path, str], maps: Path
) -> None:
    folder, said = run
    assert "loss weighed by class" in said
    options = yaml.safe_load((folder / "args.yaml").read_text(encoding="utf-8"))
    assert options["recipe"] == "light"
    # What was asked for, not what it came to: other data weigh their classes otherwise.
    assert (options["balance"], options["class_weights"]) == ("inverse", [])
    table = (folder / "class_weights.csv").read_text(encoding="utf-8").splitlines()
    rows = list(csv.DictReader(table))
    assert [(row["id"], row["name"]) for row in rows] == [
        ("0", "ground"), ("3", "red"), ("17", "blue"),
    ]  # fmt: skip
    weights = [float(row["weight"]) for row in rows]
    assert weights == pytest.approx(slow_weights(maps), rel=1e-5)
    record = read_checkpoint(str(folder / "best.safetensors")).record
    assert record["options"]["class_weights"] == weights


def test_one_process_measures_for_all(maps: Path) -> None:
    data = load_data("segmentation", str(maps), seed=0, held_out=0.2)
    options = SegmentationOptions(data=str(maps), balance="inverse")
    sent: list[Any] = []

    def fabric(rank: int, broadcast: Any) -> Any:
        return SimpleNamespace(world_size=2, is_global_zero=rank == 0, broadcast=broadcast)

    def send(value: Any) -> Any:
        sent.append(value)
        return value

    first = measure(KIND, options, data, fabric(0, send), Reporter(speaks=False))
    assert first.class_weights == pytest.approx(slow_weights(maps), rel=1e-5)
    blind = replace(KIND, measure=no_measuring)
    second = measure(blind, options, data, fabric(1, lambda _: sent[0]), Reporter(speaks=False))
    assert second == first
    with pytest.raises(UserError, match="no map"):
        measure(blind, options, data, fabric(0, send), Reporter(speaks=False))
    with pytest.raises(UserError, match="no map"):  # and the others do not wait for ever
        measure(KIND, options, data, fabric(1, lambda _: sent[1]), Reporter(speaks=False))


def no_measuring(*_: Any) -> Any:
    raise UserError("no map can be read")


def test_a_run_starts_from_a_segmenter_and_goes_on(
    run: tuple[Path, str],
    maps: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["train", "--model", "semantic_fpn", "--data", str(maps), "--epochs", "1", *SMALL]
    words += ["--schedule", "poly", "--pretrained", str(run[0] / "best.safetensors")]
    assert main([*words, "--output", "again"]) == 0
    assert "reinitialised" not in capsys.readouterr().out
    assert main(["train", "--resume", "again"]) == 0
    assert "nothing is left to do" in capsys.readouterr().out


def slow_weights(maps: Path) -> list[float]:
    """1 / (K share) of each value in the training maps."""
    counts = dict.fromkeys((0, 3, 17), 0)
    for path in (maps / "labels" / "train").iterdir():
        for value in np.asarray(Image.open(path)).ravel().tolist():
            if value != 255:
                counts[value] += 1
    return [sum(counts.values()) / (3 * count) for count in counts.values()]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--model", "semantic_fpm"), "unknown model semantic_fpm; nearest: semantic_fpn"),
        (("--model", "trans2seg", "--backbone", "pvt_v2_b9"), "unknown backbone pvt_v2_b9"),
        (("--model", "semantic_fpn", "--recipe", "ade20"), "unknown recipe ade20; nearest: ade20k"),
        (("--model", "semantic_fpn", "--loss", "focl"), "unknown loss focl; nearest: focal"),
        (("--model", "semantic_fpn", "--loss", "structure"), "2 classes"),
        (("--model", "semantic_fpn", "--class_weights", "[1, 2]"), "class_weights must be 3"),
        (("--model", "semantic_fpn", "--long_side", "20"), "--long_side must be"),
    ],
)
def test_a_mistake_with_a_segmenter_is_answered_in_one_line(
    words: tuple[str, ...], told: str, maps: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--data", str(maps), *words]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_a_segmenter_without_data_is_for_the_embedded_scenes() -> None:
    from pyramidvit.cli.kinds import kind_of
    from pyramidvit.cli.tasks import TASKS

    kind = kind_of("semantic_fpn")
    data = load_data(kind.task, None, seed=0, held_out=0.2)
    assert data.classes.names[:3] == ("background", "zero", "one")
    options = kind.options(**kind.changes("scenes", kind.options()))
    sample = TASKS[kind.task].train_transform(options)(data.splits["train"][0])
    assert sample.image.shape == (3, 128, 128)
    assert {0} < set(sample.target.labels.unique().tolist()) <= set(range(11))
