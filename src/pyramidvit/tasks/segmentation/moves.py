"""Moving a picture together with its map of labels. Random numbers come from torch's generator."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from ...structures import UNLABELLED

TRIES = 10  # windows that are looked at for one with more than one class
Size = tuple[int, int]  # (H, W)


class View(NamedTuple):
    """What is seen of a file."""

    image: Any  # tv_tensors.Image, uint8 [3, H, W]
    labels: Any  # tv_tensors.Mask, int16 [H, W]; None when predicting

    @property
    def size(self) -> Size:
        return self.image.shape[1], self.image.shape[2]


def resize(view: View, size: Size) -> View:
    """Stretches to (H, W); the image bilinear without smoothing, as the reference's OpenCV does.

    Labels are those at the pixels' centres. OpenCV's nearest pixel is up to one further to the top
    left, where bilinear interpolation does not look.
    """
    if view.size == size:
        return view
    # Colour by colour, torch's kernel is slower, and fails where a single pixel is left.
    interleaved = view.image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    image = tv.resize(tv_tensors.Image(interleaved), list(size), antialias=False)
    if view.labels is None:
        return View(image, None)
    nearest = InterpolationMode.NEAREST_EXACT
    labels = tv.resize(view.labels.as_subclass(Tensor)[None], list(size), interpolation=nearest)
    return View(image, tv_tensors.Mask(labels[0]))


def crop(view: View, side: int, most: float) -> View:
    """A square window, or the image's own height or width where that is less.

    Windows are drawn anew, up to ten times, while one class has a share of `most` or more of the
    labelled pixels; what is drawn after that is taken as it is.
    """
    height, width = (min(side, own) for own in view.size)
    rooms = view.size[0] - height, view.size[1] - width
    top, left = draw_corner(rooms)
    if view.labels is not None and most < 1:
        for _ in range(TRIES):
            window = view.labels.as_subclass(Tensor)[top : top + height, left : left + width]
            if is_varied(window, most):
                break
            top, left = draw_corner(rooms)
    return View(*(x if x is None else tv.crop(x, top, left, height, width) for x in view))


def is_varied(labels: Tensor, most: float) -> bool:
    """Whether no class has a share of `most` or more of the labelled pixels."""
    counts = torch.bincount(labels[labels != UNLABELLED].long())
    return int((counts > 0).sum()) > 1 and int(counts.max()) < most * int(counts.sum())


def draw_corner(rooms: Size) -> Size:
    """(top, left) of a window, evenly from 0 to the room that there is, included."""
    top, left = (int(torch.randint(room + 1, ())) for room in rooms)
    return top, left
