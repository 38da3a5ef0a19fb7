"""Predictions as files that other programs read: maps of labels, and polygons."""

import contextlib
import csv
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...errors import UserError, nearest
from ...files import write_atomically
from ...structures import Classes, Origin, SegmentationPrediction
from .draw import palette
from .outlines import outline
from .polygon_files import CocoFile, open_geojson

FORMATS = ("png", "coco", "geojson")
PREDICTIONS = "predictions.json"
CLASSES = "classes.csv"


def open_results(
    folder: Path, classes: Classes, formats: Sequence[str]
) -> "SegmentationResultFiles":
    """Files that predictions are added to.

    "png": a map of labels for each picture, whose values are those of the data's own maps, or else
    its ids, where they are whole numbers up to 65535, and numbers of classes otherwise; 8 bits with
    the classes' colours, or 16 bits. `classes.csv` says what the values mean.

    "geojson": a feature collection for each picture, with a polygon for each region.

    "coco": `predictions.json`, with a polygon for each region of every picture.

    A background, the class that is called so, has no polygons. Those of large maps leave
    specks out: see `outlines`.

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
        """Writes a picture's files; returns their names by format, its number in COCO's file, and
        where polygons are not exact a note on that.

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
        found = outline(labels, background=self.classes.background)
        with contextlib.ExitStack() as files:
            writers = []
            if "geojson" in written:
                path = self.folder / written["geojson"]
                opened = open_geojson(path, origin, self.classes, found.note)
                writers.append(files.enter_context(opened))
            if self.coco is not None:
                writers.append(files.enter_context(self.coco.open_image(origin)))
                written["image_id"] = len(self.coco.images)
            for polygon in found.polygons:
                for write in writers:
                    write(polygon)
        return written | ({"note": found.note} if found.note else {})

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


def values_of(classes: Classes) -> np.ndarray:
    """What a map's pixels say for each class, [K]: uint8, or uint16 where one is above 255."""
    own = classes.written
    whole = len(own) == len(classes) and all(isinstance(v, int) and 0 <= v <= 65535 for v in own)
    values = np.asarray(own if whole else range(len(classes)), np.int64)
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
