"""Fine-tuning from the command line, with one process and with two."""

import csv
import shutil
from pathlib import Path

import pytest
import torch

from command import Command
from pyramidvit.cli import main
from pyramidvit.weights.checkpoint import read_checkpoint

WORDS = [
    "train", "--recipe=finetune", "--epochs=1", "--batch_size=8", "--drop_path_rate=0",
    "--workers=0", "--device=cpu", "--image_size=32", "--ema=0.9", "--freeze=2",
    "--sampling=balanced", "--class_weights=balanced",
]  # fmt: skip


def test_two_processes_fine_tune_as_one_does(
    tmp_path: Path,
    digit_folder: Path,
    pvt: Command,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(digit_folder, "data")
    for path in sorted(Path("data", "train", "two").iterdir())[2:]:
        path.unlink()  # 20 images are left, so that the classes differ in size
    words = [*WORDS, "--data=data"]
    assert main([*words, "--output=one"]) == 0
    two = pvt(*words, "--output=two", "--devices=2")
    assert two.returncode == 0, two.stderr
    tables = [list(csv.DictReader((tmp_path / f / "steps.csv").open())) for f in ("one", "two")]
    first, second = ([float(row["loss"]) for row in table] for table in tables)
    assert len(first) == 2
    assert first == pytest.approx(second, rel=1e-4)
    states = [read_checkpoint(tmp_path / f / "last.safetensors").state for f in ("one", "two")]
    still = "block1.0.attn.q.weight"
    assert torch.equal(states[0][still], states[1][still])
    said = capsys.readouterr().out
    assert "2 of 4 stages frozen, " in said
    assert "layer decay 0.9 (down to 0.66 of the head's lr)" in said
    assert "classes drawn equally often" in said


def test_going_on_with_a_run_that_stopped_early_says_that_it_is_done(
    tmp_path: Path,
    digit_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(digit_folder, "data")
    words = ["train", "--data=data", "--image_size=32", "--workers=0", "--device=cpu"]
    still = ["--lr=0", "--min_lr=0", "--warmup_lr=0", "--epochs=9", "--patience=1"]
    assert main([*words, *still, "--batch_size=24", "--output=run"]) == 0
    assert "stopped     early, after epoch 2 of 9" in capsys.readouterr().out
    assert main(["train", "--resume", "run"]) == 0
    said = capsys.readouterr().out
    assert "done        this run has ended: nothing is left to do" in said
    assert "stopped     early, after epoch 2 of 9" in said
    assert Path("run", "metrics.csv").read_text().count("\n") == 3
