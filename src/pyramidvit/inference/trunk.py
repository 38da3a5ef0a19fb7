"""What stands in a model in the place of a trunk that was prepared for inference."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..backbones.trunk import Trunk
from ..errors import UserError
from ..nn.bounds import Bounds

Shape = tuple[int, ...]  # of images: (B, C, H, W)
Outputs = Tensor | Sequence[Tensor]
Run = Callable[[Tensor], Outputs]  # images, float32 [B, C, H, W]


class PreparedTrunk(nn.Module):
    """Gives what a trunk gives, in float32 and without gradients; always in evaluation mode.

    Whatever else a trunk has, such as `feature_info` and `num_classes`, is that of `whole`.

    Args:
        whole: The trunk, for all images that nothing else was prepared for.
        runs: Shapes of images to what was prepared for them. A batch that is a multiple of one or
            more of them is cut into pieces of the largest.
    """

    def __init__(self, whole: Trunk, runs: Mapping[Shape, Run]) -> None:
        super().__init__()
        self.whole = whole
        self.runs = dict(sorted(runs.items(), key=lambda item: item[0], reverse=True))
        self.dtype = next(whole.parameters()).dtype
        self.train(False)

    def forward(self, images: Tensor) -> Any:
        """Maps float32 images [B, C, H, W] to what the trunk gives."""
        for shape, run in self.runs.items():
            if shape[1:] == images.shape[1:] and images.shape[0] % shape[0] == 0:
                return compute(run, images.float(), shape[0])
        return compute(self.whole, images.to(self.dtype), images.shape[0])

    def forward_padded(self, images: Tensor, bounds: Bounds | None) -> Any:
        """As the trunk's method; nothing is prepared for images padded further than alone."""
        if bounds is None:
            return self.forward(images)
        images = images.to(self.dtype)
        return compute(lambda x: self.whole.forward_padded(x, bounds), images, images.shape[0])

    def train(self, mode: bool = True) -> "PreparedTrunk":
        """Stays in evaluation mode, whatever the model around it is put into."""
        return super().train(False)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("whole"), name)


def compute(run: Run, images: Tensor, piece: int) -> Any:
    """What `run` gives for images [B, C, H, W], asked for `piece` of them at a time; float32."""
    with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        found = [run(part) for part in torch.split(images, piece)]
    if isinstance(found[0], Tensor):
        return join(found)
    return [join(maps) for maps in zip(*found, strict=True)]


def check_device(trunk: Trunk, route: str) -> None:
    """Refuses a model on a GPU for a route of the CPU.

    Raises:
        UserError: Naming both.
    """
    device = next(trunk.parameters()).device
    if device.type != "cpu":
        raise UserError(f"route {route} is for the CPU, and the model is on {device}")


def join(parts: Sequence[Any]) -> Tensor:
    joined: Tensor = parts[0] if len(parts) == 1 else torch.cat(list(parts))
    return joined.float()
