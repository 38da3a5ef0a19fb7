"""Options of a segmentation run, and the named recipes."""

from dataclasses import dataclass
from typing import Any, Literal

from ...errors import UserError, nearest
from ...options import TrainOptions, check_train_options, require

SEGMENTERS = ("semantic_fpn", "trans2seg")
LOSSES = ("cross_entropy", "focal", "dice", "lovasz", "structure", "structure_published")


@dataclass(frozen=True, kw_only=True)
class SegmentationOptions(TrainOptions):
    """Options of a segmentation run.

    Args:
        data: Data set of pictures and maps of labels; without it, scenes of scikit-learn's digits.
        model: "semantic_fpn" or "trans2seg".
        backbone: Name of the backbone, see `pvt models`.
        pretrained: Checkpoint to start from, of a classifier for the backbone or of a segmenter.
        epochs: Passes over the training images.
        batch_size: Images an update, over all processes together.
        lr: Peak learning rate, at `lr_batch` images an update.
        short_side: What an image's short side is resized to, in pixels.
        long_side: What its long side may reach at most; the ratio is kept.
        aligned: In evaluation, stretches each side of the resized image up to a multiple of 32, as
            the published runs do, in place of padding it.
        min_scale: In training, least size, as a share of that in evaluation.
        max_scale: In training, largest size, as a share of that in evaluation.
        crop_side: In training, side of the square window that is cut out, in pixels; what a smaller
            image leaves of it is unlabelled.
        cat_max_ratio: Largest share of a window's labelled pixels that one class should have; ten
            windows are tried. 1 takes the first.
        flip: Probability of a left-right flip.
        distortion: Strength of random changes of brightness, contrast, saturation and hue, from 0
            to 1, as published.
        loss: "cross_entropy", "focal", "dice" or "lovasz", or a sum such as cross_entropy+dice;
            with two classes also "structure", which polyp and camouflage work uses, corrected, or
            "structure_published", its published form.
        class_weights: A weight for each class in the loss; without them, what `balance` says.
        balance: Measures the weights of the classes on the training maps: "median" divides the
            median of the classes' shares of the pixels by each one's, "inverse" is inversely
            proportional to them, "none" weighs all alike.
        unbias: Share, from 0 to 1, of the weights' effect on predictions that is taken back: heavy
            classes are learnt as the weights ask, but not claimed so often.
        mean_over: Cross entropy and focal loss are divided by the number of "labelled" pixels, or
            of "all", as published, unlabelled ones included.
        width: Channels of the feature pyramid, or of Trans2Seg's tokens; published: 256.
        attention_size: Trans2Seg refines the maps of attention of square images with this side in
            pixels, a multiple of 32, as they are; those of other images it resizes.
        dropout: Probability that a channel is dropped before the pyramid's pixels are classified.
        drop_path_rate: Stochastic depth; -1 takes the backbone's published rate.
        held_out: Share of the images held out, where the data has no validation part.
    """

    model: str = "semantic_fpn"
    backbone: str = "pvt_v2_b0"
    epochs: int = 50
    batch_size: int = 8
    lr: float = 3e-4
    short_side: int = 320
    long_side: int = 1280
    aligned: bool = False
    min_scale: float = 0.5
    max_scale: float = 2.0
    crop_side: int = 320
    cat_max_ratio: float = 0.75
    flip: float = 0.5
    distortion: float = 0.5
    loss: str = "cross_entropy"
    class_weights: tuple[float, ...] = ()
    balance: Literal["none", "median", "inverse"] = "none"
    unbias: float = 0.0
    mean_over: Literal["labelled", "all"] = "labelled"
    width: int = 128
    attention_size: int = 512
    dropout: float = 0.1
    drop_path_rate: float = -1.0
    held_out: float = 0.2


# Named recipes: what each changes in the defaults above, which are the light recipe.
RECIPES: dict[str, dict[str, Any]] = {
    # Small data: a narrow pyramid; images enlarged, shrunk, mirrored, and in other colours.
    "light": {},
    # Scenes of digits at 128 pixels: whole, hardly enlarged or shrunk, never a flip.
    "scenes": {
        "epochs": 12,
        "lr": 1.8e-3,
        "schedule": "poly",
        "poly_power": 0.5,  # the rate stays high for long: a few passes are all there is
        "warmup": 0.2,
        "precision": "auto",
        "short_side": 128,
        "long_side": 128,
        "min_scale": 1.0,
        "max_scale": 1.0,
        "crop_side": 128,
        "cat_max_ratio": 1.0,
        "flip": 0.0,
        "distortion": 0.0,
        "loss": "cross_entropy+lovasz",
        "balance": "median",
        "unbias": 0.85,
        "width": 64,
        "dropout": 0.0,
        "drop_path_rate": 0.0,
    },
    # ADE20K as in the reference code's segmentation configurations, 40,000 updates on 8 GPUs; of
    # Trans2Seg only the paper tells: see `published_length`.
    "ade20k": {
        "schedule": "poly",
        "poly_power": 0.9,
        "min_lr": 0.0,
        "warmup": 0.0,
        "weight_decay": 1e-4,
        "decay": "all",
        "clip_grad": 0.0,
        "short_side": 512,
        "long_side": 2048,
        "aligned": True,
        "crop_side": 512,
        "distortion": 1.0,
        "mean_over": "all",
        "width": 256,
        "drop_path_rate": 0.1,
    },
}


def recipe_changes(recipe: str, model: str, backbone: str) -> dict[str, Any]:
    """What a named recipe changes in the defaults, for a segmenter on a backbone.

    Raises:
        UserError: No such segmenter.
    """
    if model not in SEGMENTERS:
        raise UserError(f"unknown model {model}; nearest: {nearest(model, SEGMENTERS)}")
    changes = dict(RECIPES[recipe])
    return changes | (published_length(model) if recipe == "ade20k" else {})


def published_length(model: str) -> dict[str, Any]:
    """Batch size, learning rate, and the passes over ADE20K's 20,210 images that come nearest to
    40,000 updates: 39,753 of 32 images (631 an epoch), or 40,416 of 16 (1,263 an epoch)."""
    batch, rate, epochs = (32, 2e-4, 63) if model == "semantic_fpn" else (16, 1e-4, 32)
    return {"batch_size": batch, "lr": rate, "lr_batch": batch, "epochs": epochs}


def loss_terms(options: SegmentationOptions) -> list[str]:
    """The names of the losses that are added up.

    Raises:
        UserError: An unknown one, or one twice.
    """
    names = options.loss.split("+")
    for name in names:
        if name not in LOSSES:
            raise UserError(f"unknown loss {name}; nearest: {nearest(name, LOSSES)}")
    require(options, "loss", len(set(names)) == len(names), "a sum of different losses")
    return names


def check_options(options: SegmentationOptions) -> None:
    """Refuses numbers out of range, before any work is done.

    Raises:
        UserError: Naming the option, what it must be and what it is.
    """
    check_train_options(options)
    require(options, "layer_decay", options.layer_decay == 1, "1 for a segmenter")
    if options.model not in SEGMENTERS:
        near = nearest(options.model, SEGMENTERS)
        raise UserError(f"unknown model {options.model}; nearest: {near}")
    loss_terms(options)
    for name in ("short_side", "crop_side"):
        require(options, name, getattr(options, name) >= 32, "32 or more")
    alone = options.batch_size // options.devices // options.accumulate <= 1
    single = options.model == "semantic_fpn" and alone and options.crop_side == 32
    more = "above 32 where each process, or part of --accumulate, has one image: batch norms need"
    require(options, "crop_side", not single, f"{more} more than one pixel")
    side = f"the short side of {options.short_side} or more"
    require(options, "long_side", options.long_side >= options.short_side, side)
    require(options, "min_scale", options.min_scale > 0, "above 0")
    scale = f"the min_scale of {options.min_scale} or more"
    require(options, "max_scale", options.max_scale >= options.min_scale, scale)
    require(options, "cat_max_ratio", 0 < options.cat_max_ratio <= 1, "from above 0 to 1")
    for name in ("flip", "distortion", "unbias"):
        require(options, name, 0 <= getattr(options, name) <= 1, "from 0 to 1")
    weights = options.class_weights
    sound = all(w >= 0 for w in weights) and (not weights or sum(weights) > 0)
    require(options, "class_weights", sound, "0 or more each, and not all 0")
    require(options, "unbias", not options.unbias or 0 not in weights, "0 where a class weighs 0")
    heads = options.width % 8 == 0 or options.model != "trans2seg"
    require(options, "width", heads, "a multiple of 8 for trans2seg")
    require(options, "width", options.width >= 2, "2 or more")
    grid = options.attention_size >= 32 and options.attention_size % 32 == 0
    require(options, "attention_size", grid, "a multiple of 32")
    require(options, "dropout", 0 <= options.dropout < 1, "from 0 to below 1")
    rate = options.drop_path_rate
    require(options, "drop_path_rate", rate == -1 or 0 <= rate < 1, "-1, or from 0 to below 1")
    require(options, "held_out", 0 < options.held_out < 1, "between 0 and 1")
