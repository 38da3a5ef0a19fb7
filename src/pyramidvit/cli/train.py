"""`pvt train`: trains a model into a run folder, or goes on with a run that was cut off."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from jsonargparse import ArgumentParser

from ..errors import UserError, nearest, one_line
from ..options import TrainOptions, is_embedded
from ..tasks.detection.table import head_named
from .arguments import build_parser, parse, to_options
from .kinds import KINDS, Kind, kind_of, named_model, pick_recipe

if TYPE_CHECKING:
    from ..data.source import DataSet
    from ..engine.report import Reporter
    from ..engine.run import Run
    from ..task import Task


def run(arguments: list[str]) -> None:
    kind = kind_of(named_model(arguments))
    parser = make_parser(kind)
    parsed = parse(parser, [w for w in arguments if not w.startswith("--print_config")])
    if parsed.resume is not None:
        if len(arguments) > 2:
            raise UserError("--resume takes its options from the run; give it alone")
        train(read_args(Path(parsed.resume)), resumed=Path(parsed.resume))
        return
    # A recipe changes defaults, so the line is read again over them.
    recipe = resolve_recipe(kind, parsed)
    parser.set_defaults(kind.changes(recipe, parsed))
    options = to_options(kind.options, parse(parser, arguments))
    train(replace(options, recipe=recipe))


def make_parser(kind: Kind = KINDS["classification"]) -> ArgumentParser:
    parser = build_parser("train", kind.says, kind.example)
    parser.add_argument("--config", action="config", help="YAML file of options; see recipes/.")
    parser.add_argument("--resume", type=str | None, help="Run folder to go on with.")
    parser.add_class_arguments(kind.options, None)
    return parser


def resolve_recipe(kind: Kind, parsed: Any) -> str:
    """The recipe's name.

    Raises:
        UserError: The task has none of that name.
    """
    name: str = parsed.recipe
    if name == "auto":
        return pick_recipe(kind, parsed.data)
    if name not in kind.recipes:
        raise UserError(f"unknown recipe {name}; nearest: {nearest(name, kind.recipes)}")
    return name


def read_args(folder: Path) -> TrainOptions:
    """The options of an earlier run."""
    path = folder / "args.yaml"
    if not path.is_file():
        raise UserError(f"{folder} is no run folder: {path} does not exist")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return kind_of(values["model"]).options(**values)
    except (yaml.YAMLError, TypeError, LookupError) as error:
        raise UserError(f"{path} is damaged: {one_line(error)}") from error


def train(options: TrainOptions, resumed: Path | None = None) -> Path:
    """Trains as the options say; returns the run folder.

    Raises:
        UserError: Anything a user can mend; before the first update wherever possible.
    """
    kind = kind_of(options.model)
    kind.check(options)
    check_exists(options.data)

    from ..engine.device import build_fabric, keep_freed_memory, native_precision
    from ..engine.folders import check_output, make_shared_folder, write_args, write_environment
    from ..engine.outputs import write_samples
    from ..engine.report import Notes, Reporter
    from ..engine.run import build_run
    from ..engine.train import fit, is_done, resume
    from .measure import measure, write_measured
    from .tasks import load_data

    if resumed is None:
        check_output(options.output)
    held_out: float = options.held_out  # type: ignore[attr-defined]
    need_masks = kind.task == "detection" and head_named(options.model).learns_masks
    data = load_data(
        kind.task, options.data, seed=options.seed, held_out=held_out, need_masks=need_masks
    )
    if "train" not in data.splits:
        has = ", ".join(data.splits)
        raise UserError(f"training needs a training part, but {options.data} has only {has}")
    place = None if is_embedded(options.data) else str(Path(str(options.data)).resolve())
    options = replace(options, data=place)  # found again from wherever one stands
    if options.precision == "auto":
        options = replace(options, precision=native_precision(options.device))
    keep_freed_memory()
    fabric = build_fabric(options.device, options.devices, options.precision)
    reporter = Reporter(speaks=fabric.is_global_zero)
    asked, options = options, measure(kind, options, data, fabric, reporter)
    if resumed is not None:
        options = replace(options, pretrained=None)  # the snapshot holds all weights
    with Notes(reporter, "weights"):
        run = build_run(task_of(kind, options), options, data, fabric, reporter)
    announce(run, data, reporter)

    if resumed is not None:
        run.folder = resumed
        resume(run)
        done = run.progress.step / run.batches.steps
        reporter.say("resume", f"{resumed} after update {run.progress.step} (epoch {done:.2f})")
        if is_done(run):
            reporter.say("done", "this run has ended: nothing is left to do")
    else:
        stem = f"{data.name}-{name_of(options)}"
        run.folder = make_shared_folder(fabric, options.output, "runs", stem)
        if fabric.is_global_zero:
            write_args(run.folder, asdict(asked))
            write_measured(run.folder, asked, options, data.classes)
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


def task_of(kind: Kind, options: Any) -> "Task":
    """The task of a run; its epochs are scored with as many detections as the options ask for."""
    from ..tasks.detection.task import counting
    from .tasks import TASKS

    task = TASKS[kind.task]
    most = getattr(options, "max_detections", 0)
    return counting(task, most) if most else task


def check_exists(data: str | None) -> None:
    """Answers a mistyped folder before anything heavy is imported."""
    if data is not None and not is_embedded(data):
        from ..data.image_folder import check_folder

        if not Path(data).is_file():
            check_folder(Path(data))


def announce(run: "Run", data: "DataSet", reporter: "Reporter") -> None:
    """Says what was found and decided, so that it can be overruled."""
    options: Any = run.options
    count = sum(p.numel() for p in run.bare.parameters())
    start = f"from {options.pretrained}" if options.pretrained else "from scratch (--pretrained)"
    reporter.say("data", data.summary)
    reporter.say(
        "model",
        f"{name_of(options, ' on ')}, {len(data.classes)} classes,"
        f" {count / 1e6:.1f} M parameters, {start}",
    )
    reporter.say(
        "recipe",
        f"{options.recipe}: {options.epochs} epochs, AdamW, lr {run.optimizer.defaults['lr']:.2g},"
        f" batch {run.batches.batch_size} ({run.batches.steps} updates an epoch),"
        f" {side_of(options)} px (--recipe, --epochs, ...)",
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


def name_of(options: Any, joint: str = "-") -> str:
    """The model, and of a detector or a segmenter the backbone too."""
    backbone = getattr(options, "backbone", None)
    return options.model if backbone is None else f"{options.model}{joint}{backbone}"


def side_of(options: Any) -> int:
    return int(getattr(options, "image_size", 0) or options.short_side)


def describe_tuning(run: "Run") -> str:
    """What differs from training all weights at one rate on the images as they come."""
    options: Any = run.options
    parts = []
    if run.frozen:
        trained = [p.numel() for p in run.bare.parameters() if p.requires_grad]
        what = (
            "all but the head"
            if getattr(options, "probe", False)
            else f"{options.freeze} of 4 stages"
        )
        parts.append(f"{what} frozen, {sum(trained):,} parameters trained")
        if not options.pretrained:
            parts.append("NOTE: what is frozen was never trained (--pretrained is missing)")
    if options.layer_decay < 1:
        lowest = min(group["lr_scale"] for group in run.optimizer.param_groups)
        parts.append(f"layer decay {options.layer_decay} (down to {lowest:.2g} of the head's lr)")
    if options.backbone_lr < 1:
        parts.append(f"the backbone learns at {options.backbone_lr:g} of the rate")
    if getattr(options, "sampling", "") == "balanced":
        parts.append("classes drawn equally often")
    if getattr(options, "class_weights", "none") not in ("none", ()):
        parts.append("loss weighed by class")
    return ", ".join(parts)


def conclude(run: "Run", reporter: "Reporter") -> None:
    best = max(run.progress.history, key=lambda row: row[run.task.best])
    reporter.say(
        "best",
        f"{run.task.headline(best)} at epoch {best['epoch']}    {run.folder / 'best.safetensors'}",
    )
    reporter.say("see", f"{run.folder}: curves.png confusion.png predictions.png samples.png")
