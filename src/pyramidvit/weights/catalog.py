"""The catalog of published weights: one record a file, and finding a record by name."""

from dataclasses import dataclass
from typing import Literal

from ..errors import UserError, nearest
from . import rows

RELEASE = "https://github.com/whai362/PVT/releases/download/v2"
OPENMMLAB = "https://download.openmmlab.com/mmdetection/v2.0/pvt"
DRIVE = "https://drive.google.com/file/d"


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A published file of weights, or a hub repository that holds one.

    Attributes:
        name: What users type; no two records share one.
        model: Our name of the model; of the backbone, for a detector or a segmenter.
        head: Our name of the head; None for a classifier.
        source: Whose names its parameters have.
        place: Where it lies: "url" a file on a server, "hub" a repository on the Hugging Face
            hub, "drive" on Google Drive, from where only people can fetch it.
        address: A full address, or a repository's id (owner/name).
        metric, score: The published score in percent, as its source prints it.
        mask_ap: Published mask AP, for heads with masks.
        image_size: Where the score was measured: side of a classifier's square input, or the
            shorter side of a detector's or segmenter's, in pixels.
        crop_share: Where the score was measured: side of the crop over that of the resized
            picture; None where nothing is cropped.
        sha256: Digest of the weights in lower-case hex, or its first 8 digits; for a repository,
            of its model.safetensors. None where nobody states it.
        size: Size of the file as published; None where nobody states it.
        licence: SPDX identifier; None where none was found.
        note: What else one should know.
    """

    name: str
    model: str
    task: Literal["classification", "detection", "segmentation"]
    head: str | None = None
    source: Literal["official", "timm", "transformers", "mmdetection"]
    place: Literal["url", "hub", "drive"]
    address: str
    metric: Literal["top-1", "box AP", "mIoU"]
    score: float
    mask_ap: float | None = None
    image_size: int
    crop_share: float | None = None
    sha256: str | None = None
    size: str | None = None
    licence: str | None = "Apache-2.0"
    note: str | None = None

    @property
    def file(self) -> str | None:
        """The file's name; None for a repository, and on Drive, where addresses tell no names."""
        return self.address.rsplit("/", 1)[1] if self.place == "url" else None


def official() -> list[Published]:
    """The classifiers of the official release."""
    return [
        Published(
            name=model,
            model=model,
            task="classification",
            source="official",
            place="url",
            address=f"{RELEASE}/{model}.pth",
            metric="top-1",
            score=score,
            image_size=224,
            crop_share=0.875,
            sha256=rows.DIGESTS.get(model),
            size=size,
        )
        for model, score, size in rows.OFFICIAL
    ]


def timm() -> list[Published]:
    return [
        Published(
            name=f"{model}.in1k",
            model=model,
            task="classification",
            source="timm",
            place="hub",
            address=f"timm/{model}.in1k",
            metric="top-1",
            score=score,
            image_size=224,
            crop_share=0.9,
            sha256=rows.DIGESTS.get(f"{model}.in1k"),
            size=size,
        )
        for model, score, size in rows.TIMM
    ]


def transformers() -> list[Published]:
    """Their scores are the official ones, which transformers' documentation repeats."""
    scores = {model: score for model, score, _ in rows.OFFICIAL}
    return [
        Published(
            name=repository,
            model=model,
            task="classification",
            source="transformers",
            place="hub",
            address=repository,
            metric="top-1",
            score=scores[model],
            image_size=224,
            crop_share=0.875,
            sha256=rows.DIGESTS.get(repository),
            size=size,
            licence=licence,
        )
        for repository, model, size, licence in rows.TRANSFORMERS
    ]


def mmdetection() -> list[Published]:
    return [
        Published(
            name=name,
            model=model,
            task="detection",
            head="retinanet",
            source="mmdetection",
            place="url",
            address=f"{OPENMMLAB}/{name}/{name}_{tail}.pth",
            metric="box AP",
            score=score,
            image_size=800,
            sha256=tail[-8:],  # OpenMMLab's habit: the digest's first 8 digits end the file's name
        )
        for name, model, score, tail in rows.MMDETECTION
    ]


def drive_detection() -> list[Published]:
    slip = "the official table gives the address of RetinaNet's file here"
    return [
        Published(
            name=f"{head}_{name}",
            model=model,
            task="detection",
            head=head,
            source="official",
            place="drive",
            address=f"{DRIVE}/{key}/view",
            metric="box AP",
            score=score,
            mask_ap=mask_ap,
            image_size=640 if name.endswith("_640") else 800,
            note=slip if (head, model) == ("mask_rcnn", "pvt_large") else None,
        )
        for head, of_head in rows.DRIVE_DETECTION.items()
        for model, name, score, mask_ap, key in of_head
    ]


def drive_segmentation() -> list[Published]:
    return [
        Published(
            name=name,
            model=model,
            task="segmentation",
            head="semantic_fpn",
            source="official",
            place="drive",
            address=f"{DRIVE}/{key}/view",
            metric="mIoU",
            score=score,
            image_size=512,
        )
        for model, name, score, key in rows.DRIVE_SEGMENTATION
    ]


CATALOG: tuple[Published, ...] = (
    *official(),
    *timm(),
    *transformers(),
    *mmdetection(),
    *drive_detection(),
    *drive_segmentation(),
)


def find_published(name: str) -> Published:
    """The record of a name, a hub repository's id, a file's name or an address.

    "pvt_v2_b0" is the official release, "pvt_v2_b0.in1k" or "timm/pvt_v2_b0.in1k" is timm's,
    "OpenGVLab/pvt_v2_b0" transformers'; a prefix "hf-hub:" is allowed.

    Raises:
        UserError: Nothing of that name was published; the nearest names are told.
    """
    asked = name.removeprefix("hf-hub:")
    for published in CATALOG:
        if asked in (published.name, published.address, published.file):
            return published
    known = [published.name for published in CATALOG]
    raise UserError(
        f"no published weights are named {name}; nearest: {nearest(asked, known)}"
        " (pvt models --weights)"
    )


def published_for(model: str) -> Published:
    """The classifier's weights that `pretrained=True` takes for a model: the official release.

    Raises:
        UserError: None were published for the model.
    """
    for published in official():
        if published.model == model:
            return published
    known = [row[0] for row in rows.OFFICIAL]
    raise UserError(f"no weights were published for {model}; nearest: {nearest(model, known)}")
