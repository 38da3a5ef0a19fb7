"""Files of polygons, written one polygon at a time: GeoJSON and COCO's annotations."""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ...data.outlines import show_size
from ...errors import UserError
from ...files import open_atomically
from ...ops.polygons import Polygon, without_holes
from ...structures import Classes, Origin

Write = Callable[[Polygon], None]


@contextlib.contextmanager
def open_geojson(path: Path, origin: Origin, classes: Classes, note: str) -> Iterator[Write]:
    """A feature collection in pixels of the file: x to the right, y downward from the top left.

    Raises:
        UserError: It cannot be written.
    """
    record = {
        "type": "FeatureCollection",
        "file": origin.name,
        "frame": f"pixels of a picture of {show_size(origin.size)}: x to the right, y downward",
        **({"note": note} if note else {}),
    }
    before = b'"features":['
    with open_atomically(path) as file:
        file.write(encode(record)[:-1] + b",")

        def write(polygon: Polygon) -> None:
            nonlocal before
            file.write(before + encode(feature(polygon, classes)))
            before = b",\n"

        yield write
        file.write((b"" if before == b",\n" else before) + b"]}")


def feature(polygon: Polygon, classes: Classes) -> dict[str, Any]:
    """A polygon as GeoJSON has it, whose rings end where they start."""
    name, number = classes.names[polygon.label], classes.ids[polygon.label]
    rings = [ring.tolist() for ring in polygon.rings]
    return {
        "type": "Feature",
        "properties": {"class": name, "id": number, "area": polygon.area},
        "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]] for ring in rings]},
    }


class CocoFile:
    """Regions of all pictures as COCO's annotations; they go to the disk at once, under another
    name until the file is whole."""

    def __init__(self, path: Path, classes: Classes) -> None:
        ids = classes.ids
        whole = all(isinstance(i, int) for i in ids)
        self.path, self.partial = path, path.with_name(f".{path.name}.partial")
        self.category_ids = [i if whole else k for k, i in enumerate(ids, 0 if whole else 1)]
        named = zip(self.category_ids, classes.names, strict=True)
        self.categories = [
            {"id": i, "name": name} for k, (i, name) in enumerate(named) if k != classes.background
        ]
        self.images: list[dict[str, Any]] = []
        self.count = 0
        self.append(b'{"annotations": [', "wb")

    @contextlib.contextmanager
    def open_image(self, origin: Origin) -> Iterator[Write]:
        """Takes the regions of a picture, whose number is how many there are in `images` then.

        Raises:
            UserError: The file cannot be written.
        """
        height, width = origin.size
        number = len(self.images) + 1
        record = {"id": number, "file_name": origin.name, "height": height, "width": width}
        self.images.append(record)
        with self.failing(), self.partial.open("ab") as file:

            def write(polygon: Polygon) -> None:
                self.count += 1
                before = b",\n" if self.count > 1 else b""
                file.write(before + encode(self.annotation(polygon, number)))

            yield write

    def annotation(self, polygon: Polygon, image: int) -> dict[str, Any]:
        low, high = polygon.rings[0].min(axis=0), polygon.rings[0].max(axis=0)
        return {
            "id": self.count,
            "image_id": image,
            "category_id": self.category_ids[polygon.label],
            "segmentation": [without_holes(polygon.rings).ravel().tolist()],
            "area": polygon.area,
            "bbox": [*low.tolist(), *(high - low).tolist()],
            "iscrowd": 0,
        }

    def close(self) -> Path:
        if self.partial.exists():
            images, categories = encode(self.images), encode(self.categories)
            self.append(b'],\n"images": ' + images + b',\n"categories": ' + categories + b"}\n")
            self.partial.replace(self.path)
        return self.path

    def append(self, content: bytes, mode: str = "ab") -> None:
        with self.failing(), self.partial.open(mode) as file:
            file.write(content)

    @contextlib.contextmanager
    def failing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror or error}") from error


def encode(record: Any) -> bytes:
    text = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace")
