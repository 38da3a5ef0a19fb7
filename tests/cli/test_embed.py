"""`pvt embed`: features of pictures in one Parquet file."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow
import pytest
import torch
from pyarrow import parquet

import pyramidvit
from pyramidvit.cli import main, tasks
from pyramidvit.data.image_folder import FileSource
from pyramidvit.engine import features as engine
from pyramidvit.tasks.classification.task import CLASSIFICATION
from pyramidvit.weights.checkpoint import read_checkpoint


def read(path: Path) -> tuple[list[str], np.ndarray, dict[str, str]]:
    """Paths, features [N, C], and what the file says of itself."""
    table = parquet.read_table(path)
    values = table["features"].combine_chunks().flatten().to_numpy()
    said = {k.decode(): v.decode() for k, v in table.schema.metadata.items()}
    return table["path"].to_pylist(), values.reshape(len(table), -1), said


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def embed(*words: str) -> int:
    return main(["embed", *words, "--device", "cpu", "--workers", "0"])


def test_the_file_holds_what_the_head_reads_and_says_where_it_is_from(
    trained: Path, digit_folder: Path, tmp_path: Path
) -> None:
    best, pictures = str(trained / "best.safetensors"), digit_folder / "validation"
    assert embed(best, str(pictures), "--batch_size", "4", "--output", "out.parquet") == 0
    paths, found, said = read(tmp_path / "out.parquet")
    assert len(paths) == len(set(paths)) == 15
    assert found.shape == (15, 256)
    assert found.dtype == np.float32

    checkpoint = read_checkpoint(best)
    assert said["model"] == "pvt_v2_b0"
    assert said["checkpoint"] == "best.safetensors"
    assert json.loads(said["input"]) == checkpoint.record["input"]

    model: Any = pyramidvit.create_model("pvt_v2_b0", num_classes=3).eval()
    pyramidvit.load_weights(model, best)
    source = FileSource(tuple(map(Path, paths)), (None,) * 15)
    transform = CLASSIFICATION.eval_transform(json.loads(said["input"]))
    images = torch.stack([transform(source[i]).image for i in range(15)])  # type: ignore[misc]
    with torch.inference_mode():
        expected = model.forward_head(model.forward_features(images), pre_logits=True)
    assert np.allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet"]


def test_the_columns_are_a_string_and_a_vector_of_fixed_length(
    trained: Path, digit_folder: Path, tmp_path: Path
) -> None:
    assert embed(str(trained / "last.safetensors"), str(digit_folder / "train" / "one")) == 0
    schema = parquet.read_schema(tmp_path / "features.parquet")
    assert schema.names == ["path", "features"]
    assert schema.field("path").type == pyarrow.string()
    assert schema.field("features").type == pyarrow.list_(pyarrow.float32(), 256)


def test_unreadable_pictures_are_named_and_left_out(
    trained: Path, digit_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.jpg").write_bytes(b"")
    good = str(digit_folder / "validation" / "two")
    assert embed(str(trained / "best.safetensors"), "empty.jpg", good) == 0
    out = capsys.readouterr().out
    assert "empty.jpg: empty file" in out
    assert "5 x 256 features (1 skipped)" in out
    assert len(read(tmp_path / "features.parquet")[0]) == 5

    assert embed(str(trained / "best.safetensors"), "empty.jpg", "--output", "none.parquet") == 2
    assert "none of the 1 images could be read" in capsys.readouterr().err
    assert not (tmp_path / "none.parquet").exists()


def test_mistakes_are_answered_in_one_line_before_any_work(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], digit_folder: Path
) -> None:
    best, pictures = str(trained / "best.safetensors"), str(digit_folder / "train")
    (tmp_path / "old.parquet").write_text("mine")
    for words, message in (
        (["none.safetensors", pictures], "no such checkpoint"),
        ([best, "x.jpg"], "no such image, folder or pattern: x.jpg"),
        ([best, pictures, "--output", "old.parquet"], "old.parquet exists; name another --output"),
        ([best, pictures, "--output", "no/x.parquet"], "the folder no does not exist"),
        ([best, pictures, "--batch_size", "0"], "--batch_size must be 1 or more"),
        ([best], "images"),
    ):
        assert embed(*words) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert message in error
    assert [path.name for path in tmp_path.iterdir()] == ["old.parquet"]
    assert (tmp_path / "old.parquet").read_text() == "mine"


def test_a_checkpoint_without_a_classifier_is_refused(
    digit_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pyramid = pyramidvit.create_model("pvt_v2_b0", features_only=True)
    opened = SimpleNamespace(task=CLASSIFICATION, model=pyramid, classes=(), input_record={})
    monkeypatch.setattr(tasks, "open_checkpoint", lambda *_: opened)
    assert embed("pyramid.safetensors", str(digit_folder)) == 2
    assert "pyramid.safetensors holds no classifier" in capsys.readouterr().err


def test_features_of_a_first_version_are_its_class_token() -> None:
    model: Any = pyramidvit.create_model("pvt_tiny").eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        found = engine.PooledFeatures(model)(images)
        assert torch.equal(model.head(found), model(images))
    assert found.shape == (2, 512)


def numbered(count: int) -> Iterator[tuple[str, np.ndarray]]:
    for i in range(count):
        yield f"{i}.jpg", np.full(3, i, np.float32)


def test_the_file_is_written_a_group_of_rows_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "ROWS", 4)
    written: list[int] = []
    build = engine.build_table

    def watch(group: list[Any], schema: Any) -> Any:
        written.append(len(group))
        return build(group, schema)

    def rows() -> Iterator[tuple[str, np.ndarray]]:
        for i, row in enumerate(numbered(10)):
            assert sum(written) >= i - 4, "no more than a group waits in memory"
            yield row

    monkeypatch.setattr(engine, "build_table", watch)
    path = tmp_path / "x.parquet"
    assert engine.write_features(path, rows(), {"model": "a", "input": {"size": 3}}) == 10
    assert written == [4, 4, 2]
    assert parquet.ParquetFile(path).num_row_groups == 3
    names, found, said = read(path)
    assert names == [f"{i}.jpg" for i in range(10)]
    assert (found == np.arange(10)[:, None]).all()
    assert (said["model"], json.loads(said["input"])) == ("a", {"size": 3})


def test_a_failure_on_the_way_leaves_the_old_file_and_no_half_one(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    path.write_text("old")

    def rows() -> Iterator[tuple[str, np.ndarray]]:
        yield from numbered(2)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        engine.write_features(path, rows(), {})
    assert [p.name for p in tmp_path.iterdir()] == ["x.parquet"]
    assert path.read_text() == "old"
    assert engine.write_features(tmp_path / "none.parquet", iter(()), {}) == 0
    assert not (tmp_path / "none.parquet").exists()


def test_a_name_that_is_no_text_is_spelled_out(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    engine.write_features(path, [("caf\udce9.jpg", np.zeros(2, np.float32))], {})
    assert read(path)[0] == ["caf\\udce9.jpg"]
