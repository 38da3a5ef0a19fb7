"""`--optimize` of `pvt predict` and `pvt evaluate`: the same answers, sooner."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pyramidvit.backbones.pvt_v2 import PVTv2Classifier, PVTv2Size
from pyramidvit.cli import tasks
from pyramidvit.cli.evaluate import EvaluateOptions
from pyramidvit.cli.predict import PredictOptions, predict
from pyramidvit.cli.speed import read_less, speed_up
from pyramidvit.cli.tasks import Opened
from pyramidvit.data.image_folder import FileSource
from pyramidvit.errors import UserError
from pyramidvit.inference.trunk import PreparedTrunk
from pyramidvit.structures import Classes
from pyramidvit.tasks.classification.config import ClassificationOptions
from pyramidvit.tasks.classification.task import CLASSIFICATION
from pyramidvit.tasks.detection.task import DETECTION


@pytest.fixture
def opened() -> Opened:
    """A small classifier with random weights, as from a checkpoint."""
    torch.manual_seed(0)
    size = PVTv2Size(dims=(8, 16, 40, 64), depths=(1, 1, 1, 1))
    model = PVTv2Classifier(size, num_classes=3).eval()
    torch.nn.init.normal_(model.head.weight)
    return Opened(
        task=CLASSIFICATION,
        name="small",
        model=model,
        classes=Classes(names=("a", "b", "c"), ids=(0, 1, 2)),
        named=True,
        input_record=CLASSIFICATION.describe_input(ClassificationOptions(image_size=64)),
        trained_on=None,
    )


def test_predictions_are_the_same_with_and_without(
    opened: Opened,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(tasks, "open_checkpoint", lambda *_: opened)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 70, 90, 3), np.uint8)
    for i, picture in enumerate(pixels):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
    scores = {}
    for asked in ("none", "auto"):
        options = PredictOptions(
            optimize=asked, draw=False, device="cpu", output=str(tmp_path / asked)
        )
        folder = predict("model", [str(tmp_path / f"{i}.png") for i in range(3)], options)
        lines = (folder / "results.jsonl").read_text().splitlines()
        scores[asked] = [(each["name"], each["score"]) for each in map(json.loads, lines)]
        assert ("in float32" in capsys.readouterr().out) == (asked == "auto")
    for (name, score), (other, found) in zip(scores["none"], scores["auto"], strict=True):
        assert name == other
        assert found == pytest.approx(score, abs=1e-5)


def test_photographs_are_decoded_no_further_than_a_classifier_looks(opened: Opened) -> None:
    whole = FileSource((Path("a.jpg"),), (None,))
    assert read_less(whole, opened, "auto").side == int(2 * 64 / opened.input_record["crop_share"])
    assert read_less(whole, opened, "none") is whole
    assert read_less(whole, replace(opened, task=DETECTION), "auto") is whole


def test_without_it_an_evaluation_scores_the_model_as_written(opened: Opened) -> None:
    assert EvaluateOptions().optimize == "none"
    assert speed_up(opened, "none", "float32", 10, 16).model is opened.model
    assert isinstance(speed_up(opened, "packed", "float32", 10, 16).model, PreparedTrunk)


@pytest.mark.parametrize(("images", "count"), [(10, 1), (1999, 1), (2000, 16)])
def test_whole_batches_are_prepared_for_many_pictures(
    opened: Opened, images: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(
        "pyramidvit.inference.optimize.optimize",
        lambda model, example, **options: asked.append((example, options["patience"])) or model,
    )
    speed_up(opened, "auto", "float32", images, 16)
    assert asked == [((count, 3, 64, 64), pytest.approx(max(1, images / 100)))]


def test_what_prepares_for_one_size_is_refused_where_pictures_have_many(opened: Opened) -> None:
    detector = replace(opened, task=DETECTION)
    with pytest.raises(UserError, match="--optimize openvino prepares for one size, and detection"):
        speed_up(detector, "openvino", "float32", 10, 16)
