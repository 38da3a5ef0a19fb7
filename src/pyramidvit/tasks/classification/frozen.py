"""Which parameters `freeze` and `probe` leave as they are."""

import re

from torch import nn

from .config import ClassificationOptions

# patch_embed1.proj.weight, pos_embed1, block1.0.attn.q.weight, norm1.weight
STAGE = re.compile(r"(?:patch_embed|pos_embed|block|norm)([1-4])(?:\.|$)")
LAST_NORM = "norm4."  # of v2; v1 calls its own "norm."


def frozen(options: ClassificationOptions, model: nn.Module) -> set[str]:
    """The names of the parameters that are not trained.

    With `probe` all but the head's. With `freeze` N those of the first N stages: patch embeddings,
    v1's position tables, blocks, the norms that close v2's stages, and with the fourth stage v1's
    class token. So with 4 stages the last norm and the head are left to train.
    """
    names = [name for name, _ in model.named_parameters()]
    if options.probe:
        return {name for name in names if not name.startswith("head.")}
    return {name for name in names if stage_of(name) <= options.freeze}


def stage_of(name: str) -> int:
    """The stage that a parameter is part of, 1 to 4; 5 for the last norm and the head."""
    if name == "cls_token":
        return 4
    found = STAGE.match(name)
    return int(found[1]) if found and not name.startswith(LAST_NORM) else 5
