"""What predicting and scoring detectors can do beyond a picture at a time, by the verbs."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pyramidvit import create_model, save_checkpoint
from pyramidvit.cli import main, tasks
from pyramidvit.cli.evaluate import EvaluateOptions, look_as_asked
from pyramidvit.cli.predictions import PredictionFolder
from pyramidvit.data.digits import NAMES
from pyramidvit.data.scenes import load_scene_data
from pyramidvit.data.source import DataSet
from pyramidvit.engine.predict import Answer
from pyramidvit.engine.report import Bar, Reporter
from pyramidvit.structures import Classes, Origin
from pyramidvit.tasks.detection.config import DetectionOptions
from pyramidvit.tasks.detection.metrics import DetectionMetrics
from pyramidvit.tasks.detection.task import DETECTION

CLASSES = Classes(names=("red", "blue"), ids=(3, 17))
MANY = 120  # objects in the crowded picture


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of a detector that knows nothing and so sees something everywhere, and of a
    classifier; pictures of every odd kind; and a data set of two, one of them crowded."""
    root = tmp_path_factory.mktemp("home")
    save_detector(root / "detector.safetensors", CLASSES)
    state = create_model("pvt_v2_b0", num_classes=2).state_dict()
    save_checkpoint(root / "pvt_v2_b0.safetensors", state, {})
    write_pictures(root / "pictures")
    write_data(root / "data")
    return root


def save_detector(path: Path, classes: Classes) -> None:
    options = DetectionOptions(
        model="mask_rcnn", short_side=64, long_side=96, width=8, hidden=16, anchor_scale=2.0
    )
    torch.manual_seed(0)
    record = {
        "task": "detection",
        "model": DETECTION.describe_model(options, classes),
        "classes": classes.to_records(),
        "input": DETECTION.describe_input(options),
    }
    save_checkpoint(path, DETECTION.build_model(options, classes).state_dict(), record)


def write_pictures(folder: Path) -> None:
    folder.mkdir()
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (90, 140, 4), dtype=np.uint8))
    noise.save(folder / "clear.png")  # RGBA
    noise.convert("RGB").save(folder / "noise.jpg")
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    content = (folder / "noise.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(content[: len(content) // 2])
    frames = [noise.convert("RGB").resize((60, 40)).rotate(90 * k) for k in range(3)]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:], duration=80)


def write_data(folder: Path) -> None:
    """One picture with two objects, and one with many."""
    folder.mkdir()
    images, annotations = [], []
    for number, count in enumerate((2, MANY)):
        Image.new("RGB", (128, 96), (40 * number, 90, 90)).save(folder / f"{number}.png")
        images.append({"id": number + 5, "file_name": f"{number}.png", "width": 128, "height": 96})
        for k in range(count):
            x, y = 10 * (k % 12), 9 * (k // 12)
            row = {"id": len(annotations) + 1, "image_id": number + 5, "bbox": [x, y, 8, 7]}
            shape = [[x, y, x + 8, y, x + 8, y + 7, x, y + 7]]
            row |= {"category_id": 3, "area": 56, "iscrowd": 0, "segmentation": shape}
            annotations.append(row)
    categories = [{"id": 3, "name": "red"}, {"id": 17, "name": "blue"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(content), encoding="utf-8")


def lines_of(folder: str) -> list[dict[str, Any]]:
    text = Path(folder, "results.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def at_home(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return home


def test_every_odd_picture_gets_a_line_and_a_place_in_the_coco_file(at_home: Path) -> None:
    words = ("predict", str(at_home / "detector.safetensors"), str(at_home / "pictures"))
    assert main([*words, "--output", "out", "--workers", "0"]) == 0
    lines = lines_of("out")
    names = [Path(line["file"]).name for line in lines]
    assert names == ["clear.png", "cut.jpg", "dot.png", "noise.jpg"] + ["moving.gif"] * 3
    assert [("error" in line) for line in lines] == [n == "cut.jpg" for n in names]
    frames = lines[-3:]
    assert [(line["frame"], line["time"]) for line in frames] == [(0, 0), (1, 0.08), (2, 0.16)]
    assert {line["video"] for line in frames} == {"moving.gif"}
    with Image.open("out/moving.gif") as drawn:
        assert drawn.n_frames == 3
        assert drawn.info["duration"] == 80
    for line in lines[:4]:
        assert "error" in line or Path("out", line["picture"]).is_file()

    coco = json.loads(Path("out/predictions.json").read_text(encoding="utf-8"))
    assert coco["categories"] == [{"id": 3, "name": "red"}, {"id": 17, "name": "blue"}]
    whole = [line for line in lines if "error" not in line]
    assert [image["id"] for image in coco["images"]] == [line["image_id"] for line in whole]
    assert coco["images"][-1]["file_name"].endswith("moving.gif#2")
    sizes = [(image["width"], image["height"]) for image in coco["images"]]
    assert sizes == [(140, 90), (1, 1), (140, 90), *[(60, 40)] * 3]
    assert len(coco["annotations"]) == sum(len(line["objects"]) for line in whole) > 0
    assert {row["category_id"] for row in coco["annotations"]} <= {3, 17}
    assert all(row["segmentation"]["size"] for row in coco["annotations"])


def test_a_picture_too_long_for_a_jpeg_file_is_drawn_too(tmp_path: Path) -> None:
    Image.new("RGB", (66_000, 3)).save(tmp_path / "long.png")
    task = SimpleNamespace(
        open_results=None,
        describe=lambda prediction, classes: {},
        summarise=lambda record: "",
        draw=lambda picture, prediction, classes: picture,
    )
    opened: Any = SimpleNamespace(task=task, classes=CLASSES)
    folder = tmp_path / "out"
    folder.mkdir()
    origin = Origin(name=str(tmp_path / "long.png"), size=(3, 66_000))
    with PredictionFolder(folder, opened, draw=True, formats=(), reporter=Reporter()) as writer:
        writer.add(Answer(origin, None))
    (line,) = (folder / "results.jsonl").read_text().splitlines()
    assert json.loads(line)["picture"] == "long.png"
    with Image.open(folder / "long.png") as drawn:
        assert drawn.size == (66_000, 3)


def test_a_long_video_says_how_far_it_is(
    at_home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyramidvit.cli.predictions.SAID_EVERY", 2)
    shown: list[str] = []

    def advance(bar: Bar, figures: str = "", *, to: int | None = None) -> None:
        shown.append(f"{figures} to {to}")

    monkeypatch.setattr(Bar, "advance", advance)
    clip = str(at_home / "pictures" / "moving.gif")
    words = ["predict", str(at_home / "detector.safetensors"), clip, "--formats", "none"]
    assert main([*words, "--output", "out"]) == 0
    said = capsys.readouterr().out
    assert f"{clip}   2 of 3 frames so far" in said
    assert said.index("2 of 3 frames so far") < said.index(f"{clip}   3 frames")
    assert shown == [*(f"moving.gif frame {k} of 3 to 0" for k in (1, 2, 3)), " to None"]


def test_a_video_is_predicted_frame_by_frame(at_home: Path, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    with av.open("clip.mp4", "w") as container:
        stream = container.add_stream("mpeg4", rate=12)
        stream.width, stream.height = 64, 48
        stream.pix_fmt = "yuv420p"
        for k in range(5):
            frame = av.VideoFrame.from_image(Image.new("RGB", (64, 48), (50 * k, 99, 99)))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    words = ["predict", str(at_home / "detector.safetensors"), "clip.mp4", "--formats", "none"]
    assert main([*words, "--batch_size", "2", "--output", "out"]) == 0
    assert [line["frame"] for line in lines_of("out")] == [0, 1, 2, 3, 4]
    assert sorted(path.name for path in Path("out").iterdir()) == ["clip.mp4", "results.jsonl"]
    with av.open("out/clip.mp4") as container:
        assert container.streams.video[0].average_rate == 12
        assert container.streams.video[0].frames == 5

    whole = Path("clip.mp4").read_bytes()
    Path("half.mp4").write_bytes(whole[: len(whole) // 2])
    assert main([*words[:2], "half.mp4", "--output", "none"]) == 2
    assert "error" in lines_of("none")[0]


def test_tiles_find_more_in_a_picture_and_are_scored_the_same_way(at_home: Path) -> None:
    checkpoint = str(at_home / "detector.safetensors")
    tiles = ("--tile", "64", "--overlap", "0.2")
    picture = str(at_home / "data" / "1.png")
    words = ["predict", checkpoint, picture, "--draw", "false", "--optimize", "none", *tiles]
    assert main([*words, "--output", "out"]) == 0
    (line,) = lines_of("out")
    boxes = np.asarray([found["box"] for found in line["objects"]])
    assert len(boxes)
    assert (boxes >= 0).all()
    assert (boxes[:, 2:] <= (128, 96)).all()
    assert {tuple(found["segmentation"]["size"]) for found in line["objects"]} == {(96, 128)}

    words = ["evaluate", checkpoint, "--data", str(at_home / "data"), "--split", "all"]
    assert main([*words, *tiles, "--output", "scores"]) == 0
    scored = json.loads(Path("scores/metrics.json").read_text(encoding="utf-8"))
    assert scored["images"] == 2
    assert scored["tile"] == 64
    rows = json.loads(Path("scores/results_boxes.json").read_text(encoding="utf-8"))
    found = [row["bbox"] for row in rows if row["image_id"] == 6]
    expected = [[x0, y0, x1 - x0, y1 - y0] for x0, y0, x1, y1 in boxes.tolist()]
    assert found == [pytest.approx(box, abs=0.02) for box in expected]  # the best first


def test_more_than_a_hundred_objects_count_where_that_is_asked(at_home: Path) -> None:
    words = ["evaluate", str(at_home / "detector.safetensors"), "--split", "all"]
    words += ["--data", str(at_home / "data"), "--workers", "0"]
    counts = {}
    for most, more in ((100, ()), (300, ("--max_detections", "300"))):
        assert main([*words, *more, "--output", str(most)]) == 0
        rows = json.loads(Path(str(most), "results_masks.json").read_text(encoding="utf-8"))
        counts[most] = sum(row["image_id"] == 6 for row in rows)
        assert f"box_ar{most}" in json.loads(Path(str(most), "metrics.json").read_text())
    assert counts[100] == 100
    assert 100 < counts[300] <= 300


def test_an_evaluation_counts_as_the_run_did_unless_it_is_told_otherwise(at_home: Path) -> None:
    opened = tasks.open_checkpoint(str(at_home / "detector.safetensors"))
    options = {"data": None, "seed": 0, "held_out": 0.2}
    cases = (({"max_detections": 300}, 0, 300), ({"max_detections": 300}, 7, 7), ({}, 0, 100))
    for said, asked, most in cases:
        run = replace(opened, trained_on=tasks.read_training({"options": options | said}))
        looking = look_as_asked(run, EvaluateOptions(max_detections=asked))
        metrics = looking.task.metrics(CLASSES)
        assert isinstance(metrics, DetectionMetrics)
        assert metrics.max_detections == most


def test_a_detector_that_learnt_from_windows_says_so(
    at_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = tasks.open_checkpoint(str(at_home / "detector.safetensors"))
    options = {"data": None, "seed": 0, "held_out": 0.2, "tile": 800}
    for trained, tile, told in ((True, 0, True), (True, 640, False), (False, 0, False)):
        record = {"options": options} if trained else {}
        run = replace(opened, trained_on=tasks.read_training(record))
        tasks.note_windows(run, tile, Reporter())
        assert ("--tile 800 looks at large images so too" in capsys.readouterr().out) is told


def test_the_worst_of_the_embedded_scenes_are_shown(
    at_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def few(seed: int) -> DataSet:
        return load_scene_data(seed=seed, train=2, validation=3)

    monkeypatch.setattr(tasks, "load_scene_data", few)
    save_detector(Path("digits.safetensors"), Classes(names=NAMES, ids=tuple(range(10))))
    assert main(["evaluate", "digits.safetensors", "--data", "scenes", "--output", "out"]) == 0
    with Image.open("out/worst.png") as page:
        assert page.height > 3 * 480  # three scenes, enlarged


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("predict", "detector", "--tile", "8"), "--tile must be 0, or 32 or more"),
        (("predict", "detector", "--tile", "x"), "--tile: must be int"),
        (("predict", "detector", "--overlap", "1"), "--overlap must be from 0 to 0.9"),
        (("predict", "detector", "--formats", "png"), "some of coco, got 'png'"),
        (("predict", "pvt_v2_b0", "--formats", "coco"), "writes results.jsonl alone"),
        (("predict", "pvt_v2_b0", "--tile", "64"), "classification looks at pictures as a whole"),
        (("evaluate", "detector", "--flip", "true"), "detection looks once"),
        (("evaluate", "detector", "--window", "64"), "detection looks once"),
        (("evaluate", "detector", "--scales", "[0.5]"), "detection looks once"),
        (("evaluate", "detector", "--scales", "[0]"), "--scales must be numbers"),
        (("evaluate", "detector", "--max_detections", "-1"), "--max_detections must be 0 or more"),
        (("evaluate", "pvt_v2_b0", "--max_detections", "9"), "classification detects nothing"),
        (("evaluate", "pvt_v2_b0", "--tile", "64"), "classification looks at pictures as a whole"),
    ],
)
def test_what_a_task_cannot_do_is_refused_in_one_line(
    words: tuple[str, ...], told: str, at_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    verb, model, *rest = words
    places = [str(at_home / "pictures")] if verb == "predict" else []
    data = ["--data", str(at_home / "data")] if verb == "evaluate" else []
    assert main([verb, str(at_home / f"{model}.safetensors"), *places, *data, *rest]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert not any(Path.cwd().iterdir())


def test_a_line_is_on_the_disk_as_soon_as_it_is_known(
    at_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = PredictionFolder.add
    seen: list[int] = []

    def cut_off(self: PredictionFolder, answer: Any) -> None:
        if len(seen) == 2:
            raise KeyboardInterrupt
        add(self, answer)
        seen.append(len(lines_of("out")))

    monkeypatch.setattr(PredictionFolder, "add", cut_off)
    words = ("predict", str(at_home / "detector.safetensors"), str(at_home / "pictures"))
    assert main([*words, "--output", "out", "--workers", "0"]) == 130
    assert seen == [1, 2]
    assert sorted(path.name for path in Path("out").iterdir()) == ["clear.jpg", "results.jsonl"]
