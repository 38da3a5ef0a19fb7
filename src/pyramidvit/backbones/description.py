"""config.json: what builds a saved model again."""

from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import UserError

if TYPE_CHECKING:
    from .hub import HubModel

CONFIG = "config.json"
LARGEST = 100_000  # no number of a size is larger


def describe(model: "HubModel") -> dict[str, Any]:
    """What builds a model again. The upper half is ours, the lower half is for timm.

    Raises:
        UserError: Stages of the model were pruned away.
    """
    options = model.options()
    if "num_classes" in options and model.num_stages < 4:
        raise UserError(
            "a pruned classifier cannot be saved: build a backbone with features_only=True and"
            " out_indices instead"
        )
    config: dict[str, Any] = {
        "library_name": "pyramidvit",
        "version": __version__,
        "class": type(model).__name__,
        "size": asdict(model.size),
        "options": options,
        "architecture": model.name,
        "num_features": model.num_features,
        "pretrained_cfg": model.pretrained_cfg,
    }
    if "num_classes" in options:
        count = options["num_classes"]
        config |= {
            "num_classes": count,
            "pretrained_cfg": model.pretrained_cfg | {"num_classes": count},
        }
    else:
        config["model_args"] = {"features_only": True, "out_indices": options["out_indices"]}
    if model.class_names is not None:
        config["label_names"] = model.class_names
        config["id2label"] = dict(enumerate(model.class_names))  # in the hub's own words
    return config


def read_config(folder: Path, class_name: str) -> dict[str, Any]:
    """config.json, if it describes a model of the class.

    Raises:
        UserError: It does not, or cannot be read.
    """
    from ..weights.safetensors_file import read_json

    path = folder / CONFIG
    if not path.is_file():
        raise UserError(
            f"{folder} has no {CONFIG}, which save_pretrained writes; for weights alone, use"
            " create_model(NAME, pretrained=...)"
        )
    config = read_json(path)
    found = config.get("class")
    if not isinstance(found, str) or not isinstance(config.get("options"), dict):
        raise UserError(
            f"{path} was not written by save_pretrained of pyramidvit; use"
            f" create_model(NAME, pretrained={str(folder)!r})"
        )
    if found != class_name:
        raise UserError(
            f"{folder} holds a {found}, not a {class_name}: load it with {found}.from_pretrained"
        )
    return config


def decode_size(size_type: type[Any], record: dict[str, Any]) -> Any:
    """A row of a family's table from its JSON record.

    Raises:
        ValueError: It is none.
    """
    if set(record) != {field.name for field in fields(size_type)}:
        raise ValueError(f"a size has {', '.join(f.name for f in fields(size_type))}")
    for name, value in record.items():
        numbers = value if isinstance(value, list) else [value]
        if isinstance(value, list) and (
            len(value) != 4 or not all(type(n) is int and 1 <= n <= LARGEST for n in numbers)
        ):
            raise ValueError(f"{name} of the size must be four numbers from 1 up, got {value}")
        if not all(isinstance(n, int | float) for n in numbers):
            raise ValueError(f"{name} of the size must be a number, got {value}")
    return size_type(**{k: tuple(v) if isinstance(v, list) else v for k, v in record.items()})


def names_in(config: dict[str, Any]) -> tuple[str, ...] | None:
    names = config.get("label_names")
    return tuple(map(str, names)) if isinstance(names, list) else None
