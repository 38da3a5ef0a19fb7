"""Pascal VOC XML: http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc, and its relatives.

Known are `Annotations/` beside `JPEGImages/`, with parts listed in `ImageSets/Main/train.txt` and
so on, and XML files beside their pictures, in one folder or in `train/`, `valid/`, `test/`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from ..errors import UserError
from ..structures import Classes
from .faults import Fault
from .images import is_image
from .layouts import PARTS, part_folders, read_bytes, read_size
from .outlines import NONE
from .table import Table, TableBuilder

MAX_DEPTH = 50


@dataclass(slots=True)
class Element:
    """A part of an XML file, with its line."""

    tag: str
    line: int
    text: str = ""
    children: list["Element"] = field(default_factory=list)

    def find(self, path: str) -> "Element | None":
        tag, _, rest = path.partition("/")
        child = next((c for c in self.children if c.tag == tag), None)
        return child.find(rest) if child and rest else child

    def read(self, path: str) -> str:
        """The text at a path, such as "size/width"; empty where there is none."""
        found = self.find(path)
        return found.text.strip() if found else ""


class Refused(ValueError):  # noqa: N818, it is raised inside the parser and caught here
    """XML that this reader does not take."""


def parse_xml(content: bytes) -> Element:
    """The root of an XML file.

    A document type is refused: with it a file could name other files and blow itself up.

    Raises:
        ValueError: No XML, with a document type, or absurdly deep; says where.
    """
    root = Element("", 0)
    open_elements = [root]
    parser = expat.ParserCreate()

    def start(tag: str, _: dict[str, str]) -> None:
        if len(open_elements) > MAX_DEPTH:
            raise Refused(f"line {parser.CurrentLineNumber}: nested too deeply")
        element = Element(tag, parser.CurrentLineNumber)
        open_elements[-1].children.append(element)
        open_elements.append(element)

    def end(_: str) -> None:
        open_elements.pop()

    def text(content: str) -> None:
        open_elements[-1].text += content

    def refuse_type(*_: object) -> None:
        raise Refused(f"line {parser.CurrentLineNumber}: a document type is not allowed here")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = refuse_type
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise ValueError(f"line {error.lineno}: {expat.ErrorString(error.code)}") from error
    return root.children[0]


@dataclass(frozen=True, slots=True)
class VocLayout:
    """Where things lie: XML folders and picture folders of the parts, and lists of stems.

    Attributes:
        folders: Of each part, (XML folder, picture folder).
        lists: Of some parts, the file that lists its images; without it, all XML files count.
    """

    folders: dict[str, tuple[Path, Path]]
    lists: dict[str, Path]


def find_voc(place: Path) -> VocLayout | None:
    """The layout of VOC data at a place; None where there is none.

    Raises:
        UserError: Several data sets (VOC2007, VOC2012): which is meant?
    """
    if not place.is_dir():
        return None
    place = place.parent if place.name == "Annotations" else place
    years = [p for p in sorted(place.glob("VOC*")) if (p / "Annotations").is_dir()]
    if len(years) > 1:
        raise UserError(f"{place} holds {', '.join(p.name for p in years)}: name one of them")
    place = years[0] if years else place

    records, pictures = child(place, "annotations"), child(place, "jpegimages", "images")
    if records and has_xml(records):
        pictures = pictures or records
        sets = place / "ImageSets" / "Main"
        lists = {part: f for part in PARTS for f in [list_file(sets, part)] if f}
        if not lists and (sets / "trainval.txt").is_file():
            lists = {"all": sets / "trainval.txt"}
        return VocLayout(dict.fromkeys(lists or ["all"], (records, pictures)), lists)
    parts = {part: p for part, p in part_folders(place).items() if has_xml(p)}
    if parts:
        return VocLayout({part: (p, p) for part, p in parts.items()}, {})
    if has_xml(place):
        return VocLayout({"all": (place, pictures or place)}, {})
    return None


def child(place: Path, *names: str) -> Path | None:
    """The folder below a place with the first of the names, in any case."""
    folders = {p.name.lower(): p for p in sorted(place.iterdir()) if p.is_dir()}
    return next((folders[name] for name in names if name in folders), None)


def list_file(sets: Path, part: str) -> Path | None:
    files = [sets / f"{word}.txt" for word in PARTS[part]]
    return next((file for file in files if file.is_file()), None)


def has_xml(folder: Path) -> bool:
    files = [f for f in xml_files(folder)[:5] if f.is_file()]
    return any(b"<annotation" in read_bytes(file) for file in files)


def xml_files(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if f.suffix.lower() == ".xml")


def read_voc(layout: VocLayout, faults: list[Fault]) -> tuple[Classes, dict[str, Table]]:
    """Reads all parts; the classes are all names that occur, in alphabetical order."""
    names: dict[str, int] = {}
    tables = {part: read_part(layout, part, names, faults) for part in layout.folders}
    order = sorted(names)
    ranks = {names[name]: k for k, name in enumerate(order)}
    for table in tables.values():
        table.labels[:] = [ranks[label] for label in table.labels.tolist()]
    return Classes(names=tuple(order), ids=tuple(order)), tables


def read_part(layout: VocLayout, part: str, names: dict[str, int], faults: list[Fault]) -> Table:
    records, folder = layout.folders[part]
    pictures = {p.stem: p for p in sorted(folder.iterdir()) if is_image(p)}
    builder = TableBuilder()
    for file in list_records(records, layout.lists.get(part), faults):
        try:
            root = parse_xml(read_bytes(file))
        except ValueError as error:
            faults.append(Fault("bad_record", str(file), f"no sound XML: {error}"))
            continue
        read_image_record(file, root, pictures, folder, builder, names, faults)
    return builder.build("{file}:{number}")


def list_records(folder: Path, listing: Path | None, faults: list[Fault]) -> Iterable[Path]:
    """The XML files of a part, those of a list in its order."""
    files = {file.stem: file for file in xml_files(folder)}
    if listing is None:
        return files.values()
    found = []
    for number, line in enumerate(read_bytes(listing).decode(errors="replace").splitlines(), 1):
        name = line.split()[0] if line.split() else ""
        stem = Path(name).stem if name.lower().endswith((".jpg", ".jpeg", ".png", ".xml")) else name
        if stem in files:
            found.append(files[stem])
        elif stem:
            text = f"there is no {folder.name}/{stem}.xml"
            faults.append(Fault("no_annotation", f"{listing}:{number}", text))
    return found


def read_image_record(
    file: Path,
    root: Element,
    pictures: dict[str, Path],
    folder: Path,
    builder: TableBuilder,
    names: dict[str, int],
    faults: list[Fault],
) -> None:
    """Adds an image and its objects to `builder`, new class names to `names`."""
    named = Path(root.read("filename").replace("\\", "/")).name  # never a path
    picture = pictures.get(file.stem) or folder / (named or f"{file.stem}.jpg")
    try:
        size = int(float(root.read("size/height"))), int(float(root.read("size/width")))
    except (ValueError, OverflowError):
        size = (0, 0)
    if min(size) <= 0:  # some tools write 0x0
        size = read_size(picture)
    image = builder.add_image(str(picture), file.stem, size, str(file))
    official = root.read("source/database").startswith("The VOC")
    for element in root.children:
        if element.tag != "object":
            continue
        try:
            box = read_box(element, official=official)
        except (ValueError, OverflowError):
            text = "bndbox must hold the numbers xmin, ymin, xmax, ymax"
            faults.append(Fault("bad_record", f"{file}:{element.line}", text))
            continue
        name = element.read("name")
        if not name:
            faults.append(Fault("unknown_class", f"{file}:{element.line}", "it has no name"))
            continue
        label = names.setdefault(name, len(names))
        difficult = element.read("difficult") or "0"
        if difficult not in ("0", "1"):
            text = f"difficult must be 0 or 1, got {difficult[:40]!r}: taken for 0"
            faults.append(Fault("unknown_difficult", f"{file}:{element.line}", text))
        builder.add_object(image, element.line, label, box, crowd=difficult == "1")
        builder.shapes.add(NONE, ())


def read_box(element: Element, *, official: bool) -> tuple[float, float, float, float]:
    """The box of an object as (x0, y0, x1, y1).

    The official files number pixels from 1 and name the last one inside; what other tools write
    are the sides themselves.
    """
    sides = [float(element.read(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")]
    x0, y0, x1, y1 = sides
    return (x0 - 1, y0 - 1, x1, y1) if official else (x0, y0, x1, y1)
