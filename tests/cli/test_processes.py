"""Several processes train as one does, and evaluate every image exactly once."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from command import Command

WORDS = [
    "train", "--epochs=1", "--batch_size=32", "--drop_path_rate=0", "--workers=0",
    "--held_out=0.55", "--mixup=0.4", "--device=cpu",
]  # fmt: skip


def torchrun(folder: Path, *words: str) -> None:
    """Two processes by torchrun, over gloo on the CPU."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [*command, "-m", "pyramidvit", *words],
        cwd=folder,
        env=environment,
        check=True,
        timeout=300,
        capture_output=True,
    )


def losses(folder: Path) -> list[float]:
    return [float(row["loss"]) for row in csv.DictReader((folder / "steps.csv").open())]


def test_two_processes_make_the_losses_and_the_figures_of_one(tmp_path: Path, pvt: Command) -> None:
    one = pvt(*WORDS, "--output=one")
    assert one.returncode == 0, one.stderr
    two = pvt(*WORDS, "--output=two", "--devices=2")
    assert two.returncode == 0, two.stderr
    torchrun(tmp_path, *WORDS, "--output=three")

    first = losses(tmp_path / "one")
    assert len(first) >= 20
    assert first[:20] == pytest.approx(losses(tmp_path / "two")[:20], rel=1e-4)
    assert first[:20] == pytest.approx(losses(tmp_path / "three")[:20], rel=1e-4)

    figures = []
    for name, more in (("a", ["--devices=1"]), ("b", ["--devices=2"])):
        words = ("evaluate", "one/best.safetensors", "--device=cpu", "--batch_size=16")
        done = pvt(*words, f"--output={name}", *more)
        assert done.returncode == 0, done.stderr
        record = json.loads((tmp_path / name / "metrics.json").read_text())
        figures.append({k: record[k] for k in ("images", "loss", "top1", "top5", "mean_class")})
        figures[-1]["table"] = (tmp_path / name / "confusion.csv").read_text()
    assert figures[0]["images"] % 2 == 1
    assert figures[0] == figures[1]


def test_a_batch_that_two_processes_cannot_share_is_refused(pvt: Command) -> None:
    done = pvt("train", "--batch_size=30", "--devices=2", "--device=cpu", "--epochs=1")
    assert done.returncode == 2
    assert (
        "error: --batch_size 30 cannot be shared by 2 processes: use a multiple of 4" in done.stderr
    )


def test_broken_images_that_only_one_process_meets_are_named_once(
    tmp_path: Path, pvt: Command, digit_folder: Path
) -> None:
    shutil.copytree(digit_folder, tmp_path / "data")
    (tmp_path / "data" / "train" / "zero" / "empty.png").write_bytes(b"")
    (tmp_path / "data" / "validation" / "zero" / "cut.png").write_bytes(b"PNG")
    words = ("train", "--data=data", "--epochs=1", "--batch_size=8", "--image_size=32")
    done = pvt(*words, "--devices=2", "--device=cpu", "--workers=0", "--output=run")
    assert done.returncode == 0, done.stderr
    said = done.stdout + (tmp_path / "run" / "log.txt").read_text()
    assert said.count("empty.png: empty file") == 2  # on the terminal and in the log
    assert said.count("cut.png: not a picture") == 2
