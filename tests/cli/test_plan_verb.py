"""`pvt plan` as it is typed."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from pyramidvit.cli import main
from pyramidvit.cli.plan import largest_batch
from pyramidvit.costs.plan import Plan, Setting

SPEED = ("--tflops", "0.1,0.2", "--bandwidth", "20")


def test_every_setting_has_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--size", "64x96", "--precision", "float32", "--json")
    assert main(["plan", "pvt_v2_b0", *words, *SPEED]) == 0
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
    assert record["time_error"] is None  # no figure of a machine that is described was compared


@pytest.mark.parametrize("words", [[], ["--memory", "1"]])
def test_the_table_has_a_line_a_setting(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = Plan(parameters=7, macs=2 * 10**9, attention=10**9, fixed=1, memory=1, operations=[])
    monkeypatch.setattr(
        "pyramidvit.costs.plan.plan",
        lambda setting: replace(planned, memory=10**7 * setting.batch),
    )
    monkeypatch.setattr("pyramidvit.costs.machine.estimate", lambda operations, machine: 0.25)
    assert (
        main(["plan", "pvt_v2_b0", "--precision", "float32", "--device", "cpu", *words, *SPEED])
        == 0
    )
    heading, *lines = capsys.readouterr().out.splitlines()
    expected = ["pvt_v2_b0", "training", "float32", "blocks", "2.0", "50%", "10", "MB", "0.25", "4"]
    assert lines[3].split() == expected + ["100"] * bool(words)
    assert ("largest batch" in heading) is bool(words)


def bent(setting: Setting) -> SimpleNamespace:
    """Memory whose worst moment is another one from 40 images on."""
    count = setting.batch
    return SimpleNamespace(memory=100 + max(10 * count, 25 * count - 600))


@pytest.mark.parametrize(("room", "most"), [(105, 0), (110, 1), (219, 11), (400, 30), (1000, 60)])
def test_the_largest_batch_that_fits_is_told(
    room: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyramidvit.costs.plan.plan", bent)
    assert largest_batch(Setting(model="pvt_v2_b0"), room) == most


def test_mistakes_are_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["pvt_v2_b9"], "unknown model pvt_v2_b9; nearest: pvt_v2_b"),
        (
            ["pvt_v2_b0", "--recompute", "block"],
            "--recompute must be one of all, none, feed_forward, blocks",
        ),
        (["pvt_v2_b0", "--size", "12"], "--size must be a side or HEIGHTxWIDTH"),
        (["pvt_v2_b0", "--batch_size", "0"], "--batch_size must be 1 or more, got 0"),
        (["pvt_v2_b0", "--tflops", "1,2"], "--tflops and --bandwidth go together"),
        (["pvt_v2_b0", "--tflops", "1", "--bandwidth", "2"], "--tflops must be two numbers"),
    ):
        assert main(["plan", *words]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
