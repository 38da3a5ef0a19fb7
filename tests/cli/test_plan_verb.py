"""`pvt plan` as it is typed."""

import json

import pytest

from pyramidvit.cli import main

SPEED = ("--tflops", "0.1,0.2", "--bandwidth", "20")


def test_every_setting_has_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "pvt_v2_b0", "--size", "64x96", "--json", *SPEED]) == 0
    record = json.loads(capsys.readouterr().out)
    rows = record["rows"]
    found = {(row["use"], row["precision"], row["recompute"]): row for row in rows}
    assert len(found) == len(rows)
    assert {key[2] for key in found if key[0] == "inference"} == {"none"}
    assert {key[2] for key in found if key[0] == "training"} >= {"none", "blocks"}
    looks = found["inference", "float32", "none"]
    learns = found["training", "float32", "none"]
    assert looks["size"] == [64, 96]
    assert looks["fixed_bytes"] == 4 * looks["parameters"]
    assert learns["seconds"] > 2 * looks["seconds"] > 0
    assert learns["memory_bytes"] > looks["memory_bytes"]
    assert record["gmacs_per_second"] == {"float32": 50, "bf16": 100}


def test_the_largest_batch_that_fits_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "pvt_v2_b0", "--size", "64", "--use", "training", "--recompute", "none"]
    words += ["--precision", "float32", "--device", "cpu", *SPEED]
    assert main([*words, "--memory", "1", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    most = row["largest_batch"]
    assert most > 8
    for batch, fits in ((most - 1, True), (most + 2, False)):
        assert main([*words, "--batch_size", str(batch), "--json"]) == 0
        (row,) = json.loads(capsys.readouterr().out)["rows"]
        assert (row["memory_bytes"] <= 1e9) is fits
    assert main([*words, "--memory", "1"]) == 0
    assert str(most) in capsys.readouterr().out


def test_mistakes_are_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["pvt_v2_b9"], "unknown model pvt_v2_b9; nearest: pvt_v2_b"),
        (["pvt_v2_b0", "--recompute", "block"], "--recompute must be one of all, none, blocks"),
        (["pvt_v2_b0", "--size", "12"], "--size must be a side or HEIGHTxWIDTH"),
        (["pvt_v2_b0", "--batch_size", "0"], "--batch_size must be 1 or more, got 0"),
        (["pvt_v2_b0", "--tflops", "1,2"], "--tflops and --bandwidth go together"),
        (["pvt_v2_b0", "--tflops", "1", "--bandwidth", "2"], "--tflops must be two numbers"),
    ):
        assert main(["plan", *words]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
