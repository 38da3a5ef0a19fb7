"""Models as folders: what is saved comes back, and what does not fit is named."""

import copy
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub import ModelCard, ModelHubMixin
from torch import nn

import pyramidvit
from pyramidvit import (
    PVTv1Classifier,
    PVTv1Pyramid,
    PVTv2Classifier,
    PVTv2Pyramid,
    create_model,
    register_with_timm,
)
from pyramidvit.errors import UserError
from timm_registry import own_registry

EXACT = {"rtol": 0, "atol": 0}
V1 = replace(PVTv1Classifier.sizes["pvt_tiny"], dims=(8, 16, 40, 64), depths=(1, 2, 1, 1))
V2 = replace(PVTv2Classifier.sizes["pvt_v2_b2_li"], dims=(8, 16, 40, 64), depths=(1, 2, 1, 1))
NAMES = ("cat", "dog", "Käfer")
MODELS: dict[str, tuple[type, Any, dict[str, Any]]] = {
    "v1 classifier": (
        PVTv1Classifier,
        V1,
        {"num_classes": 3, "in_chans": 4, "drop_rate": 0.2, "global_pool": "avg"},
    ),
    "v2 classifier": (PVTv2Classifier, V2, {"num_classes": 3, "drop_path_rate": 0.25}),
    "v1 pyramid": (PVTv1Pyramid, V1, {"out_indices": (0, 2)}),
    "v2 pyramid": (PVTv2Pyramid, V2, {"in_chans": 1}),
}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    kind, size, options = MODELS[request.param]
    return kind(size, **options)


@pytest.fixture
def classifier() -> PVTv2Classifier:
    torch.manual_seed(0)
    model = PVTv2Classifier(V2, num_classes=3)
    model.class_names = NAMES
    return model


@pytest.fixture
def folder(classifier: PVTv2Classifier, tmp_path: Path) -> Path:
    classifier.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


@torch.no_grad()
def test_a_saved_model_comes_back_whole(model: Any, tmp_path: Path) -> None:
    assert isinstance(model, ModelHubMixin)
    model.save_pretrained(tmp_path / "saved")
    again = type(model).from_pretrained(tmp_path / "saved")
    assert not again.training
    assert (again.size, again.options()) == (model.size, model.options())
    images = torch.randn(2, model.in_chans, 64, 64)
    torch.testing.assert_close(again(images), model.eval()(images), **EXACT)
    assert {path.name for path in (tmp_path / "saved").iterdir()} == {
        "model.safetensors",
        "config.json",
        "README.md",
    }


@pytest.mark.parametrize("name", ["pvt_tiny", "pvt_v2_b0"])
def test_the_configuration_names_the_model(name: str, tmp_path: Path) -> None:
    model = create_model(name, num_classes=5)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert config["architecture"] == model.name == name
    assert config["class"] == type(model).__name__
    assert config["num_classes"] == 5
    again = create_model(name, num_classes=5)
    pyramidvit.load_weights(again, tmp_path / "model.safetensors")  # under the released names
    torch.testing.assert_close(again.state_dict(), model.state_dict(), **EXACT)


def test_a_size_of_one_s_own_has_no_name(classifier: PVTv2Classifier) -> None:
    assert classifier.name is None


def test_class_names_travel_along(folder: Path) -> None:
    again = PVTv2Classifier.from_pretrained(folder)
    assert again.class_names == NAMES
    again.save_pretrained(folder.parent / "twice")
    assert PVTv2Classifier.from_pretrained(folder.parent / "twice").class_names == NAMES
    again.reset_classifier(4)
    assert again.class_names is None


def test_what_was_changed_after_building_is_saved(
    classifier: PVTv2Classifier, tmp_path: Path
) -> None:
    classifier.reset_classifier(7)
    classifier.pretrained_cfg["mean"] = (0.5, 0.5, 0.5)
    classifier.save_pretrained(tmp_path)
    again = PVTv2Classifier.from_pretrained(tmp_path)
    assert (again.num_classes, again.head.out_features) == (7, 7)
    assert again.pretrained_cfg["mean"] == (0.5, 0.5, 0.5)


def test_options_can_be_changed_while_loading(folder: Path, classifier: PVTv2Classifier) -> None:
    model = PVTv2Classifier.from_pretrained(str(folder), num_classes=9, drop_rate=0.5)
    assert (model.num_classes, model.head_drop.p, model.class_names) == (9, 0.5, None)
    found, wanted = model.state_dict(), classifier.state_dict()
    for key in ("block4.0.attn.q.weight", "norm4.bias"):
        torch.testing.assert_close(found[key], wanted[key], **EXACT)
    bare = PVTv2Classifier.from_pretrained(folder, num_classes=0)
    assert isinstance(bare.head, nn.Identity)


def test_models_can_be_copied_and_pickled(classifier: PVTv2Classifier) -> None:
    for again in (copy.deepcopy(classifier), pickle.loads(pickle.dumps(classifier))):
        assert again.options() == classifier.options()
        torch.testing.assert_close(again.state_dict(), classifier.state_dict(), **EXACT)


def test_the_model_card_says_how_to_load_the_model(
    folder: Path, classifier: PVTv2Classifier, tmp_path: Path
) -> None:
    card = ModelCard.load(folder / "README.md")
    assert card.data.license is None
    assert card.data.library_name == "pyramidvit"
    assert card.data.pipeline_tag == "image-classification"
    for part in ("PVTv2Classifier.from_pretrained", "8, 16, 40, 64", "(0.485, 0.456", "2. Käfer"):
        assert part in card.text
    options = {"license": "mit", "repo_id": "me/beetles"}
    classifier.save_pretrained(tmp_path / "licensed", model_card_kwargs=options)
    card = ModelCard.load(tmp_path / "licensed" / "README.md")
    assert card.data.license == "mit"
    assert 'from_pretrained("me/beetles")' in card.text
    assert "stride 4, 16" in PVTv1Pyramid(V1, out_indices=(0, 2)).generate_model_card().text


def test_another_class_s_folder_is_refused(folder: Path) -> None:
    message = "holds a PVTv2Classifier, not a PVTv1Pyramid: load it with PVTv2Classifier.from_pre"
    with pytest.raises(UserError, match=message):
        PVTv1Pyramid.from_pretrained(folder)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(UserError, match=missing) as error:
        PVTv2Classifier.from_pretrained(folder)
    assert "\n" not in str(error.value)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither a folder nor a hub repository"):
        PVTv2Classifier.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"someone/nothing is not in the cache") as error:
        PVTv2Classifier.from_pretrained("someone/nothing", cache_dir=tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("size", {"dims": [8, 16]}, "a size has dims, depths"),
        ("size.dims", [8, 16, 40], "dims of the size must be four numbers"),
        ("size.depths", [1, 2, 0, 1], "depths of the size must be four numbers"),
        ("size.depths", [1, 2, 10**9, 1], "depths of the size must be four numbers"),
        ("size.linear", "yes", "linear of the size must be a number"),
        ("options.num_classes", "many", "says num_classes many, model.safetensors has 3"),
        ("options.global_pool", "max", "global_pool must be one of"),
        ("options.colour", "red", "does not describe a PVTv2Classifier"),
        ("options", None, "was not written by save_pretrained"),
        ("size.depths", [1, 2, 2, 1], "model.safetensors"),
        ("size.dims", [8, 16, 40, 128], "model.safetensors"),
        ("options.num_classes", 5, "says num_classes 5, model.safetensors has 3"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(
    folder: Path, key: str, value: Any, message: str
) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    first, _, second = key.partition(".")
    if second:
        config[first][second] = value
    else:
        config[first] = value
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(UserError, match=message) as error:
        PVTv2Classifier.from_pretrained(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_damaged_file_is_named(folder: Path, file: str) -> None:
    (folder / file).write_bytes(b"{nothing")
    with pytest.raises(UserError, match=file) as error:
        PVTv2Classifier.from_pretrained(folder)
    assert "\n" not in str(error.value)


def test_an_unknown_option_is_refused(folder: Path) -> None:
    with pytest.raises(
        UserError, match="PVTv2Classifier has no option classes; it has num_classes"
    ):
        PVTv2Classifier.from_pretrained(folder, classes=3)


def test_a_folder_that_cannot_be_written_is_named(
    classifier: PVTv2Classifier, tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(UserError, match=r"cannot write .*taken: "):
        classifier.save_pretrained(tmp_path / "taken")


def test_a_pruned_classifier_is_not_saved(classifier: PVTv2Classifier, tmp_path: Path) -> None:
    classifier.prune_intermediate_layers([1])
    with pytest.raises(UserError, match="a pruned classifier cannot be saved"):
        classifier.save_pretrained(tmp_path)


@torch.no_grad()
def test_timm_reads_the_folders_too(tmp_path: Path) -> None:
    """Ours and, for v2 classifiers, its own implementation."""
    images = torch.randn(2, 3, 64, 64)
    v1, v2 = create_model("pvt_tiny", num_classes=3), create_model("pvt_v2_b0", num_classes=3)
    part = create_model("pvt_tiny", features_only=True, out_indices=(1, 2))
    for number, model in enumerate((v1, v2, part)):
        model.eval().save_pretrained(tmp_path / str(number))
    with own_registry():
        register_with_timm()
        for number, model in enumerate((v1, v2, part)):
            found = timm.create_model(f"local-dir:{tmp_path / str(number)}", pretrained=True)
            assert ("pyramidvit" in type(found).__module__) == (model is not v2)
            torch.testing.assert_close(found.eval()(images), model(images), rtol=0, atol=1e-5)
