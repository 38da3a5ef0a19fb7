"""What losses are divided by where several processes each see a part of a batch."""

import torch
import torch.distributed as dist
from torch import Tensor


def mean_of_processes(count: Tensor) -> Tensor:
    """The mean of a scalar over all processes that train together; by itself it is as it is.

    Gradients are averaged over processes, so a sum over this mean is learnt from as if all images
    were in one batch: an object counts the same in whichever process. Reference: reduce_mean of
    mmdetection 2.13, in the same losses. Every process must come here equally often; nothing is
    exchanged where no gradient is wanted.
    """
    together = dist.is_available() and dist.is_initialized()
    if not (together and torch.is_grad_enabled()):
        return count
    total = count.detach().clone().to(torch.promote_types(count.dtype, torch.float32))
    dist.all_reduce(total)
    return total / dist.get_world_size()
