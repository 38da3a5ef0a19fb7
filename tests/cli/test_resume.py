"""A run that was killed goes on bit for bit."""

import csv
import signal
import time
from pathlib import Path

import pytest
import torch

from command import Command, pvt_process
from pyramidvit.weights.checkpoint import read_checkpoint

STEPS = 12  # updates an epoch


def settings(folder: str) -> list[str]:
    """Two epochs on the digits with everything random switched on, and two reading processes."""
    return [
        "train", f"--output={folder}", "--epochs=2", "--batch_size=114", "--workers=2",
        "--ema=0.9", "--drop_path_rate=0.2", "--mixup=0.5", "--cutmix=0.5", "--random_erasing=0.3",
        "--checkpoint_steps=3",
    ]  # fmt: skip


def count_steps(folder: Path) -> int:
    path = folder / "steps.csv"
    return len(path.read_text().splitlines()) - 1 if path.exists() else 0


@pytest.mark.parametrize("updates", [STEPS + 5])
def test_a_run_killed_inside_an_epoch_ends_with_the_same_weights(
    tmp_path: Path, pvt: Command, updates: int
) -> None:
    whole = pvt(*settings("whole"))
    assert whole.returncode == 0, whole.stderr

    process = pvt_process(*settings("cut"), cwd=tmp_path)
    try:
        deadline = time.monotonic() + 240
        while count_steps(tmp_path / "cut") < updates and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    reached = count_steps(tmp_path / "cut")
    assert updates <= reached < 2 * STEPS, "killed too late to show anything"

    resumed = pvt("train", "--resume", "cut")
    assert resumed.returncode == 0, resumed.stderr
    assert "resume" in resumed.stdout

    for name in ("best.safetensors", "last.safetensors"):
        first, second = (read_checkpoint(tmp_path / f / name) for f in ("whole", "cut"))
        assert first.state.keys() == second.state.keys()
        assert all(torch.equal(first.state[k], second.state[k]) for k in first.state)
        assert first.record["figures"] == second.record["figures"]
    states = [torch.load(tmp_path / f / "state.pt", weights_only=True) for f in ("whole", "cut")]
    for part in ("model", "averaged"):
        assert all(torch.equal(v, states[1][part][k]) for k, v in states[0][part].items())
    moments = [state["optimizer"]["state"] for state in states]
    for key, values in moments[0].items():
        assert all(torch.equal(v, moments[1][key][name]) for name, v in values.items())

    tables = [list(csv.DictReader((tmp_path / f / "steps.csv").open())) for f in ("whole", "cut")]
    assert tables[0] == tables[1]
    assert len(tables[0]) == 2 * STEPS
    rows = [list(csv.DictReader((tmp_path / f / "metrics.csv").open())) for f in ("whole", "cut")]
    for a, b in zip(*rows, strict=True):
        assert {k: v for k, v in a.items() if k != "images_per_second"} == {
            k: v for k, v in b.items() if k != "images_per_second"
        }


def test_a_finished_run_has_nothing_left_to_do(trained: Path, pvt: Command) -> None:
    before = (trained / "last.safetensors").read_bytes()
    done = pvt("train", "--resume", str(trained))
    assert done.returncode == 0, done.stderr
    assert (trained / "last.safetensors").read_bytes() == before
