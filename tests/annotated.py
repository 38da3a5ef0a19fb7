"""Small annotated data sets, written as other people's tools write them."""

import json
from pathlib import Path
from typing import Any

from PIL import Image

CATEGORIES = [{"id": 0, "name": "ant"}, {"id": 7, "name": "bee"}]


def make_picture(path: Path, size: tuple[int, int] = (40, 60)) -> Path:
    """A picture of `size` (H, W) whose content follows from its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = sum(path.name.encode()) * 37 % 256, size[0] % 256, len(path.name)
    Image.new("RGB", (size[1], size[0]), colour).save(path)
    return path


def coco_image(number: int, size: tuple[int, int] = (40, 60), **changed: Any) -> dict[str, Any]:
    record = {"id": number, "file_name": f"{number}.png", "height": size[0], "width": size[1]}
    return record | changed


def coco_object(number: int, image: int, **changed: Any) -> dict[str, Any]:
    """An object of class 7 with a square as its mask."""
    square = [10, 10, 20, 10, 20, 20, 10, 20]
    record = {"id": number, "image_id": image, "category_id": 7, "bbox": [10, 10, 10, 10]}
    return record | {"area": 100, "iscrowd": 0, "segmentation": [square]} | changed


def make_coco(
    file: Path,
    images: list[Any],
    objects: list[Any],
    *,
    pictures: Path | None = None,
    categories: Any = None,
) -> Path:
    """Writes a COCO json, and the pictures of its images beside it or in `pictures`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    for image in images:
        name = image.get("file_name") if isinstance(image, dict) else None
        if isinstance(name, str) and ".." not in name and not name.startswith("/"):
            size = (image.get("height") or 40, image.get("width") or 60)
            make_picture((pictures or file.parent) / name, size)
    categories = CATEGORIES if categories is None else categories
    record = {"images": images, "annotations": objects, "categories": categories}
    file.write_text(json.dumps(record))
    return file


def voc_xml(
    *objects: tuple[Any, ...], size: str = "40x60", name: str = "1.jpg", db: str = ""
) -> str:
    """An XML record of `size` HxW with objects (name, xmin, ymin, xmax, ymax, difficult)."""
    height, width = size.split("x")
    text = f"<annotation><filename>{name}</filename><source><database>{db}</database></source>\n"
    text += f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>\n"
    for label, *sides, difficult in objects:
        corners = "".join(
            f"<{key}>{side}</{key}>"
            for key, side in zip(("xmin", "ymin", "xmax", "ymax"), sides, strict=True)
        )
        text += f"<object><name>{label}</name><difficult>{difficult}</difficult>"
        text += f"<part><name>head</name><bndbox>{corners}</bndbox></part>"
        text += f"<bndbox>{corners}</bndbox></object>\n"
    return text + "</annotation>\n"


def make_voc(folder: Path, stem: str, xml: str, *, pictures: Path | None = None) -> None:
    """Writes an XML file, and its picture beside it or in `pictures`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{stem}.xml").write_text(xml)
    make_picture((pictures or folder) / f"{stem}.png")


def make_yolo(root: Path, parts: dict[str, dict[str, str]], description: str) -> Path:
    """Writes pictures with label files, {part: {stem: lines}}, and `data.yaml`."""
    for part, files in parts.items():
        for stem, lines in files.items():
            make_picture(root / part / "images" / f"{stem}.png")
            (root / part / "labels").mkdir(exist_ok=True)
            (root / part / "labels" / f"{stem}.txt").write_text(lines)
    (root / "data.yaml").write_text(description)
    return root
