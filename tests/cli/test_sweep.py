"""`pvt sweep` on a checkpoint of a short training."""

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from pyramidvit.cli import main
from pyramidvit.cli.sweep_sizes import at_side, find_knee, sides_around


def test_a_checkpoint_is_measured_and_scored_at_every_size(
    trained: Path, digit_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best, out = str(trained / "best.safetensors"), tmp_path / "out"
    words = ["--sizes", "64,32,48", "--rounds", "2", "--threads", "1", "--workers", "0"]
    words += ["--data", str(digit_folder), "--output", str(out), "--device", "cpu"]
    assert main(["sweep", best, *words]) == 0
    said = capsys.readouterr().out
    with (out / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["side"] for row in rows] == ["32", "48", "64"]
    for row in rows:
        assert 0 < float(row["wall_lower"]) <= float(row["wall_seconds"])
        assert float(row["cpu_seconds"]) > 0
        assert 1e7 < float(row["memory_bytes"]) < 1e9
        assert 0 <= float(row["top1"]) <= 100
        assert f"{float(row['top1']):.2f}" in said
    record = json.loads((out / "sweep.json").read_text())
    assert record["knee"] in (None, 32, 48, 64)
    with Image.open(out / "sweep.png") as picture:
        assert picture.width > 1000

    # At its own size it is what `pvt evaluate` finds.
    words = ["--data", str(digit_folder), "--device", "cpu", "--workers", "0"]
    assert main(["evaluate", best, *words, "--output", str(tmp_path / "evaluation")]) == 0
    own = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    assert float(rows[0]["top1"]) == own["top1"]


def test_the_knee_lies_where_accuracy_rises_most_above_its_price() -> None:
    assert find_knee([1, 2, 3, 4, 5], [60.0, 70.0, 78.0, 79.0, 80.0]) == 2
    assert find_knee([1, 2, 10], [60.0, 60.5, 70.0]) == 0  # every gain costs its full price
    assert find_knee([1, 2], [60.0, 70.0]) is None
    assert find_knee([1, 2, 3], [60.0, 60.0, 60.0]) is None
    assert find_knee([1, 2, 3], [None, None, None]) is None


def test_sides_follow_the_checkpoints_own() -> None:
    assert sides_around(224) == [128, 160, 192, 224, 288, 320, 448]
    assert 224 in sides_around(224)
    assert all(side >= 32 for side in sides_around(32))
    assert at_side({"size": 224, "crop_share": 0.9}, 96) == {"size": 96, "crop_share": 0.9}
    record = {"short_side": 800, "long_side": 1333, "divisor": 32}
    assert at_side(record, 400) == {"short_side": 400, "long_side": 666, "divisor": 32}


def test_mistakes_are_told_in_one_line(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = str(trained / "best.safetensors")
    for words, message in (
        ([best, "--sizes", "64,big"], "--sizes must be sides from 32 to 8192"),
        ([best, "--sizes", "16"], "--sizes must be sides from 32 to 8192"),
        ([best, "--rounds", "0"], "--rounds must be 1 or more, got 0"),
        ([best, "--output", str(trained)], "exists and is not empty"),
        ([str(tmp_path / "none.pth")], "none.pth"),
        ([best, "--data", str(tmp_path), "--output", str(tmp_path / "out")], str(tmp_path)),
    ):
        assert main(["sweep", *words]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
