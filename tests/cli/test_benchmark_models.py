"""`pvt benchmark NAME ...` at a small size."""

import json
import statistics
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from pyramidvit.cli import main
from pyramidvit.cli.benchmark_models import choose_precisions, choose_ways
from pyramidvit.costs.turns import Timed, changed_environment, start_way
from pyramidvit.costs.ways import WAYS, Case


def test_ways_are_measured_in_one_run_and_one_that_cannot_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--size", "32", "--rounds", "2", "--threads", "1", "--output", "out"]
    words += ["--ways", "ours,official", "--precision", "float32"]
    assert main(["benchmark", "pvt_v2_b0", *words]) == 0
    record = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    official, ours = record["rows"]
    assert (official["way"], ours["way"]) == ("official", "ours")
    assert official["reason"] == "--official names no code"
    assert official["cpu"] is None
    assert len(ours["cpu_seconds"]) == len(ours["wall_seconds"]) == 2
    assert ours["cpu"]["median"] == pytest.approx(statistics.median(ours["cpu_seconds"]))
    assert ours["ratio"] == {"median": 1.0, "lower": 1.0, "upper": 1.0}
    assert ours["base"] == "ours float32"
    assert ours["differs"] == 0
    assert 0 < ours["of_peak"] < 1
    said = capsys.readouterr().out
    assert "--official names no code" in said
    assert f"{ours['cpu']['median'] * 1e3:.1f}" in said
    with Image.open(tmp_path / "out" / "benchmark.png") as picture:
        assert picture.width > 400


def test_a_way_that_fails_says_why(tmp_path: Path) -> None:
    (tmp_path / "pvt_v2.py").write_text("raise RuntimeError('this is old code')")
    case, record = Case(model="pvt_v2_b0", official=str(tmp_path)), Timed()
    with ThreadPoolExecutor() as pool:  # stands for a process
        start_way(pool, ("official", "float32"), case, 0, record)
    assert record.reason == "this is old code"


def test_all_ways_and_both_precisions_are_measured_unless_some_are_named() -> None:
    assert choose_ways("all") == list(WAYS)
    assert choose_ways("ours, timm") == ["timm", "ours"]
    assert choose_precisions(None) == choose_precisions("both") == ["float32", "bf16"]
    assert choose_precisions("bf16") == ["bf16"]


def test_the_environment_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setenv("MALLOC_TOP_PAD_", "1")
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    with changed_environment({"MALLOC_TOP_PAD_": "2", "MALLOC_TRIM_THRESHOLD_": "3"}):
        assert os.environ["MALLOC_TOP_PAD_"] == "2"
    assert os.environ["MALLOC_TOP_PAD_"] == "1"
    assert "MALLOC_TRIM_THRESHOLD_" not in os.environ


def test_mistakes_are_told_before_anything_is_measured(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for words, message in (
        (["pvt_v2_b9"], "nothing known to measure is called pvt_v2_b9; nearest: pvt_v2_b"),
        (["detectors", "pvt_v2_b0"], "nothing known to measure is called detectors"),
        (["pvt_v2_b0", "--ways", "ours,tim"], "unknown way tim; nearest: timm"),
        (["pvt_v2_b0", "--size", "12"], "--size must be a side or HEIGHTxWIDTH"),
        (["pvt_v2_b0", "--official", "nowhere"], "--official nowhere: there is no such folder"),
        (["detectors", "--precision", "both"], "--precision must be float32 or bf16 for detectors"),
    ):
        assert main(["benchmark", *words]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
        assert not list(tmp_path.iterdir())
