"""The recipe files of segmenters: each is a published run, as the command line would read it."""

import re
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml

from pyramidvit import list_models
from pyramidvit.backbones import pvt_v1, pvt_v2
from pyramidvit.cli.arguments import build_parser, parse, to_options
from pyramidvit.cli.kinds import KINDS, kind_of, pick_recipe
from pyramidvit.engine.optim import build_schedule
from pyramidvit.errors import UserError
from pyramidvit.tasks.segmentation.config import (
    RECIPES,
    SEGMENTERS,
    SegmentationOptions,
    check_options,
    recipe_changes,
)

FOLDER = Path(__file__).parents[1] / "recipes" / "segmentation"
FILES = sorted(FOLDER.glob("*"))
ADE20K = 20210  # training images
# mIoU on ADE20K: printed in the papers, and (None: no other) by the official code.
PUBLISHED = {
    "semantic_fpn_pvt_tiny": (35.7, 36.6),
    "semantic_fpn_pvt_small": (39.8, 41.9),
    "semantic_fpn_pvt_medium": (41.6, 43.5),
    "semantic_fpn_pvt_large": (42.1, 43.5),
    "semantic_fpn_pvt_large_320k": (44.8, None),  # looked at in many scales and mirrored
    "semantic_fpn_pvt_v2_b0": (37.2, None),
    "semantic_fpn_pvt_v2_b1": (42.5, None),
    "semantic_fpn_pvt_v2_b2": (45.2, None),
    "semantic_fpn_pvt_v2_b2_li": (45.1, None),
    "semantic_fpn_pvt_v2_b3": (47.3, None),
    "semantic_fpn_pvt_v2_b4": (47.9, None),
    "semantic_fpn_pvt_v2_b5": (48.7, None),
    "trans2seg_pvt_small": (42.6, None),
}

LONG = {"epochs": 253, "batch_size": 16, "lr": 1e-4, "lr_batch": 16}  # of 320,000 updates


def read(path: Path) -> SegmentationOptions:
    """The options that a recipe file gives, over the named recipe that it is based on."""
    parser = build_parser("train", "", "")
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(SegmentationOptions, None)
    arguments = ["--config", str(path)]
    first = parse(parser, arguments)
    parser.set_defaults(recipe_changes(first.recipe, first.model, first.backbone))
    return to_options(SegmentationOptions, parse(parser, arguments))


def test_there_is_a_recipe_for_every_published_segmenter_and_none_is_left_over() -> None:
    assert {path.name for path in FILES} == {f"{name}.yaml" for name in PUBLISHED}
    assert {name.removeprefix("semantic_fpn_") for name in PUBLISHED} > set(list_models())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_segmentation_recipe_gives_what_the_named_recipe_gives(path: Path) -> None:
    options = read(path)
    check_options(options)
    assert f"{options.model}_{options.backbone}" == path.stem.removesuffix("_320k")
    changes = recipe_changes("ade20k", options.model, options.backbone)
    changes |= LONG if path.stem.endswith("_320k") else {}
    named = SegmentationOptions(
        recipe="ade20k", model=options.model, backbone=options.backbone, **changes
    )
    assert asdict(options) == asdict(named)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_segmentation_recipe_shows_everything_that_makes_the_run(path: Path) -> None:
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
        *("held_out", "layer_decay", "backbone_lr"),  # no part in the published run
        *("freeze", "patience"),  # nor these
        *("lr_by", "lr_drops", "warmup_lr", "warmup_updates"),  # without effect in it
        *("balance", "unbias"),  # all classes weigh alike
    }
    left_to_the_user.add("dropout" if values["model"] == "trans2seg" else "attention_size")
    assert set(values) == set(SegmentationOptions.__dataclass_fields__) - left_to_the_user


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_segmentation_recipe_says_its_figures_and_its_command(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert f"pvt train --config recipes/segmentation/{path.name} --data ade20k/" in text
    assert "ADE20K" in text
    assert "parameters" in text
    paper, code = PUBLISHED[path.stem]
    assert [float(x) for x in re.findall(r"mIoU ([\d.]+\d)", text)] == [
        x for x in (paper, code) if x is not None
    ]
    assert max(len(line) for line in text.splitlines()) <= 100


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_segmentation_recipe_counts_the_parameters_that_the_model_has(path: Path) -> None:
    from pyramidvit.tasks.segmentation.model import build_segmenter

    options = read(path)
    with torch.device("meta"):
        model = build_segmenter(options.model, options.backbone, 150, width=options.width)
    count = sum(p.numel() for p in model.parameters())
    assert f"# This model: {count:,} parameters" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_published_run_has_its_updates_or_the_nearest_number_of_whole_epochs(
    path: Path,
) -> None:
    options = read(path)
    steps = ADE20K // options.batch_size
    updates = 320_000 if path.stem.endswith("_320k") else 40_000
    assert abs(options.epochs * steps - updates) <= steps / 2


def test_the_published_learning_rate_falls_by_a_power_of_what_is_left() -> None:
    options = read(FOLDER / "semantic_fpn_pvt_v2_b2.yaml")
    optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=options.lr)
    set_rate = build_schedule(optimizer, options, 100)
    for step in (0, 1, 3150, 6299):
        set_rate(step)
        left = 1 - step / 6300
        assert optimizer.param_groups[0]["lr"] == pytest.approx(2e-4 * left**0.9)


def test_a_power_schedule_warms_up_and_ends_where_it_is_told() -> None:
    options = SegmentationOptions(
        schedule="poly",
        poly_power=2.0,
        epochs=10,
        lr=1e-3,
        min_lr=1e-4,
        warmup_updates=10,
        warmup_lr=0.0,
    )
    optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=options.lr)
    set_rate = build_schedule(optimizer, options, 10)
    found = []
    for step in (0, 5, 10, 50, 99):
        set_rate(step)
        found.append(optimizer.param_groups[0]["lr"])
    plain = [1e-4 + 9e-4 * (1 - step / 100) ** 2 for step in (5, 10, 50, 99)]
    assert found == pytest.approx([0.0, 0.5 * plain[0], *plain[1:]])


@pytest.mark.parametrize("model", SEGMENTERS)
@pytest.mark.parametrize("backbone", [*pvt_v1.SIZES, *pvt_v2.SIZES])
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_named_recipe_of_a_segmenter_is_sound(recipe: str, model: str, backbone: str) -> None:
    changes = recipe_changes(recipe, model, backbone)
    check_options(SegmentationOptions(recipe=recipe, model=model, backbone=backbone, **changes))


@pytest.mark.parametrize("model", SEGMENTERS)
def test_the_task_follows_from_the_segmenter(model: str) -> None:
    kind = kind_of(model)
    assert kind is KINDS["segmentation"]
    assert pick_recipe(kind, None) == "scenes"
    assert pick_recipe(kind, "photos") == "light"


@pytest.mark.parametrize("name", ["semantic_fpm", "semanticfpn", "trans2segm"])
def test_a_slip_in_a_segmenters_name_is_named(name: str) -> None:
    with pytest.raises(UserError, match=f"unknown model {name}; nearest: (semantic_fpn|trans2seg)"):
        kind_of(name)
