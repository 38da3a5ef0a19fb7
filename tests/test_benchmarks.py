"""The comparisons with other libraries run, and ours and timm's model train alike."""

import sys
from pathlib import Path

import pytest

import train_vs_timm


def test_ours_and_timms_model_make_the_same_first_losses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", "digits", "--output", str(tmp_path), "--epochs", "1", "--image_size", "32"]
    monkeypatch.setattr(sys, "argv", ["train_vs_timm.py", *words, "--drop_path_rate", "0"])
    train_vs_timm.main()
    ours, theirs = (train_vs_timm.losses(tmp_path / side, 20) for side in ("ours", "timm"))
    assert len(ours) == 20
    assert len(set(ours)) == 20
    assert ours == pytest.approx(theirs, abs=1e-4)
    assert (tmp_path / "table.md").read_text().strip() in capsys.readouterr().out
