"""On which device a kernel is started."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def on_device_of(x: Tensor) -> AbstractContextManager[object]:
    """Makes the GPU of `x` the current one; Triton's interpreter runs on a CPU and needs none."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()
