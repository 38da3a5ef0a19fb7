"""Detection by the verbs that users type, on pictures of coloured rectangles."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from pyramidvit import read_checkpoint
from pyramidvit.cli import main
from pyramidvit.cli.kinds import kind_of
from pyramidvit.errors import UserError
from pyramidvit.tasks.detection.table import DETECTORS, head_named

SIZES = ((48, 64), (64, 48), (56, 56))
COLOURS = {3: (200, 30, 30), 17: (30, 30, 200)}  # by category id: neither from 0 nor without gaps
SMALL = (
    *("--short_side", "64", "--long_side", "96", "--width", "8", "--hidden", "16"),
    *("--proposals", "20", "--region_samples", "16", "--batch_size", "4", "--workers", "0"),
)


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve training and four validation pictures with boxes, masks, and one without either."""
    root = tmp_path_factory.mktemp("coco")
    rng = np.random.default_rng(0)
    (root / "annotations").mkdir()
    for part, count in (("train2017", 12), ("val2017", 4)):
        (root / part).mkdir()
        images, annotations = [], []
        for number in range(count):
            height, width = SIZES[number % 3]
            pixels = rng.integers(90, 140, (height, width, 3), dtype=np.uint8)
            images.append({"id": 10 * number, "file_name": f"{number}.png"})
            images[-1] |= {"width": width, "height": height}
            for category, colour in () if number == 1 else COLOURS.items():
                x, y = (int(v) for v in rng.integers(0, 20, 2))
                pixels[y : y + 20, x : x + 24] = colour
                corners = [x, y, x + 24, y, x + 24, y + 20, x, y + 20]
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": 10 * number,
                        "category_id": category,
                        "bbox": [x, y, 24, 20],
                        "area": 480,
                        "iscrowd": 0,
                        "segmentation": [corners],
                    }
                )
            Image.fromarray(pixels).save(root / part / f"{number}.png")
        content = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": 3, "name": "red"}, {"id": 17, "name": "blue"}],
        }
        path = root / "annotations" / f"instances_{part}.json"
        path.write_text(json.dumps(content), encoding="utf-8")
    return root


@pytest.mark.parametrize("model", DETECTORS)
def test_a_detector_is_trained_scored_and_predicts(
    model: str, coco: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("train", "--model", model, "--data", str(coco), "--epochs", "2", *SMALL)
    assert main([*words, "--accumulate", "2", "--output", "run"]) == 0
    record = read_checkpoint("run/best.safetensors").record
    assert record["task"] == "detection"
    assert record["model"]["name"] == model
    assert record["classes"] == [{"id": 3, "name": "red"}, {"id": 17, "name": "blue"}]
    for name in ("samples.png", "predictions.png", "per_class.csv", "precision_recall.png"):
        assert (tmp_path / "run" / name).is_file()

    assert main(["evaluate", "run/best.safetensors", "--output", "scores", "--workers", "0"]) == 0
    scored = json.loads((tmp_path / "scores" / "metrics.json").read_text(encoding="utf-8"))
    assert scored["images"] == 4
    assert ("mask_ap" in scored) == model.endswith("mask_rcnn")
    assert scored["box_ap"] == pytest.approx(record["figures"]["box_ap"])

    picture = str(coco / "val2017" / "0.png")
    assert main(["predict", "run/best.safetensors", picture, "--output", "found"]) == 0
    line = json.loads((tmp_path / "found" / "results.jsonl").read_text(encoding="utf-8"))
    assert {found["id"] for found in line["objects"]} <= {3, 17}
    assert (tmp_path / "found" / line["picture"]).is_file()


@pytest.fixture
def middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The detector of the page on detectors of one's own, put in with its one line."""
    page = Path(__file__).parents[2] / "docs" / "new-detector.md"
    source = page.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    (tmp_path / "its_own_file.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(DETECTORS, "middle", "its_own_file:HEAD")
    yield "middle"
    sys.modules.pop("its_own_file", None)


def test_a_detector_of_ones_own_needs_its_file_and_one_line(
    middle: str,
    coco: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from pyramidvit import TorchvisionDetector, create_model
    from pyramidvit.tasks.detection.operations import count_operations

    test_a_detector_is_trained_scored_and_predicts(middle, coco, tmp_path, monkeypatch)
    capsys.readouterr()
    assert main(["inspect", "run/best.safetensors"]) == 0
    said = capsys.readouterr().out
    assert "detection, middle" in said
    assert "2: red, blue" in said

    words = ["train", "--model", middle, "--backbone", "pvt_tiny", "--data", str(coco), *SMALL]
    words += ["--recipe", "1x", "--padding", "masked", "--epochs", "1", "--output", "masked"]
    assert main(words) == 0
    made = read_checkpoint("masked/last.safetensors").record["model"]
    assert (made["backbone"], made["numbers"]) == ("pvt_tiny", {"width": 8, "padding": "masked"})

    model = create_model(middle, backbone="pvt_v2_b0", num_classes=5, width=8)
    assert TorchvisionDetector(model).num_classes == 5
    assert count_operations(model, (64, 64)).macs > 0
    with pytest.raises(UserError, match="nearest: middle"):
        kind_of("midle")


def test_padding_is_not_masked_for_a_detector_that_cannot(
    middle: str, coco: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    head = head_named(middle)
    module = sys.modules["its_own_file"]

    def build(backbone: str, num_classes: int, *, decoding: Any = None, **_: Any) -> Any:
        return head.build(backbone, num_classes)

    monkeypatch.setattr(module, "HEAD", head._replace(build=build))
    words = ["train", "--model", middle, "--data", str(coco), *SMALL, "--padding", "masked"]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "--padding must be published for middle" in error
    assert error.count("\n") == 1


def test_a_run_of_a_detector_goes_on_bit_for_bit(
    coco: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["train", "--model", "mask_rcnn", "--data", str(coco), *SMALL]
    words += ["--checkpoint_steps", "1", "--schedule", "step", "--lr_drops", "[1]"]
    assert main([*words, "--epochs", "2", "--output", "whole"]) == 0

    from pyramidvit.engine import train as engine

    one_step = engine.train_step

    def cut(run: Any, delivery: Any, mix: Any) -> dict[str, float]:
        if run.progress.step == 4:
            raise KeyboardInterrupt
        return one_step(run, delivery, mix)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "train_step", cut)
        assert main([*words, "--epochs", "2", "--output", "cut"]) == 130
    assert yaml.safe_load((tmp_path / "cut" / "args.yaml").read_text())["lr_drops"] == [1]
    assert main(["train", "--resume", "cut"]) == 0
    whole, again = (read_checkpoint(f"{name}/last.safetensors") for name in ("whole", "cut"))
    assert whole.state.keys() == again.state.keys()
    assert all((value == again.state[name]).all() for name, value in whole.state.items())


def test_a_detector_starts_from_a_classifier_or_a_detector(
    coco: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from pyramidvit import create_model, save_checkpoint

    monkeypatch.chdir(tmp_path)
    save_checkpoint(Path("b0.safetensors"), create_model("pvt_v2_b0").state_dict(), {})
    words = ["train", "--model", "retinanet", "--data", str(coco), "--epochs", "1", *SMALL]
    assert main([*words, "--pretrained", "b0.safetensors", "--output", "first"]) == 0
    assert "the file has no detector" in capsys.readouterr().out
    best = "first/best.safetensors"
    assert main([*words, "--pretrained", best, "--output", "second"]) == 0
    assert "reinitialised" not in capsys.readouterr().out
    other = ["train", "--model", "mask_rcnn", "--data", str(coco), "--epochs", "1", *SMALL]
    assert main([*other, "--pretrained", best, "--output", "third"]) == 2
    error = capsys.readouterr().err
    assert f"{best} holds retinanet, not mask_rcnn: add --model retinanet" in error


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--model", "retinannet"), "unknown model retinannet; nearest: "),
        (("--model", "retinanet", "--backbone", "pvt_v2_b9"), "unknown backbone pvt_v2_b9"),
        (("--model", "retinanet", "--recipe", "1y"), "unknown recipe 1y; nearest: "),
        (("--model", "retinanet", "--accumulate", "3"), "--accumulate must be a divisor"),
        (("--model", "retinanet", "--long_side", "20"), "--long_side must be"),
    ],
)
def test_a_mistake_is_answered_in_one_line(
    words: tuple[str, ...], told: str, coco: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--data", str(coco), *words]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
