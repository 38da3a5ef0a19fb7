"""Files are written whole or not at all."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pyramidvit.engine.snapshot import Progress, load_snapshot, save_snapshot
from pyramidvit.errors import UserError
from pyramidvit.files import write_atomically
from pyramidvit.weights.checkpoint import read_checkpoint, save_checkpoint

FULL_DISK = """
import resource, sys
from pathlib import Path
import torch
from pyramidvit.errors import UserError
from pyramidvit.engine.snapshot import Progress, save_snapshot
from pyramidvit.weights.checkpoint import save_checkpoint

import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
big = {"weight": torch.ones(1_000_000)}
folder = Path(sys.argv[1])
rest = {"identity": {}, "optimizer": {}}
for write in (
    lambda: save_checkpoint(folder / "best.safetensors", big, {"new": True}),
    lambda: save_snapshot(folder / "state.pt", Progress(step=2), {**rest, "model": big}),
):
    try:
        write()
    except UserError as error:
        print(error)
"""


def test_when_the_disk_is_full_the_previous_checkpoint_survives(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "best.safetensors", {"weight": torch.zeros(3)}, {"new": False})
    parts = {"identity": {}, "optimizer": {}, "model": {"weight": torch.zeros(3)}}
    save_snapshot(tmp_path / "state.pt", Progress(step=1), parts)
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all("cannot write" in line and "unharmed" in line for line in lines)
    old = read_checkpoint(tmp_path / "best.safetensors")
    assert old.record == {"new": False}
    assert torch.equal(old.state["weight"], torch.zeros(3))
    progress, parts = load_snapshot(tmp_path / "state.pt")
    assert progress.step == 1
    assert torch.equal(parts["model"]["weight"], torch.zeros(3))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.safetensors", "state.pt"]


def test_a_missing_folder_is_a_user_error_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot write") as caught:
        write_atomically(tmp_path / "nowhere" / "x.txt", "text")
    assert "\n" not in str(caught.value)


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    write_atomically(path, "old")
    write_atomically(path, b"new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"\x80\x04K\x01."])
def test_a_damaged_snapshot_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state.pt").write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        load_snapshot(tmp_path / "state.pt")
    with pytest.raises(UserError, match="nothing to go on from"):
        load_snapshot(tmp_path / "other.pt")
