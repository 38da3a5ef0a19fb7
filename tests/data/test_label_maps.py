"""Label maps of every kind of pixel, and what values stand for."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mapped import COLOURS, VALUES, save_map, to_colours
from pyramidvit.data.images import BrokenImage
from pyramidvit.data.label_maps import (
    StrangeValue,
    make_code,
    read_map,
    settle,
    threshold_code,
)
from pyramidvit.errors import UserError
from pyramidvit.structures import UNLABELLED

EXPECTED = [[0, 0, 1], [2, 2, UNLABELLED]]
CODE = make_code([0, 1, 2])


def test_a_grey_a_palette_and_a_16_bit_map_say_the_same(tmp_path: Path) -> None:
    grey = save_map(tmp_path / "grey.png", VALUES)
    palette = save_map(tmp_path / "palette.png", VALUES, COLOURS)
    deep = save_map(tmp_path / "deep.png", VALUES.astype(np.uint16))
    tiff = save_map(tmp_path / "deep.tif", VALUES.astype(np.int32))
    same = save_map(tmp_path / "same.png", np.stack([VALUES] * 3, axis=-1))
    for path in (grey, palette, deep, tiff, same):
        labels = read_map(path, CODE)
        assert labels.dtype == np.int16
        assert labels.tolist() == EXPECTED, path.name
    assert Image.open(palette).mode == "P"
    assert Image.open(deep).mode.startswith("I")


def test_16_bit_values_may_be_large(tmp_path: Path) -> None:
    path = save_map(tmp_path / "a.png", np.array([[7, 40_000, 65_535]], np.uint16))
    assert read_map(path, make_code([7, 40_000])).tolist() == [[0, 1, UNLABELLED]]


def test_colours_are_looked_up_and_an_alpha_channel_is_passed_over(tmp_path: Path) -> None:
    values = np.array([[0, 1, 2, 2]])
    code = make_code([], colours=COLOURS[:2], ignored_colours=COLOURS[2:])
    rgb = to_colours(values, COLOURS)
    opaque = np.concatenate((rgb, np.full((1, 4, 1), 255, np.uint8)), axis=-1)
    for name, pixels in (("rgb", rgb), ("rgba", opaque)):
        path = save_map(tmp_path / f"{name}.png", pixels)
        assert read_map(path, code).tolist() == [[0, 1, UNLABELLED, UNLABELLED]]
    indexed = save_map(tmp_path / "p.png", np.array([[1, 0]], np.uint8), COLOURS)
    assert read_map(indexed, code).tolist() == [[1, 0]]


def test_a_grey_map_stored_in_three_channels_is_read_by_value_beside_known_colours(
    tmp_path: Path,
) -> None:
    code = make_code([0, 1, 2], colours=COLOURS)
    path = save_map(tmp_path / "a.png", np.stack([VALUES] * 3, axis=-1))
    assert read_map(path, code).tolist() == EXPECTED
    path = save_map(tmp_path / "b.png", to_colours(VALUES.clip(max=2), COLOURS))
    assert read_map(path, code).tolist() == [[0, 0, 1], [2, 2, 2]]


def test_a_data_set_in_three_channels_is_read_by_values_or_by_colours_throughout(
    tmp_path: Path,
) -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 0)]  # for drawing; black is not value 0
    code = make_code([0, 1, 2], colours=colours)

    def save(name: str, values: Any) -> str:
        return str(save_map(tmp_path / name, np.asarray(values, np.uint8)))

    zeros = save("zeros.png", np.zeros((1, 2, 3)))
    grey = save("grey.png", [[[0] * 3, [2] * 3]])
    coloured = save("coloured.png", [[colours[2], colours[0]]])
    single = save("single.png", [[0, 2]])
    (tmp_path / "broken.png").touch()
    broken = str(tmp_path / "broken.png")
    by_value = settle(code, [broken, zeros, grey, coloured])
    assert read_map(zeros, by_value).tolist() == [[0, 0]]
    assert read_map(grey, by_value).tolist() == [[0, 2]]
    for maps in ([zeros, coloured, grey], [zeros, single, grey], [zeros], []):
        assert read_map(zeros, settle(code, maps)).tolist() == [[2, 2]]
    bright = make_code([0, 1], colours=colours[:2])
    assert settle(bright, [zeros, coloured]) is bright  # black is nothing that was asked for
    plain = make_code([0, 1, 2])
    assert settle(plain, [grey]) is plain


def test_zero_may_stand_for_unlabelled_and_ids_may_be_shifted(tmp_path: Path) -> None:
    path = save_map(tmp_path / "a.png", np.array([[0, 1, 150, 255]], np.uint8))
    labels = read_map(path, make_code(range(150), reduce_zero_label=True))
    assert labels.tolist() == [[UNLABELLED, 0, 149, UNLABELLED]]
    path = save_map(tmp_path / "b.png", np.array([[10, 11, 3]], np.uint8))
    assert read_map(path, make_code([0, 1], offset=10, ignore=[3])).tolist() == [[0, 1, -1]]


def test_255_is_a_class_where_one_has_it(tmp_path: Path) -> None:
    path = save_map(tmp_path / "a.png", np.array([[0, 255]], np.uint8))
    assert read_map(path, make_code([0, 255])).tolist() == [[0, 1]]
    path = save_map(tmp_path / "b.png", np.array([[0, 127, 128, 255]], np.uint8))
    assert read_map(path, threshold_code(128)).tolist() == [[0, 0, 1, 1]]


def test_a_value_that_is_no_class_is_named_with_its_count(tmp_path: Path) -> None:
    path = save_map(tmp_path / "a.png", np.array([[0, 9, 9, 9, 3]], np.uint8))
    with pytest.raises(StrangeValue) as error:
        read_map(path, CODE)
    assert error.value.path == str(path)
    assert error.value.reason == (
        "value 9 in 3 pixels is no class; 1 other value in 1 pixel is none either"
    )
    assert pickle.loads(pickle.dumps(error.value)).reason == error.value.reason
    path = save_map(tmp_path / "b.png", to_colours(np.array([[0, 2]]), COLOURS))
    with pytest.raises(StrangeValue, match=r"colour \[0, 128, 0\] in 1 pixel is no class"):
        read_map(path, make_code([], colours=COLOURS[:2]))
    path = save_map(tmp_path / "c.tif", np.array([[-1, 0]], np.int32))
    with pytest.raises(StrangeValue, match="value -1 in 1 pixel"):
        read_map(path, CODE)


def test_files_that_are_no_maps_are_broken(tmp_path: Path) -> None:
    whole = save_map(tmp_path / "a.png", np.zeros((50, 50), np.uint8)).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.png").touch()
    save_map(tmp_path / "part.tif", np.array([[0.5]], np.float32))
    save_map(tmp_path / "photo.png", to_colours(VALUES.clip(max=2), COLOURS))
    for name, why in {
        "cut.png": "truncated",
        "empty.png": "empty file",
        "none.png": "no such file",
        "part.tif": "not whole numbers",
        "photo.png": "no colours of classes are known",
    }.items():
        with pytest.raises(BrokenImage, match=why) as error:
            read_map(tmp_path / name, CODE)
        assert not isinstance(error.value, StrangeValue)


@pytest.mark.parametrize(
    ("ids", "options", "message"),
    [
        ([0, 1], {"ignore": [1]}, "the value 1 of label maps stands for two things"),
        ([3, 3], {}, "the value 3 of label maps stands for two things"),
        ([-1], {}, "from 0 to 65535, not -1"),
        ([65_535], {"offset": 1}, "from 0 to 65535, not 65536"),
        ([], {"colours": [(1, 2, 3), (1, 2, 3)]}, r"the colour \[1, 2, 3\]"),
    ],
)
def test_codes_that_contradict_themselves_are_refused(
    ids: list[int], options: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        make_code(ids, **options)  # type: ignore[arg-type]


@settings(deadline=None)
@given(
    ids=st.lists(st.integers(0, 400), min_size=1, max_size=12, unique=True),
    ignore=st.lists(st.integers(0, 400), max_size=4, unique=True),
    offset=st.integers(0, 3),
    values=st.lists(st.integers(0, 500), min_size=1, max_size=30),
)
def test_every_value_is_looked_up_as_a_dictionary_would(
    tmp_path_factory: pytest.TempPathFactory,
    ids: list[int],
    ignore: list[int],
    offset: int,
    values: list[int],
) -> None:
    ignore = [v for v in ignore if v - offset not in ids]
    code = make_code(ids, ignore=ignore, offset=offset)
    truth = {i + offset: k for k, i in enumerate(ids)} | dict.fromkeys(ignore, UNLABELLED)
    path = tmp_path_factory.getbasetemp() / "drawn.png"
    save_map(path, np.array([values], np.uint16))
    bad = [v for v in values if v not in truth]
    if bad:
        with pytest.raises(StrangeValue) as error:
            read_map(path, code)
        value = int(error.value.reason.split()[1])
        assert bad.count(value) == max(map(bad.count, bad))
        assert f"in {bad.count(value)} pixel" in error.value.reason
    else:
        assert read_map(path, code).tolist() == [[truth[v] for v in values]]


@settings(deadline=None)
@given(st.permutations(range(5)), st.lists(st.integers(0, 5), min_size=1, max_size=20))
def test_relabelling_renames_classes_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[int], values: list[int]
) -> None:
    path = save_map(tmp_path_factory.getbasetemp() / "named.png", np.array([values], np.uint8))
    code = make_code(range(5), ignore=[5])
    before = read_map(path, code)
    after = read_map(path, code.relabel(np.asarray(numbers, np.int16)))
    assert after.tolist() == [[numbers[k] if k >= 0 else k for k in before[0].tolist()]]
