"""What predicting and scoring segmenters can do beyond a picture at a time, by the verbs."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pyramidvit.cli import main
from pyramidvit.cli.tasks import open_checkpoint
from pyramidvit.data import video_output
from pyramidvit.data.segmentation import load_segmentation_data
from pyramidvit.structures import SegmentationTarget, collate
from pyramidvit.task import Looks, Tiling
from pyramidvit.tasks.segmentation.draw import draw, draw_frame
from segmenters import CLASSES, COLOURS, blotches, save_segmenter

SIZES = ((64, 96), (96, 64), (80, 80))  # (H, W) of the pictures with maps
LONG = (130, 190)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A segmenter that knows nothing and so sees a bit of everything, three pictures with maps, and
    a larger one without."""
    root = tmp_path_factory.mktemp("home")
    save_segmenter(root / "segmenter.safetensors")
    rng = np.random.default_rng(0)
    for folder in ("data/images", "data/labels"):
        (root / folder).mkdir(parents=True)
    for number, size in enumerate(SIZES):
        blotches(rng, size).save(root / "data" / "images" / f"{number}.png")
        labels = rng.choice(np.array([0, 3, 17, 255], np.uint8), (size[0] // 8, size[1] // 8))
        map_of = Image.fromarray(labels.repeat(8, axis=0).repeat(8, axis=1))
        map_of.save(root / "data" / "labels" / f"{number}.png")
    names = "names: {0: background, 3: red, 17: blue}"
    (root / "data" / "classes.yaml").write_text(names, encoding="utf-8")
    blotches(rng, LONG).save(root / "long.png")
    return root


@pytest.fixture
def at_home(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return home


def read_labels(path: Path) -> np.ndarray:
    """The values [H, W] of a label PNG, as every reader of maps sees them."""
    with Image.open(path) as image:
        assert image.mode == "P"
        return np.asarray(image)


def only_line(folder: str) -> dict[str, Any]:
    (line,) = Path(folder, "results.jsonl").read_text(encoding="utf-8").splitlines()
    record: dict[str, Any] = json.loads(line)
    return record


def area_of(ring: Any) -> float:
    """The area inside a ring of (x, y), by the shoelace formula."""
    x, y = np.asarray(ring, float).T
    return float(abs((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) / 2)


def test_a_picture_in_tiles_becomes_a_map_and_polygons(at_home: Path) -> None:
    words = ["predict", str(at_home / "segmenter.safetensors"), str(at_home / "long.png")]
    words += ["--tile", "64", "--overlap", "0.25", "--formats", "png,coco,geojson"]
    assert main([*words, "--output", "out"]) == 0
    line = only_line("out")
    values = read_labels(Path("out", line["png"]))
    assert values.shape == LONG
    counts = {int(v): int(n) for v, n in zip(*np.unique(values, return_counts=True), strict=True)}
    assert len(counts) > 1
    assert set(counts) <= {0, 3, 17}
    shares = {found["id"]: found["share"] for found in line["classes"]}
    expected = {value: count / values.size for value, count in counts.items()}
    assert shares == pytest.approx(expected, abs=1e-5)
    with Image.open(Path("out", line["png"])) as image:
        table = np.asarray(image.getpalette()).reshape(-1, 3)
    assert [tuple(table[i].tolist()) for i in CLASSES.ids] == list(COLOURS)
    rows = list(csv.DictReader(Path("out/classes.csv").read_text(encoding="utf-8").splitlines()))
    assert [(row["value"], row["name"]) for row in rows] == [
        ("0", "background"), ("3", "red"), ("17", "blue"),
    ]  # fmt: skip
    assert Path("out", line["picture"]).is_file()
    counts.pop(0, None)  # a background has no polygons

    coco = json.loads(Path("out/predictions.json").read_text(encoding="utf-8"))
    assert coco["categories"] == [{"id": 3, "name": "red"}, {"id": 17, "name": "blue"}]
    (image_record,) = coco["images"]
    assert image_record["id"] == line["image_id"]
    assert (image_record["height"], image_record["width"]) == LONG
    sums = dict.fromkeys(counts, 0.0)
    for row in coco["annotations"]:
        ring = np.asarray(row["segmentation"][0]).reshape(-1, 2)
        assert area_of(ring) == row["area"]  # holes are cut in, along a line without a width
        left, top, width, height = row["bbox"]
        assert [left, top] == ring.min(axis=0).tolist()
        assert [left + width, top + height] == ring.max(axis=0).tolist()
        sums[row["category_id"]] += row["area"]
    assert sums == counts

    features = json.loads(Path("out", line["geojson"]).read_text(encoding="utf-8"))["features"]
    sums = dict.fromkeys(counts, 0.0)
    for feature in features:
        outline, *holes = feature["geometry"]["coordinates"]
        assert outline[0] == outline[-1]
        sums[feature["properties"]["id"]] += area_of(outline) - sum(map(area_of, holes))
    assert sums == counts


def test_one_tile_over_a_whole_picture_changes_nothing(at_home: Path) -> None:
    picture = str(at_home / "data" / "images" / "0.png")  # as large as the network's input
    words = ["predict", str(at_home / "segmenter.safetensors"), picture, "--draw", "false"]
    assert main([*words, "--output", "whole"]) == 0
    assert main([*words, "--tile", "96", "--output", "tiled"]) == 0
    assert (read_labels(Path("whole/0.png")) == read_labels(Path("tiled/0.png"))).all()
    assert main([*words, "--formats", "none", "--output", "none"]) == 0
    assert [path.name for path in Path("none").iterdir()] == ["results.jsonl"]


def test_what_is_said_of_a_picture_does_not_depend_on_its_neighbours(at_home: Path) -> None:
    words = ["predict", str(at_home / "segmenter.safetensors"), "--draw", "false"]
    pictures = str(at_home / "data" / "images")
    assert main([*words, pictures, "--batch_size", "3", "--workers", "0", "--output", "all"]) == 0
    for number in range(len(SIZES)):
        name = f"{number}.png"
        assert main([*words, f"{pictures}/{name}", "--output", str(number)]) == 0
        assert (read_labels(Path("all", name)) == read_labels(Path(str(number), name))).all()


def test_the_frames_of_a_video_are_drawn_in_one_size(
    at_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(1)
    frames = [Image.new("RGB", (48, 64)), *(blotches(rng, (64, 48)) for _ in range(2))]
    frames[0].save("moving.gif", save_all=True, append_images=frames[1:], duration=80)
    sizes = []
    fit = video_output.fit

    def noted(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
        sizes.append(picture.size)
        return fit(picture, size)

    monkeypatch.setattr(video_output, "fit", noted)
    words = ["predict", str(at_home / "segmenter.safetensors"), "moving.gif"]
    assert main([*words, "--output", "out"]) == 0
    lines = [json.loads(line) for line in Path("out/results.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == [0, 1, 2]
    number = {value: k for k, value in enumerate(CLASSES.ids)}
    for frame, line, size in zip(frames, lines, sizes, strict=True):
        values = read_labels(Path("out", line["png"]))
        labels = torch.tensor([[number[v] for v in row] for row in values.tolist()])
        assert size == sizes[0] == draw_frame(frame, target(labels), CLASSES).size
        assert size != draw(frame, target(labels), CLASSES).size  # whose legend is narrower
    with Image.open("out/moving.gif") as drawn:
        assert (drawn.size, drawn.n_frames) == (sizes[0], 3)


def target(labels: torch.Tensor) -> SegmentationTarget:
    return SegmentationTarget(labels=labels.short())


LOOKS: dict[str, tuple[tuple[str, ...], Looks]] = {
    "plain": ((), Looks()),
    "window": (("--window", "64", "--window_overlap", "0.5"), Looks(window=64, overlap=0.5)),
    "scales": (("--scales", "[0.5, 1.0]"), Looks(scales=(0.5, 1.0))),
    "flip": (("--flip", "true"), Looks(flip=True)),
    "all": (
        ("--window", "64", "--scales", "[1.0, 1.5]", "--flip", "true"),
        Looks(window=64, scales=(1.0, 1.5), flip=True),
    ),
}


def test_looking_again_is_scored_as_asked(at_home: Path) -> None:
    words = ["evaluate", str(at_home / "segmenter.safetensors"), "--data", str(at_home / "data")]
    words += ["--split", "all", "--workers", "0"]
    seen = set()
    for name, (asked, looks) in LOOKS.items():
        assert main([*words, *asked, "--output", name]) == 0
        scored = json.loads(Path(name, "metrics.json").read_text(encoding="utf-8"))
        assert scored["images"] == len(SIZES)
        assert (scored["window"], scored["flip"]) == (looks.window, looks.flip)
        assert scored["scales"] == list(looks.scales)
        assert scored["miou"] == pytest.approx(slow_miou(at_home, looks, None))
        seen.add(round(scored["miou"], 6))
    assert main([*words, "--tile", "64", "--output", "tile"]) == 0
    scored = json.loads(Path("tile/metrics.json").read_text(encoding="utf-8"))
    assert (scored["images"], scored["tile"]) == (len(SIZES), 64)
    assert scored["miou"] == pytest.approx(slow_miou(at_home, Looks(), Tiling(side=64)))
    seen.add(round(scored["miou"], 6))
    assert len(seen) == len(LOOKS) + 1  # every way makes a difference


@torch.inference_mode()
def slow_miou(home: Path, looks: Looks, tiling: Tiling | None) -> float:
    """Mean IoU in percent, one image at a time, pixels compared as sets."""
    opened = open_checkpoint(str(home / "segmenter.safetensors"))
    task = opened.task
    assert task.look_again is not None
    assert task.predict_tiled is not None
    assert task.predict_sizes is not None
    model = task.look_again(opened.model, replace(looks, scales=(1.0,))).eval()
    transform = task.eval_transform(opened.input_record)
    source = load_segmentation_data(home / "data", seed=0).splits["all"]
    both, either = dict.fromkeys(range(3), 0), dict.fromkeys(range(3), 0)
    for number in range(len(source)):
        sample = source[number]
        if tiling is not None:
            found = task.predict_tiled(model, sample, opened.input_record, tiling)
        elif looks.scales != (1.0,):
            found = task.predict_sizes(model, sample, opened.input_record, looks.scales)
        else:
            batch = collate([transform(sample)], divisor=task.divisor)
            (found,) = task.postprocess(model(batch.images), batch)
        assert sample.target is not None
        truth, labels = sample.target.labels.numpy(), found.labels.numpy()
        for k in range(3):
            true, said = truth == k, (labels == k) & (truth >= 0)
            both[k] += int((true & said).sum())
            either[k] += int((true | said).sum())
    return 100 * sum(both[k] / either[k] for k in range(3)) / 3


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("predict", "--tile", "8"), "--tile must be 0, or 32 or more"),
        (("predict", "--formats", "jpg"), "some of png, coco, geojson, got 'jpg'"),
        (("evaluate", "--window", "16"), "--window must be 0, or 32 or more"),
        (("evaluate", "--window_overlap", "1"), "--window_overlap must be from 0 to 0.9"),
        (("evaluate", "--scales", "[]"), "--scales must be numbers"),
        (("evaluate", "--scales", "[0, 1]"), "--scales must be numbers"),
        (("evaluate", "--max_detections", "9"), "segmentation detects nothing"),
        (("evaluate", "--split", "test"), "has no split test"),
    ],
)
def test_what_a_segmenter_cannot_do_is_refused_in_one_line(
    words: tuple[str, ...], told: str, at_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    verb, *rest = words
    place = [str(at_home / "long.png")] if verb == "predict" else ["--data", str(at_home / "data")]
    assert main([verb, str(at_home / "segmenter.safetensors"), *place, *rest]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert not any(Path.cwd().iterdir())
