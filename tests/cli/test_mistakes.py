"""Mistakes are answered in one line with exit code 2, and leave nothing half-written."""

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from command import Command
from pyramidvit.cli import main
from pyramidvit.weights.checkpoint import read_checkpoint, save_checkpoint


def mistake(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Runs the command, checks the manners of its failure, and returns its one line."""
    assert main(list(words)) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ")
    assert line.count("\n") == 1
    assert "Traceback" not in line
    return line


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two class folders of twenty noise pictures each."""
    generator = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(20):
            pixels = generator.integers(0, 256, (40, 40, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.jpg")
    return tmp_path / "photos"


SMALL = ("--image_size", "32", "--epochs", "1", "--batch_size", "8", "--workers", "0")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "unknown verb trian; nearest: train"),
        (["train", "--data", "phtos"], "no such folder: phtos"),
        (["train", "--model", "pvt_v2_b7"], "unknown model pvt_v2_b7; nearest: pvt_v2_b"),
        (["train", "--epoch", "3"], "unknown option epoch; nearest: epochs"),
        (["train", "batchsize=3"], "unknown option batchsize; nearest: batch_size"),
        (["train", "--epochs", "many"], "--epochs: must be int, got many"),
        (["train", "--lr_by", "hour"], "--lr_by: must be one of 'step', 'epoch', got hour"),
        (["train", "--epochs", "0"], "--epochs must be 1 or more, got 0"),
        (["train", "--image-size", "16"], "--image_size must be 32 or more, got 16"),
        (["train", "--recipe", "papre"], "unknown recipe papre; nearest: paper"),
        (["train", "--mixup", "0.8", "--batch_size", "7"], "even to mix pairs"),
        (["train", "--config", "none.yaml"], "does not exist"),
        (["train", "--resume", "none"], "none is no run folder"),
        (["train", "--resume", "none", "--epochs", "3"], "give it alone"),
        (["train", "--pretrained", "none.pth"], "no such checkpoint: none.pth"),
        (["evaluate"], "checkpoint"),
        (["evaluate", "none.safetensors"], "no such checkpoint"),
        (["predict", "none.safetensors", "x.jpg"], "no such image, folder or pattern: x.jpg"),
        (["predict", "none.safetensors"], "images"),
        (["models", "resnet*"], "no model is named resnet*"),
        (["models", "--size", "12"], "from 32 up"),
        (["demo", "--epochs", "-"], "--epochs"),
        (["demo", "--epochs", "0"], "--epochs must be 1 or more, got 0"),
        (["train", "--seed", "-1"], "--seed must be 0 or more, got -1"),
        (["train", "--rand_augment", "foo", "--image_size", "32"], "--rand_augment must be like"),
        (["evaluate", "none.pth", "--batch_size", "-1"], "--batch_size must be 0 or more"),
        (["predict", "none.pth", "x", "--batch_size=-1"], "--batch_size must be 0 or more"),
    ],
)
def test_a_mistyped_command_is_answered_in_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert message in mistake(capsys, *words)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_images_or_with_one_class_is_refused(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(photos / "dog")
    assert "one class only (cat)" in mistake(capsys, "train", "--data", "photos")
    for file in (photos / "cat").iterdir():
        file.unlink()
    (photos / "dog").mkdir()
    assert "holds no images" in mistake(capsys, "train", "--data", "photos")
    (photos / "cat" / "instances.json").write_text("{}")
    assert "name a detector or a segmenter (--model" in mistake(capsys, "train", "--data", "photos")
    assert not Path("runs").exists()


def test_an_output_folder_that_exists_is_never_written_over(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine").mkdir()
    Path("mine/letter.txt").write_text("dear")
    line = mistake(capsys, "train", "--data", "photos", "--output", "mine", *SMALL)
    assert "mine exists and is not empty" in line
    assert [p.name for p in Path("mine").iterdir()] == ["letter.txt"]


def test_a_broken_image_is_named_and_skipped_up_to_a_share(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (photos / "cat" / "3.jpg").read_bytes()
    (photos / "cat" / "3.jpg").write_bytes(whole[: len(whole) // 2])
    words = ("train", "--data", "photos", "--held_out", "0.1", *SMALL)
    assert main([*words, "--output", "run"]) == 0
    said = capsys.readouterr().out
    assert said.count("cat/3.jpg: image file is truncated") == 1
    assert "cat/3.jpg" in Path("run/log.txt").read_text()

    for i in range(4, 8):
        (photos / "dog" / f"{i}.jpg").write_bytes(b"")
    line = mistake(capsys, *words, "--output", "run2")
    assert "images cannot be read, more than 5%" in line
    assert "--max_broken" in line


def test_a_checkpoint_of_other_classes_does_not_score_this_data(
    photos: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = str(trained / "best.safetensors")
    line = mistake(capsys, "evaluate", best, "--data", "photos")
    assert "class cat in photos is not among the 3 classes of the checkpoint" in line
    assert not Path("evaluations").exists()


def test_an_unnamed_checkpoint_with_another_class_count_is_refused(
    photos: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(read_checkpoint(trained / "best.safetensors").state, "plain.pth")
    words = ("evaluate", "plain.pth", "--model", "pvt_v2_b0", "--data", "photos")
    assert "has 3 classes, photos has 2" in mistake(capsys, *words)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("open('exploded', 'w').close()",))


def test_a_pickle_bomb_is_refused_and_does_not_go_off(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("bomb.pth", "bomb.safetensors"):
        Path(name).write_bytes(pickle.dumps({"model": Bomb()}))
        torch.save({"state_dict": Bomb()}, f"zipped-{name}")
        for file in (name, f"zipped-{name}"):
            mistake(capsys, "predict", file, "photos", "--model", "pvt_v2_b0")
            mistake(capsys, "train", "--pretrained", file)
    assert not Path("exploded").exists()


@pytest.mark.parametrize(
    "record",
    [
        {"task": "poetry"},
        {"task": "classification", "classes": 3},
        {"task": "classification", "classes": [{"name": "a"}]},
        {
            "task": "classification",
            "classes": [{"name": "a", "id": 0}],
            "model": {"name": "pvt_v2_b0", "in_chans": 3},
            "input": {"size": "wide"},
        },
    ],
)
def test_a_checkpoint_with_a_damaged_description_is_refused(
    record: dict[str, Any], photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_checkpoint(Path("odd.safetensors"), {"weight": torch.zeros(2)}, record)
    assert "description is damaged" in mistake(capsys, "predict", "odd.safetensors", "photos")


def test_a_loss_that_is_not_finite_stops_before_the_update(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("train", "--data", "photos", "--lr", "1e30", "--warmup", "0", "--clip_grad", "0")
    line = mistake(capsys, *words, *SMALL, "--output", "run")
    assert "training stopped before update" in line


def test_mistakes_in_a_process_of_their_own_give_exit_code_2(pvt: Command) -> None:
    done = pvt("train", "--data", "nowhere")
    assert done.returncode == 2
    assert done.stderr == "error: no such folder: nowhere\n"
    assert done.stdout == ""
