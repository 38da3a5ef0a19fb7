"""Instance masks turned to a class for every pixel."""

from pathlib import Path

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from annotated import coco_image, coco_object, make_coco
from pyramidvit.data.segmentation import load_segmentation_data
from pyramidvit.data.semantic_objects import paint_objects, semantic_classes
from pyramidvit.ops.masks import encode_masks
from pyramidvit.structures import UNLABELLED, Classes, DetectionTarget

SIZE = (5, 4)


def slow_labels(
    masks: np.ndarray, labels: list[int], crowd: list[bool], numbers: list[int], background: int
) -> list[list[int]]:
    """Pixel by pixel, the object with fewest pixels, of equal ones the last; then crowds."""
    found = []
    for y in range(masks.shape[1]):
        row = []
        for x in range(masks.shape[2]):
            over = [k for k in range(len(masks)) if masks[k, y, x] and not crowd[k]]
            if over:
                top = min(over, key=lambda k: (masks[k].sum(), -k))
                row.append(numbers[labels[top]])
            elif any(masks[k, y, x] for k in range(len(masks))):
                row.append(UNLABELLED)
            else:
                row.append(background)
        found.append(row)
    return found


@settings(deadline=None)
@given(data=st.data(), count=st.integers(0, 6))
def test_the_smallest_is_on_top_as_in_a_slow_reference(data: st.DataObject, count: int) -> None:
    masks = data.draw(arrays.arrays(bool, (count, *SIZE)))
    labels = data.draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))
    crowd = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    numbers = data.draw(st.permutations([0, 1, 2, 3]))
    target = DetectionTarget(
        boxes=torch.zeros(count, 4),
        labels=torch.tensor(labels, dtype=torch.int64),
        crowd=torch.tensor(crowd, dtype=torch.bool),
        masks=encode_masks(torch.from_numpy(masks)),
    )
    painted = paint_objects(target, np.asarray(numbers[:3], np.int16), numbers[3])
    assert painted.dtype == torch.int16
    assert painted.is_contiguous()
    assert painted.tolist() == slow_labels(masks, labels, crowd, numbers[:3], numbers[3])


def test_the_background_comes_first_with_a_free_id() -> None:
    def ids(names: tuple[str, ...], ids: tuple[int | str, ...]) -> tuple[Classes, list[int], int]:
        classes, numbers, background = semantic_classes(Classes(names=names, ids=ids))
        return classes, numbers.tolist(), background

    classes, numbers, background = ids(("cat", "dog"), (1, 7))
    assert (classes.names, classes.ids) == (("background", "cat", "dog"), (0, 1, 7))
    assert (numbers, background) == ([1, 2], 0)
    assert ids(("cat", "dog"), (0, 1))[0].ids == (2, 0, 1)
    assert ids(("cat",), ("cat",))[0].ids == ("background", "cat")
    own = ids(("cat", "background"), (0, 1))
    assert own[0].names == ("cat", "background")
    assert own[1:] == ([0, 1], 1)


def test_a_coco_file_is_read_as_a_map(tmp_path: Path) -> None:
    outer = [[0, 0, 40, 0, 40, 40, 0, 40]]
    objects = [
        coco_object(1, 1),  # a square from 10 to 20, of class 7
        coco_object(2, 1, category_id=0, bbox=[0, 0, 40, 40], segmentation=outer),
        coco_object(3, 1, iscrowd=1, bbox=[50, 0, 10, 40], segmentation=[[50, 0, 60, 0, 60, 40]]),
    ]
    make_coco(tmp_path / "a.json", [coco_image(1), coco_image(2)], objects)
    data = load_segmentation_data(tmp_path, seed=0)
    assert data.classes.names == ("background", "ant", "bee")
    assert "COCO json with masks" in data.summary
    labels = data.splits["all"][0].target.labels
    assert labels.shape == (40, 60)
    assert [int(labels[15, x]) for x in (5, 15, 45, 59)] == [1, 2, 0, UNLABELLED]
    assert not data.splits["all"][1].target.labels.any()
