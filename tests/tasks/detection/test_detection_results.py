"""The files of a prediction: COCO json that others' tools read, and never half of one."""

import json
from pathlib import Path

import pytest
import torch
from pycocotools.coco import COCO

from pyramidvit.ops.masks import encode_masks
from pyramidvit.structures import Classes, DetectionPrediction, Origin
from pyramidvit.tasks.detection.results import open_results

CLASSES = Classes(names=("cat", "dog"), ids=(17, 18))


def prediction(*, masks: bool) -> DetectionPrediction:
    bits = torch.zeros(2, 20, 30, dtype=torch.bool)
    bits[0, 2:6, 3:8] = True
    bits[1, 10:12, 20:29] = True
    return DetectionPrediction(
        boxes=torch.tensor([[3.0, 2, 8, 6], [20.0, 10, 29, 12.5]]),
        labels=torch.tensor([1, 0]),
        scores=torch.tensor([0.75, 0.5]),
        masks=encode_masks(bits) if masks else None,
    )


@pytest.mark.parametrize("masks", [True, False])
def test_predictions_are_annotations_with_the_datas_own_ids(tmp_path: Path, masks: bool) -> None:
    file = open_results(tmp_path, CLASSES, ("coco",))
    origin = Origin(name="one.jpg", size=(20, 30))
    assert file.add(origin, prediction(masks=masks)) == {"image_id": 1}
    assert file.add(Origin(name="zwö.jpg", size=(20, 30)), prediction(masks=masks)) == {
        "image_id": 2
    }
    assert list(tmp_path.iterdir()) == []  # nothing has a name before it is whole
    assert file.close() == [tmp_path / "predictions.json"]

    read = COCO(str(tmp_path / "predictions.json"))
    assert [image["file_name"] for image in read.loadImgs([1, 2])] == ["one.jpg", "zwö.jpg"]
    assert read.loadImgs(1)[0] == {"id": 1, "file_name": "one.jpg", "height": 20, "width": 30}
    assert {c["id"]: c["name"] for c in read.loadCats([17, 18])} == {17: "cat", 18: "dog"}
    rows = read.loadAnns(read.getAnnIds(imgIds=2))
    assert [row["category_id"] for row in rows] == [18, 17]
    assert [row["score"] for row in rows] == [0.75, 0.5]
    assert [row["bbox"] for row in rows] == [[3, 2, 5, 4], [20, 10, 9, 2.5]]
    assert [row["area"] for row in rows] == ([20, 18] if masks else [20, 22.5])
    assert [row["id"] for row in rows] == [3, 4]
    if masks:
        assert [int(read.annToMask(row).sum()) for row in rows] == [20, 18]
    else:
        assert not any("segmentation" in row for row in rows)


def test_no_pictures_and_nothing_found_are_valid_files(tmp_path: Path) -> None:
    file = open_results(tmp_path, CLASSES, ("coco",))
    file.close()
    content = json.loads((tmp_path / "predictions.json").read_text(encoding="utf-8"))
    assert content["images"] == content["annotations"] == []
    assert content["categories"] == [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}]
