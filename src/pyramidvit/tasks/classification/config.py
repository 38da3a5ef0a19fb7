"""Options of a classification run, and the named recipes."""

from dataclasses import dataclass
from typing import Any, Literal

from ...options import TrainOptions, check_train_options, require


@dataclass(frozen=True, kw_only=True)
class ClassificationOptions(TrainOptions):
    """Options of a classification run.

    Args:
        image_size: Side of the square that the model sees, in pixels, 32 or more.
        crop_share: In evaluation, side of the centre crop over the short side of the image.
        min_area: In training, smallest share of the image's area that a random crop takes.
        flip: Probability of a left-right flip.
        rotate: Largest random rotation, in degrees.
        shift: Largest random shift, as a share of the side.
        zoom: Largest random change of scale, as a share.
        rand_augment: timm's description of RandAugment, such as rand-m9-mstd0.5-inc1; empty: none.
        random_erasing: Probability that a random rectangle is replaced by noise.
        mixup: Alpha of Mixup; 0 for none.
        cutmix: Alpha of CutMix; 0 for none.
        label_smoothing: Share of each target spread over all classes.
        drop_path_rate: Stochastic depth; -1 takes the model's published rate.
        probe: Trains the head alone, on the features of an otherwise frozen model.
        sampling: "natural" draws every training image once an epoch, "balanced" every class equally
            often; an epoch stays as long.
        class_weights: "none", or "balanced" to weigh the loss of a class by n / (K n_k): n training
            images in K classes, n_k of them in this one.
        held_out: Share of each class held out, where the data has no validation part.
    """

    image_size: int = 224
    crop_share: float = 0.875
    min_area: float = 0.35
    flip: float = 0.5
    rotate: float = 0.0
    shift: float = 0.0
    zoom: float = 0.0
    rand_augment: str = ""
    random_erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    label_smoothing: float = 0.1
    drop_path_rate: float = -1.0
    probe: bool = False
    sampling: Literal["natural", "balanced"] = "natural"
    class_weights: Literal["none", "balanced"] = "none"
    held_out: float = 0.2


# Named recipes: what each changes in the defaults above, which are the light recipe.
RECIPES: dict[str, dict[str, Any]] = {
    # Small data: light augmentation, learning rate for the batch as given.
    "light": {},
    # Tiny pictures of digits: small shifts and turns, never a flip.
    "digits": {
        "image_size": 32,
        "crop_share": 1.0,
        "min_area": 1.0,
        "flip": 0.0,
        "rotate": 10.0,
        "shift": 0.08,
        "zoom": 0.1,
        "label_smoothing": 0.05,
        "drop_path_rate": 0.0,
        "epochs": 20,
        "batch_size": 64,
        "lr": 1e-3,
    },
    # Small data and pretrained weights: the trunk knows much and has little to learn from, so it is
    # moved gently. Hence a lower peak than from scratch, and a tenth less of it from each layer to
    # the one before (the first layer gets 0.39 of the head's rate in b0, 0.17 in b2, 0.05 in b3),
    # while the head, which starts fresh, gets all of it. The warm-up of three epochs lets that head
    # find its way before its gradients reshape the trunk; twenty are enough, since most of the way
    # lies behind. Crops of half the image and more, without mixing: what `paper` does to images
    # pays over hundreds of epochs. Drop path 0.1 for every size: 0.3, with which ImageNet trained
    # the large ones, would drown in noise what they know.
    "finetune": {
        "epochs": 20,
        "lr": 3e-4,
        "layer_decay": 0.9,
        "warmup": 3.0,
        "min_area": 0.5,
        "drop_path_rate": 0.1,
    },
    # ImageNet-1K as in the reference code (classification/main.py and its configs): 300 epochs,
    # 8 x 128 images, lr 1e-3, moved once an epoch. Clipping: `paper_changes`.
    "paper": {
        "epochs": 300,
        "batch_size": 1024,
        "lr": 1e-3,
        "lr_batch": 1024,
        "min_lr": 1e-5,
        "warmup": 5.0,
        "warmup_lr": 1e-6,
        "lr_by": "epoch",
        "clip_grad": 0.0,
        "min_area": 0.08,
        "rand_augment": "rand-m9-mstd0.5-inc1",
        "random_erasing": 0.25,
        "mixup": 0.8,
        "cutmix": 1.0,
        "repeats": 3,
    },
}

# The reference clips the gradient of these, which have the higher drop path rate of 0.3.
CLIPPED_IN_PAPER = ("pvt_medium", "pvt_large", "pvt_v2_b3", "pvt_v2_b4", "pvt_v2_b5")


def recipe_changes(recipe: str, model: str) -> dict[str, Any]:
    """What a named recipe changes in the defaults, for a model."""
    changes = dict(RECIPES[recipe])
    if recipe == "paper" and model in CLIPPED_IN_PAPER:
        changes["clip_grad"] = 1.0
    return changes


def check_options(options: ClassificationOptions) -> None:
    """Refuses numbers out of range, before any work is done.

    Raises:
        UserError: Naming the option, what it must be and what it is.
    """
    check_train_options(options)
    require(options, "backbone_lr", options.backbone_lr == 1, "1 for a classifier: see layer_decay")
    require(options, "image_size", options.image_size >= 32, "32 or more")
    for name in ("crop_share", "min_area"):
        require(options, name, 0 < getattr(options, name) <= 1, "from above 0 to 1")
    for name in ("flip", "random_erasing"):
        require(options, name, 0 <= getattr(options, name) <= 1, "from 0 to 1")
    for name in ("shift", "zoom", "label_smoothing"):
        require(options, name, 0 <= getattr(options, name) < 1, "from 0 to below 1")
    for name in ("rotate", "mixup", "cutmix"):
        require(options, name, getattr(options, name) >= 0, "0 or more")
    require(options, "held_out", 0 < options.held_out < 1, "between 0 and 1")
    rate = options.drop_path_rate
    require(options, "drop_path_rate", rate == -1 or 0 <= rate < 1, "-1, or from 0 to below 1")
    mixes = options.mixup > 0 or options.cutmix > 0
    require(options, "batch_size", not mixes or options.batch_size % 2 == 0, "even to mix pairs")
