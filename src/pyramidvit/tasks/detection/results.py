"""What `pvt predict` writes of all pictures together: COCO json with our answers as annotations."""

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from ...errors import UserError
from ...structures import Classes, DetectionPrediction, Origin
from .coco import box_areas
from .records import Found, pack_found, to_xywh

FORMATS = ("coco",)


class CocoFile:
    """`predictions.json`: images, annotations (with a score) and categories, as COCO has them.

    What is added goes to disk at once, into nameless files; the file itself appears when it is
    whole. Images are numbered from 1, in the order in which they come.

    Args:
        folder: Where it is written.
        classes: Their ids and names become the categories.
    """

    def __init__(self, folder: Path, classes: Classes) -> None:
        self.path = folder / "predictions.json"
        self.classes = classes
        self.images = Rows(folder)
        self.annotations = Rows(folder)

    def add(self, origin: Origin, prediction: DetectionPrediction) -> dict[str, Any]:
        """Takes a prediction; its JSON line is to say the number of the image."""
        number = self.images.count + 1
        height, width = origin.size
        image = {"id": number, "file_name": origin.name, "height": height, "width": width}
        self.images.add(image)
        for row in annotations_of(pack_found(prediction), origin.size, self.classes.ids):
            place = {"id": self.annotations.count + 1, "image_id": number}
            self.annotations.add(place | row)
        return {"image_id": number}

    def close(self) -> list[Path]:
        """Writes the file; returns its path.

        Raises:
            UserError: The disk is full.
        """
        partial = self.path.with_name(f".{self.path.name}.partial")
        try:
            with partial.open("w", encoding="ascii") as file:
                for name, rows in (("images", self.images), ("annotations", self.annotations)):
                    file.write('{"' if name == "images" else ', "')
                    file.write(f'{name}": [\n')
                    rows.copy_to(file)
                    file.write("\n]")
                file.write(f', "categories": {json.dumps(self.classes.to_records())}}}\n')
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise UserError(f"cannot write {self.path}: {error.strerror or error}") from error
        return [self.path]


class Rows:
    """JSON records with commas between them, in a file without a name: it goes with the process."""

    def __init__(self, folder: Path) -> None:
        self.count = 0
        self.file: IO[str] = tempfile.TemporaryFile("w+", encoding="ascii", dir=folder)  # noqa: SIM115

    def add(self, record: dict[str, Any]) -> None:
        self.file.write((",\n" if self.count else "") + json.dumps(record))
        self.count += 1

    def copy_to(self, file: IO[str]) -> None:
        self.file.seek(0)
        shutil.copyfileobj(self.file, file)
        self.file.close()


def annotations_of(
    found: Found, size: tuple[int, int], ids: Sequence[int | str]
) -> list[dict[str, Any]]:
    """COCO's annotations, but for their numbers; areas are those of masks where there are any."""
    areas = box_areas(found.boxes) if found.masks is None else found.mask_areas
    rows: list[dict[str, Any]] = [
        {
            "category_id": ids[label],
            "score": score,
            "bbox": [round(side, 2) for side in to_xywh(box)],
            "area": round(area, 2),
            "iscrowd": 0,
        }
        for label, score, box, area in zip(
            found.labels.tolist(), found.scores.tolist(), found.boxes, areas.tolist(), strict=True
        )
    ]
    for row, text in zip(rows, found.masks or (), strict=False):
        row["segmentation"] = {"size": list(size), "counts": text}
    return rows


def open_results(folder: Path, classes: Classes, formats: Sequence[str]) -> CocoFile:
    """The files of these formats, of which there is one."""
    assert tuple(formats) == FORMATS
    return CocoFile(folder, classes)
