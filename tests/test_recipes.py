"""The recipe files: each is the published run of its model, as the command line reads it."""

import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from pyramidvit import list_models
from pyramidvit.backbones import pvt_v1, pvt_v2
from pyramidvit.cli import main
from pyramidvit.cli import train as train_verb
from pyramidvit.cli.tasks import TASKS
from pyramidvit.engine.loader import TrainingBatches
from pyramidvit.tasks.classification.config import (
    CLIPPED_IN_PAPER,
    ClassificationOptions,
    check_options,
)

FOLDER = Path(__file__).parents[1] / "recipes" / "classification"
SIZES = pvt_v1.SIZES | pvt_v2.SIZES


def read(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> ClassificationOptions:
    """The options that `pvt train` would train with."""
    seen: list[ClassificationOptions] = []
    monkeypatch.setattr(train_verb, "train", lambda options: seen.append(options))
    train_verb.run(list(arguments))
    return seen[0]


def resolved(options: ClassificationOptions) -> dict[str, Any]:
    """All options, the model's published drop path rate in place of -1."""
    rate = options.drop_path_rate
    return asdict(
        replace(options, drop_path_rate=SIZES[options.model].drop_path_rate if rate < 0 else rate)
    )


def test_every_model_has_a_recipe_and_no_recipe_is_left_over() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*")) == sorted(list_models())


@pytest.mark.parametrize("model", list_models())
def test_a_recipe_file_gives_what_the_named_recipe_gives(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = read(monkeypatch, "--config", str(FOLDER / f"{model}.yaml"), "--data", "imagenet")
    named = read(monkeypatch, "--recipe", "paper", "--model", model, "--data", "imagenet")
    check_options(file)
    assert resolved(file) == resolved(named)


@pytest.mark.parametrize("model", list_models())
def test_a_recipe_file_shows_everything_that_makes_the_run(model: str) -> None:
    values = yaml.safe_load((FOLDER / f"{model}.yaml").read_text(encoding="utf-8"))
    left_to_the_user = {
        *("data", "pretrained", "seed", "device", "devices", "precision", "workers"),
        *("checkpoint_steps", "max_broken", "output"),
        *("rotate", "shift", "zoom", "held_out"),  # no part in the published run
        *("lr_drops", "poly_power", "warmup_updates"),  # nor these
        *("accumulate", "grad_checkpointing", "recompute", "memory_budget"),
        *("layer_decay", "backbone_lr", "freeze", "probe", "sampling", "class_weights", "patience"),
    }
    fields = ClassificationOptions.__dataclass_fields__
    assert set(values) == set(fields) - left_to_the_user
    assert values["model"] == model
    assert values["recipe"] == "paper"


@pytest.mark.parametrize("model", list_models())
def test_a_recipe_file_says_its_figures_and_its_command(model: str) -> None:
    text = (FOLDER / f"{model}.yaml").read_text(encoding="utf-8")
    assert f"pvt train --config recipes/classification/{model}.yaml --data imagenet/" in text
    assert "Table 2" in text
    assert "top-1" in text
    assert "GFLOPs" in text


@pytest.mark.parametrize(
    "path",
    sorted(FOLDER.parent.glob("*/*.yaml")),
    ids=lambda path: f"{path.parent.name}/{path.stem}",
)
def test_the_batch_of_every_recipe_can_be_shared_as_its_command_says(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    (devices,) = map(int, re.findall(r"--devices (\d+)", text))
    size, pairs = yaml.safe_load(text)["batch_size"], TASKS[path.parent.name].mixes_pairs
    share = {"seed": 0, "repeats": 1, "rank": 0, "ranks": devices, "pairs": pairs}
    first = next(iter(TrainingBatches(2000, size, **share)))
    assert len(first) * devices == size


def test_the_large_models_alone_are_clipped_and_drop_more(monkeypatch: pytest.MonkeyPatch) -> None:
    for model in list_models():
        options = read(monkeypatch, "--config", str(FOLDER / f"{model}.yaml"))
        large = model in CLIPPED_IN_PAPER
        assert (options.clip_grad, options.drop_path_rate) == ((1.0, 0.3) if large else (0.0, 0.1))


def test_the_line_overrules_a_file_named_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    config = str(FOLDER / "pvt_v2_b3.yaml")
    options = read(monkeypatch, "--config", config, "--epochs", "10", "batch_size=256")
    assert (options.epochs, options.batch_size, options.clip_grad) == (10, 256, 1.0)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("epoks: 3\n", "epoks"),
        ("epochs: three\n", "epochs"),
        ("epochs: [\n", "config"),
        ("recipe: papre\n", "papre"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(
    content: str, word: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(content, encoding="utf-8")
    assert main(["train", "--config", str(path)]) == 2
    error = capfd.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert word in error
