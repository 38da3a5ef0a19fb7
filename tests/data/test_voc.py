"""Pascal VOC XML in its layouts, and its faults by their lines."""

from pathlib import Path

import pytest

from annotated import make_picture, make_voc, voc_xml
from pyramidvit.data.detection import load_detection_data, read_annotations
from pyramidvit.data.voc import parse_xml
from pyramidvit.errors import UserError

BEE = ("bee", 6, 4, 36, 24, 0)


def make_official(root: Path, lists: dict[str, str]) -> Path:
    """Four images, each with a bee, and lists of stems in ImageSets/Main."""
    for stem in "1234":
        make_voc(root / "Annotations", stem, voc_xml(BEE), pictures=root / "JPEGImages")
    (root / "ImageSets" / "Main").mkdir(parents=True)
    for name, text in lists.items():
        (root / "ImageSets" / "Main" / f"{name}.txt").write_text(text)
    return root


def parts_of(root: Path) -> dict[str, int]:
    return {name: len(source) for name, source in load_detection_data(root, seed=0).splits.items()}


def test_lists_say_which_image_is_in_which_part(tmp_path: Path) -> None:
    lists = {"train": "1\n2\n", "val": "3.jpg\n", "trainval": "1\n2\n3\n", "test": "4\n\n"}
    root = make_official(tmp_path, lists | {"bee_train": "1 1\n2 -1\n"})
    assert parts_of(root) == {"train": 2, "validation": 1, "test": 1}
    assert parts_of(root / "Annotations") == parts_of(root)


def test_without_lists_a_share_is_held_out(tmp_path: Path) -> None:
    assert parts_of(make_official(tmp_path, {})) == {"all": 4, "train": 3, "validation": 1}


def test_a_development_kit_is_opened(tmp_path: Path) -> None:
    make_official(tmp_path / "VOC2007", {})
    assert parts_of(tmp_path)["all"] == 4
    make_official(tmp_path / "VOC2012", {})
    with pytest.raises(UserError, match="holds VOC2007, VOC2012: name one"):
        load_detection_data(tmp_path, seed=0)


def test_xml_beside_the_pictures_is_known_in_parts_and_in_one_folder(tmp_path: Path) -> None:
    for part, stems in (("train", "123"), ("valid", "4")):
        for stem in stems:
            make_voc(tmp_path / "parts" / part, stem, voc_xml(BEE))
    assert parts_of(tmp_path / "parts") == {"train": 3, "validation": 1}
    assert parts_of(tmp_path / "parts" / "train")["all"] == 3


def test_a_listed_image_without_xml_is_left_out_and_counted(tmp_path: Path) -> None:
    root = make_official(tmp_path, {"train": "1\n9\n", "val": "2\n"})
    faults = read_annotations(root).faults
    assert faults[0].place == str(root / "ImageSets" / "Main" / "train.txt:2")
    assert parts_of(root) == {"train": 1, "validation": 1}
    assert "1 listed image without an annotation file left out" in (
        load_detection_data(root, seed=0).summary
    )


def test_difficult_objects_are_to_be_passed_over(tmp_path: Path) -> None:
    xml = voc_xml(BEE, ("ant", 1, 1, 5, 5, 1))
    for stem in "12":
        make_voc(tmp_path, stem, xml)
    data = load_detection_data(tmp_path, seed=0)
    target = data.splits["all"][0].target
    assert data.classes.names == ("ant", "bee")
    assert target.labels.tolist() == [1, 0]
    assert target.crowd.tolist() == [False, True]
    assert target.masks is None


def test_an_object_of_unknown_difficulty_is_not_difficult(tmp_path: Path) -> None:
    for stem in "12":
        make_voc(tmp_path, stem, voc_xml(("ant", 1, 1, 5, 5, "Unspecified")))
    data = load_detection_data(tmp_path, seed=0)
    assert data.splits["all"][0].target.crowd.tolist() == [False]
    assert "2 objects of which it is not known whether they are difficult kept" in data.summary


def test_the_official_files_count_pixels_from_one(tmp_path: Path) -> None:
    for stem in "12":
        make_voc(tmp_path, stem, voc_xml(("bee", 1, 1, 60, 40, 0), db="The VOC2007 Database"))
    target = load_detection_data(tmp_path, seed=0).splits["all"][0].target
    assert target.boxes.tolist() == [[0, 0, 60, 40]]


def test_a_size_of_zero_is_taken_from_the_picture(tmp_path: Path) -> None:
    for stem in "12":
        make_voc(tmp_path, stem, voc_xml(("bee", 30, 4, 90.5, 24, 0), size="0x0"))
    sample = load_detection_data(tmp_path, seed=0).splits["all"][0]
    assert sample.target.boxes.tolist() == [[30, 4, 60, 24]]


def test_the_picture_is_the_one_named_as_the_xml(tmp_path: Path) -> None:
    for stem in "12":
        make_voc(tmp_path, stem, voc_xml(BEE, name="renamed-since.jpg"))
    make_picture(tmp_path / "renamed-since.jpg")
    assert load_detection_data(tmp_path, seed=0).splits["all"][0].origin.name.endswith("1.png")


@pytest.mark.parametrize(
    ("xml", "kind", "place", "text"),
    [
        (voc_xml(BEE, ("bee", 5, 5, 5, 9, 0)), "zero_area", ":4", "box from (5, 5) to (5, 9)"),
        (voc_xml(("bee", 9, 5, 5, 9, 0)), "negative_size", ":3", "box from (9, 5)"),
        (voc_xml(("bee", 9, 5, 70, 9, 0)), "box_outside", ":3", "in an image of 60x40 pixels"),
        (voc_xml(("bee", "nan", 5, 70, 9, 0)), "not_finite", ":3", "nan"),
        (voc_xml(BEE, ("bee", "x", 5, 5, 9, 0)), "bad_record", ":4", "bndbox must hold"),
        (
            voc_xml(BEE, ("bee", 1, 5, 5, 9, "?")),
            "unknown_difficult",
            ":4",
            "difficult must be 0 or 1",
        ),
        (voc_xml(("", 1, 5, 5, 9, 0)), "unknown_class", ":3", "no name"),
        (voc_xml(BEE)[:-20], "bad_record", "", "no sound XML: line 3"),
        ("<annotation></annotation><x/>", "bad_record", "", "no sound XML: line 1"),
    ],
)
def test_a_fault_is_found_at_its_line(
    tmp_path: Path, xml: str, kind: str, place: str, text: str
) -> None:
    make_voc(tmp_path, "0", voc_xml(BEE))
    make_voc(tmp_path, "1", xml)
    faults = read_annotations(tmp_path).faults
    assert [fault.kind for fault in faults] == [kind]
    assert faults[0].place == f"{tmp_path / '1.xml'}{place}"
    assert text in faults[0].text


BOMB = """<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>
<annotation><filename>&b;</filename></annotation>"""
THIEF = """<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/hostname">]>
<annotation><filename>&a;</filename></annotation>"""


@pytest.mark.parametrize(
    "xml", [BOMB, THIEF, BOMB.encode("utf-16"), '<!DOCTYPE x SYSTEM "http://127.0.0.1/x"><x/>']
)
def test_a_document_type_is_refused_in_any_encoding(tmp_path: Path, xml: str | bytes) -> None:
    content = xml if isinstance(xml, bytes) else xml.encode()
    with pytest.raises(ValueError, match="a document type is not allowed"):
        parse_xml(content)
    make_voc(tmp_path, "0", voc_xml(BEE))
    (tmp_path / "1.xml").write_bytes(content)
    with pytest.raises(UserError, match="a document type is not allowed"):
        load_detection_data(tmp_path, seed=0)


def test_absurdly_deep_xml_is_refused() -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_xml(b"<a>" * 100_000)


def test_a_file_name_in_xml_never_leads_elsewhere(tmp_path: Path) -> None:
    make_picture(tmp_path / "secret.png")
    folder = tmp_path / "data"
    folder.mkdir()
    for stem in "12":
        (folder / f"{stem}.xml").write_text(voc_xml(BEE, name="../secret.png"))
    source = load_detection_data(folder, seed=0).splits["all"]
    with pytest.raises(Exception, match="no such file"):
        source[0]
