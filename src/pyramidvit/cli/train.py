"""`pvt train`: trains a model into a run folder, or goes on with a run that was cut off."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from jsonargparse import ArgumentParser

from ..errors import UserError, nearest, one_line
from ..options import is_embedded
from ..tasks.classification.config import (
    RECIPES,
    ClassificationOptions,
    check_options,
    recipe_changes,
)
from . import VERBS
from .arguments import build_parser, parse, to_options

if TYPE_CHECKING:
    from ..data.source import DataSet
    from ..engine.report import Reporter
    from ..engine.run import Run

DESCRIPTION = """Trains a classifier on a folder of class folders (class/image.jpg, or
train/class/... and validation/class/...); without --data on handwritten digits.

recipes: light (the defaults below, for small data), finetune (small data and a
--pretrained checkpoint), paper (ImageNet-1K as published), digits; auto takes digits
for the embedded digits and light for anything else."""


def run(arguments: list[str]) -> None:
    parser = make_parser()
    parsed = parse(parser, [w for w in arguments if not w.startswith("--print_config")])
    if parsed.resume is not None:
        if len(arguments) > 2:
            raise UserError("--resume takes its options from the run; give it alone")
        train(read_args(Path(parsed.resume)), resumed=Path(parsed.resume))
        return
    # A recipe changes defaults, so the line is read again over them.
    recipe = pick_recipe(parsed.recipe, parsed.data)
    parser.set_defaults(recipe_changes(recipe, parsed.model))
    options = to_options(ClassificationOptions, parse(parser, arguments))
    train(ClassificationOptions(**{**asdict(options), "recipe": recipe}))


def make_parser() -> ArgumentParser:
    parser = build_parser("train", DESCRIPTION, VERBS["train"].example)
    parser.add_argument("--config", action="config", help="YAML file of options; see recipes/.")
    parser.add_argument("--resume", type=str | None, help="Run folder to go on with.")
    parser.add_class_arguments(ClassificationOptions, None)
    return parser


def pick_recipe(name: str, data: str | None) -> str:
    if name == "auto":
        return "digits" if is_embedded(data) else "light"
    if name not in RECIPES:
        raise UserError(f"unknown recipe {name}; nearest: {nearest(name, RECIPES)}")
    return name


def read_args(folder: Path) -> ClassificationOptions:
    """The options of an earlier run."""
    path = folder / "args.yaml"
    if not path.is_file():
        raise UserError(f"{folder} is no run folder: {path} does not exist")
    try:
        return ClassificationOptions(**yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, TypeError) as error:
        raise UserError(f"{path} is damaged: {one_line(error)}") from error


def train(options: ClassificationOptions, resumed: Path | None = None) -> Path:
    """Trains as the options say; returns the run folder.

    Raises:
        UserError: Anything a user can mend; before the first update wherever possible.
    """
    check_options(options)
    check_exists(options.data)

    from ..engine.device import build_fabric
    from ..engine.folders import check_output, make_shared_folder, write_args, write_environment
    from ..engine.outputs import write_samples
    from ..engine.report import Notes, Reporter
    from ..engine.run import build_run
    from ..engine.train import fit, is_done, resume
    from .tasks import TASKS, load_data

    if resumed is None:
        check_output(options.output)
    data = load_data(options.data, seed=options.seed, held_out=options.held_out)
    place = None if is_embedded(options.data) else str(Path(str(options.data)).resolve())
    options = replace(options, data=place)  # found again from wherever one stands
    fabric = build_fabric(options.device, options.devices, options.precision)
    reporter = Reporter(speaks=fabric.is_global_zero)
    if resumed is not None:
        options = replace(options, pretrained=None)  # the snapshot holds all weights
    with Notes(reporter, "weights"):
        run = build_run(TASKS["classification"], options, data, fabric, reporter)
    announce(run, data, reporter)

    if resumed is not None:
        run.folder = resumed
        resume(run)
        done = run.progress.step / run.batches.steps
        reporter.say("resume", f"{resumed} after update {run.progress.step} (epoch {done:.2f})")
        if is_done(run):
            reporter.say("done", "this run has ended: nothing is left to do")
    else:
        stem = f"{data.name}-{options.model}"
        run.folder = make_shared_folder(fabric, options.output, "runs", stem)
        if fabric.is_global_zero:
            write_args(run.folder, asdict(options))
            write_environment(run.folder, str(fabric.device))
            write_samples(run)
    reporter.open_log(run.folder / "log.txt")
    reporter.say("run", str(run.folder))
    try:
        fit(run)
    except UserError as error:
        reporter.write(f"error: {error}")
        raise
    except KeyboardInterrupt:
        reporter.write(f"interrupted after update {run.progress.step}")
        raise KeyboardInterrupt(f"go on with: pvt train --resume {run.folder}") from None
    conclude(run, reporter)
    return run.folder


def check_exists(data: str | None) -> None:
    """Answers a mistyped folder before anything heavy is imported."""
    if data is not None and not is_embedded(data):
        from ..data.image_folder import check_folder

        check_folder(Path(data))


def announce(run: "Run", data: "DataSet", reporter: "Reporter") -> None:
    """Says what was found and decided, so that it can be overruled."""
    options: Any = run.options
    count = sum(p.numel() for p in run.bare.parameters())
    start = f"from {options.pretrained}" if options.pretrained else "from scratch (--pretrained)"
    reporter.say("data", data.summary)
    reporter.say(
        "model",
        f"{options.model}, {len(data.classes)} classes, {count / 1e6:.1f} M parameters, {start}",
    )
    reporter.say(
        "recipe",
        f"{options.recipe}: {options.epochs} epochs, AdamW, lr {run.optimizer.defaults['lr']:.2g},"
        f" batch {run.batches.batch_size} ({run.batches.steps} updates an epoch),"
        f" {options.image_size} px (--recipe, --epochs, ...)",
    )
    special = describe_tuning(run)
    if special:
        reporter.say("tuning", special)
    import torch

    reporter.say(
        "device",
        f"{run.fabric.device.type} x {run.fabric.world_size}, {torch.get_num_threads()} threads,"
        f" {options.precision}",
    )


def describe_tuning(run: "Run") -> str:
    """What differs from training all weights at one rate on the images as they come."""
    options: Any = run.options
    parts = []
    if run.frozen:
        trained = [p.numel() for p in run.bare.parameters() if p.requires_grad]
        what = "all but the head" if options.probe else f"{options.freeze} of 4 stages"
        parts.append(f"{what} frozen, {sum(trained):,} parameters trained")
        if not options.pretrained:
            parts.append("NOTE: what is frozen was never trained (--pretrained is missing)")
    if options.layer_decay < 1:
        lowest = min(group["lr_scale"] for group in run.optimizer.param_groups)
        parts.append(f"layer decay {options.layer_decay} (down to {lowest:.2g} of the head's lr)")
    if options.sampling == "balanced":
        parts.append("classes drawn equally often")
    if options.class_weights == "balanced":
        parts.append("loss weighed by class")
    return ", ".join(parts)


def conclude(run: "Run", reporter: "Reporter") -> None:
    best = max(run.progress.history, key=lambda row: row[run.task.best])
    reporter.say(
        "best",
        f"{run.task.best} {best[run.task.best]:.2f} % at epoch {best['epoch']}"
        f"    {run.folder / 'best.safetensors'}",
    )
    reporter.say("see", f"{run.folder}: curves.png confusion.png predictions.png samples.png")
