"""`pvt data check` counts, names every fault, draws a page, and says by its exit code how it is."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from annotated import coco_image, coco_object, make_coco, make_picture, make_voc, make_yolo, voc_xml
from command import Command
from pyramidvit.cli import main

Run = Any


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def check(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    """The exit code, and the JSON."""
    code = main(["data", "check", *words, "--json"])
    return code, json.loads(capsys.readouterr().out)


def kinds(record: dict[str, Any]) -> list[str]:
    return sorted(fault["kind"] for fault in record["faults"])


def test_sound_data_are_counted_and_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    objects = [coco_object(1, 1), coco_object(2, 1, iscrowd=1), coco_object(3, 2)]
    images = [coco_image(1), coco_image(2, size=(30, 30)), coco_image(3)]
    make_coco(Path("bugs/a.json"), images, objects)
    code, record = check(capsys, "bugs")
    assert code == 0
    assert record["form"] == "COCO json"
    assert record["masks"]
    assert record["parts"] == {
        "all": {"images": 3, "objects": 3, "crowd": 1, "empty": 1, "most": 2}
    }
    assert record["classes"] == [
        {"id": 0, "name": "ant", "all": 0},
        {"id": 7, "name": "bee", "all": 3},
    ]
    assert record["sizes"] == [{"size": [40, 60], "images": 2}, {"size": [30, 30], "images": 1}]
    assert record["faults"] == []
    assert record["page"] == "bugs-samples.png"
    assert Image.open("bugs-samples.png").width > 800


def test_every_fault_of_a_bad_set_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    images = [coco_image(k) for k in range(1, 7)]
    objects = [
        coco_object(1, 1, bbox=[50, 30, 20, 5]),
        coco_object(2, 1, bbox=[10, 10, 0, 5]),
        coco_object(2, 1, category_id=99),
        coco_object(4, 77),
        coco_object(5, 2, segmentation={"size": [5, 5], "counts": [25]}),
        coco_object(6, 2, bbox=[float("nan")] * 4),
    ]
    make_coco(Path("bugs/a.json"), images, objects)
    Path("bugs/3.png").unlink()
    content = Path("bugs/4.png").read_bytes()
    Path("bugs/4.png").write_bytes(content[: len(content) // 2])
    make_picture(Path("bugs/5.png"), (50, 60))
    Path("bugs/6.png").write_bytes(Path("bugs/1.png").read_bytes())
    code, record = check(capsys, "bugs")
    assert code == 1
    assert kinds(record) == [
        *("bad_mask", "box_outside", "duplicate_id", "duplicate_picture", "missing_file"),
        *("not_finite", "size_differs", "unknown_class", "unknown_image", "unreadable"),
        "zero_area",
    ]
    places = {fault["kind"]: fault["place"] for fault in record["faults"]}
    assert places["bad_mask"] == "bugs/a.json: annotations[4]"
    assert places["duplicate_picture"] == "bugs/6.png"
    assert places["missing_file"] == "bugs/a.json: images[2]"
    assert "there is no picture bugs/3.png" in {fault["text"] for fault in record["faults"]}


def test_the_quick_check_leaves_pixels_and_masks_alone(capsys: pytest.CaptureFixture[str]) -> None:
    bad = {"size": [5, 5], "counts": [25]}
    make_coco(
        Path("bugs/a.json"), [coco_image(1), coco_image(2)], [coco_object(1, 1, segmentation=bad)]
    )
    make_picture(Path("bugs/2.png"), (50, 60))
    code, record = check(capsys, "bugs", "--quick")
    assert code == 1
    assert kinds(record) == ["size_differs"]


def test_the_text_groups_the_faults_and_says_what_becomes_of_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    objects = [coco_object(k, 1, bbox=[10, 10, 0, 5]) for k in range(30)]
    make_coco(Path("bugs/a.json"), [coco_image(1)], [*objects, coco_object(99, 1)])
    assert main(["data", "check", "bugs", "--output", "page.png"]) == 1
    out = capsys.readouterr().out
    assert "bugs: COCO json, 2 classes, boxes and masks" in out
    assert "all: 1 picture, 1 object (most in one: 1), 0 without objects" in out
    assert "30 boxes without area: left out" in out
    assert "bugs/a.json: annotations[0]: box from (10, 10) to (10, 15)" in out
    assert "and 20 more (--json lists all)" in out
    assert Path("page.png").is_file()
    assert not Path("bugs-samples.png").exists()


def test_xml_and_yolo_are_checked_too(capsys: pytest.CaptureFixture[str]) -> None:
    make_voc(Path("voc"), "1", voc_xml(("[bold]bee[/]", 5, 5, 70, 20, 0)))
    code, record = check(capsys, "voc")
    assert (code, record["form"], kinds(record)) == (1, "Pascal VOC XML", ["box_outside"])
    assert main(["data", "check", "voc"]) == 1
    assert "[bold]bee[/]" in capsys.readouterr().out
    make_yolo(Path("yolo"), {"train": {"1": "1 0.5 0.5 0.5 0.5"}}, "names: [a, b]\ntrain: train")
    code, record = check(capsys, "yolo/data.yaml")
    assert (code, record["form"], kinds(record)) == (0, "YOLO text", [])
    assert record["sizes"] == [{"size": [40, 60], "images": 1}]


def test_class_folders_are_checked_too(capsys: pytest.CaptureFixture[str]) -> None:
    for k, name in enumerate(("cat/1", "cat/2", "dog/3")):
        make_picture(Path(f"pets/train/{name}.png"), (10 + k, 20))
    Path("pets/train/empty").mkdir()
    Path("pets/train/dog/4.jpg").write_bytes(b"no picture")
    make_picture(Path("pets/val/wolf/1.png"), (9, 9))
    (Path("pets/val/cat")).mkdir()
    Path("pets/val/cat/9.png").write_bytes(Path("pets/train/cat/1.png").read_bytes())
    code, record = check(capsys, "pets")
    assert code == 1
    assert record["form"] == "class folders"
    assert kinds(record) == ["duplicate_picture", "empty_class", "unknown_class", "unreadable"]
    assert {c["name"]: c["train"] for c in record["classes"]} == {"cat": 2, "dog": 2, "empty": 0}
    assert Path("pets-samples.png").is_file()


def test_data_without_a_class_or_without_an_image_have_a_fault(
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_coco(Path("a/a.json"), [coco_image(1)], [], categories=[])
    make_voc(Path("b"), "1", voc_xml())
    make_coco(Path("c/a.json"), [], [])
    for place, kind in (("a", "no_classes"), ("b", "no_classes"), ("c", "no_images")):
        code, record = check(capsys, place)
        assert (code, kinds(record)) == (1, [kind])


def break_two_files(root: Path) -> None:
    for name in ("train_a.json", "train_b.json"):
        make_coco(root / name, [coco_image(1)], [], pictures=root / "train")


def break_the_end(root: Path) -> None:
    file = root / "annotations" / "instances_train2017.json"
    make_coco(file, [coco_image(1)], [coco_object(1, 1)], pictures=root / "train2017")
    file.write_text(file.read_text()[:-5])


def break_the_rest(root: Path) -> None:
    break_the_end(root)
    file = root / "annotations" / "instances_train2017.json"
    file.write_text(file.read_text()[:40])


def break_a_folder(root: Path) -> None:
    make_yolo(root, {"train": {"1": "0 0.5 0.5 0.5 0.5"}}, "names: [a]\ntrain: nowhere")


def break_the_names(root: Path) -> None:
    make_yolo(root, {"train": {"1": "0 0.5 0.5 0.5 0.5"}}, "names: [{a: 1}]\ntrain: train")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_two_files, "holds several COCO files for one part"),
        (break_the_end, "instances_train2017.json is no JSON"),
        (break_the_rest, "instances_train2017.json is no JSON"),
        (break_a_folder, "train names nowhere, but there is no"),
        (break_the_names, "names must be a list, or names by number"),
    ],
)
def test_damaged_annotations_are_never_taken_for_class_folders(
    damage: Any, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("train/a/1", "train/b/2", "val/a/3"):
        make_picture(Path(f"bugs/{name}.png"))
    damage(Path("bugs"))
    assert main(["data", "check", "bugs"]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert "class folders" not in said.out


def test_a_json_of_something_else_leaves_class_folders_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("cat/1", "dog/20"):
        make_picture(Path(f"pets/{name}.png"))
    Path("pets/lines.json").write_text("{}\n{}\n")
    assert check(capsys, "pets")[1]["form"] == "class folders"
    assert main(["data", "check", "pets", "--task", "detection"]) == 2
    assert "pets/lines.json is no JSON: Extra data" in capsys.readouterr().err


def test_mask_rcnn_refuses_boxes_alone_before_anything_is_made(
    capsys: pytest.CaptureFixture[str],
) -> None:
    objects = [coco_object(1, 1), coco_object(2, 2, segmentation=[])]
    make_coco(Path("bugs/a.json"), [coco_image(k) for k in (1, 2, 3)], objects)
    assert main(["train", "--model", "mask_rcnn", "--data", "bugs", "--output", "run"]) == 2
    assert "bugs/a.json: annotations[1] has no mask" in capsys.readouterr().err
    assert not Path("run").exists()


def test_a_turned_photograph_fits_an_annotation_of_how_it_looks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_coco(Path("bugs/a.json"), [coco_image(1, file_name="1.jpg")], [coco_object(1, 1)])
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 60)).save("bugs/1.jpg", exif=exif)  # shown as 60x40
    assert check(capsys, "bugs")[0] == 0
    assert check(capsys, "bugs", "--quick")[0] == 0


def test_boxes_and_masks_are_drawn_where_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    triangle = [[10, 10, 30, 10, 10, 30]]
    thing = coco_object(1, 1, bbox=[10, 10, 20, 20], segmentation=triangle)
    make_coco(Path("bugs/a.json"), [coco_image(1)], [thing], categories=[{"id": 7, "name": "bee"}])
    Image.new("RGB", (60, 40), "black").save("bugs/1.png")
    check(capsys, "bugs")
    page = np.asarray(Image.open("bugs-samples.png")).astype(int)
    rows, columns = np.nonzero(page.sum(axis=2) == 0)
    cell = page[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    height, width = cell.shape[:2]

    def brightness(x: float, y: float) -> int:
        return int(cell[round(y / 40 * height), round(x / 60 * width)].sum())

    assert brightness(10, 20) > 400  # the box's side
    assert brightness(29.9, 20) > 400
    assert 100 < brightness(15, 15) < 400  # the mask
    assert brightness(25, 25) == 0  # in the box, not in the mask
    assert brightness(45, 20) == 0


def test_the_smallest_the_thinnest_and_the_fullest_picture_are_drawn(
    capsys: pytest.CaptureFixture[str],
) -> None:
    images = [
        coco_image(k, size) for k, size in enumerate([(1, 1), (2, 3000), (3000, 2), (400, 400)])
    ]
    whole = [[0, 0, 3000, 0, 3000, 3000, 0, 3000]]
    objects = [coco_object(k, k, bbox=[0, 0, 1, 1], segmentation=whole) for k in range(3)]
    for k in range(1000):
        x, y = k % 40 * 10, k // 40 * 16
        corner = [[x, y, x + 8, y, x, y + 12]]
        objects.append(coco_object(9 + k, 3, bbox=[x, y, 8, 12], segmentation=corner))
    make_coco(Path("bugs/a.json"), images, objects)
    code, record = check(capsys, "bugs")
    assert code == 0
    assert record["parts"]["all"]["most"] == 1000
    assert Path("bugs-samples.png").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("chekc", "bugs"), "unknown action chekc; pvt data has check"),
        (("check",), "place"),
        (("check", "nowhere"), "no such folder: nowhere"),
        (("check", "empty"), "holds no annotations that are known"),
        (("check", "empty", "--output", "no/page.png"), "there is no folder no"),
        (("check", "empty", "--quik"), "unknown option quik; nearest: quick"),
    ],
)
def test_mistakes_are_answered_in_one_line(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty").mkdir()
    assert main(["data", *words]) == 2
    line = capsys.readouterr().err
    assert message in line
    assert line.count("\n") == 1


def test_the_exit_code_reaches_the_shell(pvt: Command, tmp_path: Path) -> None:
    thing = coco_object(1, 1, bbox=[1, 1, 0, 0], segmentation=[])
    make_coco(tmp_path / "bugs" / "a.json", [coco_image(1)], [thing])
    done = pvt("data", "check", "bugs")
    assert done.returncode == 1
    assert done.stderr == ""
    assert "1 box without area: left out" in done.stdout
