"""How good a classifier is: everything follows from sums of whole numbers, so that any number of
processes gives the same figures to the last bit."""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ...structures import Batch, Classes, ClassPrediction, ClassTarget


class ClassificationMetrics:
    """Accuracies and mean loss over all images seen.

    Attributes:
        sums: "confusion" int64 [K, K] (true class, predicted class), "in_top5" and "loss" int64
            scalars; the loss is counted in units of 2**-32, since a sum of floats would depend on
            its order.
    """

    LOSS_UNIT = 2.0**-32

    def __init__(self, classes: Classes) -> None:
        self.num_classes = num_classes = len(classes)
        self.sums: dict[str, Tensor] = {
            "confusion": torch.zeros(num_classes, num_classes, dtype=torch.int64),
            "in_top5": torch.zeros((), dtype=torch.int64),
            "loss": torch.zeros((), dtype=torch.int64),
        }

    def update(
        self, logits: Tensor, predictions: Sequence[ClassPrediction], batch: Batch[ClassTarget]
    ) -> None:
        """Adds a batch of logits [B, K]; they say more than the predictions made of them."""
        logits = logits.detach().cpu().double()
        labels = torch.tensor([t.label for t in batch.targets])  # [B]
        top = logits.topk(min(5, self.num_classes)).indices  # [B, 5]
        losses = F.cross_entropy(logits, labels, reduction="none")
        ones = torch.ones_like(labels)
        self.sums["confusion"].index_put_((labels, top[:, 0]), ones, accumulate=True)
        self.sums["in_top5"] += (top == labels[:, None]).any(1).sum()
        self.sums["loss"] += (losses / self.LOSS_UNIT).round().long().sum()

    def state(self) -> dict[str, Tensor]:
        return self.sums

    def merge(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        """Takes the sums of all processes in place of its own."""
        for name in self.sums:
            self.sums[name] = torch.stack([state[name] for state in states]).sum(0)

    def compute(self) -> dict[str, float]:
        """The figures: accuracies in percent, the loss in nats; NaN where nothing was seen."""
        confusion = self.sums["confusion"]
        count = int(confusion.sum())
        seen = confusion.sum(1) > 0
        mean = self.per_class()[seen].mean()
        return {
            "images": count,
            "loss": round(int(self.sums["loss"]) * self.LOSS_UNIT / count, 6)
            if count
            else math.nan,
            "top1": 100 * int(confusion.diagonal().sum()) / count if count else math.nan,
            "top5": 100 * int(self.sums["in_top5"]) / count if count else math.nan,
            "mean_class": float(mean),
        }

    def per_class(self) -> Tensor:
        """Accuracy of each class in percent, float64 [K]; NaN for a class that was not seen."""
        confusion = self.sums["confusion"].double()
        return 100 * confusion.diagonal() / confusion.sum(1)
