"""Cross entropy with soft targets."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ...structures import Batch, MixedTarget


def loss(logits: Tensor, batch: Batch[MixedTarget]) -> dict[str, Tensor]:
    """Mean over the batch of -sum(weights * log softmax(logits)), in float32.

    Args:
        logits: [B, K].
        batch: Its targets hold weights [K] each.
    """
    weights = torch.stack([t.weights for t in batch.targets])  # [B, K]
    return {"cross_entropy": F.cross_entropy(logits.float(), weights)}
