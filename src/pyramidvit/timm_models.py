"""Our models under their names in timm's registry, and timm's scripts run with them.

`python -m pyramidvit.timm_models SCRIPT ARGUMENTS` registers the models and then runs the script:
timm's train.py and validate.py have no place for a plug-in.
"""

import argparse
import contextlib
import re
import runpy
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import timm.models
import torch
from torch import Tensor, nn

from .backbones.features import pick_stages
from .backbones.trunk import INPUT
from .errors import UserError
from .models import create_model, list_models

default_cfgs: dict[str, Any] = {}  # timm's registry looks under this name in a model's module
SOURCES = ("state_dict", "file", "url", "hf_hub_id")  # where a pretrained_cfg can have weights


def register_with_timm(*, override: bool = False) -> list[str]:
    """Makes `timm.create_model` build our models.

    timm has no PVT v1; its own pvt_v2 models keep their names unless told otherwise.

    Args:
        override: Puts ours in the place of timm's pvt_v2 models too, for this process.

    Returns:
        The names that timm now takes from here.
    """
    ours = [name for name in list_models() if override or is_free(name)]
    default_cfgs.update(timm.models.generate_default_cfgs({n: published_cfg(n) for n in ours}))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Overwriting .* in registry")
        for name in ours:
            timm.models.register_model(entrypoint(name))
    return ours


def is_free(name: str) -> bool:
    """Whether timm has no model of that name, or has it from here."""
    return not timm.models.is_model(name) or (
        timm.models.model_entrypoint(name).__module__ == __name__
    )


def entrypoint(name: str) -> Callable[..., nn.Module]:
    """The function that timm's registry calls for a name."""

    def create(pretrained: bool | str | Path = False, **options: Any) -> Any:
        return build(name, pretrained, **options)

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f"{name} of pyramidvit: see `pyramidvit.timm_models.build`."
    return create


def build(
    name: str,
    pretrained: bool | str | Path = False,
    *,
    pretrained_cfg: str | dict[str, Any] | None = None,
    pretrained_cfg_overlay: dict[str, Any] | None = None,
    pretrained_model_args: dict[str, Any] | None = None,
    cache_dir: str | Path | None = None,
    num_classes: int | None = None,
    in_chans: int | None = None,
    img_size: int | tuple[int, int] | None = None,
    features_only: bool = False,
    out_indices: int | Sequence[int] = (0, 1, 2, 3),
    drop_rate: float = 0.0,
    drop_path_rate: float | None = None,
    global_pool: str | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Any:
    """Builds one of our models from timm's arguments; None takes the model's own value.

    Args:
        name: One of `list_models()`.
        pretrained: True takes the weights that `pretrained_cfg` names, or those that
            `create_model` knows; a path, folder or hub id goes to `create_model`.
        pretrained_cfg: What timm knows of the weights, see its documentation.
        pretrained_cfg_overlay: Changes to it, such as {"file": "pvt_small.pth"}.
        pretrained_model_args: Not used: timm hands over what a saved folder says of its model.
        cache_dir: Where timm's downloads lie.
        num_classes: Width of the logits; 0 gives pooled features.
        in_chans: Channels of the images.
        img_size: The input that `timm.data.resolve_data_config` finds; the model takes any.
        features_only: Gives a pyramid of maps.
        out_indices: Which maps; n for the last n, negative from the end.
        drop_rate: Dropout of the head's input.
        drop_path_rate: Stochastic depth of the last block; None takes the published rate.
        global_pool: "token" (v1), "avg" or "".
        device: Where it is built.
        dtype: The type of its parameters.
    """
    resolved = timm.models.resolve_pretrained_cfg(name, pretrained_cfg, pretrained_cfg_overlay)
    cfg = resolved.to_dict()
    channels = cfg["input_size"][0] if in_chans is None else in_chans
    classes = cfg["num_classes"] if num_classes is None else num_classes
    in_cfg = pretrained is True and any(cfg.get(source) for source in SOURCES)
    with contextlib.nullcontext() if device is None else torch.device(device):
        model: Any = create_model(
            name,
            num_classes=classes,
            pretrained=None if in_cfg or not pretrained else pretrained,
            in_chans=channels,
            drop_path_rate=drop_path_rate,
            features_only=features_only,
            out_indices=pick_stages(out_indices),
        )
    model = model.to(dtype=dtype)
    if not features_only:
        model.head_drop.p = drop_rate
        model.set_pool(model.global_pool if global_pool is None else global_pool)
    if in_cfg:
        timm.models.load_pretrained(
            model,
            pretrained_cfg=cfg,
            num_classes=cfg["num_classes"] if features_only else classes,
            in_chans=channels,
            filter_fn=only_known,
            cache_dir=cache_dir,
        )
    height, width = spatial(cfg["input_size"][1:] if img_size is None else img_size)
    model.pretrained_cfg = {**cfg, "input_size": (channels, height, width)}
    return model


def published_cfg(name: str) -> dict[str, Any]:
    """The input of the released weights in timm's words; where they lie it does not say."""
    cfg = {**INPUT, "num_classes": 1000, "classifier": "head"}
    return {**cfg, "pool_size": (7, 7)} if name.startswith("pvt_v2") else cfg


def only_known(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Drops of a classifier's weights what a backbone has no place for."""
    own = model.state_dict()
    parts = {key.split(".")[0] for key in own}
    whole = r"(?:head|norm|cls_token|(?:patch_embed|pos_embed|block|norm)[1-4])"
    return {
        key: value
        for key, value in state.items()
        if key in own or not re.fullmatch(whole, part := key.split(".")[0]) or part in parts
    }


def spatial(size: int | Sequence[int]) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


def main(arguments: Sequence[str]) -> None:
    """Registers the models and runs a script of timm's as if it had been called itself."""
    parser = argparse.ArgumentParser(
        prog="python -m pyramidvit.timm_models",
        description="Runs a script that uses timm, with the models of pyramidvit registered.",
    )
    parser.add_argument(
        "--override", action="store_true", help="ours in the place of timm's pvt_v2 models too"
    )
    parser.add_argument("script", help="such as timm's train.py or validate.py")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="of the script")
    options = parser.parse_args(arguments)
    if not Path(options.script).is_file():
        raise UserError(f"no such script: {options.script}")
    register_with_timm(override=options.override)
    sys.argv = [options.script, *options.arguments]
    sys.path.insert(0, str(Path(options.script).parent))  # as Python does for a script
    runpy.run_path(options.script, run_name="__main__")


if __name__ == "__main__":
    from .timm_models import main as run  # the registry is to name this module, not __main__

    try:
        run(sys.argv[1:])
    except UserError as error:
        sys.exit(f"error: {error}")
