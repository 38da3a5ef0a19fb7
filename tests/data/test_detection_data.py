"""Real data of every form, parts and held-out shares, and the classes of a checkpoint."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as reference

from annotated import CATEGORIES, coco_image, coco_object, make_coco, make_voc, make_yolo, voc_xml
from pyramidvit.data.detection import load_detection_data, read_annotations
from pyramidvit.data.objects import DetectionSource
from pyramidvit.data.source import Source, Subset
from pyramidvit.errors import UserError
from pyramidvit.ops.masks import mask_areas
from pyramidvit.structures import Classes


def count_objects(source: Source) -> int:
    return sum(len(target_of(source, k).labels) for k in range(len(source)))


def target_of(source: Source, index: int) -> Any:
    """The target of a sample, without its picture where that can be."""
    while isinstance(source, Subset):
        source, index = source.source, source.indices[index]
    assert isinstance(source, DetectionSource)
    height, width = source.table.sizes[index]
    return source.read_target(index, (int(height), int(width)))


def test_coco_comes_with_its_own_ids_gaps_and_all(data_dir: Path) -> None:
    data = load_detection_data(data_dir / "coco_mini", seed=0)
    assert {name: len(source) for name, source in data.splits.items()} == {
        "train": 128,
        "validation": 80,
    }
    assert data.classes.ids[11:13] == (13, 14)
    assert data.classes.names[-1] == "toothbrush"
    assert data.classes.ids[-1] == 90
    assert "COCO json, 80 classes, 128 train, 80 validation images" in data.summary


def test_every_object_of_coco_is_where_its_json_says(data_dir: Path) -> None:
    data = load_detection_data(data_dir / "coco_mini", seed=0)
    file = data_dir / "coco_mini" / "annotations" / "instances_train2017.json"
    record = json.loads(file.read_text())
    source = data.splits["train"]
    assert isinstance(source, DetectionSource)
    by_image: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in record["images"]}
    for annotation in record["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    for k, image_id in enumerate(source.table.image_ids):
        written = by_image[image_id]  # type: ignore[index]
        target = target_of(source, k)
        boxes = np.asarray([a["bbox"] for a in written]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        assert torch.equal(target.boxes, torch.tensor(boxes, dtype=torch.float32))
        assert [data.classes.ids[x] for x in target.labels] == [a["category_id"] for a in written]
        assert target.crowd.tolist() == [bool(a["iscrowd"]) for a in written]
        assert len(target.masks) == len(written)
        assert mask_areas(target.masks).tolist() == [area_of(a, target.masks.size) for a in written]


def area_of(annotation: dict[str, Any], size: tuple[int, int]) -> int:
    """Pixels of a mask as the reference draws it."""
    runs = reference.frPyObjects(annotation["segmentation"], *size)
    return int(reference.area(reference.merge(runs) if isinstance(runs, list) else runs))


def test_grey_pictures_and_pictures_without_objects_are_samples(data_dir: Path) -> None:
    source = load_detection_data(data_dir / "coco_mini", seed=0).splits["train"]
    assert isinstance(source, DetectionSource)
    samples = {i: source[source.table.image_ids.index(i)] for i in (86, 250)}
    assert samples[86].image.mode == "RGB"
    assert len(samples[86].target.boxes) > 0
    empty = samples[250].target
    assert empty.boxes.shape == (0, 4)
    assert empty.boxes.dtype == torch.float32
    assert empty.labels.dtype == torch.int64
    assert empty.crowd.dtype == torch.bool
    assert len(empty.masks) == 0
    assert empty.masks.size == samples[250].origin.size


def test_blood_cells_are_the_same_as_xml_and_as_json(data_dir: Path) -> None:
    as_json = load_detection_data(data_dir / "bccd", seed=0)
    as_xml = load_detection_data(data_dir / "bccd" / "Annotations", seed=0)
    assert "COCO json" in as_json.summary
    assert "Pascal VOC XML" in as_xml.summary
    assert "2 boxes without area left out" in as_xml.summary
    assert as_xml.classes.ids == as_xml.classes.names == ("Platelets", "RBC", "WBC")
    for part, number in (("train", 205), ("validation", 87), ("test", 72)):
        one, other = as_json.splits[part], as_xml.splits[part]
        assert len(one) == len(other) == number
        for k in range(number):
            assert_same_objects(
                target_of(one, k), as_json.classes, target_of(other, k), as_xml.classes
            )


def assert_same_objects(one: Any, classes: Classes, other: Any, other_classes: Classes) -> None:
    assert torch.equal(one.boxes, other.boxes)
    names = [classes.names[x] for x in one.labels]
    assert names == [other_classes.names[x] for x in other.labels]


def test_fruit_has_an_image_with_id_0_and_a_share_held_out(data_dir: Path) -> None:
    data = load_detection_data(data_dir / "fruits_nuts", seed=0)
    assert {name: len(source) for name, source in data.splits.items()} == {
        "all": 18,
        "train": 14,
        "validation": 4,
    }
    assert data.splits["all"][0].origin.id == 0
    assert len(data.splits["all"][0].target.boxes) > 0
    assert count_objects(data.splits["train"]) + count_objects(data.splits["validation"]) == 165
    assert data.summary.endswith("(held out), 165 boxes and masks")


def test_nuclei_are_many_in_an_image_with_transparency(data_dir: Path) -> None:
    source = load_detection_data(data_dir / "nuclei", seed=0).splits["train"]
    counts = [len(target_of(source, k).labels) for k in range(len(source))]
    assert max(counts) == 151
    sample = source[counts.index(151)]
    assert sample.image.mode == "RGB"
    areas = mask_areas(sample.target.masks).numpy()
    assert np.array_equal(areas, sample.origin.areas)


def test_one_file_may_be_named_instead_of_the_folder(data_dir: Path) -> None:
    file = data_dir / "coco_mini" / "annotations" / "instances_val2017.json"
    data = load_detection_data(file, seed=0)
    assert len(data.splits["all"]) == 80
    assert data.splits["validation"][0].image.mode == "RGB"


def test_the_same_seed_holds_the_same_images_out(tmp_path: Path) -> None:
    images = [coco_image(k) for k in range(20)]
    make_coco(tmp_path / "a.json", images, [coco_object(k, k) for k in range(10)])

    def held(seed: int) -> list[int]:
        source = load_detection_data(tmp_path, seed=seed).splits["validation"]
        return [source[k].origin.id for k in range(len(source))]  # type: ignore[attr-defined]

    assert held(0) == held(0)
    assert held(0) != held(1)
    assert sum(number < 10 for number in held(0)) == 2  # as many with objects as without
    assert len(held(0)) == 4


def test_without_a_class_there_is_nothing_to_learn(tmp_path: Path) -> None:
    make_coco(tmp_path / "coco" / "a.json", [coco_image(k) for k in range(4)], [], categories=[])
    for stem in "123":
        make_voc(tmp_path / "voc", stem, voc_xml())
    for form in ("coco", "voc"):
        with pytest.raises(UserError, match=f"{form} names no class of objects"):
            load_detection_data(tmp_path / form, seed=0)
        classes = Classes(names=("bee",), ids=(7,))  # of a checkpoint that is scored
        assert load_detection_data(tmp_path / form, seed=0, classes=classes).classes == classes


def test_an_image_cannot_be_held_out_of_one(tmp_path: Path) -> None:
    make_coco(tmp_path / "a.json", [coco_image(1)], [coco_object(1, 1)])
    with pytest.raises(UserError, match="one image only"):
        load_detection_data(tmp_path, seed=0)


def test_labels_follow_the_names_of_a_checkpoints_classes(tmp_path: Path) -> None:
    make_coco(tmp_path / "a.json", [coco_image(k) for k in range(4)], [coco_object(1, 1)])
    classes = Classes(names=("wasp", "bee"), ids=(70, 80))
    data = load_detection_data(tmp_path, seed=0, classes=classes)
    assert data.classes == Classes(names=("wasp", "bee"), ids=(70, 7))
    assert data.splits["all"][1].target.labels.tolist() == [1]
    with pytest.raises(
        UserError, match=r"class bee in .* not among the 1 classes .* nearest: beer"
    ):
        load_detection_data(tmp_path, seed=0, classes=Classes(names=("beer",), ids=(0,)))


def test_results_have_the_datas_ids_where_a_checkpoints_classes_are_the_same(
    tmp_path: Path,
) -> None:
    make_coco(tmp_path / "a.json", [coco_image(k) for k in range(4)], [coco_object(1, 1)])
    own = load_detection_data(tmp_path, seed=0).classes
    assert own.names == ("ant", "bee")
    data = load_detection_data(tmp_path, seed=0, classes=Classes(names=("bee", "ant"), ids=(0, 1)))
    assert data.classes == Classes(names=("bee", "ant"), ids=own.ids[::-1])


def test_a_class_that_the_data_have_not_takes_no_id_of_theirs(tmp_path: Path) -> None:
    make_coco(tmp_path / "a.json", [coco_image(k) for k in range(4)], [coco_object(1, 1)])
    classes = Classes(names=("wasp", "bee", "fly"), ids=(7, 0, 12))  # ant is 0 here, bee is 7
    data = load_detection_data(tmp_path, seed=0, classes=classes)
    assert data.classes.names == classes.names
    assert data.classes.ids == (13, 7, 12)
    assert data.splits["all"][1].target.labels.tolist() == [1]


def test_classes_of_one_name_are_told_apart_by_their_ids(tmp_path: Path) -> None:
    objects = [coco_object(1, 1, category_id=0), coco_object(2, 1, category_id=1)]
    cells = [{"id": k, "name": "cells"} for k in (0, 1)]
    images = [coco_image(k) for k in range(4)]
    make_coco(tmp_path / "a.json", images, objects, categories=cells)
    first = load_detection_data(tmp_path, seed=0)
    again = load_detection_data(tmp_path, seed=0, classes=first.classes)
    for data in (first, again):
        assert data.classes.ids == (0, 1)
        assert data.splits["all"][1].target.labels.tolist() == [0, 1]
    faults = [f for f in read_annotations(tmp_path).faults if f.kind == "repeated_name"]
    assert [(f.place.rsplit(": ", 1)[1], f.text) for f in faults] == [
        ("categories[1]", "id 0 is called cells already")
    ]
    others = Classes(names=("cells", "cells"), ids=(0, 2))
    with pytest.raises(UserError, match=r"2 classes of the checkpoint .* none with the id 1"):
        load_detection_data(tmp_path, seed=0, classes=others)


def test_a_class_without_objects_is_kept(tmp_path: Path) -> None:
    make_coco(tmp_path / "a.json", [coco_image(k) for k in range(4)], [coco_object(1, 1)])
    assert load_detection_data(tmp_path, seed=0).classes.names == ("ant", "bee")


def test_data_without_a_single_object_are_data(tmp_path: Path) -> None:
    make_coco(tmp_path / "a.json", [coco_image(k) for k in range(4)], [])
    data = load_detection_data(tmp_path, seed=0)
    assert count_objects(data.splits["all"]) == 0
    assert data.splits["all"][0].target.masks is None


def test_masks_are_left_out_where_an_object_has_none(tmp_path: Path) -> None:
    objects = [coco_object(1, 1), coco_object(2, 1, segmentation=[])]
    make_coco(tmp_path / "a.json", [coco_image(k) for k in range(4)], objects)
    data = load_detection_data(tmp_path, seed=0)
    assert data.splits["all"][1].target.masks is None
    assert "1 object without a mask kept, and no masks are used" in data.summary


def test_where_masks_are_learnt_every_object_must_have_one(tmp_path: Path) -> None:
    images, objects = [coco_image(k) for k in range(4)], [coco_object(k, k) for k in range(4)]
    file = make_coco(tmp_path / "a.json", images, [])
    load_detection_data(tmp_path, seed=0, need_masks=True)  # nothing is nothing without a mask
    make_coco(file, images, objects)
    load_detection_data(tmp_path, seed=0, need_masks=True)
    make_coco(file, images, [*objects, coco_object(9, 1, segmentation=[])])
    with pytest.raises(UserError) as some:
        load_detection_data(tmp_path, seed=0, need_masks=True)
    assert str(some.value).startswith(f"{file}: annotations[4] has no mask, one of 1 such objects")
    make_coco(file, images, [coco_object(9, 1, segmentation=[])])
    with pytest.raises(UserError, match="has boxes without masks: train retinanet"):
        load_detection_data(tmp_path, seed=0, need_masks=True)


def test_validation_alone_is_enough_to_evaluate(tmp_path: Path) -> None:
    make_coco(tmp_path / "instances_val.json", [coco_image(1), coco_image(2)], [])
    assert set(load_detection_data(tmp_path, seed=0).splits) == {"validation"}


def test_a_picture_of_another_size_than_annotated_is_broken(tmp_path: Path) -> None:
    make_coco(tmp_path / "a.json", [coco_image(1), coco_image(2)], [coco_object(1, 1)])
    Image.new("RGB", (40, 60)).save(tmp_path / "1.png")
    source = load_detection_data(tmp_path, seed=0).splits["all"]
    with pytest.raises(Exception, match=r"has 40x60 pixels, .* says 60x40 pixels \(turned"):
        source[0]


def test_targets_are_no_windows_into_the_table(tmp_path: Path) -> None:
    make_coco(tmp_path / "a.json", [coco_image(1), coco_image(2)], [coco_object(1, 1)])
    source = load_detection_data(tmp_path, seed=0).splits["all"]
    target = source[0].target
    for values in (target.boxes, target.labels, target.crowd, target.masks.counts):
        values.zero_()
    assert source[0].target.boxes.tolist() == [[10, 10, 20, 20]]
    assert source[0].target.labels.tolist() == [1]


def test_one_scene_in_three_forms_gives_one_sample(tmp_path: Path) -> None:
    images = [coco_image(k) for k in (1, 2)]
    objects = [coco_object(1, 1, bbox=[6, 4, 30, 20], segmentation=[])]
    make_coco(tmp_path / "coco" / "a.json", images, objects)
    for stem in ("1", "2"):
        made = [("bee", 6, 4, 36, 24, 0)] if stem == "1" else []
        make_voc(tmp_path / "voc", stem, voc_xml(*made))
    lines = {"1": "7 0.35 0.35 0.5 0.5\n", "2": ""}
    make_yolo(tmp_path / "yolo", {"train": lines}, "names: {0: ant, 7: bee}\ntrain: train\n")
    found = []
    for form in ("coco", "voc", "yolo"):
        data = load_detection_data(tmp_path / form, seed=0)
        sample = data.splits["all"][0]
        found.append((sample.target.boxes.tolist(), data.classes.names[sample.target.labels[0]]))
        assert sample.origin.size == (40, 60)
    assert found == [([[6, 4, 36, 24]], "bee")] * 3
    assert data.classes.ids == tuple(record["id"] for record in CATEGORIES)


@pytest.mark.parametrize("place", ["", "picture.png", "notes.json"])
def test_a_place_without_annotations_says_what_is_known(tmp_path: Path, place: str) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "picture.png")
    (tmp_path / "notes.json").write_text('{"a": 1}')
    with pytest.raises(UserError, match=r"no annotations that are known|no COCO file"):
        load_detection_data(tmp_path / place, seed=0)


def test_a_missing_place_names_its_nearest_sibling(tmp_path: Path) -> None:
    (tmp_path / "cells").mkdir()
    with pytest.raises(UserError, match=r"did you mean .*cells"):
        load_detection_data(tmp_path / "cels", seed=0)
