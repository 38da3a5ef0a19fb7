"""Segmenters meet pictures and maps as people have them, by the verbs: each works, or is told in a
line."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pyramidvit.cli import main
from segmenters import blotches, save_segmenter

NAMES = "names: {0: background, 3: red, 17: blue}"
SMALL = (
    *("--model", "semantic_fpn", "--epochs", "1", "--short_side", "64", "--long_side", "96"),
    *("--crop_side", "64", "--width", "16", "--batch_size", "4", "--workers", "0"),
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A segmenter, and four training and four validation pictures with maps."""
    root = tmp_path_factory.mktemp("home")
    save_segmenter(root / "segmenter.safetensors")
    rng = np.random.default_rng(0)
    for part in ("train", "validation"):
        (root / "data" / "images" / part).mkdir(parents=True)
        (root / "data" / "labels" / part).mkdir(parents=True)
        for number in range(4):
            blotches(rng, (64, 80)).save(root / "data" / "images" / part / f"{number}.png")
            labels = rng.choice(np.array([0, 3, 17], np.uint8), (8, 10))
            map_of = Image.fromarray(labels.repeat(8, axis=0).repeat(8, axis=1))
            map_of.save(root / "data" / "labels" / part / f"{number}.png")
    (root / "data" / "classes.yaml").write_text(NAMES, encoding="utf-8")
    return root


@pytest.fixture
def data(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that data, to be spoilt."""
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(home / "data", tmp_path / "data")


def picture(data: Path, part: str, number: int) -> Path:
    return data / "images" / part / f"{number}.png"


def label_map(data: Path, part: str, number: int) -> Path:
    return data / "labels" / part / f"{number}.png"


def spoil(path: Path, value: int, count: int) -> None:
    """Puts a value into `count` pixels of a map."""
    with Image.open(path) as image:
        values = np.array(image)
    values.flat[:count] = value
    Image.fromarray(values).save(path)


def evaluate(home: Path, *words: str) -> int:
    checkpoint = str(home / "segmenter.safetensors")
    return main(["evaluate", checkpoint, "--data", "data", "--workers", "0", *words])


def figures(folder: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(Path(folder, "metrics.json").read_text(encoding="utf-8"))
    return record


def losses(folder: str) -> list[float]:
    text = Path(folder, "steps.csv").read_text(encoding="utf-8")
    return [float(row["loss"]) for row in csv.DictReader(text.splitlines())]


def test_odd_pictures_get_maps_of_their_own_size(home: Path, data: Path) -> None:
    folder = data / "odd"
    folder.mkdir()
    rng = np.random.default_rng(1)
    plain = blotches(rng, (64, 80))
    grey = plain.convert("L")
    grey.save(folder / "grey.png")
    grey.convert("RGB").save(folder / "grey3.png")
    Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save(folder / "sixteen.png")
    plain.convert("P").save(folder / "palette.gif")
    plain.convert("RGBA").save(folder / "see-through.webp")
    Image.new("RGB", (1, 1), (200, 9, 9)).save(folder / "dot.png")
    Image.new("RGB", (700, 1)).save(folder / "line.png")
    plain.save(folder / "whole.jpg")
    content = (folder / "whole.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(content[: len(content) // 2])

    words = ["predict", str(home / "segmenter.safetensors"), str(folder), "--workers", "0"]
    assert main([*words, "--formats", "png,coco,geojson", "--output", "out"]) == 0
    text = Path("out/results.jsonl").read_text(encoding="utf-8")
    lines = {Path(r["file"]).name: r for r in map(json.loads, text.splitlines())}
    assert {name for name, line in lines.items() if "error" in line} == {"cut.jpg"}
    maps = {}
    for path in folder.iterdir():
        if path.name != "cut.jpg":
            with Image.open(Path("out", lines[path.name]["png"])) as found, Image.open(path) as own:
                assert found.size == own.size
                maps[path.name] = np.asarray(found)
            assert Path("out", lines[path.name]["picture"]).is_file()
    assert (maps["grey.png"] == maps["grey3.png"]).all()
    assert (maps["sixteen.png"] == maps["grey3.png"]).all()


def test_where_nothing_can_be_predicted_a_line_says_so(
    home: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = str(home / "segmenter.safetensors")
    (data / "empty").mkdir()
    (data / "cut.png").write_bytes(picture(data, "train", 0).read_bytes()[:300])
    for place, told in (
        ("empty", "holds no images"),
        ("cut.png", "none of the 1 images"),
        ("x", "x"),
    ):
        assert main(["predict", checkpoint, str(data / place), "--workers", "0"]) == 2
        error = capsys.readouterr().err
        assert told in error
        assert error.count("\n") == 1
    assert main(["evaluate", checkpoint, "--data", str(data / "empty")]) == 2
    error = capsys.readouterr().err
    assert "empty" in error
    assert error.count("\n") == 1


def test_a_strange_value_is_named_with_its_file_and_its_count(
    home: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(label_map(data, "validation", 1), 9, count=5)
    assert evaluate(home, "--output", "one") == 0
    said = capsys.readouterr().out
    assert "validation/1.png: value 9 in 5 pixels is no class" in said
    assert figures("one")["images"] == 3
    spoil(label_map(data, "validation", 2), 9, count=1)
    assert evaluate(home, "--output", "two") == 2
    error = capsys.readouterr().err
    assert "2 of 4 images cannot be read" in error
    assert "1.png: value 9 in 5 pixels is no class" in error
    assert error.count("\n") == 1
    assert not Path("two").exists()
    assert evaluate(home, "--max_broken", "0.5", "--output", "two") == 0
    assert figures("two")["images"] == 2


def test_a_map_of_another_size_is_named(
    home: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Image.open(label_map(data, "validation", 0)) as image:
        values = np.asarray(image)
    Image.fromarray(values[:-1]).save(label_map(data, "validation", 0))
    assert evaluate(home, "--output", "out") == 0
    said = capsys.readouterr().out
    assert "0.png: it has 80x64 pixels, its label map" in said
    assert "0.png 80x63 pixels" in said
    assert figures("out")["images"] == 3


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ("names: {0: background, 3: red, 17: blue, 4: green}", "class green"),
        ("names: {0: background, 3: red, 17: violet}", "class violet"),
    ],
)
def test_data_of_other_classes_are_refused(
    names: str, told: str, home: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "classes.yaml").write_text(names, encoding="utf-8")
    assert evaluate(home, "--output", "out") == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert not Path("out").exists()


def test_data_without_a_labelled_pixel_are_scored_as_unknown(home: Path, data: Path) -> None:
    for number in range(4):
        spoil(label_map(data, "validation", number), 255, count=64 * 80)
    assert evaluate(home, "--output", "out") == 0
    scored = figures("out")
    assert scored["images"] == 4
    assert scored["miou"] is None  # JSON has no NaN
    assert "NaN" not in Path("out/metrics.json").read_text(encoding="utf-8")
    assert Path("out/predictions.png").is_file()


def test_training_on_unlabelled_pixels_alone_has_loss_zero(data: Path) -> None:
    for number in range(4):
        spoil(label_map(data, "train", number), 255, count=64 * 80)
    words = ["train", "--data", "data", *SMALL, "--loss", "cross_entropy+dice+focal+lovasz"]
    assert main([*words, "--balance", "median", "--output", "out"]) == 0
    assert losses("out") == [0.0]


def test_data_without_a_training_part_are_refused_in_a_line(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("images", "labels"):
        shutil.rmtree(data / folder / "train")
    assert main(["train", "--data", "data", *SMALL, "--output", "out"]) == 2
    told = "error: training needs a training part, but data has only validation\n"
    assert capsys.readouterr().err == told
    assert not Path("out").exists()


def test_odd_pictures_teach_and_broken_ones_are_passed_over(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Image.open(picture(data, "train", 0)) as image:
        grey = image.convert("L")
    grey.save(picture(data, "train", 0))
    sixteen = np.asarray(grey).astype(np.uint16) * 257
    Image.fromarray(sixteen).save(picture(data, "train", 1))
    Image.new("RGB", (1, 1)).save(picture(data, "train", 2))
    Image.new("L", (1, 1), 17).save(label_map(data, "train", 2))
    content = picture(data, "train", 3).read_bytes()
    picture(data, "train", 3).write_bytes(content[: len(content) // 2])
    assert main(["train", "--data", "data", *SMALL, "--output", "out"]) == 0
    said = capsys.readouterr().out
    assert said.count("skipped") == 1
    assert "train/3.png" in said
    (loss,) = losses("out")
    assert 0 < loss < 10


def test_maps_that_spoil_too_many_pictures_end_the_training(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (1, 2):
        spoil(label_map(data, "train", number), 200, count=7)
    assert main(["train", "--data", "data", *SMALL, "--output", "out"]) == 2
    error = capsys.readouterr().err
    assert "2 of 4 images cannot be read" in error
    assert "value 200 in 7 pixels is no class" in error
    assert error.count("\n") == 1
