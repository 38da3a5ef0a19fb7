"""A detector with torchvision's manners, for training loops that were written for its detectors.

Reference: torchvision.models.detection (`GeneralizedRCNN`, `RetinaNet`), whose inputs, outputs and
names of losses these are.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import UserError
from ...ops.masks import encode_masks, stretch, window_around
from ...structures import Batch, DetectionTarget, Origin, Sample, collate
from .heads.sparse_rcnn import SparseRCNN
from .loss import loss
from .moves import nearest_places
from .network import forward
from .outputs import RegionDetections
from .postprocess import of_image, to_file_frame
from .transforms import DIVISOR, MEAN, STD, fit_size

# Our names of losses and torchvision's.
DENSE_NAMES = {"classes": "classification", "boxes": "bbox_regression"}
REGION_NAMES = {
    "classes": "loss_classifier",
    "boxes": "loss_box_reg",
    "masks": "loss_mask",
    "proposal_classes": "loss_objectness",
    "proposal_boxes": "loss_rpn_box_reg",
}


class TorchvisionDetector(nn.Module):
    """A detector that takes and gives what torchvision's detectors take and give.

    Images are resized, normalised and padded inside. Labels count from 1 and 0 is the background,
    as torchvision has them: class k of the wrapped model is label k + 1, and where torchvision
    says `num_classes=K + 1`, the wrapped model has K.

    Args:
        model: A detector of this package, of any kind.
        short_side: What an image's short side is resized to, in pixels; None resizes nothing.
        long_side: What its long side may reach at most.
        mean: Of each channel, of values from 0 to 1.
        std: Likewise.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        short_side: int | None = 800,
        long_side: int = 1333,
        mean: Sequence[float] = MEAN,
        std: Sequence[float] = STD,
    ) -> None:
        super().__init__()
        if short_side is not None and not 1 <= short_side <= long_side:
            raise ValueError(f"short_side must be from 1 to {long_side}, got {short_side}")
        self.model = model
        self.num_classes = count_classes(model)
        self.short_side = short_side
        self.long_side = long_side
        self.mean = tuple(mean)
        self.std = tuple(std)

    def forward(
        self,
        images: Sequence[Tensor],
        targets: Sequence[dict[str, Tensor]] | None = None,
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Losses in training mode, detections in evaluation mode.

        Args:
            images: Float [C, H, W] from 0 to 1, of any sizes; they are computed in the type of the
                model's own weights.
            targets: In training one an image: `boxes` [n, 4] as (x0, y0, x1, y1) in its pixels,
                `labels` int64 [n] from 1, to learn masks `masks` [n, H, W], uint8 or bool. Objects
                with `iscrowd` [n] are passed over, other keys not read, and n may be 0. Boxes that
                reach out of their image are clipped.

        Returns:
            Scalars under torchvision's names, to be added up; or for each image `boxes` [m, 4] in
            its pixels, `labels` [m] from 1, `scores` [m], descending, and from a detector that
            draws masks `masks` [m, 1, H, W], from 0 to 1: from 0.5 on is object. Losses that
            torchvision's detectors do not have keep our names.

        Raises:
            UserError: Images or targets that are not as above; a box without an area, or wholly
                outside its image.
        """
        if not self.training:
            return self.detect(self.prepare(images, None))
        if targets is None or len(targets) != len(images):
            raise UserError("in training mode there must be targets, one for each image")
        batch = self.prepare(images, targets)
        terms = loss(forward(self.model, batch, learn=True), batch)
        names = REGION_NAMES if "proposal_classes" in terms else DENSE_NAMES
        return {names.get(name, name): term for name, term in terms.items()}

    def prepare(
        self, images: Sequence[Tensor], targets: Sequence[dict[str, Tensor]] | None
    ) -> Batch[DetectionTarget]:
        """The batch that the detector works on; its origins are the given images."""
        if not images:
            raise UserError("there must be an image or more")
        samples = []
        dtype = next(self.model.parameters()).dtype
        for i, image in enumerate(images):
            check_image(image, len(self.mean), i)
            old = (image.shape[1], image.shape[2])
            new = fit_size(old, self.short_side, self.long_side) if self.short_side else old
            target = None
            if targets is not None:
                target = read_target(targets[i], old, new, self.num_classes, i)
            image = self.normalise(image.to(dtype), new)
            samples.append(Sample(image=image, target=target, origin=Origin(name=str(i), size=old)))
        return collate(samples, divisor=DIVISOR)

    def normalise(self, image: Tensor, size: tuple[int, int]) -> Tensor:
        """An image [C, H, W] of `size` (H, W); bilinear without smoothing, as in training here."""
        mean, std = (image.new_tensor(numbers)[:, None, None] for numbers in (self.mean, self.std))
        if (image.shape[1], image.shape[2]) != size:
            image = F.interpolate(image[None], size, mode="bilinear")[0]
        return (image - mean) / std

    def detect(self, batch: Batch[DetectionTarget]) -> list[dict[str, Tensor]]:
        """Detections in the pixels of the given images, on their device."""
        outputs = forward(self.model, batch, learn=False)
        assert isinstance(outputs, RegionDetections)
        device = batch.images.device
        found = []
        for i, (size, origin) in enumerate(zip(batch.sizes, batch.origins, strict=True)):
            chosen, mask_logits = of_image(outputs, i)
            inside = to_file_frame(RegionDetections(chosen, None), size, origin)
            record = {
                "boxes": inside.boxes,
                "labels": inside.labels + 1,
                "scores": inside.scores,
            }
            if mask_logits is not None:
                shares = mask_logits.sigmoid().cpu()
                record["masks"] = draw_shares(shares, inside.boxes, origin.size)[:, None]
            found.append({name: value.to(device) for name, value in record.items()})
        return found


def count_classes(model: nn.Module) -> int:
    """The classes that a detector tells apart, without the background.

    Raises:
        UserError: It is no detector of this package.
    """
    head: Any = getattr(model, "bbox_head", None)
    if head is None:
        head = getattr(getattr(model, "roi_head", None), "bbox_head", None)
    first: Any = head[0] if isinstance(head, nn.ModuleList) else head  # of several stages
    if hasattr(first, "num_classes"):
        return int(first.num_classes)
    if not hasattr(first, "fc_cls"):
        raise UserError(f"{type(model).__name__} is no detector that pyramidvit.create_model built")
    return int(first.fc_cls.out_features) - (not isinstance(model, SparseRCNN))


def check_image(image: Any, channels: int, index: int) -> None:
    """Refuses what is no image for the detector.

    Raises:
        UserError: Saying what it is.
    """
    if not isinstance(image, Tensor) or image.ndim != 3 or len(image) != channels:
        given = list(image.shape) if isinstance(image, Tensor) else type(image).__name__
        raise UserError(f"image {index} must be a tensor [{channels}, H, W], got {given}")
    if not image.is_floating_point() or not image.numel():
        raise UserError(
            f"image {index} must hold floats from 0 to 1, got {image.dtype} {list(image.shape)}"
        )


def read_target(
    target: dict[str, Tensor],
    old: tuple[int, int],
    new: tuple[int, int],
    num_classes: int,
    index: int,
) -> DetectionTarget:
    """A target for an image that is resized from `old` to `new` (H, W).

    Raises:
        UserError: It is not as `TorchvisionDetector.forward` says.
    """
    boxes, labels = check_objects(target, old, num_classes, index)
    crowd = target.get("iscrowd")
    if crowd is not None:
        check_shape("iscrowd", crowd, (len(boxes),), index)
    masks = target.get("masks")
    if masks is not None:
        check_shape("masks", masks, (len(boxes), *old), index)
        rows, columns = (
            nearest_places(a, b).to(masks.device) for a, b in zip(old, new, strict=True)
        )
        masks = masks[:, rows[:, None], columns].bool()
    scale = boxes.new_tensor((new[1] / old[1], new[0] / old[0])).repeat(2)
    return DetectionTarget(
        boxes=boxes * scale,
        labels=labels - 1,
        crowd=torch.zeros_like(labels, dtype=torch.bool) if crowd is None else crowd.bool(),
        masks=None if masks is None else encode_masks(masks).to(boxes.device),
    )


def check_shape(name: str, value: Any, shape: tuple[int, ...], index: int) -> None:
    """Refuses an entry of a target that is no tensor of this shape.

    Raises:
        UserError: Saying what it is.
    """
    if not isinstance(value, Tensor) or tuple(value.shape) != shape:
        given = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise UserError(f"target {index}: {name} must be a tensor {list(shape)}, got {given}")


def check_objects(
    target: dict[str, Tensor], size: tuple[int, int], num_classes: int, index: int
) -> tuple[Tensor, Tensor]:
    """The boxes, float32 [n, 4] within an image of `size` (H, W), and the labels, int64 [n] from 1.

    Raises:
        UserError: One is missing, of another shape or another type, a box has no area or none in
            the image, a label is out of range.
    """
    for name in ("boxes", "labels"):
        if not isinstance(target.get(name), Tensor):
            raise UserError(f"target {index} has no tensor {name!r}")
    boxes, labels = target["boxes"], target["labels"]
    if boxes.ndim != 2 or boxes.shape[1] != 4 or labels.shape != boxes.shape[:1]:
        raise UserError(
            f"target {index}: boxes must be [n, 4] and labels [n], got {list(boxes.shape)} and"
            f" {list(labels.shape)}"
        )
    if labels.dtype == torch.bool or labels.is_floating_point() or labels.is_complex():
        raise UserError(f"target {index}: labels must be whole numbers, got {labels.dtype}")
    if boxes.dtype == torch.bool or boxes.is_complex():
        raise UserError(f"target {index}: boxes must be numbers, got {boxes.dtype}")
    boxes, labels = boxes.float(), labels.long()
    has_area = (boxes[:, 2:] > boxes[:, :2]).all(dim=1) & boxes.isfinite().all(dim=1)
    if not has_area.all():
        box = boxes[~has_area][0].tolist()
        raise UserError(f"target {index}: box {box} has no area (x0, y0, x1, y1)")
    height, width = size
    clipped = torch.minimum(boxes.clamp(min=0), boxes.new_tensor((width, height, width, height)))
    is_inside = (clipped[:, 2:] > clipped[:, :2]).all(dim=1)
    if not is_inside.all():
        box = boxes[~is_inside][0].tolist()
        raise UserError(f"target {index}: box {box} lies outside its image of {width}x{height}")
    wrong = labels[(labels < 1) | (labels > num_classes)]
    if len(wrong):
        raise UserError(
            f"target {index}: labels must be from 1 to {num_classes} (0 is the background),"
            f" got {wrong[0].item()}"
        )
    return clipped, labels


def draw_shares(shares: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """What cells [m, S, S] say, stretched over boxes [m, 4] in images [m, H, W] of `size`."""
    drawn = shares.new_zeros(len(shares), *size)
    for number, (cells, box) in enumerate(zip(shares, boxes, strict=True)):
        x0, y0, x1, y1 = window_around(box[None], size, margin=1)
        if x1 > x0 and y1 > y0:
            down = stretch(y0, y1, box[1], box[3], len(cells))  # [h, S]
            across = stretch(x0, x1, box[0], box[2], len(cells)).T  # [S, w]
            drawn[number, y0:y1, x0:x1] = down @ cells @ across
    return drawn
