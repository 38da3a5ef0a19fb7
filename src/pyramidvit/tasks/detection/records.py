"""What evaluation keeps of an image: columns of numbers, and masks as COCO's text.

All is in the frame of the file. A mask takes some hundred bytes so; as runs it would take ten times
that, and COCO's validation images have half a million of them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...data.outlines import to_coco_runs, unpack_runs
from ...ops.masks import join_masks, mask_areas
from ...structures import DetectionPrediction, DetectionTarget, Masks
from .truth import AnnotatedOrigin


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a detector found in an image.

    Attributes:
        boxes: float64 [m, 4].
        labels: int64 [m].
        scores: float64 [m], descending.
        masks: One a box; None from a detector that draws none.
        mask_areas: float64 [m], in pixels; zeros without masks.
    """

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    masks: tuple[str, ...] | None
    mask_areas: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What the annotation says.

    Attributes:
        boxes: float64 [n, 4].
        labels: int64 [n].
        crowd: bool [n].
        areas: float64 [n]: the annotation's own, else the mask's, else the box's.
        masks: One an object; None where the data has none.
    """

    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray
    masks: tuple[str, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """An image that was looked at.

    Attributes:
        id: What the data calls it.
        name: Its file.
        size: (H, W) of the file's picture.
        picture: A PNG file's content where the image has no file.
    """

    id: int | str
    name: str
    size: tuple[int, int]
    found: Found
    truth: Truth
    picture: bytes | None = None

    @property
    def order(self) -> tuple[bool, int, str, str]:
        """COCO ranks equal scores by image id: numbers first, then names."""
        text = isinstance(self.id, str)
        return text, 0 if text else int(self.id), str(self.id), self.name


def record_image(prediction: DetectionPrediction, origin: AnnotatedOrigin) -> ImageRecord:
    """Packs a prediction and the truth it is to be held against."""
    return ImageRecord(
        id=origin.id,
        name=origin.name,
        size=origin.size,
        found=pack_found(prediction),
        truth=pack_truth(origin.truth, origin.areas),
        picture=origin.picture,
    )


def pack_found(prediction: DetectionPrediction) -> Found:
    """The rows by descending score; rows of one score stay in their order."""
    order = torch.argsort(prediction.scores.cpu(), descending=True, stable=True).numpy()
    masks, areas = pack_masks(prediction.masks)
    boxes = as_float64(prediction.boxes)
    return Found(
        boxes=boxes[order],
        labels=prediction.labels.cpu().numpy()[order],
        scores=as_float64(prediction.scores)[order],
        masks=None if masks is None else tuple(masks[k] for k in order),
        mask_areas=np.zeros(len(boxes)) if areas is None else areas[order],
    )


def pack_truth(target: DetectionTarget, written: np.ndarray | None) -> Truth:
    boxes = as_float64(target.boxes)
    masks, areas = pack_masks(target.masks)
    if areas is None:
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    if written is not None:
        areas = np.where(np.isfinite(written), written, areas)
    return Truth(
        boxes=boxes,
        labels=target.labels.cpu().numpy(),
        crowd=target.crowd.cpu().numpy(),
        areas=areas,
        masks=masks,
    )


def pack_masks(masks: Masks | None) -> tuple[tuple[str, ...] | None, np.ndarray | None]:
    """COCO's text of each mask, and their areas float64 [n]."""
    if masks is None:
        return None, None
    texts = tuple(str(record["counts"]) for record in to_coco_runs(masks))
    return texts, mask_areas(masks).cpu().numpy().astype(np.float64)


def as_float64(values: torch.Tensor) -> np.ndarray:
    array: np.ndarray = values.detach().cpu().double().numpy()
    return array


def unpack_masks(texts: tuple[str, ...], size: tuple[int, int]) -> Masks:
    """Masks of `size` (H, W) again."""
    runs = [torch.from_numpy(unpack_runs(text.encode("ascii"))) for text in texts]
    parts = [
        Masks(size=size, counts=r, num_runs=torch.tensor([len(r)], dtype=torch.int64)) for r in runs
    ]
    return join_masks(size, parts)


def show_found(image: ImageRecord) -> DetectionPrediction:
    """A record's prediction, to be drawn."""
    found = image.found
    return DetectionPrediction(
        boxes=torch.from_numpy(found.boxes).float(),
        labels=torch.from_numpy(found.labels),
        scores=torch.from_numpy(found.scores).float(),
        masks=None if found.masks is None else unpack_masks(found.masks, image.size),
    )


def show_truth(image: ImageRecord) -> DetectionTarget:
    """A record's truth, to be drawn."""
    truth = image.truth
    return DetectionTarget(
        boxes=torch.from_numpy(truth.boxes).float(),
        labels=torch.from_numpy(truth.labels),
        crowd=torch.from_numpy(truth.crowd),
        masks=None if truth.masks is None else unpack_masks(truth.masks, image.size),
    )


def to_json(image: ImageRecord, ids: tuple[int | str, ...], *, masks: bool) -> list[dict[str, Any]]:
    """COCO's result records of an image with the data's own ids, of its boxes or of its masks.

    Never both in one record: COCO's tools would then take a mask's area for its box's. Numbers are
    whole, so that scoring the file gives the same figures again.
    """
    found = image.found
    shapes: list[dict[str, Any]]
    if masks:
        texts = found.masks or ()
        shapes = [{"segmentation": {"size": list(image.size), "counts": t}} for t in texts]
    else:
        shapes = [{"bbox": to_xywh(box)} for box in found.boxes]
    labels, scores = found.labels.tolist(), found.scores.tolist()
    return [
        {"image_id": image.id, "category_id": ids[label], **shape, "score": score}
        for label, score, shape in zip(labels, scores, shapes, strict=True)
    ]


def to_xywh(box: np.ndarray) -> list[float]:
    """COCO's corner, width and height from (x0, y0, x1, y1)."""
    x0, y0, x1, y1 = box.tolist()
    return [x0, y0, x1 - x0, y1 - y0]
