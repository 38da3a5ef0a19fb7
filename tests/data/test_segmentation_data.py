"""Labelled pixels in every layout that is known."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from annotated import coco_image, coco_object, make_coco, make_picture
from mapped import COLOURS, VALUES, make_pair, make_panoptic, save_map, to_colours
from pyramidvit.data.images import BrokenImage
from pyramidvit.data.segmentation import class_shares, load_segmentation_data, read_maps
from pyramidvit.data.source import DataSet
from pyramidvit.errors import UserError
from pyramidvit.structures import UNLABELLED, Classes

EXPECTED = [[0, 0, 1], [2, 2, UNLABELLED]]
NAMES = "names: [sky, road, car]\n"


def load(place: Path, **options: Any) -> DataSet:
    return load_segmentation_data(place, seed=0, **options)


def labels_of(data: DataSet, part: str = "train", index: int = 0) -> Any:
    sample = data.splits[part][index]
    height, width = sample.target.labels.shape
    assert sample.target.labels.dtype == torch.int16
    assert sample.origin.size == (height, width) == (sample.image.height, sample.image.width)
    assert sample.image.mode == "RGB"
    return sample.target.labels.tolist()


@pytest.mark.parametrize(
    ("pictures", "maps"),
    [
        ("images/{}", "labels/{}"),
        ("img/{}ing", "masks/{}ing"),
        ("{}/images", "{}/masks"),
        ("{}", "{}annot"),
        ("{}", "{}_labels"),
        ("images/{}2017", "annotations/{}2017"),
    ],
)
def test_folders_of_pictures_and_maps_are_found(tmp_path: Path, pictures: str, maps: str) -> None:
    for part, count in (("train", 3), ("test", 1)):
        for k in range(count):
            names = {"pictures": pictures.format(part), "maps": maps.format(part)}
            make_pair(tmp_path, f"{k}", **names)
    (tmp_path / "classes.yaml").write_text(NAMES)
    data = load(tmp_path)
    assert {part: len(source) for part, source in data.splits.items()} == {
        "all": 3,
        "train": 2,
        "validation": 1,
        "test": 1,
    }
    assert data.classes == Classes(names=("sky", "road", "car"), ids=(0, 1, 2))
    assert labels_of(data) == labels_of(data, "test") == EXPECTED


def test_maps_may_have_longer_names_and_lie_beside_their_pictures(tmp_path: Path) -> None:
    for part in ("train", "valid"):
        make_picture(tmp_path / part / "a.jpg", (2, 3))
        save_map(tmp_path / part / "a_mask.png", VALUES)
        (tmp_path / part / "_classes.csv").write_text("Pixel Value, Class\n0, sky\n1, road\n2, car")
    data = load(tmp_path)
    assert list(data.splits) == ["train", "validation"]
    assert data.classes.names == ("sky", "road", "car")
    assert labels_of(data) == EXPECTED
    make_pair(tmp_path / "other", "x", maps="gt")
    make_picture(tmp_path / "other" / "images" / "deep" / "y.png", (2, 3))
    save_map(tmp_path / "other" / "gt" / "deep" / "y_gt.png", VALUES)
    (tmp_path / "other" / "classes.txt").write_text("sky\nroad\ncar\n")
    assert "1 train, 1 validation images (held out)" in load(tmp_path / "other").summary


def test_pictures_and_maps_without_a_partner_are_left_out_and_counted(tmp_path: Path) -> None:
    for k in range(3):
        make_pair(tmp_path, f"{k}")
    make_picture(tmp_path / "images" / "alone.png")
    save_map(tmp_path / "labels" / "lost.png", VALUES)
    (tmp_path / "classes.txt").write_text("sky\nroad\ncar\n")
    summary = load(tmp_path).summary
    assert "1 picture without a label map left out" in summary
    assert "1 label map without a picture left out" in summary


@pytest.mark.parametrize(
    ("pictures", "maps"),
    [
        (["images/train", "images/val"], ["labels/train", "labels/vall"]),
        (["images/train"], ["labels/train", "labels/val"]),
        (["train/images", "val/images"], ["train/masks"]),
        (["train/images"], ["train/masks", "val/masks"]),
        (["train", "val"], ["trainannot"]),
        (["train"], ["train_labels", "val_labels"]),
        (["a/train", "a/val"], ["b/train"]),  # as named in the classes.yaml
        (["a/train"], ["b/train", "b/val"]),
        (["images/training", "images/validation"], ["annotations/training"]),  # ADE20K
        (["leftImg8bit/train/ulm", "leftImg8bit/val/ulm"], ["gtFine/train/ulm"]),
        (["leftImg8bit/train/ulm"], ["gtFine/train/ulm", "gtFine/val/ulm"]),
    ],
)
def test_a_part_that_has_pictures_or_maps_alone_is_no_silence(
    tmp_path: Path, pictures: list[str], maps: list[str]
) -> None:
    for folder in pictures:
        for k in range(3):
            tail = "_leftImg8bit" if folder.startswith("left") else ""
            make_picture(tmp_path / folder / f"ADE_{k}{tail}.png", (2, 3))
    for folder in maps:
        for k in range(3):
            tail = "_gtFine_labelIds" if folder.startswith("gt") else ""
            save_map(tmp_path / folder / f"ADE_{k}{tail}.png", VALUES)
    if pictures[0] == "a/train":
        named = [f"{p}: {{images: a/{p}, masks: b/{p}}}" for p in ("train", "val")]
        (tmp_path / "classes.yaml").write_text("\n".join([NAMES, *named]))
    elif "gtFine" not in maps[0] and "annotations" not in maps[0]:
        (tmp_path / "classes.yaml").write_text(NAMES)
    alone = "picture without a label map" if len(pictures) == 2 else "label map without a picture"
    summary = load(tmp_path).summary
    assert "2 train, 1 validation images (held out)" in summary
    assert f"3 {alone.replace(' w', 's w')} left out" in summary
    assert summary.count("left out") == 1


def test_pictures_of_a_test_part_need_no_maps(tmp_path: Path) -> None:
    for k in range(3):
        make_pair(tmp_path, f"train/{k}")
        make_picture(tmp_path / "images" / "test" / f"{k}.png")
    (tmp_path / "classes.yaml").write_text(NAMES)
    assert "left out" not in load(tmp_path).summary


def test_of_the_two_kinds_of_cityscapes_maps_the_ids_are_taken(tmp_path: Path) -> None:
    for k in range(2):
        make_picture(tmp_path / "images" / f"{k}_leftImg8bit.png", (1, 2))
        for kind, value in (("labelIds", 7), ("labelTrainIds", 0)):
            values = np.array([[value, 255]], np.uint8)
            save_map(tmp_path / "labels" / f"{k}_gtFine_{kind}.png", values)
    (tmp_path / "classes.yaml").write_text("names: {7: road}")
    data = load(tmp_path)
    assert labels_of(data) == [[0, UNLABELLED]]
    assert "left out" not in data.summary


def test_without_names_the_values_are_looked_up(tmp_path: Path) -> None:
    for k in range(2):
        make_pair(tmp_path, f"{k}", np.array([[3, 3, 9], [40, 9, 255]], np.uint8))
    data = load(tmp_path)
    assert data.classes.ids == (3, 9, 40)
    assert data.classes.names == ("class 3", "class 9", "class 40")
    assert "the values that were found" in data.summary
    assert labels_of(data) == [[0, 0, 1], [2, 1, UNLABELLED]]


def test_black_and_white_masks_are_background_and_foreground(tmp_path: Path) -> None:
    for k in range(2):
        make_pair(tmp_path / "png", f"{k}", np.array([[0, 255]], np.uint8), maps="masks")
    data = load(tmp_path / "png")
    assert data.classes == Classes(names=("background", "foreground"), ids=(0, 255))
    assert labels_of(data) == [[0, 1]]
    bits = np.zeros((64, 64), np.uint8)
    bits[16:48, 20:40] = 255
    for k in range(2):
        make_picture(tmp_path / "jpg" / "images" / f"{k}.png", (64, 64))
        path = tmp_path / "jpg" / "masks" / f"{k}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(bits).save(path, quality=60)
    lossy = load(tmp_path / "jpg")
    assert lossy.classes == data.classes
    assert labels_of(lossy) == (bits // 255).tolist()


@pytest.mark.parametrize("values", [[0, 60, 120], [0, 1, 2], [0, 100, 255]])
def test_jpeg_maps_of_several_classes_are_refused(tmp_path: Path, values: list[int]) -> None:
    pixels = np.array([values], np.uint8).repeat(16, 0).repeat(16, 1)
    for k in range(2):
        make_picture(tmp_path / "images" / f"{k}.png", (16, 48))
        path = tmp_path / "labels" / f"{k}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path, quality=95)
    with pytest.raises(UserError, match=r"labels are JPEG files, which blur .* as PNG"):
        load(tmp_path)
    (tmp_path / "classes.yaml").write_text("names: [low, high]\nthreshold: 50")
    assert load(tmp_path).classes.names == ("low", "high")


def test_grey_maps_in_three_channels_are_read_by_value_beside_colours_for_drawing(
    tmp_path: Path,
) -> None:
    for k in range(2):
        values = np.array([[0, 1, 2]], np.uint8) * k
        make_picture(tmp_path / "images" / f"{k}.png", (1, 3))
        save_map(tmp_path / "labels" / f"{k}.png", np.stack([values] * 3, axis=-1))
    content = NAMES + "colours: [[255, 0, 0], [0, 255, 0], [0, 0, 0]]"
    (tmp_path / "classes.yaml").write_text(content)
    assert labels_of(load(tmp_path), "all", 0) == [[0, 0, 0]]
    assert labels_of(load(tmp_path), "all", 1) == [[0, 1, 2]]


def test_a_palette_gives_the_colours(tmp_path: Path) -> None:
    for k in range(2):
        make_picture(tmp_path / "images" / f"{k}.png", (2, 3))
        save_map(tmp_path / "labels" / f"{k}.png", VALUES, COLOURS)
    assert load(tmp_path).classes.colours == tuple(COLOURS)


def test_the_classes_yaml_names_values_colours_and_what_to_ignore(tmp_path: Path) -> None:
    for k in range(2):
        make_pair(tmp_path, f"{k}", np.array([[1, 8, 0, 9]], np.uint8))
    file = tmp_path / "classes.yaml"
    file.write_text("names: {8: road, 1: sky}\nignore: [0, 9]\ncolours: [[1, 2, 3], [4, 5, 6]]")
    data = load(tmp_path)
    assert data.classes.to_records() == [
        {"id": 1, "name": "sky", "colour": [4, 5, 6]},
        {"id": 8, "name": "road", "colour": [1, 2, 3]},
    ]
    assert labels_of(data) == [[0, 1, UNLABELLED, UNLABELLED]]
    assert load(file).classes == data.classes
    file.write_text("names: [a, b, c, d, e, f, g, h, i]\nreduce_zero_label: true")
    assert labels_of(load(tmp_path)) == [[0, 7, UNLABELLED, 8]]
    file.write_text("names: [sky, void, rest, more]\nids: [1, 8, 0, 9]")
    data = load(tmp_path)
    assert data.classes.names == ("rest", "sky", "more")
    assert labels_of(data) == [[1, UNLABELLED, 0, 2]]
    file.write_text("names: [low, high]\nthreshold: 5")
    assert labels_of(load(tmp_path)) == [[0, 1, 0, 1]]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("label_colors.txt", "0 0 0\tsky\n128 0 0\t\troad\n0 128 0 Void\n"),
        ("class_dict.csv", "name,r,g,b\nsky,0,0,0\nroad,128,0,0\nvoid,0,128,0\n"),
        ("labelmap.txt", "# label:color\nsky:0,0,0::\nroad:128,0,0::\nvoid:0,128,0::\n"),
        (
            "classes.yaml",
            "names: [sky, road, void]\ncolours: [[0, 0, 0], [128, 0, 0], [0, 128, 0]]",
        ),
    ],
)
def test_maps_in_colours_are_read_by_the_lists_of_other_tools(
    tmp_path: Path, name: str, content: str
) -> None:
    for k in range(2):
        make_picture(tmp_path / "images" / f"{k}.png", (1, 3))
        save_map(tmp_path / "labels" / f"{k}_L.png", to_colours(np.array([[1, 0, 2]]), COLOURS))
    (tmp_path / name).write_text(content)
    data = load(tmp_path)
    assert data.classes.names == ("sky", "road")
    assert data.classes.colours == ((0, 0, 0), (128, 0, 0))
    assert labels_of(data) == [[1, 0, UNLABELLED]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("names: [a, a]", "must stand there once"),
        ("names: [a, b]\nids: [1]", "ids must be 2 whole numbers"),
        ("names: [a]\ncolours: [[1, 2]]", "red, green and blue from 0 to 255"),
        ("names: [a]\ncolors: [[1, 2, 300]]", "red, green and blue from 0 to 255"),
        ("name: [a]", "needs names"),
        ("names: [a]\nignored: [3]", "unknown key ignored; nearest: ignore"),
        ("names: [void]", "it names no classes"),
        ("names: [a]\nthreshold: 3", "threshold needs two names"),
        ("names: [a]\nids: [70000]", "from 0 to 65535, not 70000"),
        ("names: !!python/object:os.system {}", "no plain YAML"),
        ("names: 7", "names must be a list"),
        ("names: [a]\nignore: many", "ignore must be a list"),
        ("names: [a]\nreduce_zero_label: 1", "true or false"),
    ],
)
def test_a_mistake_in_the_classes_yaml_is_named(tmp_path: Path, content: str, message: str) -> None:
    make_pair(tmp_path, "1")
    (tmp_path / "classes.yaml").write_text(content)
    with pytest.raises(UserError, match=message) as error:
        load(tmp_path)
    assert str(error.value).startswith(str(tmp_path / "classes.yaml"))
    assert "\n" not in str(error.value)


def test_ade20k_counts_from_one_and_leaves_zero_unlabelled(tmp_path: Path) -> None:
    root = tmp_path / "ADEChallengeData2016"
    for part, name in (("training", "ADE_train_1"), ("validation", "ADE_val_1")):
        values = np.array([[0, 1, 150]], np.uint8)
        make_pair(root, name, values, pictures=f"images/{part}", maps=f"annotations/{part}")
    for place in (tmp_path, root):
        data = load(place)
        assert "ADE20K, 150 classes, 1 train, 1 validation" in data.summary
        assert (data.classes.names[0], data.classes.names[149]) == ("wall", "flag")
        assert data.classes.ids[0] == 1
        assert labels_of(data) == [[UNLABELLED, 0, 149]]
    rows = [f"{k}\t0.1\t1\t1\t1\tthing {k}, other" for k in range(1, 151)]
    (root / "objectInfo150.txt").write_text(
        "\n".join(["Idx\tRatio\tTrain\tVal\tStuff\tName", *rows])
    )
    assert load(root).classes.names[149] == "thing 150"


@pytest.mark.parametrize(
    ("kind", "values"),
    [("labelIds", [[7, 33, 0, 10, 255]]), ("labelTrainIds", [[0, 18, 255, 255, 255]])],
)
def test_cityscapes_has_nineteen_classes_by_either_file(
    tmp_path: Path, kind: str, values: list[list[int]]
) -> None:
    for part in ("train", "val"):
        stem = "ulm_000000_000019"
        make_picture(tmp_path / f"leftImg8bit/{part}/ulm/{stem}_leftImg8bit.png", (1, 5))
        path = tmp_path / f"gtFine/{part}/ulm/{stem}_gtFine_{kind}.png"
        save_map(path, np.array(values, np.uint8))
        save_map(path.with_name(f"{stem}_gtFine_instanceIds.png"), np.zeros((1, 5), np.uint16))
    make_picture(tmp_path / "leftImg8bit/train/ulm/lost_leftImg8bit.png", (1, 5))
    data = load(tmp_path)
    assert len(data.classes) == len(data.classes.colours) == 19
    assert data.classes.names[0] == "road"
    assert labels_of(data, "validation") == [[0, 18, -1, -1, -1]]
    assert "1 picture without a label map left out" in data.summary


def test_pascal_voc_takes_its_lists_its_palette_and_its_void(tmp_path: Path) -> None:
    root = tmp_path / "VOCdevkit" / "VOC2012"
    values = np.array([[0, 15, 20, 255]], np.uint8)
    for name in ("a", "b", "c"):
        make_picture(root / f"JPEGImages/{name}.jpg", (1, 4))
        if name != "c":
            save_map(root / f"SegmentationClass/{name}.png", values, COLOURS)
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for part, names in {"train": "a\nc\n", "val": "b\n", "trainval": "a\nb\n"}.items():
        (lists / f"{part}.txt").write_text(names)
    for place in (tmp_path, root, root / "SegmentationClass"):
        data = load(place)
        assert {part: len(source) for part, source in data.splits.items()} == {
            "train": 1,
            "validation": 1,
        }
        assert labels_of(data) == [[0, 15, 20, UNLABELLED]]
        assert data.classes.names[15] == "person"
        assert data.classes.colours[15] == (192, 128, 128)
        assert "1 picture without a label map left out" in data.summary


def test_coco_panoptic_becomes_a_map_of_its_categories(tmp_path: Path) -> None:
    ids = np.array([[5, 5, 70_000], [0, 300, 300]])
    for part in ("train2017", "val2017"):
        file = make_panoptic(tmp_path, part, {5: 200, 70_000: 17, 300: 17}, ids)
    data = load(tmp_path)
    assert data.classes.to_records() == [
        {"id": 17, "name": "cat", "colour": [4, 5, 6]},
        {"id": 200, "name": "rug", "colour": [1, 2, 3]},
    ]
    assert labels_of(data) == [[1, 1, 0], [UNLABELLED, 0, 0]]
    shares = class_shares(data.splits["validation"])
    torch.testing.assert_close(shares, torch.tensor([3 / 5, 2 / 5]).double())
    record = json.loads(file.read_text())
    del record["annotations"][0]["segments_info"][0]
    file.write_text(json.dumps(record))
    with pytest.raises(BrokenImage, match=r"colour \[5, 0, 0\] in 2 pixels is no class"):
        load(tmp_path).splits["validation"][0]
    record["annotations"][0]["segments_info"][0]["category_id"] = 3
    file.write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"annotations\[0\]: there is no category with id 3"):
        load(tmp_path)


def test_panoptic_file_names_cannot_lead_out(tmp_path: Path) -> None:
    file = make_panoptic(tmp_path / "in", "train2017", {5: 17}, np.full((2, 2), 5))
    save_map(tmp_path / "out.png", VALUES)
    record = json.loads(file.read_text())
    record["annotations"].append(record["annotations"][0] | {"file_name": "../../../out.png"})
    file.write_text(json.dumps(record))
    with pytest.raises(UserError, match="lead out of the folder"):
        load(tmp_path / "in")


def test_a_checkpoint_numbers_the_classes_by_name_and_unnamed_ones_by_id(tmp_path: Path) -> None:
    for k in range(2):
        make_pair(tmp_path, f"{k}")
    known = Classes(names=("car", "sky", "dog", "road"), ids=(2, 0, 5, 1))
    for _ in range(2):  # without names at first
        data = load(tmp_path, classes=known)
        assert data.classes == known
        assert labels_of(data) == [[1, 1, 3], [0, 0, UNLABELLED]]
        assert class_shares(data.splits["all"]).tolist() == [0.4, 0.4, 0, 0.2]
        (tmp_path / "classes.yaml").write_text(NAMES)
    other = Classes(names=("cars", "sky"), ids=(0, 1))
    with pytest.raises(UserError, match=r"class road in .* is not among the 2 classes"):
        load(tmp_path, classes=other)
    make_coco(tmp_path / "o" / "a.json", [coco_image(k) for k in (1, 2)], [coco_object(1, 1)])
    known = Classes(names=("bee", "ant", "background"), ids=(7, 0, 9))
    labels = load(tmp_path / "o", classes=known).splits["all"][0].target.labels
    assert (int(labels[15, 15]), int(labels[0, 0])) == (0, 2)


def test_two_unnamed_classes_are_background_and_foreground_whatever_their_values(
    tmp_path: Path,
) -> None:
    for k in range(2):
        make_pair(tmp_path / "one", f"{k}", np.array([[0, 255]], np.uint8))
        make_pair(tmp_path / "two", f"{k}", np.array([[0, 1]], np.uint8))
    trained = load(tmp_path / "one").classes
    assert labels_of(load(tmp_path / "two", classes=trained)) == [[0, 1]]
    assert labels_of(load(tmp_path / "one", classes=load(tmp_path / "two").classes)) == [[0, 1]]


def test_a_stray_value_does_not_become_a_class_beside_a_checkpoint(tmp_path: Path) -> None:
    for k in range(3):
        make_pair(tmp_path, f"{k}", np.array([[0, 1, 2 if k else 77]], np.uint8))
    known = Classes(names=("class 0", "class 1", "class 2"), ids=(0, 1, 2))
    source = load(tmp_path, classes=known).splits["all"]
    with pytest.raises(BrokenImage, match="value 77 in 1 pixel is no class"):
        source[0]
    assert source[1].target.labels.tolist() == [[0, 1, 2]]


def test_a_picture_and_a_map_of_other_sizes_are_refused_with_both_sizes(tmp_path: Path) -> None:
    for k in range(2):
        make_pair(tmp_path, f"{k}")
        make_picture(tmp_path / "images" / f"{k}.png", (3, 2))
    (tmp_path / "classes.yaml").write_text(NAMES)
    with pytest.raises(BrokenImage) as error:
        load(tmp_path).splits["all"][0]
    assert error.value.path == str(tmp_path / "images" / "0.png")
    assert error.value.reason == (
        f"it has 2x3 pixels, its label map {tmp_path / 'labels' / '0.png'} 3x2 pixels"
        " (turned by its EXIF record?)"
    )


def test_one_pixel_a_grey_picture_and_a_map_without_labels_are_read(tmp_path: Path) -> None:
    for k in range(2):
        save_map(tmp_path / "images" / f"{k}.png", np.zeros((1, 1), np.uint8))
        save_map(tmp_path / "labels" / f"{k}.png", np.full((1, 1), 255, np.uint8))
    (tmp_path / "classes.yaml").write_text(NAMES)
    data = load(tmp_path)
    assert labels_of(data) == [[UNLABELLED]]
    assert class_shares(data.splits["all"]).tolist() == [0, 0, 0]


def test_what_is_not_there_is_said_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        load(tmp_path / "none")
    with pytest.raises(UserError, match="holds no labelled pixels that are known"):
        load(tmp_path)
    make_coco(tmp_path / "a" / "a.json", [coco_image(1)], [coco_object(1, 1, segmentation=[])])
    with pytest.raises(UserError, match="without masks; segmentation needs masks"):
        load(tmp_path / "a")
    make_pair(tmp_path / "b", "1")
    (tmp_path / "b" / "classes.yaml").write_text(NAMES)
    with pytest.raises(UserError, match="one image only"):
        load(tmp_path / "b")
    for k in range(2):
        make_picture(tmp_path / "c" / "images" / f"{k}.png", (1, 2))
        save_map(tmp_path / "c" / "masks" / f"{k}.png", to_colours(np.array([[1, 2]]), COLOURS))
    with pytest.raises(UserError, match=r"is in colours: say in a classes\.yaml"):
        load(tmp_path / "c")


def test_panoptic_images_have_one_map_each(tmp_path: Path) -> None:
    file = make_panoptic(tmp_path, "train2017", {5: 17}, np.full((4, 4), 5))
    record = json.loads(file.read_text())
    (own,) = record["annotations"]
    record["images"] += [{"id": i, "file_name": f"{i}.jpg"} for i in (8, 9)]
    record["annotations"] = [own, own, own | {"image_id": 8}]
    file.write_text(json.dumps(record))
    reading = read_maps(tmp_path)
    assert len(reading.sources["train"]) == 2
    found = [(fault.kind, fault.place, fault.text) for fault in reading.faults]
    assert found == [
        ("second_map", f"{file}: annotations[1]", "image 7 has a map already"),
        ("no_map", f"{file}: 9.jpg", "image 9 has no annotation"),
    ]


def test_class_shares_count_labelled_pixels_of_a_part_and_tell_how_far_they_are(
    tmp_path: Path,
) -> None:
    for k in range(3):
        make_pair(tmp_path, f"{k}", np.full((2, 2), k, np.uint8))
    (tmp_path / "images" / "2.png").unlink()  # shares need no pictures, but pairs do
    (tmp_path / "classes.yaml").write_text(NAMES)
    data = load(tmp_path)
    ticks: list[int] = []
    shares = class_shares(data.splits["all"], lambda: ticks.append(1))
    assert shares.tolist() == [0.5, 0.5, 0]
    assert len(ticks) == 2
    part = class_shares(data.splits["validation"])
    assert sorted(part.tolist()) == [0, 0, 1]
    (tmp_path / "labels" / "0.png").write_bytes(b"")
    assert class_shares(data.splits["all"]).tolist() == [0, 1, 0]


def test_camvid_leaves_its_void_out(data_dir: Path) -> None:
    data = load(data_dir / "camvid")
    assert "label maps, 11 classes, 80 train, 26 validation images" in data.summary
    assert data.classes.names[10] == "bicyclist"
    sample = data.splits["train"][0]
    assert sample.image.size == (480, 360)
    raw = np.asarray(Image.open(data_dir / "camvid/labels/train" / Path(sample.origin.name).name))
    expected = np.where(raw == 11, UNLABELLED, raw.astype(int))
    assert sample.target.labels.tolist() == expected.tolist()


def test_semantic_coco_mini_finds_its_pictures_next_door_and_keeps_its_gaps(data_dir: Path) -> None:
    data = load(data_dir / "coco_mini" / "semantic")
    assert "100 " not in data.summary
    assert len(data.splits["all"]) == 100
    assert 12 not in data.classes.ids
    assert (data.classes.ids[0], data.classes.names[0]) == (1, "person")
    sample = data.splits["all"][0]
    name = Path(sample.origin.name)
    assert name.parent.resolve() == (data_dir / "coco_mini" / "train2017").resolve()
    raw = np.asarray(Image.open(data_dir / f"coco_mini/semantic/train2017/{name.stem}.png"))
    ids = np.asarray([*data.classes.ids, 0])
    assert (ids[sample.target.labels.numpy()] == raw).all()


def test_nuclei_are_two_classes(data_dir: Path) -> None:
    data = load(data_dir / "nuclei")
    assert data.classes == Classes(names=("background", "nucleus"), ids=(0, 1))
    sample = data.splits["train"][0]
    assert sample.target.labels.unique().tolist() == [0, 1]
