"""YOLO text in its layouts, and its faults by their lines."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotated import make_picture, make_yolo
from pyramidvit.data.detection import load_detection_data, read_annotations
from pyramidvit.data.yolo import bounds, find_yolo, from_centre, label_file
from pyramidvit.errors import UserError
from pyramidvit.ops.masks import mask_areas

NAMES = "names: [ant, bee]\n"
LINES = {"1": "1 0.5 0.5 0.5 0.5\n", "2": "0 0.1 0.1 0.2 0.2\n\n1 0.5 0.5 1 1\n", "3": ""}


def parts_of(place: Path) -> dict[str, int]:
    return {name: len(source) for name, source in load_detection_data(place, seed=0).splits.items()}


def test_boxes_are_read_in_pixels_of_the_picture(tmp_path: Path) -> None:
    text = f"{NAMES}train: train/images\nval: valid/images\n"
    make_yolo(tmp_path, {"train": LINES, "valid": {"9": ""}}, text)
    data = load_detection_data(tmp_path, seed=0)
    assert data.classes.ids == (0, 1)
    assert data.classes.names == ("ant", "bee")
    first, second, third = (data.splits["train"][k].target for k in range(3))
    assert first.boxes.tolist() == [[15, 10, 45, 30]]
    assert second.boxes.tolist() == [[0, 0, pytest.approx(12), 8], [0, 0, 60, 40]]
    assert second.labels.tolist() == [0, 1]
    assert third.boxes.shape == (0, 4)
    assert first.masks is None


def test_polygons_are_masks_with_boxes_around_them(tmp_path: Path) -> None:
    lines = {"1": "1 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75\n", "2": ""}
    make_yolo(tmp_path, {"train": lines}, f"{NAMES}train: train/images\n")
    target = load_detection_data(tmp_path, seed=0).splits["all"][0].target
    assert target.boxes.tolist() == [[15, 10, 45, 30]]
    assert target.masks.size == (40, 60)
    assert mask_areas(target.masks).tolist() == [30 * 20]


def test_masks_are_left_out_where_some_lines_are_boxes(tmp_path: Path) -> None:
    lines = {"1": "1 0.25 0.25 0.75 0.25 0.75 0.75\n1 0.5 0.5 0.1 0.1\n", "2": ""}
    make_yolo(tmp_path, {"train": lines}, f"{NAMES}train: train/images\n")
    data = load_detection_data(tmp_path, seed=0)
    assert data.splits["all"][0].target.masks is None
    assert "1 object without a mask" in data.summary


@pytest.mark.parametrize(
    "text",
    [
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n",  # Roboflow
        "path: .\ntrain: train/images\nval: [valid/images]\ntest:\n",
        "path: elsewhere/cells\ntrain: train\nval: valid\n",  # as on the author's machine
        "train: train.txt\nval: valid/images\n",
        "train: {root}/train/images\nval: {root}/valid/images\n",
    ],
)
def test_parts_are_found_however_the_description_names_them(tmp_path: Path, text: str) -> None:
    root = make_yolo(tmp_path / "cells", {"train": LINES, "valid": {"9": ""}}, "")
    (root / "train.txt").write_text("".join(f"./train/images/{k}.png\n" for k in "123"))
    (root / "data.yaml").write_text(NAMES + text.format(root=root))
    assert parts_of(root) == {"train": 3, "validation": 1}
    assert parts_of(root / "data.yaml") == {"train": 3, "validation": 1}


def test_folders_of_images_and_of_labels_may_hold_the_parts(tmp_path: Path) -> None:
    for part, stem in (("train", "1"), ("train", "2"), ("val", "3")):
        make_picture(tmp_path / "images" / part / f"{stem}.png")
        (tmp_path / "labels" / part).mkdir(parents=True, exist_ok=True)
        (tmp_path / "labels" / part / f"{stem}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "data.yaml").write_text(f"{NAMES}train: images/train\nval: images/val\n")
    assert parts_of(tmp_path) == {"train": 2, "validation": 1}
    (tmp_path / "data.yaml").unlink()
    (tmp_path / "classes.txt").write_text("ant\nbee\n")
    assert parts_of(tmp_path) == {"train": 2, "validation": 1}


def test_a_picture_without_a_label_file_has_no_objects(tmp_path: Path) -> None:
    make_yolo(tmp_path, {"train": LINES}, f"{NAMES}train: train/images\n")
    (tmp_path / "train" / "labels" / "1.txt").unlink()
    assert len(load_detection_data(tmp_path, seed=0).splits["all"][0].target.boxes) == 0


def test_pictures_of_one_name_in_several_folders_are_told_apart(tmp_path: Path) -> None:
    make_yolo(tmp_path, {"a": {"1": "", "2": ""}, "b": {"1": ""}}, f"{NAMES}train: [a, b]\n")
    table = read_annotations(tmp_path).tables["train"]
    assert table.image_ids == ("a/images/1.png", "2", "b/images/1.png")


def test_two_classes_of_one_name_are_said(tmp_path: Path) -> None:
    make_yolo(tmp_path, {"train": LINES}, "names: [ant, ant]\ntrain: train/images\n")
    faults = [(f.kind, f.place, f.text) for f in read_annotations(tmp_path).faults]
    place = f"{tmp_path / 'data.yaml'}: names[1]"
    assert faults == [("repeated_name", place, "class 0 is called ant already")]


def test_class_numbers_may_have_gaps(tmp_path: Path) -> None:
    text = "names: {10: ten, 2: two}\ntrain: train/images\n"
    make_yolo(tmp_path, {"train": {"1": "10 0.5 0.5 1 1\n", "2": ""}}, text)
    data = load_detection_data(tmp_path, seed=0)
    assert data.classes.ids == (2, 10)
    assert data.splits["all"][0].target.labels.tolist() == [1]


@pytest.mark.parametrize(
    ("line", "kind", "text"),
    [
        ("2 0.5 0.5 0.5 0.5", "unknown_class", "no class 2 among 0 to 1"),
        ("-1 0.5 0.5 0.5 0.5", "unknown_class", "no class -1"),
        ("1 0.5 0.5 0.5", "bad_record", "a line needs"),
        ("1 0.5 0.5 0.5 0.5 0.9", "bad_record", "a line needs"),
        ("bee 0.5 0.5 0.5 0.5", "bad_record", "a line needs"),
        ("1.5 0.5 0.5 0.5 0.5", "bad_record", "a line needs"),
        ("inf 0.5 0.5 0.5 0.5", "bad_record", "a line needs"),
        ("nan 0.5 0.5 0.5 0.5", "bad_record", "a line needs"),
        ("1 320 240 50 60", "bad_record", "shares"),
        ("1 0.9 0.5 0.4 0.5", "box_outside", "box from (0.7, 0.25) to (1.1, 0.75)"),
        ("1 1.4 0.5 0.4 0.5", "far_outside", "box from (1.2, 0.25)"),
        ("1 0.5 0.5 0 0.5", "zero_area", "box from (0.5, 0.25)"),
        ("1 0.5 0.5 -0.1 0.5", "negative_size", "box from (0.55, 0.25)"),
        ("1 nan 0.5 0.1 0.5", "not_finite", "nan"),
        ("1 0.1 0.1 0.2 nan 0.3 0.3", "not_finite", "nan"),
    ],
)
def test_a_fault_is_found_at_its_line(tmp_path: Path, line: str, kind: str, text: str) -> None:
    lines = {"1": f"0 0.5 0.5 1 1\n\n{line}\n", "2": ""}
    make_yolo(tmp_path, {"train": lines}, f"{NAMES}train: train/images\n")
    faults = read_annotations(tmp_path).faults
    assert [fault.kind for fault in faults] == [kind]
    assert faults[0].place == f"{tmp_path / 'train' / 'labels' / '1.txt'}:3"
    assert text in faults[0].text


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("names: [ant, bee]\nnc: 3\ntrain: train/images\n", "nc must be the number of names, 2"),
        ("names: 5\ntrain: train/images\n", "names must be a list, or names by number"),
        ("names: {a: ant}\ntrain: train/images\n", "names must be a list, or names by number"),
        ("names: [[ant]]\ntrain: train/images\n", "names must be a list, or names by number"),
        ("names: []\ntrain: train/images\n", "at least 1"),
        ("names: [ant]\ntrain: nowhere\n", "train names nowhere, but there is no"),
        ("names: [ant]\ntrain: 5\n", "train must name folders, got 5"),
        ("names: [ant]\n", "none of the folders that it names holds a picture"),
        ("names: [ant]\ntrain: train/labels\n", "none of the folders"),
        ("names: [ant]\nkpt_shape: [17, 3]\ntrain: train/images\n", "describes poses"),
        ("names: !!python/object/apply:os.system ['touch pwned']\n", "no plain YAML"),
        ("names: [ant\n", "no plain YAML"),
        ("- names\n", "describes no YOLO data"),
        ("names: " + "[" * 5000, "no plain YAML"),
    ],
)
def test_a_description_that_cannot_be_used_is_refused(
    tmp_path: Path, description: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_yolo(tmp_path, {"train": LINES}, description)
    with pytest.raises(UserError, match=message) as caught:
        load_detection_data(tmp_path, seed=0)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("name", ["classes.yaml", "classes.txt", "data.yaml"])
def test_the_class_file_of_label_maps_is_not_taken_for_yolo(tmp_path: Path, name: str) -> None:
    content = {"classes.yaml": "names: [a]", "data.yaml": "classes: [a]  # names"}
    make_picture(tmp_path / "images" / "1.png")
    make_picture(tmp_path / "labels" / "1.png")
    (tmp_path / name).write_text(content.get(name, "a\n"))
    assert find_yolo(tmp_path) is None
    assert find_yolo(tmp_path / name) is None
    (tmp_path / "labels" / "1.txt").write_text("0 0.5 0.5 0.1 0.1")
    assert find_yolo(tmp_path) == (tmp_path / name if name == "classes.txt" else None)


def test_yaml_that_repeats_itself_a_billion_times_is_refused_at_once(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, 12)]
    make_yolo(tmp_path, {"train": LINES}, "\n".join([*lines, "names: *a11\ntrain: train\n"]))
    with pytest.raises(UserError, match="names must be a list"):
        load_detection_data(tmp_path, seed=0)


def test_pictures_without_any_label_file_are_not_taken_for_empty(tmp_path: Path) -> None:
    make_yolo(tmp_path, {"train": LINES}, f"{NAMES}train: train/images\n")
    for file in (tmp_path / "train" / "labels").iterdir():
        file.unlink()
    with pytest.raises(UserError, match="no picture of train has a label file, such as"):
        load_detection_data(tmp_path, seed=0)


@pytest.mark.parametrize(
    ("picture", "labels"),
    [
        ("d/images/train/1.jpg", "d/labels/train/1.txt"),
        ("images/d/images/1.jpg", "images/d/labels/1.txt"),
        ("d/1.tar.png", "d/1.tar.txt"),
        ("d/train/images.jpg", "d/train/images.txt"),
    ],
)
def test_labels_lie_where_the_habit_has_them(picture: str, labels: str) -> None:
    assert label_file(Path(picture)) == Path(labels)


@given(st.tuples(*[st.floats(0, 1)] * 4))
def test_from_corners_to_centre_and_back_is_the_same_box(box: tuple[float, ...]) -> None:
    x0, y0, x1, y1 = min(box[::2]), min(box[1::2]), max(box[::2]), max(box[1::2])
    again = from_centre((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0)
    assert again == pytest.approx((x0, y0, x1, y1), abs=1e-12)
    assert bounds([x0, y0, x1, y0, x1, y1]) == (x0, y0, x1, y1)
