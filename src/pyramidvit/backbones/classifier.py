"""What both families share around their head: pooling, logits, intermediates, pruning.

The methods and their arguments are timm's. Abstract: see `PVTv1Classifier` and `PVTv2Classifier`.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from .features import pick_stages
from .trunk import Trunk


class Classifier(Trunk):
    """A trunk under a linear head: logits [B, num_classes] from images [B, in_chans, H, W].

    Attributes:
        pools: The ways to pool that the family has, the published one first, none ("") last.
    """

    pools: tuple[str, ...]
    head: nn.Module
    norm: nn.Module  # of the last tokens, in v1; v2 has one a stage

    def add_head(self, num_classes: int, drop_rate: float, global_pool: str) -> None:
        """Finishes a model whose stages are built."""
        self.num_classes = num_classes
        self.global_pool = global_pool
        self.head_drop = nn.Dropout(drop_rate)
        self.pretrained_cfg |= {"num_classes": num_classes, "classifier": "head"}
        self.reset_classifier(num_classes, global_pool)

    def options(self) -> dict[str, Any]:
        return {
            "num_classes": self.num_classes,
            "in_chans": self.in_chans,
            "drop_path_rate": self.drop_path_rate,
            "drop_rate": self.head_drop.p,
            "global_pool": self.global_pool,
        }

    def pool(self, features: Tensor) -> Tensor:
        """One vector [B, C] an image from `forward_features`; with pooling "" all of them."""
        raise NotImplementedError

    def forward_features(self, images: Tensor) -> Tensor:
        """The last normalised features, from which `forward_head` makes logits."""
        raise NotImplementedError

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits [B, num_classes] from `forward_features`, or with `pre_logits` their input."""
        pooled = self.head_drop(self.pool(features))  # [B, C]
        logits: Tensor = self.head(pooled)  # [B, num_classes]
        return pooled if pre_logits else logits

    def forward(self, images: Tensor) -> Tensor:
        """Maps images [B, in_chans, H, W], H and W from 32 up, to logits [B, num_classes]."""
        return self.forward_head(self.forward_features(images))

    def forward_all(self, images: Tensor, norm: bool) -> tuple[Tensor, list[Tensor]]:
        """`forward_features` together with all maps."""
        raise NotImplementedError

    def forward_intermediates(
        self,
        images: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The final features and the maps of chosen stages, as timm's method of that name.

        Args:
            images: [B, in_chans, H, W].
            indices: Stages 0 to 3, negative from the end; a number n means the last n; None all.
            norm: Applies the final norm to the last map (v1; a v2 map is always normalised).
            stop_early: Runs no stage beyond the last one asked for; with `intermediates_only`.
            output_fmt: Only "NCHW".
            intermediates_only: Returns the maps alone.

        Returns:
            (features, maps) or maps; a map is [B, C_i, H / stride_i, W / stride_i].

        Raises:
            ValueError: Another `output_fmt`, a stage outside 0 to 3, or `stop_early` with features.
        """
        if output_fmt != "NCHW":
            raise ValueError(f'output_fmt must be "NCHW", got {output_fmt!r}')
        if stop_early and not intermediates_only:
            raise ValueError("stop_early leaves no final features: set intermediates_only too")
        wanted = pick_stages(indices, self.num_stages)
        if stop_early and max(wanted) < 3:
            maps = self.forward_maps(images, max(wanted) + 1)
            return [maps[i] for i in wanted]
        features, maps = self.forward_all(images, norm)
        chosen = [maps[i] for i in wanted]
        return chosen if intermediates_only else (features, chosen)

    def prune_intermediate_layers(
        self,
        indices: int | Sequence[int] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> list[int]:
        """Takes away what the maps of chosen stages do not need, as timm's method of that name.

        Where stages go, the features end at the last map left: `num_features` is its width, and
        head and pooling go too; `reset_classifier(n, "avg")` puts new ones there.

        Args:
            indices: As in `forward_intermediates`.
            prune_norm: Takes v1's last norm away.
            prune_head: Takes head and pooling away.

        Returns:
            The chosen stages, 0 to 3.
        """
        wanted = pick_stages(indices, self.num_stages)
        shorter = max(wanted) + 1 < self.num_stages
        if shorter:
            self.drop_stages(max(wanted) + 1)
            self.pools = ("avg", "")
        if (shorter or prune_norm) and hasattr(self, "norm"):
            self.norm = nn.Identity()
        if shorter or prune_head:
            self.reset_classifier(0, "")
        return wanted

    def get_classifier(self) -> nn.Module:
        """The head: a linear layer, or an identity where `num_classes` is 0."""
        return self.head

    def set_pool(self, global_pool: str) -> None:
        """Pools in another way, and leaves the head as it is; errors as `reset_classifier`."""
        self.check_pool(global_pool, self.num_classes)
        self.global_pool = global_pool

    def check_pool(self, global_pool: str, num_classes: int) -> None:
        if global_pool not in self.pools:
            raise ValueError(f"global_pool must be one of {self.pools}, got {global_pool!r}")
        if num_classes > 0 and not global_pool:
            raise ValueError(f"logits need a global_pool: {' or '.join(self.pools[:-1])}")

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Puts a fresh head in place.

        Args:
            num_classes: Width of the logits; 0 leaves pooled features.
            global_pool: As for the class; None keeps the present pooling.

        Raises:
            ValueError: A pooling that there is not, or logits without one.
        """
        pool = self.global_pool if global_pool is None else global_pool
        self.check_pool(pool, num_classes)
        if num_classes != self.num_classes:
            self.class_names = None
        like = next(self.parameters())
        head = build_head(self.num_features, num_classes).to(like.device, like.dtype)
        self.num_classes, self.global_pool = num_classes, pool
        self.head = head.train(self.training)


def build_head(dim: int, num_classes: int) -> nn.Module:
    """A linear classifier with the published initialisation, or an identity for 0 classes."""
    if num_classes < 0:
        raise ValueError(f"num_classes must be 0 or more, got {num_classes}")
    if num_classes == 0:
        return nn.Identity()
    head = nn.Linear(dim, num_classes)
    nn.init.trunc_normal_(head.weight, std=0.02)
    nn.init.zeros_(head.bias)
    return head
