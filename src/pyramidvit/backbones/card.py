"""The model card: what a stranger must know of a saved model, in Markdown."""

from typing import TYPE_CHECKING, Any

from huggingface_hub import ModelCardData

from .. import __version__

if TYPE_CHECKING:
    from .hub import HubModel

PAPERS = {
    "PVTv1": "[Pyramid Vision Transformer](https://arxiv.org/abs/2102.12122)",
    "PVTv2": "[PVT v2](https://arxiv.org/abs/2106.13797)",
}

TEXT = """---
{header}
---

# {title}

A {paper} as {purpose},
saved by pyramidvit {version}.

| | |
|---|---|
| model | {name} |
| parameters | {parameters:.1f} M |
| channels of the four stages | {dims} |
| blocks of the four stages | {depths} |
| input | {channels} channels, {height}x{width} in training; any size from 32x32 up |

## How to use it

```python
from pyramidvit import {class_name}

model = {class_name}.from_pretrained("{repo_id}")
{call}
```

Scale images to 0..1 and normalise them by the mean {mean} and the standard deviation
{std}. The usual input is the centre of an image whose short side was resized to
size / {crop} ({interpolation}).
{classes}
## Training data, scores, licence

Not stated by whoever saved these weights, unless the header above or a text below does.
"""


def model_card(
    model: "HubModel",
    *,
    repo_id: str = "PATH OR REPOSITORY",
    **header: Any,
) -> str:
    """The text of README.md.

    Args:
        model: A classifier or a pyramid.
        repo_id: Where the card will lie.
        header: Further lines of the header, such as `license`, as the hub abbreviates it.
    """
    classifies = "num_classes" in model.options()
    class_name = type(model).__name__
    data = ModelCardData(
        library_name="pyramidvit",
        pipeline_tag="image-classification" if classifies else "image-feature-extraction",
        tags=list(model._hub_mixin_info.model_card_data.tags or []),
        **header,
    )
    size, cfg = model.size, model.pretrained_cfg
    channels, height, width = cfg["input_size"]
    return TEXT.format(
        header=data.to_yaml(),
        title=repo_id.split("/")[-1] if "/" in repo_id else model.name or class_name,
        paper=PAPERS[class_name[:5]],
        purpose=purpose(model),
        version=__version__,
        name=f"`{model.name}`" if model.name else "a size of its own",
        parameters=sum(p.numel() for p in model.parameters()) / 1e6,  # type: ignore[attr-defined]
        dims=", ".join(map(str, size.dims)),
        depths=", ".join(map(str, size.depths)),
        channels=channels,
        height=height,
        width=width,
        class_name=class_name,
        repo_id=repo_id,
        call="logits = model(images)" if classifies else "maps = model(images)",
        mean=cfg["mean"],
        std=cfg["std"],
        crop=cfg["crop_pct"],
        interpolation=cfg["interpolation"],
        classes=list_of_classes(model.class_names),
    )


def purpose(model: "HubModel") -> str:
    options = model.options()
    if "out_indices" in options:
        strides = ", ".join(str(4 << i) for i in options["out_indices"])
        return f"a backbone that gives maps of stride {strides}"
    return f"an image classifier of {options['num_classes']} classes"


def list_of_classes(names: tuple[str, ...] | None) -> str:
    if names is None:
        return ""
    rows = "\n".join(f"{number}. {name}" for number, name in enumerate(names))
    return f"\n## Classes\n\n{rows}\n"
