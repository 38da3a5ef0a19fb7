"""What an exported file says of itself, and that a wrong one is never handed over."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from pyramidvit.errors import UserError
from pyramidvit.export import formats, graph
from pyramidvit.export.formats import FORMATS
from pyramidvit.export.graph import Exportable
from pyramidvit.export.write import write

METADATA = {
    "pyramidvit": "0.1",
    "outputs": ["map"],
    "class_names": ["hat", "über", "靴"],
    "mean": [0.5, 0.4, 0.3],
}


@pytest.fixture
def network() -> Exportable:
    """A small network with what makes exporting hard: bins that depend on the size."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4), nn.AdaptiveAvgPool2d(7))
    return Exportable(layers, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2)).eval()


def test_a_format_that_is_wrong_at_another_size_is_refused_and_leaves_nothing(
    network: Exportable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def as_seen(bins: int, count: int) -> torch.Tensor:  # what exporters write: equal strides
        start = torch.arange(bins)[:, None] * (count // bins)
        place = torch.arange(count)
        return ((place >= start) & (place < start + count // bins)).float() / (count // bins)

    monkeypatch.setattr(graph, "averages", as_seen)
    with pytest.raises(UserError, match=r"wrong: its map for images of 1 x 3 x \d+ x \d+ differ"):
        write(network, tmp_path / "model.onnx", "onnx", METADATA)
    assert not list(tmp_path.iterdir())


def test_a_failure_while_writing_leaves_nothing(
    network: Exportable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(formats, "to_onnx", stop)
    with pytest.raises(KeyboardInterrupt):
        write(network, tmp_path / "model.xml", "openvino", METADATA)
    assert not list(tmp_path.iterdir())


def test_an_onnx_file_says_what_it_is(network: Exportable, tmp_path: Path) -> None:
    import onnx
    import onnxruntime

    path = tmp_path / "model.onnx"
    assert write(network, path, "onnx", METADATA) < 1e-5
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    onnx.checker.check_model(path, full_check=True)
    session = onnxruntime.InferenceSession(path)
    said = session.get_modelmeta().custom_metadata_map
    assert json.loads(said["class_names"]) == METADATA["class_names"]
    assert said["pyramidvit"] == "0.1"
    assert [value.name for value in session.get_inputs()] == ["images"]
    assert [value.name for value in session.get_outputs()] == ["map"]


def test_an_openvino_file_has_its_weights_beside_it_in_full(
    network: Exportable, tmp_path: Path
) -> None:
    import openvino

    write(network, tmp_path / "model.xml", "openvino", METADATA)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.bin", "model.xml"]
    model = openvino.Core().read_model(tmp_path / "model.xml")
    said = model.get_rt_info(["pyramidvit", "class_names"]).astype(str)
    assert json.loads(said) == METADATA["class_names"]
    assert [value.any_name for value in (*model.inputs, *model.outputs)] == ["images", "map"]


def test_a_file_of_torch_export_says_what_it_is(network: Exportable, tmp_path: Path) -> None:
    write(network, tmp_path / "model.pt2", "torch-export", METADATA)
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt2"]
    extra = {"pyramidvit.json": ""}
    program = torch.export.load(tmp_path / "model.pt2", extra_files=extra)
    assert json.loads(extra["pyramidvit.json"]) == METADATA
    images = torch.rand(3, 3, 70, 99)
    torch.testing.assert_close(program.module()(images), network(images), rtol=0, atol=1e-6)


def test_every_format_is_told_by_its_ending() -> None:
    endings = [form.suffixes[0] for form in FORMATS.values()]
    assert endings == [".onnx", ".xml", ".pt2"]
