"""The recipe files of detectors: each is a published run, as the command line would read it."""

from dataclasses import asdict, replace
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch import nn

from pyramidvit import list_models
from pyramidvit.backbones import pvt_v1, pvt_v2
from pyramidvit.cli.arguments import build_parser, parse, to_options
from pyramidvit.engine.optim import build_optimizer, build_schedule
from pyramidvit.errors import UserError
from pyramidvit.tasks.detection.config import (
    RECIPES,
    DetectionOptions,
    check_options,
    recipe_changes,
)
from pyramidvit.tasks.detection.network import NUMBERS
from pyramidvit.tasks.detection.table import DETECTORS, head_named
from pyramidvit.tasks.detection.trunk import DROP_PATH_RATES

FOLDER = Path(__file__).parents[1] / "recipes" / "detection"
FILES = sorted(FOLDER.glob("*"))
# Published, what 0 stands for; the others have no anchors.
ANCHORS = {"retinanet": 4.0, "mask_rcnn": 8.0, "cascade_mask_rcnn": 8.0, "atss": 8.0, "gfl": 8.0}
SMALLER = "retinanet_pvt_small_640_1x"  # the one run that another size makes


def read(path: Path) -> DetectionOptions:
    """The options that a recipe file gives, over the named recipe that it is based on."""
    parser = build_parser("train", "", "")
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(DetectionOptions, None)
    arguments = ["--config", str(path)]
    first = parse(parser, arguments)
    parser.set_defaults(recipe_changes(first.recipe, first.model, first.backbone))
    return to_options(DetectionOptions, parse(parser, arguments))


def resolved(options: DetectionOptions) -> dict[str, Any]:
    """All options, with what the model takes in place of 0 and -1."""
    rate, scale = options.drop_path_rate, options.anchor_scale
    return asdict(
        replace(
            options,
            drop_path_rate=DROP_PATH_RATES.get(options.backbone, 0.1) if rate < 0 else rate,
            anchor_scale=scale or ANCHORS.get(options.model, 0.0),
        )
    )


def test_there_is_a_recipe_for_every_published_run_and_none_is_left_over() -> None:
    baselines = ("retinanet", "mask_rcnn")
    others = ("cascade_mask_rcnn", "atss", "gfl", "sparse_rcnn")
    short = {f"{model}_{name}_1x" for model in baselines for name in list_models()}
    long = {f"{model}_{name}_3x" for model in baselines for name in pvt_v1.SIZES}
    from_code = {f"mask_rcnn_{name}_3x" for name in ("pvt_v2_b0", "pvt_v2_b2", "pvt_v2_b2_li")}
    advanced = {f"{model}_{name}_3x" for model in others for name in ("pvt_v2_b2", "pvt_v2_b2_li")}
    assert {path.name for path in FILES} == {
        f"{name}.yaml"
        for name in short | long | from_code | advanced | {SMALLER, "detr_pvt_small_50ep"}
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_detection_recipe_gives_what_the_named_recipe_gives(path: Path) -> None:
    options = read(path)
    check_options(options)
    assert f"{options.model}_{options.backbone}_{options.recipe}" == path.stem.replace("_640", "")
    changes = recipe_changes(options.recipe, options.model, options.backbone)
    if path.stem == SMALLER:
        changes |= {"short_side": 640, "long_side": 1066}
    named = DetectionOptions(
        recipe=options.recipe, model=options.model, backbone=options.backbone, **changes
    )
    assert resolved(options) == resolved(named)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_detection_recipe_shows_everything_that_makes_the_run(path: Path) -> None:
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    left_to_the_user = {
        *("data", "pretrained", "seed", "device", "devices", "precision", "workers"),
        *(
            "checkpoint_steps",
            "max_broken",
            "output",
            "accumulate",
            "grad_checkpointing",
            "recompute",
            "memory_budget",
        ),
        *("tile", "held_out", "layer_decay", "freeze", "patience"),  # no part in the published run
        "padding",  # nor this one
        *("min_lr", "lr_by", "poly_power", "warmup"),  # nor in steps and with warm-up by updates
    }
    if values["model"] != "detr":
        left_to_the_user |= {"backbone_lr", "drop_rate"}
    left_to_the_user |= set(NUMBERS) - set(signature(head_named(values["model"]).build).parameters)
    assert set(values) == set(DetectionOptions.__dataclass_fields__) - left_to_the_user


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_detection_recipe_says_its_figures_and_its_command(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert f"pvt train --config recipes/detection/{path.name} --data coco/" in text
    assert "COCO val2017" in text
    assert "AP " in text or "no score was printed" in text
    assert "parameters" in text
    assert max(len(line) for line in text.splitlines()) <= 100


@pytest.mark.parametrize("model", DETECTORS)
@pytest.mark.parametrize("backbone", [*pvt_v1.SIZES, *pvt_v2.SIZES])
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_named_recipe_is_sound(recipe: str, model: str, backbone: str) -> None:
    changes = {"model": model, **recipe_changes(recipe, model, backbone)}
    check_options(DetectionOptions(recipe=recipe, backbone=backbone, **changes))


def test_learning_rates_and_batches_are_the_published_ones() -> None:
    """FACTS of the official configurations: lr 1e-4 or 2e-4, by 1.4 less where memory is short."""
    small = {("retinanet", "pvt_v2_b4"), ("retinanet", "pvt_v2_b5")} | {
        ("mask_rcnn", name) for name in ("pvt_large", "pvt_v2_b4", "pvt_v2_b5")
    }
    for model, base in (("retinanet", 1e-4), ("mask_rcnn", 2e-4)):
        for backbone in list_models():
            changes = recipe_changes("1x", model, backbone)
            divisor, batch = (1.4, 8) if (model, backbone) in small else (1, 16)
            assert changes["lr"] == pytest.approx(base / divisor, rel=1e-5)
            assert changes["batch_size"] == changes["lr_batch"] == batch
            assert changes["warmup_lr"] == pytest.approx(changes["lr"] / 1000, rel=1e-5)
    for backbone in ("pvt_v2_b2", "pvt_v2_b2_li"):
        long = recipe_changes("3x", "mask_rcnn", backbone)
        assert (long["lr"], long["batch_size"], long["weight_decay"]) == (1e-4, 16, 0.05)
        assert (long["epochs"], long["lr_drops"], long["decay"]) == (36, (27, 33), "not_norms")


# The official configurations: epochs and drops, images an update, learning rate, weight decay and
# for what, largest gradient, updates of warm-up, share of the backbone's rate.
LONG = (36, (27, 33))
SWIN = (16, 1e-4, 0.05, "not_norms", 0.0, 500, 1.0)
OFFICIAL = {
    "cascade_mask_rcnn_pvt_v2_b2_3x": (*LONG, *SWIN),
    "cascade_mask_rcnn_pvt_v2_b2_li_3x": (*LONG, *SWIN),
    "atss_pvt_v2_b2_3x": (*LONG, *SWIN),
    "atss_pvt_v2_b2_li_3x": (*LONG, *SWIN),
    "gfl_pvt_v2_b2_3x": (*LONG, *SWIN),
    "gfl_pvt_v2_b2_li_3x": (*LONG, *SWIN),
    "sparse_rcnn_pvt_v2_b2_3x": (*LONG, 8, 2.5e-5 / 1.4, 1e-4, "all", 1.0, 500, 1.0),
    "sparse_rcnn_pvt_v2_b2_li_3x": (*LONG, 16, 2.5e-5, 1e-4, "all", 1.0, 500, 1.0),
    "detr_pvt_small_50ep": (50, (33,), 16, 1e-4, 1e-4, "all", 0.1, 0, 0.1),
}
DECODING = {
    "cascade_mask_rcnn": (0.05, 0.5, 100),
    "atss": (0.05, 0.6, 100),
    "gfl": (0.05, 0.6, 100),
    "sparse_rcnn": (0.0, 1.0, 300),
    "detr": (0.0, 1.0, 100),
}


@pytest.mark.parametrize("name", OFFICIAL)
def test_the_other_detectors_are_trained_as_the_official_configurations_say(name: str) -> None:
    options = read(FOLDER / f"{name}.yaml")
    assert (
        *(options.epochs, options.lr_drops, options.batch_size),
        *(pytest.approx(options.lr, rel=1e-4), options.weight_decay, options.decay),
        *(options.clip_grad, options.warmup_updates, options.backbone_lr),
    ) == OFFICIAL[name]
    assert (options.schedule, options.lr_batch) == ("step", options.batch_size)
    assert options.warmup_lr == pytest.approx(options.lr / 1000, rel=1e-4)
    # Short sides of 640 or 480 to 800 in steps of 32, at most 1333 long; crops but for DETR.
    least, sides, crop = (640, 6, 0.0) if options.model == "detr" else (480, 11, 0.5)
    assert (options.min_scale * 800, options.num_scales, options.crop) == (least, sides, crop)
    assert (options.short_side, options.long_side, options.flip) == (800, 1333, 0.5)
    assert (options.zoom_out, options.jitter) == (1.0, 0.0)

    found = (options.score_threshold, options.nms_threshold, options.max_detections)
    assert found == DECODING[options.model]
    assert options.width == 256
    assert options.hidden == (2048 if options.model in ("sparse_rcnn", "detr") else 1024)
    built = signature(head_named(options.model).build).parameters
    for number in set(NUMBERS) & set(built):  # what it says is what the network has by itself
        assert getattr(options, number) == built[number].default, number
    decoding = built["decoding"].default
    assert found == (*(decoding.score_threshold, decoding.nms_threshold, decoding.max_detections),)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        (
            "retinanet_pvt_v2_b2_1x",
            {0: 1e-7, 250: 5.005e-5, 500: 1e-4, 7999: 1e-4, 8000: 1e-5, 10999: 1e-5, 11000: 1e-6},
        ),
        ("mask_rcnn_pvt_v2_b2_3x", {0: 1e-7, 500: 1e-4, 26999: 1e-4, 27000: 1e-5, 33000: 1e-6}),
    ],
)
def test_the_rate_warms_up_and_drops_when_the_official_configurations_say(
    name: str, values: dict[int, float]
) -> None:
    options, model = read(FOLDER / f"{name}.yaml"), nn.Linear(2, 2)
    optimizer = build_optimizer(model, options, options.batch_size)
    set_rate = build_schedule(optimizer, options, 1000)
    for step, rate in values.items():
        set_rate(step)
        assert [group["lr"] for group in optimizer.param_groups] == [pytest.approx(rate, rel=1e-9)]


def test_the_backbone_of_detr_alone_learns_slower() -> None:
    for model in DETECTORS:
        share = recipe_changes("50ep", model, "pvt_small").get("backbone_lr", 1.0)
        assert share == (0.1 if model == "detr" else 1.0)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"model": "retinnet"}, "nearest: retinanet"),
        ({"long_side": 100}, "--long_side must be the short side of 480 or more, got 100"),
        ({"short_side": 8}, "--short_side must be 32 or more, got 8"),
        ({"tile": 5}, "--tile must be 0, or 32 or more, got 5"),
        ({"lr_drops": (11, 8)}, "--lr_drops"),
        ({"lr_drops": (0, 8)}, "--lr_drops"),
        ({"accumulate": 3}, "--accumulate must be a divisor of the batch size 8, got 3"),
        ({"zoom_out": 0.5}, "--zoom_out must be 1 or more, got 0.5"),
        ({"nms_threshold": 1.5}, "--nms_threshold"),
        ({"epochs": 0}, "--epochs"),
        ({"backbone_lr": 0.0}, "--backbone_lr must be from above 0 to 1, got 0.0"),
    ],
)
def test_numbers_out_of_range_are_refused(change: dict[str, Any], word: str) -> None:
    with pytest.raises(UserError, match=word.replace("(", "\\(")):
        check_options(DetectionOptions(**change))


def test_every_option_is_explained() -> None:
    for option in set(DetectionOptions.__dataclass_fields__):
        documented = [kind.__doc__ or "" for kind in DetectionOptions.__mro__]
        assert any(f"    {option}: " in text for text in documented), option
