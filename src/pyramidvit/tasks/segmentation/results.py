"""Predictions as files that other programs read: maps of labels, and polygons."""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...data.outlines import show_size
from ...errors import UserError, nearest
from ...files import write_atomically
from ...ops.polygons import Polygon, trace_polygons, without_holes
from ...structures import Classes, Origin, SegmentationPrediction
from .draw import is_background, palette

FORMATS = ("png", "coco", "geojson")
PREDICTIONS = "predictions.json"
CLASSES = "classes.csv"


def open_results(
    folder: Path, classes: Classes, formats: Sequence[str]
) -> "SegmentationResultFiles":
    """Files that predictions are added to.

    "png": a map of labels for each picture, whose values are the data's own ids where these are
    whole numbers up to 65535, and numbers of classes otherwise; 8 bits with the classes' colours,
    or 16 bits. `classes.csv` says what the values mean.

    "geojson": a feature collection for each picture, with a polygon for each region.

    "coco": `predictions.json`, with a polygon for each region of every picture.

    A background, the first class where it is called so, has no polygons.

    Args:
        folder: It exists.
        classes: What the labels mean.
        formats: Some of `FORMATS`.

    Raises:
        UserError: An unknown format.
    """
    for name in formats:
        if name not in FORMATS:
            raise UserError(f"unknown format {name}; nearest: {nearest(name, FORMATS)}")
    return SegmentationResultFiles(folder, classes, formats)


class SegmentationResultFiles:
    """See `open_results`; closing it twice does no harm."""

    def __init__(self, folder: Path, classes: Classes, formats: Sequence[str]) -> None:
        self.folder, self.classes = folder, classes
        self.formats = tuple(dict.fromkeys(formats))
        self.single = tuple(f for f in self.formats if f != "coco")  # a file for each picture
        self.taken = Counter[str]()  # so that a video's frames are not counted through each time
        self.values = values_of(classes)
        self.coco = CocoFile(folder / PREDICTIONS, classes) if "coco" in formats else None

    def add(self, origin: Origin, prediction: SegmentationPrediction) -> dict[str, Any]:
        """Writes a picture's files; returns their names by format, and its number in COCO's file.

        Raises:
            UserError: A file cannot be written.
        """
        labels = prediction.labels.cpu().numpy()
        name = self.free_name(Path(origin.name).stem)
        written: dict[str, Any] = {form: f"{name}.{form}" for form in self.single}
        if "png" in written:
            content = encode_map(labels, self.values, palette(self.classes))
            write_atomically(self.folder / written["png"], content)
        if self.formats == ("png",):
            return written
        polygons = self.polygons_of(labels)
        if "geojson" in written:
            text = to_geojson(origin, polygons, self.classes)
            write_atomically(self.folder / written["geojson"], text)
        if self.coco is not None:
            written["image_id"] = self.coco.add(origin, polygons)
        return written

    def close(self) -> list[Path]:
        """Writes what is left; returns the paths of the files for all pictures together.

        Raises:
            UserError: A file cannot be written.
        """
        paths = []
        if "png" in self.formats:
            paths.append(self.folder / CLASSES)
            write_atomically(paths[-1], class_table(self.classes, self.values))
        if self.coco is not None:
            paths.append(self.coco.close())
        return paths

    def free_name(self, stem: str) -> str:
        """A name that no file has yet: pictures of different folders may share theirs."""
        while True:
            self.taken[stem] += 1
            name = f"{stem}-{self.taken[stem]}" if self.taken[stem] > 1 else stem
            if not any((self.folder / f"{name}.{form}").exists() for form in self.single):
                return name

    def polygons_of(self, labels: np.ndarray) -> list[Polygon]:
        background = is_background(self.classes)
        return [p for p in trace_polygons(labels) if p.label or not background]


def values_of(classes: Classes) -> np.ndarray:
    """What a map's pixels say for each class, [K]: uint8, or uint16 where ids are above 255."""
    ids = classes.ids
    whole = all(isinstance(i, int) and 0 <= i <= 65535 for i in ids)
    values = np.asarray(ids if whole else range(len(ids)), np.int64)
    return values.astype(np.uint8 if values.max(initial=0) <= 255 else np.uint16)


def encode_map(
    labels: np.ndarray, values: np.ndarray, colours: Sequence[tuple[int, int, int]]
) -> bytes:
    """A map [H, W] as PNG, with a palette if it has 8 bits."""
    image = Image.fromarray(values[labels])
    if values.dtype == np.uint8:
        table = np.zeros((256, 3), np.uint8)
        table[values] = colours
        image.putpalette(table.tobytes())
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def class_table(classes: Classes, values: np.ndarray) -> str:
    """Value, id, name and colour of each class, as CSV."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("value", "id", "name", "red", "green", "blue"))
    for row in zip(values.tolist(), classes.ids, classes.names, palette(classes), strict=True):
        table.writerow((*row[:3], *row[3]))
    return text.getvalue()


def to_geojson(origin: Origin, polygons: Sequence[Polygon], classes: Classes) -> str:
    """A feature collection in pixels of the file: x to the right, y downward from the top left."""
    features = [
        {
            "type": "Feature",
            "properties": {"class": classes.names[k], "id": classes.ids[k], "area": area},
            "geometry": {
                "type": "Polygon",
                "coordinates": [[*ring.tolist(), ring[0].tolist()] for ring in rings],
            },
        }
        for k, area, rings in polygons
    ]
    record = {
        "type": "FeatureCollection",
        "file": origin.name,
        "frame": f"pixels of a picture of {show_size(origin.size)}: x to the right, y downward",
        "features": features,
    }
    return to_json(record)


class CocoFile:
    """Regions of all pictures as COCO's annotations; they go to the disk at once, under another
    name until the file is whole."""

    def __init__(self, path: Path, classes: Classes) -> None:
        ids = classes.ids
        whole = all(isinstance(i, int) for i in ids)
        self.path, self.partial = path, path.with_name(f".{path.name}.partial")
        self.category_ids = [i if whole else k for k, i in enumerate(ids, 0 if whole else 1)]
        first = int(is_background(classes))
        self.categories = [
            {"id": i, "name": name}
            for i, name in zip(self.category_ids[first:], classes.names[first:], strict=True)
        ]
        self.images: list[dict[str, Any]] = []
        self.count = 0
        self.write('{"annotations": [', "w")

    def add(self, origin: Origin, polygons: Iterable[Polygon]) -> int:
        """Appends the regions of a picture; returns its number."""
        number = len(self.images) + 1
        height, width = origin.size
        record = {"id": number, "file_name": origin.name, "height": height, "width": width}
        self.images.append(record)
        texts = []
        for polygon in polygons:
            self.count += 1
            texts.append(to_json(self.annotation(polygon, number)))
        before = ",\n" if self.count > len(texts) > 0 else ""
        self.write(before + ",\n".join(texts))
        return number

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
            images, categories = to_json(self.images), to_json(self.categories)
            self.write(f'],\n"images": {images},\n"categories": {categories}}}\n')
            self.partial.replace(self.path)
        return self.path

    def write(self, text: str, mode: str = "a") -> None:
        try:
            with self.partial.open(mode, encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror or error}") from error


def to_json(record: Any) -> str:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"))
