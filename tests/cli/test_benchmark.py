"""`pvt benchmark detectors` in a process of its own, at a small size."""

import json
import statistics
from pathlib import Path

import pytest
from PIL import Image

from command import Command
from pyramidvit.cli import main
from pyramidvit.cli.benchmark_detectors import choose_heads
from pyramidvit.costs.clock import peak_memory
from pyramidvit.tasks.detection.table import DETECTORS


def test_detectors_are_measured_in_one_run(pvt: Command, tmp_path: Path) -> None:
    words = ("--size", "64x96", "--rounds", "3", "--models", "atss,retinanet", "--num-classes", "3")
    done = pvt("benchmark", "detectors", "--output", "out", *words)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert record["backbone"] == "pvt_v2_b0"
    assert [row["head"] for row in record["heads"]] == ["retinanet", "atss"]
    for row in record["heads"]:
        assert row["head"] in done.stdout
        assert f"{row['parameters'] / 1e6:.1f} M" in done.stdout
        assert 3e6 < row["parameters"] < 14e6
        assert 0 < row["gflops"] < 3
        assert len(row["seconds"]) == 3
        assert row["median"] == pytest.approx(statistics.median(row["seconds"]), abs=1e-4)
        assert min(row["seconds"]) <= row["lower"] <= row["median"] <= row["upper"]
        # It holds its weights at least, and not those of the other nor torch itself.
        assert 4 * row["parameters"] / 1e6 < row["memory_mb"] < 400
    with Image.open(tmp_path / "out" / "benchmark.png") as picture:
        assert picture.width > 800


def test_what_draws_masks_is_made_to_find_something(tmp_path: Path) -> None:
    words = ["--size", "32", "--rounds", "1", "--models", "mask_rcnn", "--num_classes", "2"]
    assert main(["benchmark", "detectors", "--output", str(tmp_path / "out"), *words]) == 0
    (row,) = json.loads((tmp_path / "out" / "benchmark.json").read_text())["heads"]
    assert 0 < row["found"] <= 100
    assert row["lower"] == row["median"] == row["upper"] == row["seconds"][0]


def test_all_heads_are_measured_unless_some_are_named() -> None:
    assert set(choose_heads("all")) == set(DETECTORS)
    assert choose_heads("detr, retinanet") == ["retinanet", "detr"]


def test_memory_is_told_in_bytes() -> None:
    peak = peak_memory()
    assert peak is None or 1e7 < peak < 1e11


def test_mistakes_are_told_before_anything_is_measured(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for words, message in (
        (["detector"], "nothing known to measure is called detector; nearest: detectors"),
        (["detectors", "--models", "retinanet,deter"], "unknown detector deter; nearest: detr"),
        (["detectors", "--backbone", "pvt_v2_b9"], "unknown backbone pvt_v2_b9; nearest: pvt_v2_b"),
        (["detectors", "--size", "12"], "--size must be a side or HEIGHTxWIDTH"),
        (["detectors", "--rounds", "0"], "--rounds must be 1 or more, got 0"),
        (["detectors", "--output", "."], ""),
    ):
        if words[-1] == ".":
            (tmp_path / "something").touch()
            message = "exists and is not empty"
        assert main(["benchmark", *words]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
        assert {path.name for path in tmp_path.iterdir()} <= {"something"}
