"""COCO json in all its layouts, and its faults by their places."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from annotated import coco_image, coco_object, make_coco, make_picture
from pyramidvit.data.coco import read_coco
from pyramidvit.data.detection import load_detection_data, read_annotations
from pyramidvit.data.faults import Fault
from pyramidvit.errors import UserError

IMAGES = [coco_image(k) for k in (1, 2, 3)]


def parts_of(root: Path) -> dict[str, int]:
    return {name: len(source) for name, source in load_detection_data(root, seed=0).splits.items()}


def test_the_official_layout_is_known(tmp_path: Path) -> None:
    for name, images in (("train2017", IMAGES), ("val2017", IMAGES[:1]), ("test2017", IMAGES[:2])):
        file = tmp_path / "annotations" / f"instances_{name}.json"
        make_coco(file, images, [], pictures=tmp_path / name)
    (tmp_path / "annotations" / "captions_train2017.json").write_text("{}")
    (tmp_path / "annotations" / "person_keypoints_train2017.json").write_text("{}")
    assert parts_of(tmp_path) == {"train": 3, "validation": 1, "test": 2}
    sample = load_detection_data(tmp_path, seed=0).splits["validation"][0]
    assert sample.origin.name == str(tmp_path / "val2017" / "1.png")


def test_the_layout_of_roboflow_is_known(tmp_path: Path) -> None:
    for name, images in (("train", IMAGES), ("valid", IMAGES[:1]), ("test", IMAGES[:2])):
        make_coco(tmp_path / name / "_annotations.coco.json", images, [coco_object(0, 1)])
    assert parts_of(tmp_path) == {"train": 3, "validation": 1, "test": 2}
    data = load_detection_data(tmp_path, seed=0)
    assert data.splits["test"][0].origin.name == str(tmp_path / "test" / "1.png")
    assert data.splits["test"][0].target.boxes.tolist() == [[10, 10, 20, 20]]


@pytest.mark.parametrize("pictures", [".", "images", "JPEGImages", "images/train", "images/lab"])
def test_pictures_lie_beside_the_json_or_in_a_folder_of_the_usual_names(
    tmp_path: Path, pictures: str
) -> None:
    file = tmp_path / "annotations" / "train_lab.json"
    make_coco(file, IMAGES, [], pictures=tmp_path / pictures)
    source = load_detection_data(tmp_path, seed=0).splits["all"]
    assert source[0].origin.name == str(tmp_path / pictures / "1.png")


def test_file_names_may_have_folders_in_them_with_slashes_either_way(tmp_path: Path) -> None:
    images = [coco_image(1, file_name="a/1.png"), coco_image(2, file_name="a\\2.png")]
    make_picture(tmp_path / "a" / "2.png")
    make_coco(tmp_path / "x.json", images, [])
    source = load_detection_data(tmp_path, seed=0).splits["all"]
    assert [source[k].origin.name for k in range(2)] == [
        str(tmp_path / f"a/{k}.png") for k in (1, 2)
    ]


def test_all_parts_in_one_more_file_are_passed_over(tmp_path: Path) -> None:
    for name in ("train", "val", "everything"):
        make_coco(tmp_path / f"{name}.json", IMAGES, [])
    assert parts_of(tmp_path) == {"train": 3, "validation": 3}


def test_two_files_for_one_part_are_asked_about(tmp_path: Path) -> None:
    for name in ("train_a", "train_b"):
        make_coco(tmp_path / f"{name}.json", IMAGES, [])
    with pytest.raises(UserError, match=r"several COCO files .*train_a.json, train_b.json"):
        load_detection_data(tmp_path, seed=0)


def test_ids_may_be_any_numbers_or_names(tmp_path: Path) -> None:
    images = [coco_image(1, id="first", file_name="1.png"), coco_image(-5, file_name="2.png")]
    objects = [
        coco_object(1, 1, image_id="first", category_id=10**12, id="x"),
        coco_object(2, -5, category_id=-3, id=None),
    ]
    categories = [{"id": 10**12, "name": "far"}, {"id": -3, "name": "near"}]
    make_coco(tmp_path / "a.json", images, objects, categories=categories)
    data = load_detection_data(tmp_path, seed=0)
    assert data.classes.ids == (-3, 10**12)
    samples = [data.splits["all"][k] for k in range(2)]
    assert [s.origin.id for s in samples] == ["first", -5]  # type: ignore[attr-defined]
    assert [s.target.labels.tolist() for s in samples] == [[1], [0]]


def test_sizes_that_are_not_written_are_taken_from_the_files(tmp_path: Path) -> None:
    images = [coco_image(k, height=None, width=None) for k in (1, 2)]
    make_coco(tmp_path / "a.json", images, [coco_object(1, 1, bbox=[50, 30, 100, 100])])
    source = load_detection_data(tmp_path, seed=0).splits["all"]
    assert source[0].target.boxes.tolist() == [[50, 30, 60, 40]]
    assert source[0].target.masks.size == (40, 60)


FAULTS: list[tuple[dict[str, Any], str, str]] = [
    (
        {"bbox": [50, 30, 20, 5]},
        "box_outside",
        r"box from \(50, 30\) to \(70, 35\) in an image of 60x40",
    ),
    ({"bbox": [100, 30, 20, 5]}, "far_outside", r"box from \(100, 30\)"),
    ({"bbox": [10, 10, 0, 5]}, "zero_area", r"box from \(10, 10\) to \(10, 15\)"),
    ({"bbox": [10, 10, 5, -5]}, "negative_size", r"to \(15, 5\)"),
    ({"bbox": [float("nan"), 10, 5, 5]}, "not_finite", "nan"),
    ({"bbox": [10, 10, float("inf"), 5]}, "not_finite", "inf"),
    ({"bbox": [1, 2, 3]}, "bad_record", "bbox must be"),
    ({"bbox": "none"}, "bad_record", "bbox must be"),
    ({"bbox": None}, "bad_record", "bbox must be"),
    ({"area": "big"}, "bad_record", "area and iscrowd numbers"),
    ({"segmentation": "none"}, "bad_record", "segmentation must be"),
    ({"category_id": 5}, "unknown_class", "no category with id 5"),
    ({"category_id": [5]}, "bad_record", "must be numbers or names"),
    ({"category_id": True}, "bad_record", "must be numbers or names"),
    ({"image_id": 99}, "unknown_image", "no image with id 99"),
    ({"id": 1}, "duplicate_id", "id 1 belongs to another object"),
]


@pytest.mark.parametrize(("changed", "kind", "text"), FAULTS)
def test_a_fault_of_an_object_is_found_at_its_place(
    tmp_path: Path, changed: dict[str, Any], kind: str, text: str
) -> None:
    objects = [coco_object(1, 1), coco_object(2, 1, **changed), coco_object(3, 2)]
    file = make_coco(tmp_path / "a.json", IMAGES, objects)
    faults = read_annotations(tmp_path).faults
    assert [fault.kind for fault in faults] == [kind]
    assert faults[0].place == f"{file}: annotations[1]"
    assert re.search(text, faults[0].text)


@pytest.mark.parametrize(
    ("images", "categories", "kind", "place"),
    [
        ([*IMAGES, coco_image(2)], None, "duplicate_image", "images[3]"),
        ([*IMAGES, {"id": 5}], None, "bad_record", "images[3]"),
        ([*IMAGES, "text"], None, "bad_record", "images[3]"),
        ([*IMAGES, coco_image(9, height="tall")], None, "bad_record", "images[3]"),
        ([*IMAGES, coco_image(9, height=-4)], None, "bad_record", "images[3]"),
        (
            IMAGES,
            [{"id": 7, "name": "a"}, {"id": 7, "name": "b"}],
            "duplicate_class",
            "categories[1]",
        ),
        (IMAGES, [{"id": 7, "name": "a"}, {"id": 8}], "bad_record", "categories[1]"),
        (IMAGES, [{"id": 7, "name": "a"}, 5], "bad_record", "categories[1]"),
    ],
)
def test_a_fault_of_an_image_or_a_category_stops_the_loading(
    tmp_path: Path, images: list[Any], categories: Any, kind: str, place: str
) -> None:
    pictures = [image for image in images if isinstance(image, dict) and image.get("height") == 40]
    make_coco(tmp_path / "a.json", pictures, [])
    record = {"images": images, "annotations": [coco_object(1, 1)]}
    record["categories"] = categories or [{"id": 7, "name": "bee"}]  # type: ignore[assignment]
    (tmp_path / "a.json").write_text(json.dumps(record))
    faults = read_annotations(tmp_path).faults
    assert [fault.kind for fault in faults] == [kind]
    with pytest.raises(UserError) as caught:
        load_detection_data(tmp_path, seed=0)
    assert str(caught.value).startswith(f"{tmp_path / 'a.json'}: {place}: ")


def test_an_unknown_category_stops_the_loading_and_names_the_record(tmp_path: Path) -> None:
    objects = [coco_object(k, 1, category_id=5) for k in range(3)]
    make_coco(tmp_path / "a.json", IMAGES, objects)
    with pytest.raises(UserError) as caught:
        load_detection_data(tmp_path, seed=0)
    assert "annotations[0]: there is no category with id 5 (and 2 more: pvt data check" in str(
        caught.value
    )


def test_what_loading_clips_and_leaves_out_is_counted(tmp_path: Path) -> None:
    objects = [
        coco_object(1, 1, bbox=[50, 30, 20, 20]),
        coco_object(2, 1, bbox=[5, 5, 0, 20]),
        coco_object(3, 1, bbox=[5, 5, 0, 20]),
        coco_object(4, 1, bbox=[59.8, 39, 0.4, 1]),  # a rounding, and no fault
    ]
    make_coco(tmp_path / "a.json", IMAGES, objects)
    data = load_detection_data(tmp_path, seed=0)
    boxes = data.splits["all"][0].target.boxes
    assert boxes[0].tolist() == [50, 30, 60, 40]
    assert boxes[1].tolist() == pytest.approx([59.8, 39, 60, 40])
    assert len(boxes) == 2
    assert data.summary.endswith(
        "; 2 boxes without area left out, 1 box that reaches out of its image clipped"
    )


def test_an_area_of_null_is_as_none_at_all(tmp_path: Path) -> None:
    make_coco(tmp_path / "a.json", IMAGES, [coco_object(1, 1, area=None)])
    reading = read_annotations(tmp_path)
    assert reading.faults == []
    assert np.isnan(reading.tables["all"].areas).all()


def test_a_damaged_mask_breaks_its_image_and_no_other(tmp_path: Path) -> None:
    bad = {"size": [60, 40], "counts": [2400]}
    objects = [coco_object(1, 1), coco_object(2, 2, segmentation=bad)]
    make_coco(tmp_path / "a.json", IMAGES, objects)
    source = load_detection_data(tmp_path, seed=0).splits["all"]
    assert len(source[0].target.masks) == 1
    with pytest.raises(Exception, match=r"annotations\[1\]: its mask is for 40x60 pixels"):
        source[1]


def test_categories_of_the_parts_must_agree(tmp_path: Path) -> None:
    make_coco(tmp_path / "train.json", IMAGES, [])
    other = [{"id": 7, "name": "wasp"}]
    make_coco(tmp_path / "val.json", IMAGES, [], categories=other)
    with pytest.raises(UserError, match=r"val\.json: category 7: it is wasp here and bee in"):
        load_detection_data(tmp_path, seed=0)
    other = [{"id": 8, "name": "wasp"}]
    make_coco(tmp_path / "val.json", IMAGES, [coco_object(1, 1, category_id=8)], categories=other)
    with pytest.raises(UserError, match=r"val\.json: category 8: wasp is unknown to"):
        load_detection_data(tmp_path, seed=0)


def test_parts_may_list_their_categories_in_any_order(tmp_path: Path) -> None:
    make_coco(tmp_path / "train.json", IMAGES, [coco_object(1, 1)])
    turned = [{"id": 7, "name": "bee"}, {"id": 0, "name": "ant"}]
    make_coco(tmp_path / "val.json", IMAGES, [coco_object(1, 1)], categories=turned)
    splits = load_detection_data(tmp_path, seed=0).splits
    assert splits["train"][0].target.labels.tolist() == [1]
    assert splits["validation"][0].target.labels.tolist() == [1]


def test_pictures_that_are_nowhere_are_said_before_the_training(tmp_path: Path) -> None:
    file = make_coco(tmp_path / "a.json", IMAGES, [])
    for picture in tmp_path.glob("*.png"):
        picture.unlink()
    with pytest.raises(UserError, match=f"{file}: none of its 3 pictures was found, looked in"):
        load_detection_data(tmp_path, seed=0)


def test_a_file_of_a_hundred_thousand_records_is_read_whole(tmp_path: Path) -> None:
    # COCO's own train2017 has nine times as many; records of an image lie far apart in it.
    images, count = 500, 100_000
    objects = (
        f'{{"id":{k},"image_id":{k % images},"category_id":{7 + k % 2},'
        f'"bbox":[{k % 13},{k % 17},{1 + k % 19},{1 + k % 23}],"area":{k % 29},"iscrowd":0}}'
        for k in range(count)
    )
    records = ({"id": i, "file_name": f"{i}.png", "height": 40, "width": 60} for i in range(images))
    file = tmp_path / "all.json"
    file.write_text(
        f'{{"images":{json.dumps(list(records))},"annotations":[{",".join(objects)}],'
        '"categories":[{"id":7,"name":"cat"},{"id":8,"name":"dog"}]}'
    )
    make_picture(tmp_path / "0.png")
    faults: list[Fault] = []
    classes, table = read_coco(file, faults)
    assert not faults
    assert classes.names == ("cat", "dog")
    assert len(table.files) == images
    assert len(table.boxes) == len(table.labels) == count
    assert table.first.tolist() == list(range(0, count + 1, count // images))
    for row in (0, 1, count // 2, count - 1):
        k = int(table.numbers[row])
        x, y, width, height = k % 13, k % 17, 1 + k % 19, 1 + k % 23
        assert k % images == row // (count // images)
        assert table.boxes[row].tolist() == [x, y, x + width, y + height]
        assert table.labels[row] == k % 2
        assert table.areas[row] == k % 29
        assert table.place(row) == f"{file}: annotations[{k}]"
