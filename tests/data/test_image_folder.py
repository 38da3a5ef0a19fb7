"""Class folders in both layouts, and what is refused."""

import os
from pathlib import Path

import pytest
from PIL import Image

from pyramidvit.data.digits import load_digit_data
from pyramidvit.data.image_folder import load_image_folder
from pyramidvit.data.images import BrokenImage
from pyramidvit.data.picture_list import list_pictures
from pyramidvit.data.split import hold_out
from pyramidvit.errors import UserError
from pyramidvit.structures import Classes


def make_pictures(root: Path, counts: dict[str, int]) -> Path:
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.new("RGB", (8, 8), (i, 0, 0)).save(root / name / f"{i}.png")
    return root


def labels_of(source: object) -> list[int]:
    return [source[i].target.label for i in range(len(source))]  # type: ignore


def test_train_and_validation_folders_are_used_as_they_are(tmp_path: Path) -> None:
    make_pictures(tmp_path / "train", {"b": 3, "a": 2})
    make_pictures(tmp_path / "valid", {"a": 1})
    data = load_image_folder(tmp_path, seed=0)
    assert data.classes.names == ("a", "b")
    assert labels_of(data.splits["train"]) == [0, 0, 1, 1, 1]
    assert labels_of(data.splits["validation"]) == [0]


def test_plain_class_folders_hold_out_a_share_of_each_class(tmp_path: Path) -> None:
    make_pictures(tmp_path, {"a": 10, "b": 5, "c": 2})
    data = load_image_folder(tmp_path, seed=0, held_out=0.2)
    assert sorted(labels_of(data.splits["validation"])) == [0, 0, 1, 2]
    assert len(data.splits["train"]) == 13
    assert len(data.splits["all"]) == 17


def test_pictures_below_a_class_folder_count_and_other_files_do_not(tmp_path: Path) -> None:
    make_pictures(tmp_path, {"a": 2, "b": 2, "a/deeper": 2})
    (tmp_path / "a" / "notes.txt").write_text("x")
    (tmp_path / "a" / ".hidden.png").write_text("x")
    (tmp_path / ".git").mkdir()
    data = load_image_folder(tmp_path, seed=0)
    assert data.classes.names == ("a", "b")
    assert len(data.splits["all"]) == 6


def test_labels_follow_a_checkpoints_classes_whatever_the_folder_holds(tmp_path: Path) -> None:
    make_pictures(tmp_path, {"dog": 2, "ant": 2})
    classes = Classes(names=("cat", "dog", "ant"), ids=("cat", "dog", "ant"))
    data = load_image_folder(tmp_path, seed=0, classes=classes)
    assert data.classes == classes
    assert sorted(labels_of(data.splits["all"])) == [1, 1, 2, 2]


def test_a_class_that_the_checkpoint_does_not_know_is_refused(tmp_path: Path) -> None:
    make_pictures(tmp_path, {"dog": 2, "wolf": 2})
    with pytest.raises(UserError, match=r"class wolf .* not among the 2 classes"):
        load_image_folder(tmp_path, seed=0, classes=Classes(names=("cat", "dog"), ids=(0, 1)))


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({}, "holds no class folders"),
        ({"only": 3}, "one class only"),
        ({"a": 0, "b": 3}, "holds no images"),
        ({"train/a": 3, "train/b": 3, "val/a": 1, "val/z": 1}, "class z .* not among"),
        ({"train/a": 3, "train/b": 3, "val/a": 0}, "holds no images"),
        ({"a": 1, "b": 1}, "one image only"),
    ],
)
def test_unusable_folders_are_refused_with_a_reason(
    tmp_path: Path, counts: dict[str, int], message: str
) -> None:
    make_pictures(tmp_path, counts)
    with pytest.raises(UserError, match=message):
        load_image_folder(tmp_path, seed=0)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    make_pictures(tmp_path, {"bus": 2, "train": 2})
    assert load_image_folder(tmp_path, seed=0).classes.names == ("bus", "train")


def test_a_folder_name_that_is_not_text_is_refused(tmp_path: Path) -> None:
    make_pictures(tmp_path, {"a": 2})
    (tmp_path / os.fsdecode(b"caf\xe9")).mkdir()
    with pytest.raises(UserError, match="not valid UTF-8"):
        load_image_folder(tmp_path, seed=0)


def test_a_link_to_nowhere_is_an_image_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    source = list_pictures([str(tmp_path / "*.jpg")])
    with pytest.raises(BrokenImage, match="no such file"):
        source[0]


def test_a_missing_folder_names_its_nearest_sibling(tmp_path: Path) -> None:
    make_pictures(tmp_path / "photos", {"a": 1, "b": 1})
    with pytest.raises(UserError, match=r"no such folder: .*phtos \(did you mean .*photos\?\)"):
        load_image_folder(tmp_path / "phtos", seed=0)
    with pytest.raises(UserError, match="is a file"):
        load_image_folder(tmp_path / "photos" / "a" / "0.png", seed=0)


def test_holding_out_is_the_same_for_a_seed_and_differs_between_seeds() -> None:
    labels = [0] * 50 + [1] * 50
    assert hold_out(labels, 0.3, 1) == hold_out(labels, 0.3, 1)
    assert hold_out(labels, 0.3, 1) != hold_out(labels, 0.3, 2)
    train, validation = hold_out(labels, 0.3, 1)
    assert sorted((*train, *validation)) == list(range(100))
    assert sum(i < 50 for i in validation) == 15


def test_the_digits_are_all_there_with_their_original_ids() -> None:
    data = load_digit_data(seed=0)
    assert len(data.splits["train"]) + len(data.splits["validation"]) == 1797
    assert data.classes.ids == tuple(range(10))
    sample = data.splits["validation"][0]
    assert sample.image.size == (8, 8)
    assert sample.image.getextrema()[0][1] > 200


def test_files_folders_and_patterns_give_each_picture_once(tmp_path: Path) -> None:
    make_pictures(tmp_path, {"a": 2, "b": 1})
    places = [str(tmp_path / "a" / "0.png"), str(tmp_path), str(tmp_path / "*" / "*.png")]
    assert len(list_pictures(places)) == 3
    with pytest.raises(UserError, match="no such image"):
        list_pictures([str(tmp_path / "*.bmp")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no images"):
        list_pictures([str(tmp_path / "empty")])


def test_the_real_photographs_of_clothing_are_found(data_dir: Path) -> None:
    data = load_image_folder(data_dir / "clothing", seed=0)
    assert len(data.classes) == 10
    assert len(data.splits["train"]) == 400
    assert len(data.splits["validation"]) == 120
    assert data.splits["train"][0].image.mode == "RGB"
