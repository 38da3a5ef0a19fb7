"""Where weights lie: a path, a published name, or a repository of the hub."""

import re
from pathlib import Path

from ..errors import UserError, nearest
from .catalog import CATALOG, published_for
from .download import fetch, fetch_hub

FILE_ENDINGS = (".pth", ".pt", ".bin", ".safetensors", ".ckpt", ".tar")


def find_weights(source: str | Path | bool, model: str | None = None) -> Path:
    """The file or directory that holds weights, downloaded where that is needed.

    Args:
        source: A file; a directory of transformers or of our `save_pretrained`; a name of the
            catalog, such as "pvt_v2_b2" or "timm/pvt_v2_b2.in1k"; any repository of the hub, as
            "org/name" or "hf-hub:org/name"; or True for the official file of `model`. What lies on
            the disk goes before what a name could mean elsewhere.
        model: The model that is to be filled, for True.

    Raises:
        UserError: There is nothing of that name, or it cannot be downloaded.
    """
    if not isinstance(source, str | Path | bool) or source == "":
        raise UserError(f"weights must be named by a path or a name, got {source!r}")
    if isinstance(source, bool):
        if not source or model is None:
            raise UserError(f"pretrained must be True, a path or a name, got {source}")
        return fetch(published_for(model))
    if Path(source).exists():
        return Path(source)
    name = str(source)
    if name.startswith("hf-hub:"):
        return fetch_hub(name.removeprefix("hf-hub:"))
    asked = name.removesuffix("/")
    for published in CATALOG:
        if asked in (published.name, published.address):
            return fetch(published)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", asked) and not asked.endswith(FILE_ENDINGS):
        return fetch_hub(asked)
    raise not_found(source)


def not_found(source: str | Path) -> UserError:
    """What to say where nothing bears a name."""
    name = str(source)
    if name.startswith(("http://", "https://")):
        return UserError(f"{name}: download the file first, then give its path")
    names = [published.name for published in CATALOG]
    by_name = (
        f"; {Path(name).stem} without an ending is fetched" if Path(name).stem in names else ""
    )
    if isinstance(source, Path) or name.endswith(FILE_ENDINGS) or "/" in name:
        return UserError(f"no such checkpoint: {name}{by_name}")
    return UserError(
        f"no such checkpoint: {name}; nearest published: {nearest(name, names)}"
        " (pvt models --weights lists all)"
    )
