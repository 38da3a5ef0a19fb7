"""Result files hold what was predicted, in the data's own ids, to the last pixel."""

import csv
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from mapped import make_pair, save_map
from pyramidvit.data.segmentation import load_segmentation_data
from pyramidvit.errors import UserError
from pyramidvit.ops import polygons, rings
from pyramidvit.structures import Classes, Origin, SegmentationPrediction
from pyramidvit.tasks.segmentation import outlines
from pyramidvit.tasks.segmentation.draw import draw, palette
from pyramidvit.tasks.segmentation.results import FORMATS, open_results

CLASSES = Classes(names=("road", "sky, blue", "tree"), ids=(7, 23, 0))
FRAMED = Classes(names=("background", "polyp"), ids=(0, 255), colours=((0, 0, 0), (9, 8, 7)))


def labels_of(size: tuple[int, int] = (12, 17), count: int = 3, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, count, (size[0] // 3 + 1, size[1] // 3 + 1), np.uint8)
    return torch.from_numpy(small.repeat(3, 0).repeat(3, 1)[: size[0], : size[1]].copy())


def write(folder: Path, classes: Classes, formats: tuple[str, ...], labels: torch.Tensor) -> dict:
    files = open_results(folder, classes, formats)
    origin = Origin(name="a/street.jpg", size=(labels.shape[0], labels.shape[1]))
    written = files.add(origin, SegmentationPrediction(labels=labels))
    return written | {"whole": [path.name for path in files.close()]}


def test_a_map_has_the_data_s_own_ids_and_the_colours(tmp_path: Path) -> None:
    labels = labels_of()
    written = write(tmp_path, CLASSES, ("png",), labels)
    assert written == {"png": "street.png", "whole": ["classes.csv"]}
    image = Image.open(tmp_path / "street.png")
    assert image.mode == "P"
    assert (np.asarray(image) == np.asarray(CLASSES.ids)[labels.numpy()]).all()
    colours = np.asarray(palette(CLASSES))[labels.numpy()]
    assert (np.asarray(image.convert("RGB")) == colours).all()
    rows = list(csv.DictReader((tmp_path / "classes.csv").open(encoding="utf-8")))
    assert [row["name"] for row in rows] == list(CLASSES.names)
    assert [int(row["value"]) for row in rows] == list(CLASSES.ids)


def test_ids_above_255_take_16_bits(tmp_path: Path) -> None:
    classes = Classes(names=("a", "b"), ids=(300, 65535))
    labels = labels_of(count=2)
    write(tmp_path, classes, ("png",), labels)
    values = np.asarray(Image.open(tmp_path / "street.png"))
    assert (values == np.asarray(classes.ids)[labels.numpy()]).all()


@pytest.mark.parametrize("ids", [("a", "b"), (-1, 3), (0, 65536)])
def test_ids_that_no_map_can_hold_give_way_to_numbers(tmp_path: Path, ids: tuple) -> None:
    labels = labels_of(count=2)
    write(tmp_path, Classes(names=("a", "b"), ids=ids), ("png",), labels)
    assert (np.asarray(Image.open(tmp_path / "street.png")) == labels.numpy()).all()
    rows = list(csv.DictReader((tmp_path / "classes.csv").open(encoding="utf-8")))
    assert [(row["value"], row["id"]) for row in rows] == [("0", str(ids[0])), ("1", str(ids[1]))]


@pytest.mark.parametrize(
    ("content", "values"),
    [
        ("names: [a, b]", [0, 1, 255]),
        ("names: [a, b]\nreduce_zero_label: true", [1, 2, 0]),
        ("names: [a, b]\nids: [-1, 7]\noffset: 10", [9, 17, 255]),
        ("names: {300: a, 40000: b}", [300, 40000, 65535]),
        ("names: [a, b]\nthreshold: 128", [0, 255, 127]),
        ("names: [a, b]\nthreshold: 300", [0, 65535, 299]),
        ("names: [a, b, void]\ncolours: [[9, 8, 7], [0, 0, 0], [1, 1, 1]]", [0, 1, 2]),
    ],
)
def test_a_perfect_map_is_read_back_with_the_data_s_own_classes_file(
    tmp_path: Path, content: str, values: list[int]
) -> None:
    written = np.array([values], np.uint16 if max(values) > 255 else np.uint8)
    for k in range(2):
        make_pair(tmp_path / "data", str(k), written)
    (tmp_path / "data" / "classes.yaml").write_text(content)
    data = load_segmentation_data(tmp_path / "data", seed=0)
    truth = data.splits["all"].read_target(0).labels[:, :2]  # type: ignore[attr-defined]
    assert truth.tolist() == [[0, 1]]
    recorded = Classes.from_records(json.loads(json.dumps(data.classes.to_records())))
    assert recorded == data.classes
    (tmp_path / "out").mkdir()
    write(tmp_path / "out", recorded, ("png",), truth.byte())
    found = np.asarray(Image.open(tmp_path / "out" / "street.png"))
    assert found.tolist() == [values[:2]]

    for k in range(2):
        make_pair(tmp_path / "again", str(k), found)
    alone = load_segmentation_data(tmp_path / "again", seed=0, classes=recorded)
    assert alone.splits["all"][0].target.labels.tolist() == truth.tolist()
    (tmp_path / "again" / "classes.yaml").write_text(content)
    again = load_segmentation_data(tmp_path / "again", seed=0)
    assert again.splits["all"][0].target.labels.tolist() == truth.tolist()


def test_cityscapes_train_ids_are_written_as_they_were_read(tmp_path: Path) -> None:
    for part in ("train", "val"):
        make_pair(tmp_path, "a", pictures=f"leftImg8bit/{part}/ulm", maps=f"gtFine/{part}/ulm")
        own = tmp_path / f"gtFine/{part}/ulm/a.png"
        save_map(own.with_name("a_gtFine_labelTrainIds.png"), np.array([[0, 18]], np.uint8))
    classes = load_segmentation_data(tmp_path, seed=0).classes
    assert (classes.ids[0], classes.ids[18]) == (7, 33)
    (tmp_path / "out").mkdir()
    write(tmp_path / "out", classes, ("png",), torch.tensor([[0, 18]], dtype=torch.uint8))
    assert np.asarray(Image.open(tmp_path / "out" / "street.png")).tolist() == [[0, 18]]


def test_a_background_is_known_by_its_name_wherever_it_stands(tmp_path: Path) -> None:
    classes = Classes(names=("polyp", "Background", "knife"), ids=(1, 2, 3))
    first = Classes(names=("background", "polyp", "knife"), ids=(2, 1, 3))
    assert (classes.background, first.background, CLASSES.background) == (1, 0, None)
    colours, others = palette(classes), palette(first)
    assert [colours[k] for k in (1, 0, 2)] == others
    assert colours[1] == (0, 0, 0)
    labels = torch.tensor([[0, 1, 2]], dtype=torch.uint8)
    assert {
        polygon.label for polygon in outlines.outline(labels.numpy(), background=1).polygons
    } == {0, 2}
    write(tmp_path, classes, ("coco",), labels)
    record = json.loads((tmp_path / "predictions.json").read_text())
    assert [category["name"] for category in record["categories"]] == ["polyp", "knife"]
    assert [row["category_id"] for row in record["annotations"]] == [1, 3]
    drawn = np.asarray(
        draw(Image.new("RGB", (3, 1)), SegmentationPrediction(labels=labels), classes)
    )
    assert drawn[80, 240].tolist() == [0, 0, 0]
    assert drawn[80, 80].any()


def test_more_classes_than_a_byte_can_tell_are_written(tmp_path: Path) -> None:
    count = 300
    classes = Classes(names=tuple(f"c{k}" for k in range(count)), ids=tuple(range(count)))
    labels = torch.arange(count, dtype=torch.int16).view(15, 20)
    write(tmp_path, classes, ("png",), labels)
    assert (np.asarray(Image.open(tmp_path / "street.png")) == labels.numpy()).all()


def test_coco_s_own_reader_gives_the_map_back(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    maps = [labels_of(seed=seed, size=(12 + seed, 17)) for seed in range(3)]
    files = open_results(tmp_path, CLASSES, ("coco",))
    numbers = [
        files.add(Origin(name=f"{k}.jpg", size=tuple(m.shape)), SegmentationPrediction(labels=m))
        for k, m in enumerate(maps)
    ]
    assert numbers == [{"image_id": k} for k in (1, 2, 3)]
    assert not (tmp_path / "predictions.json").exists()
    assert files.close() == [tmp_path / "predictions.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.json"]
    coco = COCO(tmp_path / "predictions.json")
    for number, labels in enumerate(maps, 1):
        record = coco.imgs[number]
        assert (record["height"], record["width"]) == tuple(labels.shape)
        found = np.full(labels.shape, -1)
        for annotation in coco.imgToAnns[number]:
            bits = coco.annToMask(annotation).astype(bool)
            assert bits.sum() == annotation["area"]
            y, x = np.nonzero(bits)
            x0, y0, w, h = annotation["bbox"]
            assert (x0, y0, x0 + w, y0 + h) == (x.min(), y.min(), x.max() + 1, y.max() + 1)
            found[bits] = annotation["category_id"]
        assert (found == np.asarray(CLASSES.ids)[labels.numpy()]).all()
    assert {c["id"]: c["name"] for c in coco.cats.values()} == dict(
        zip(CLASSES.ids, CLASSES.names, strict=True)
    )


def test_geojson_has_closed_rings_with_class_id_and_area(tmp_path: Path) -> None:
    labels = torch.zeros(6, 8, dtype=torch.uint8)
    labels[1:4, 2:5] = 1
    written = write(tmp_path, CLASSES, ("geojson",), labels)
    assert written == {"geojson": "street.geojson", "whole": []}
    record = json.loads((tmp_path / "street.geojson").read_text(encoding="utf-8"))
    assert record["type"] == "FeatureCollection"
    assert "y downward" in record["frame"]
    road, sky = record["features"]
    assert road["properties"] == {"class": "road", "id": 7, "area": 39}
    assert sky["properties"] == {"class": "sky, blue", "id": 23, "area": 9}
    assert len(road["geometry"]["coordinates"]) == 2
    assert sky["geometry"]["coordinates"] == [[[5, 1], [5, 4], [2, 4], [2, 1], [5, 1]]]


def test_a_background_has_pixels_but_no_polygons(tmp_path: Path) -> None:
    labels = torch.zeros(6, 8, dtype=torch.uint8)
    labels[2, 2] = 1
    write(tmp_path, FRAMED, FORMATS, labels)
    coco = json.loads((tmp_path / "predictions.json").read_text(encoding="utf-8"))
    assert [a["category_id"] for a in coco["annotations"]] == [255]
    assert coco["categories"] == [{"id": 255, "name": "polyp"}]
    geojson = json.loads((tmp_path / "street.geojson").read_text(encoding="utf-8"))
    assert [f["properties"]["id"] for f in geojson["features"]] == [255]
    assert sorted(set(np.asarray(Image.open(tmp_path / "street.png")).ravel())) == [0, 255]


def test_classes_that_are_called_by_words_get_numbers_from_one(tmp_path: Path) -> None:
    write(tmp_path, Classes(names=("a", "b"), ids=("x", "y")), ("coco",), labels_of(count=2))
    coco = json.loads((tmp_path / "predictions.json").read_text(encoding="utf-8"))
    assert coco["categories"] == [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]


def test_pictures_of_one_name_get_files_of_their_own(tmp_path: Path) -> None:
    files = open_results(tmp_path, CLASSES, ("png", "geojson"))
    names = [
        files.add(Origin(name=f"{k}/a.jpg", size=(4, 4)), SegmentationPrediction(labels=m))
        for k, m in enumerate([labels_of((4, 4), seed=seed) for seed in range(3)])
    ]
    assert names == [
        {"png": f"{name}.png", "geojson": f"{name}.geojson"} for name in ("a", "a-2", "a-3")
    ]
    assert len(list(tmp_path.iterdir())) == 6


def test_no_pictures_and_pictures_of_background_alone_give_whole_files(tmp_path: Path) -> None:
    assert [path.name for path in open_results(tmp_path, CLASSES, ("coco",)).close()] == [
        "predictions.json"
    ]
    empty = json.loads((tmp_path / "predictions.json").read_text(encoding="utf-8"))
    assert (empty["images"], empty["annotations"]) == ([], [])
    files = open_results(tmp_path, FRAMED, ("coco",))
    blank, one = torch.zeros(3, 3, dtype=torch.uint8), torch.ones(3, 3, dtype=torch.uint8)
    for labels in (blank, one, blank, one):
        files.add(Origin(name="x", size=(3, 3)), SegmentationPrediction(labels=labels))
    files.close()
    found = json.loads((tmp_path / "predictions.json").read_text(encoding="utf-8"))
    assert [(a["id"], a["image_id"]) for a in found["annotations"]] == [(1, 2), (2, 4)]


def test_closing_twice_does_no_harm(tmp_path: Path) -> None:
    files = open_results(tmp_path, CLASSES, ("coco",))
    assert files.close() == files.close()


def test_a_wrong_format_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown format geojsn; nearest: geojson"):
        open_results(tmp_path, CLASSES, ("geojsn",))


@pytest.mark.parametrize("form", FORMATS)
def test_a_folder_that_is_gone_is_a_user_s_error(tmp_path: Path, form: str) -> None:
    with pytest.raises(UserError, match="cannot write"):
        write(tmp_path / "gone", CLASSES, (form,), labels_of())


def test_specks_of_a_large_map_go_to_their_neighbours_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outlines, "MOST_REGIONS", 30)
    labels = torch.zeros(10, 10, dtype=torch.uint8)
    labels[:, 5:] = 1
    labels[2, 2] = labels[7, 7] = 2  # smaller than 3 pixels, a thirtieth of the map
    labels[4, 2:5] = 2
    written = write(tmp_path, CLASSES, ("geojson", "coco"), labels)
    assert written["note"] == "polygons of 3 pixels or more"
    record = json.loads((tmp_path / "street.geojson").read_text(encoding="utf-8"))
    assert record["note"] == written["note"]
    found = [(f["properties"]["class"], f["properties"]["area"]) for f in record["features"]]
    assert found == [("road", 47), ("sky, blue", 50), ("tree", 3)]
    coco = json.loads((tmp_path / "predictions.json").read_text(encoding="utf-8"))
    assert [a["area"] for a in coco["annotations"]] == [47, 50, 3]


@pytest.mark.parametrize("where", [(polygons, "MOST_RUNS"), (rings, "MOST_SIDES")])
def test_noise_is_traced_on_a_coarser_grid(
    monkeypatch: pytest.MonkeyPatch, where: tuple[ModuleType, str]
) -> None:
    monkeypatch.setattr(*where, 300)
    labels = np.random.default_rng(0).integers(0, 2, (61, 47), np.uint8)
    found = outlines.outline(labels, background=None)
    assert found.step in (4, 8)
    assert (
        found.note == f"polygons of {found.step**2} pixels or more, borders to {found.step} pixels"
    )
    traced = list(found.polygons)
    assert sum(polygon.area for polygon in traced) == labels.size
    for polygon in traced:
        low, high = polygon.rings[0].min(axis=0), polygon.rings[0].max(axis=0)
        assert (low >= 0).all()
        assert (high <= (47, 61)).all()
        corner = polygon.rings[0][polygon.rings[0].sum(axis=1).argmin()]
        assert (corner % found.step == 0).all()


def test_a_map_without_a_wide_border_is_traced_exactly_however_large() -> None:
    labels = np.zeros((3000, 3000), np.uint8)
    labels[1000:2000, 1001:1999] = 1
    around, inner = outlines.outline(labels, background=None).polygons
    assert (around.area, inner.area) == (9_000_000 - 998_000, 998_000)
    assert inner.rings[0].tolist() == [[1999, 1000], [1999, 2000], [1001, 2000], [1001, 1000]]
