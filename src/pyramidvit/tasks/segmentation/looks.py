"""Looking at an image several times: in windows, in several sizes, mirrored.

Reference: mmseg 0.13 (`slide_inference` and `aug_test` of its encoder-decoder). Windows average
logits, sizes and mirrored images average probabilities. Each size is made from the file: an image
that was shrunk and enlarged again shows nothing new.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import UserError
from ...structures import Sample, SegmentationPrediction, collate
from ...task import Looks
from .outputs import SegmentationOutputs
from .postprocess import Look, likeliest_classes, stretch
from .transforms import DIVISOR, eval_transform

# The least that a segmenter can look at; scaled images are stretched up to a multiple of it, as by
# the reference's AlignResize.
STEP = 32


def look_again(model: nn.Module, looks: Looks) -> nn.Module:
    """A segmenter that averages over several looks; the model itself if there is only one.

    Its sizes are made of the images that it is given. Where these were not made of the file's own
    pixels, `predict_sizes` sees more.

    Raises:
        UserError: The looks make no sense.
    """
    check_looks(looks)
    if not looks.window and looks.scales == (1.0,) and not looks.flip:
        return model
    return ManyLooks(model, looks)


def check_looks(looks: Looks) -> None:
    if looks.window and looks.window < STEP:
        raise UserError(f"a window of {looks.window} pixels: use 0 (none), or {STEP} or more")
    if not 0 <= looks.overlap < 1:
        raise UserError(f"windows that overlap by {looks.overlap:g}: use 0 to below 1")
    if not looks.scales or not all(0 < scale < float("inf") for scale in looks.scales):
        raise UserError(f"scales {looks.scales}: name one or more, all above 0")


class ManyLooks(nn.Module):
    """Answers with averages, at the size of its images.

    An answer takes 4 bytes a class and pixel, and two or three of the largest are there at a time.

    Attributes:
        model: From images to `SegmentationOutputs`.
        looks: What is averaged.
    """

    def __init__(self, model: nn.Module, looks: Looks) -> None:
        super().__init__()
        self.model = model
        self.looks = looks

    def forward(self, images: Tensor) -> SegmentationOutputs:
        """From [B, 3, H, W], padded as they may be, to logarithms of probabilities."""
        size = (images.shape[2], images.shape[3])
        total = torch.zeros(())
        for view, mirrored in self.views(images):
            logits = self.logits(view)
            logits = logits.flip(3) if mirrored else logits
            shares = stretch(logits, size).softmax(dim=1)
            total = total.add_(shares) if total.ndim else shares
        tiny = torch.finfo(torch.float32).tiny  # the logarithm of zero cannot be resized
        mean = total.div_(len(self.looks.scales) * (1 + self.looks.flip))
        return SegmentationOutputs(logits=mean.clamp_(min=tiny).log_())

    def views(self, images: Tensor) -> Iterator[tuple[Tensor, bool]]:
        """The images in each size, and whether mirrored."""
        for scale in self.looks.scales:
            view = images
            if scale != 1:
                height, width = (-(-round(s * scale) // STEP) * STEP for s in images.shape[2:])
                view = stretch(images, (max(STEP, height), max(STEP, width)))
            yield view, False
            if self.looks.flip:
                yield view.flip(3), True

    def logits(self, images: Tensor) -> Tensor:
        """float32 [B, K, H, W], looked at whole or in windows."""
        if not self.looks.window:
            return stretch(self.model(images).logits, (images.shape[2], images.shape[3]))
        total = seen = torch.zeros(())
        for rows, columns in windows(images, self.looks.window, self.looks.overlap):
            part = images[:, :, rows, columns]
            logits = stretch(self.model(part).logits, (part.shape[2], part.shape[3]))
            if not total.ndim:
                total = logits.new_zeros(*logits.shape[:2], *images.shape[2:])  # [B, K, H, W]
                seen = logits.new_zeros(images.shape[2:])  # [H, W]
            total[:, :, rows, columns] += logits
            seen[rows, columns] += 1
        return total.div_(seen)


def predict_sizes(
    model: nn.Module, sample: Sample[Any], input_record: dict[str, Any], scales: Sequence[float]
) -> SegmentationPrediction:
    """The labels of a picture, on the CPU, by probabilities averaged over several sizes of it.

    Args:
        model: From images to `SegmentationOutputs`; used in the mode that it is in.
        sample: With a picture of any size; its target is not looked at.
        input_record: What the model's input must be like.
        scales: Sizes, as shares of the record's, each above 0.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    views = []
    with torch.inference_mode():
        for scale in scales:
            sides = {k: max(1, int(input_record[k] * scale)) for k in ("short_side", "long_side")}
            batch = collate([eval_transform(input_record | sides)(sample)], divisor=DIVISOR)
            logits = model(batch.images.to(device)).logits[0]  # [K, h, w]
            views.append(
                Look(logits, (batch.images.shape[2], batch.images.shape[3]), batch.sizes[0])
            )
        labels = likeliest_classes(views, sample.origin.size).cpu()
    return SegmentationPrediction(labels=labels)


def windows(images: Tensor, side: int, overlap: float) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of the windows that cover images [B, 3, H, W]."""
    step = max(1, round(side * (1 - overlap)))
    for y in starts(images.shape[2], side, step):
        for x in starts(images.shape[3], side, step):
            yield slice(y, y + side), slice(x, x + side)


def starts(length: int, side: int, step: int) -> list[int]:
    """Where windows start along `length` pixels: the last one is shifted back to end within.

    A side longer than that gives the one window that there can be.
    """
    last = max(0, length - side)
    return [min(start, last) for start in range(0, last + step, step)]
