"""`pvt export` as a user types it."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from command import pvt_process
from foreign import built
from pyramidvit import create_model, save_checkpoint
from pyramidvit.cli import main
from pyramidvit.cli.export import open_features, open_whole
from pyramidvit.cli.tasks import open_checkpoint
from pyramidvit.export import formats
from pyramidvit.export.graph import Exportable

INPUT = {
    "size": 64,
    "crop_share": 1.0,
    "mean": [0.5, 0.4, 0.3],
    "std": [0.2, 0.25, 0.3],
    "interpolation": "bicubic",
}
NAMES = ("hat", "glove", "shoe")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def classifier(tmp_path: Path) -> str:
    """A checkpoint of ours with names and an input of its own."""
    record = {
        "task": "classification",
        "model": {"name": "pvt_v2_b0", "num_classes": 3, "in_chans": 3},
        "classes": [{"id": name, "name": name} for name in NAMES],
        "input": INPUT,
    }
    state = built("pvt_v2_b0", num_classes=3).state_dict()
    save_checkpoint(tmp_path / "best.safetensors", state, record)
    return "best.safetensors"


def mistake(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Runs the command, which must fail in one line; returns it."""
    assert main(["export", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


def test_an_exported_classifier_answers_as_the_checkpoint_does(
    classifier: str, tmp_path: Path
) -> None:
    import onnxruntime

    process = pvt_process("export", classifier, "--to", "onnx", cwd=tmp_path)
    out, error = process.communicate(timeout=1500)  # half a minute, of a machine that is not busy
    assert process.returncode == 0, error
    assert error == ""
    assert "pvt_v2_b0.onnx" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == [classifier, "pvt_v2_b0.onnx"]

    session = onnxruntime.InferenceSession(tmp_path / "pvt_v2_b0.onnx")
    said = session.get_modelmeta().custom_metadata_map
    assert json.loads(said["class_names"]) == list(NAMES)
    assert json.loads(said["mean"]) == INPUT["mean"]
    assert said["task"] == "classification"
    images = np.random.default_rng(0).random((2, 3, 70, 100), dtype=np.float32)
    (found,) = session.run(["logits"], {"images": images})
    mean, std = (np.array(INPUT[key], np.float32).reshape(3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        expected = open_checkpoint(classifier).model(torch.from_numpy((images - mean) / std))
    assert np.allclose(found, expected, rtol=0, atol=1e-4 * expected.abs().max())


@torch.no_grad()
def test_the_backbone_of_any_checkpoint_gives_its_maps() -> None:
    model = create_model("retinanet", backbone="pvt_v2_b0", num_classes=2, width=32)
    save_checkpoint(Path("detector.safetensors"), model.state_dict(), {})
    opened = open_features("detector.safetensors")
    assert opened.name == "pvt_v2_b0"
    assert opened.outputs == ("stride4", "stride8", "stride16", "stride32")
    images = torch.rand(1, 3, 64, 96)
    network = Exportable(opened.model, opened.input["mean"], opened.input["std"])
    expected = model.eval().backbone((images - network.mean) / network.std)
    # RetinaNet's backbone need not build the first map, but what both give is the same.
    for found, right in zip(network(images)[-len(expected) :], expected, strict=True):
        torch.testing.assert_close(found, right)


def test_a_published_classifier_keeps_its_classes_and_its_input(classifier: str) -> None:
    opened = open_whole(classifier)
    assert opened.metadata["class_names"] == list(NAMES)
    assert opened.input == INPUT
    assert opened.outputs == ("logits",)


def test_a_detector_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    model = create_model("retinanet", backbone="pvt_v2_b0", num_classes=2)
    save_checkpoint(Path("detector.safetensors"), model.state_dict(), {})
    error = mistake(capsys, "detector.safetensors", "--to", "onnx")
    assert "detectors are exported by a later version" in error
    assert not list(Path().glob("*.onnx"))


def test_a_missing_package_is_named_before_anything_is_read(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        formats.importlib.util, "find_spec", lambda name: None if name == "onnx" else find(name)
    )
    error = mistake(capsys, "nowhere.safetensors", "--to", "onnx")
    assert "needs onnx: pip install 'pyramidvit[export]'" in error


@pytest.mark.parametrize(
    ("output", "hint"),
    [
        ("model.onnx", "must end in .xml"),
        ("there.xml", "there.bin exists"),
        ("nowhere/model.xml", "the folder nowhere does not exist"),
    ],
)
def test_a_place_that_cannot_take_the_files_is_refused_first(
    output: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("there.bin").touch()
    assert hint in mistake(capsys, "no.safetensors", "--to", "openvino", "--output", output)


def test_the_kind_of_file_must_be_named(
    classifier: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "to" in mistake(capsys, classifier)
    assert "onnx" in mistake(capsys, classifier, "--to", "onx")
