"""Classes of unequal size: weighing them in the loss by their shares of the pixels."""

from typing import Literal

from torch import Tensor


def weights_of(shares: Tensor, balance: Literal["median", "inverse"]) -> tuple[float, ...]:
    """The classes' weights in the loss, K numbers rounded to six digits, as they are recorded.

    "median" divides the median of the shares by each one (after median frequency balancing, Eigen
    and Fergus 2015), which leaves a class of middling size as it is. "inverse" is 1 / (K share), 1
    on average over the pixels, so that the loss stays as large as without. A class without pixels
    does not count among the K and gets the weight 1.

    Args:
        shares: float64 [K] of the labelled pixels.
    """
    present = shares[shares > 0]
    if not len(present):
        return (1.0,) * len(shares)
    wanted = float(present.quantile(0.5)) if balance == "median" else 1 / len(present)
    return tuple(float(f"{wanted / s:.6g}") if s > 0 else 1.0 for s in shares.tolist())
