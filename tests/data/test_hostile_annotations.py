"""Annotation files from strangers: nothing is executed, nothing outside the data is read, and what
cannot be used is refused in one line."""

import json
from pathlib import Path

import pytest

from annotated import coco_image, coco_object, make_coco, make_picture
from pyramidvit.data.detection import load_detection_data, read_annotations
from pyramidvit.data.images import BrokenImage
from pyramidvit.errors import UserError

KEYS = '"images": [], "annotations": [], "categories": []'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"images": ' + b"[" * 200_000, "nested too deeply"),
        (b'{"a": ' * 200_000, "nested too deeply"),
        (b"", "is no JSON"),
        (b'{"images": [', "is no JSON"),
        (b"\xff\xfe\x00", "is no JSON"),
        (b"\x00" * 50, "is no JSON"),
        (b'{"images": ' + b"9" * 10_000 + b"}", "is no JSON"),
        (b"[]", "is no COCO file"),
        (b"5", "is no COCO file"),
        (b'{"images": {}, "annotations": {}, "categories": {}}', "is no COCO file"),
        (b'{"image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4]}', "is no COCO file"),
        (f"{{{KEYS}}}".encode(), "names no images"),
    ],
)
def test_json_that_is_no_coco_file_is_refused_in_one_line(
    tmp_path: Path, content: bytes, message: str
) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        load_detection_data(file, seed=0)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "name", ["../secret.png", "a/../../secret.png", "..\\secret.png", "{root}"]
)
def test_a_file_name_that_leads_out_of_the_data_is_refused(tmp_path: Path, name: str) -> None:
    make_picture(tmp_path / "secret.png")
    name = name.format(root=tmp_path / "secret.png")
    images = [coco_image(1), coco_image(2, file_name=name)]
    file = make_coco(tmp_path / "data" / "a.json", images, [])
    with pytest.raises(UserError, match=r"images\[1\]: .* leads out of the folder") as caught:
        load_detection_data(tmp_path / "data", seed=0)
    assert str(file) in str(caught.value)


def test_a_path_may_climb_within_the_data(tmp_path: Path) -> None:
    images = [coco_image(k, file_name=f"../pictures/{k}.png") for k in (1, 2)]
    for k in (1, 2):
        make_picture(tmp_path / "pictures" / f"{k}.png")
    make_coco(tmp_path / "annotations" / "train.json", images, [])
    source = load_detection_data(tmp_path, seed=0).splits["all"]
    assert source[0].origin.name == str(tmp_path / "pictures" / "1.png")


@pytest.mark.parametrize("name", ["\x00", "a\x00.png", "\n", "." * 300, "con", "", "\ud800.png"])
def test_odd_file_names_are_missing_pictures(tmp_path: Path, name: str) -> None:
    file = make_coco(tmp_path / "a.json", [coco_image(1), coco_image(2)], [])
    record = json.loads(file.read_text())
    record["images"][1]["file_name"] = name
    file.write_text(json.dumps(record))
    source = load_detection_data(tmp_path, seed=0).splits["all"]
    assert source[0].origin.size == (40, 60)
    with pytest.raises(BrokenImage):
        source[1]


def test_an_object_cannot_pose_as_something_else(tmp_path: Path) -> None:
    """Records of one kind in the list of another are faults, not crashes."""
    image, thing = coco_image(1), coco_object(1, 1)
    make_coco(tmp_path / "a.json", [image, coco_image(2)], [thing])
    record = {"images": [image, thing, 0], "annotations": [thing, image, 0, None, [thing]]}
    record["categories"] = [{"id": 7, "name": "bee"}, thing, image]
    (tmp_path / "a.json").write_text(json.dumps(record))
    faults = read_annotations(tmp_path).faults
    assert {fault.kind for fault in faults} == {"bad_record"}
    places = [fault.place.rpartition(": ")[2] for fault in faults]
    assert places == [
        *("categories[1]", "categories[2]", "images[1]", "images[2]"),
        *("annotations[1]", "annotations[2]", "annotations[3]", "annotations[4]"),
    ]


def test_numbers_without_measure_are_no_boxes(tmp_path: Path) -> None:
    objects = [
        coco_object(1, 1, bbox=[1e308, 1e308, 1e308, 1e308]),
        coco_object(2, 1, bbox=[-1e308, -1e308, 1e308, 1e308]),
        coco_object(3, 1, bbox=[10**400, 1, 1, 1]),
    ]
    make_coco(tmp_path / "a.json", [coco_image(1), coco_image(2)], objects)
    kinds = [fault.kind for fault in read_annotations(tmp_path).faults]
    assert sorted(kinds) == ["bad_record", "far_outside", "not_finite"]
