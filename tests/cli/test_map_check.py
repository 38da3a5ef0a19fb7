"""`pvt data check` on labelled pixels: shares, every fault with its place, and a page."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from annotated import coco_image, coco_object, make_coco, make_picture
from mapped import make_pair, make_panoptic, save_map
from pyramidvit.cli import main


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def check(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    """The exit code, and the JSON."""
    code = main(["data", "check", *words, "--json"])
    return code, json.loads(capsys.readouterr().out)


def make_streets(*, names: str = "sky\nroad\ncar\n") -> None:
    for k, part in enumerate(("train", "train", "val")):
        values = np.array([[0, 0, 1, 255], [k, 0, 1, 1]], np.uint8)
        make_pair(Path("streets"), f"{part}/{k}", values)
    Path("streets/classes.txt").write_text(names)


def test_sound_maps_are_counted_and_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    make_streets()
    code, record = check(capsys, "streets")
    assert (code, record["form"], record["faults"]) == (0, "label maps", [])
    assert record["parts"] == {
        "train": {"images": 2, "unlabelled": 2 / 16},
        "validation": {"images": 1, "unlabelled": 1 / 8},
    }
    assert record["classes"][0]["train"] == {"share": pytest.approx(7 / 14), "images": 2}
    assert record["classes"][2] == {
        "id": 2,
        "name": "car",
        "train": {"share": 0, "images": 0},
        "validation": {"share": pytest.approx(1 / 7), "images": 1},
    }
    assert record["sizes"] == [{"size": [2, 4], "images": 3}]
    assert record["page"] == "streets-samples.png"
    assert Image.open("streets-samples.png").width > 800


def test_every_fault_of_bad_maps_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    make_streets()
    for k in range(3, 9):
        make_pair(Path("streets"), f"train/{k}", np.full((3 + k, 5), 1, np.uint8))
    labels, images = Path("streets/labels/train"), Path("streets/images/train")
    save_map(labels / "3.png", np.full((6, 5), 7, np.uint8))
    save_map(labels / "4.png", np.zeros((5, 7), np.uint8))
    (labels / "5.png").write_bytes((labels / "5.png").read_bytes()[:40])
    save_map(labels / "6.png", np.full((9, 5), 255, np.uint8))
    (labels / "7.png").unlink()
    save_map(labels / "lost.png", np.zeros((5, 5), np.uint8))
    (images / "8.png").write_bytes(b"no picture")
    code, record = check(capsys, "streets")
    assert code == 1
    faults = {fault["kind"]: fault for fault in record["faults"]}
    assert sorted(faults) == [
        *("bad_map", "no_map", "no_picture", "nothing_labelled", "size_differs"),
        *("unknown_value", "unreadable"),
    ]
    assert len(record["faults"]) == 7
    assert faults["unknown_value"]["place"] == str(labels / "3.png")
    assert faults["unknown_value"]["text"] == "value 7 in 30 pixels is no class"
    assert faults["size_differs"]["place"] == str(images / "4.png")
    assert "5x7 pixels" in faults["size_differs"]["text"]
    assert "7x5 pixels" in faults["size_differs"]["text"]
    assert faults["bad_map"]["place"] == str(labels / "5.png")
    assert faults["no_map"]["place"] == str(images / "7.png")
    assert faults["no_picture"]["place"] == str(labels / "lost.png")


def test_the_quick_check_reads_heads_only(capsys: pytest.CaptureFixture[str]) -> None:
    make_streets()
    save_map(Path("streets/labels/train/0.png"), np.full((2, 4), 9, np.uint8))
    save_map(Path("streets/labels/train/1.png"), np.full((2, 5), 9, np.uint8))
    code, record = check(capsys, "streets", "--quick")
    assert (code, [fault["kind"] for fault in record["faults"]]) == (1, ["size_differs"])
    assert record["classes"][0] == {"id": 0, "name": "sky"}
    assert main(["data", "check", "streets", "--quick"]) == 1
    assert "weight" not in capsys.readouterr().out


def test_the_text_shows_shares_and_weights(capsys: pytest.CaptureFixture[str]) -> None:
    make_streets(names="sky\n[red]road\ncar\n")
    assert main(["data", "check", "streets"]) == 0
    out = capsys.readouterr().out
    assert "streets: label maps, 3 classes of pixels" in out
    assert "train: 2 pictures, 12.5% of the pixels unlabelled" in out
    assert "[red]road" in out
    line = next(line for line in out.splitlines() if "sky" in line)
    assert line.split() == ["0", "sky", "50.00%", "2", "42.86%", "1", "1"]
    assert "--balance median" in out


def test_masks_of_objects_are_checked_as_either(capsys: pytest.CaptureFixture[str]) -> None:
    make_coco(Path("bugs/a.json"), [coco_image(1), coco_image(2)], [coco_object(1, 1)])
    code, record = check(capsys, "bugs", "--task", "segmentation")
    assert (code, record["form"]) == (0, "COCO json with masks")
    assert [c["name"] for c in record["classes"]] == ["background", "ant", "bee"]
    assert record["classes"][2]["all"] == {"share": pytest.approx(100 / 4800), "images": 1}
    assert check(capsys, "bugs")[1]["form"] == "COCO json"
    bad = coco_object(1, 1, segmentation={"size": [5, 5], "counts": [25]})
    make_coco(Path("bugs/a.json"), [coco_image(1)], [bad])
    code, record = check(capsys, "bugs", "--task", "segmentation")
    assert (code, [f["kind"] for f in record["faults"]]) == (1, ["bad_mask"])


def test_panoptic_maps_are_recognised(capsys: pytest.CaptureFixture[str]) -> None:
    file = make_panoptic(Path("coco"), "train2017", {5: 200}, np.full((4, 4), 5))
    for place in ("coco", str(file)):
        code, record = check(capsys, place)
        assert (code, record["form"]) == (0, "COCO panoptic")
        assert record["classes"][1]["colour"] == [1, 2, 3]


def test_labels_are_drawn_in_their_colours_where_they_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    values = np.zeros((40, 60), np.uint8)
    values[:, 30:45], values[:, 45:] = 1, 255
    make_pair(Path("two"), "a", values)
    make_picture(Path("two/images/a.png"))
    Image.new("RGB", (60, 40), "black").save("two/images/a.png")
    Path("two/classes.yaml").write_text("names: [a, b]\ncolours: [[200, 0, 0], [0, 200, 0]]")
    assert check(capsys, "two")[0] == 0
    page = np.asarray(Image.open("two-samples.png")).astype(int)
    row = page[page.shape[0] // 2]
    dark = np.flatnonzero(row.sum(axis=1) < 300)
    cell = row[dark.min() : dark.max() + 1]

    def pixel(x: float) -> list[int]:
        return cell[round(x / 60 * len(cell))].tolist()

    assert pixel(15) == [120, 0, 0]
    assert pixel(37) == [0, 120, 0]
    assert pixel(52) == [0, 0, 0]


def test_camvid_is_sound(capsys: pytest.CaptureFixture[str], data_dir: Path) -> None:
    code, record = check(capsys, str(data_dir / "camvid"), "--quick")
    assert (code, record["faults"], len(record["classes"])) == (0, [], 11)
