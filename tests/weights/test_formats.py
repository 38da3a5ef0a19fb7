"""From one library's names to another's and back, bit for bit, and with the same outputs.

timm's and transformers' models are built, filled and saved by their own code; nothing is fetched.
"""

import argparse
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

import rule
from foreign import State, assert_bits, built, bytes_like, fill_with_rule, prefixed, shapes
from pyramidvit import create_model, list_models, load_weights, read_checkpoint
from pyramidvit.errors import UserError
from pyramidvit.weights.convert import write_official, write_timm, write_transformers
from pyramidvit.weights.recognise import SIZES, Found, find_pvt

SMALL_V2 = ["pvt_v2_b0", "pvt_v2_b1", "pvt_v2_b2_li"]
SMALL = ["pvt_tiny", *SMALL_V2]


@pytest.fixture(scope="module")
def timm() -> ModuleType:
    return pytest.importorskip("timm")


@pytest.fixture(scope="module")
def transformers() -> ModuleType:
    return pytest.importorskip("transformers")


@pytest.mark.parametrize("name", list_models())
def test_every_format_gives_back_every_bit(
    name: str, tmp_path: Path, timm: ModuleType, transformers: ModuleType
) -> None:
    official = bytes_like(shapes(name))
    first = tmp_path / "official.pth"
    torch.save(official, first)
    found = read(first)
    assert (found.naming.source, found.variants, found.unknown) == ("official", (name,), ())
    assert_bits(found.state, official)

    write_official(tmp_path / "again.pth", found)
    assert_bits(torch.load(tmp_path / "again.pth", weights_only=True), official)
    (tmp_path / "again.pth").unlink()
    write_official(tmp_path / "again.safetensors", found)
    assert_bits(safetensors.torch.load_file(tmp_path / "again.safetensors"), official)
    (tmp_path / "again.safetensors").unlink()

    if found.family == "v2":
        write_timm(tmp_path / "timm.pth", found)
        with torch.device("meta"):
            theirs = timm.create_model(name)
        assert_back(tmp_path / "timm.pth", "timm", name, official, theirs)
    else:
        with pytest.raises(UserError, match=r"timm has no PVT v1; .*--to official"):
            write_timm(tmp_path / "timm.pth", found)
    write_transformers(tmp_path / "there", found, classes=None)
    config = transformers.AutoConfig.from_pretrained(tmp_path / "there")
    with torch.device("meta"):
        theirs = transformers.AutoModelForImageClassification.from_config(config)
    assert_back(tmp_path / "there", "transformers", name, official, theirs)


def read(path: Path) -> Found:
    return find_pvt(read_checkpoint(path).state, str(path))


def assert_back(path: Path, source: str, name: str, official: State, theirs: nn.Module) -> None:
    """A written file has exactly the names and shapes of that library's model, and is ours."""
    state = read_checkpoint(path).state
    wanted = {key: value.shape for key, value in theirs.state_dict().items()}
    assert {key: value.shape for key, value in state.items()} == wanted
    found = find_pvt(state, str(path))
    assert (found.naming.source, found.variants, found.unknown) == (source, (name,), ())
    assert_bits(found.state, official)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_the_number_format_is_kept(kind: torch.dtype, tmp_path: Path) -> None:
    official = {key: value.to(kind) for key, value in built("pvt_v2_b0").state_dict().items()}
    torch.save(official, tmp_path / "o.pth")
    found = read(tmp_path / "o.pth")
    write_official(tmp_path / "o.safetensors", found)
    write_timm(tmp_path / "timm.safetensors", found)
    write_transformers(tmp_path / "there", found, classes=None)
    for written in ("o.safetensors", "timm.safetensors", "there"):
        assert_bits(read(tmp_path / written).state, official)


def test_what_is_no_ending_of_a_weight_file_is_refused(tmp_path: Path) -> None:
    found = find_pvt(built("pvt_v2_b0").state_dict(), "x")
    with pytest.raises(UserError, match=r"ends in \.pth or \.safetensors"):
        write_official(tmp_path / "model.onnx", found)
    assert not list(tmp_path.iterdir())


# Their files, read by us.


def save_bare(model: nn.Module, path: Path) -> Path:
    torch.save(model.state_dict(), path / "model.pth")
    return path / "model.pth"


def save_safetensors(model: nn.Module, path: Path) -> Path:
    safetensors.torch.save_file(model.state_dict(), path / "model.safetensors")
    return path / "model.safetensors"


def save_training(model: nn.Module, path: Path) -> Path:
    """As timm's CheckpointSaver: arguments, a name, and averaged weights beside the plain ones."""
    plain = {key: torch.zeros_like(value) for key, value in model.state_dict().items()}
    content = {
        "epoch": 7,
        "arch": "pvt_v2",
        "state_dict": plain,
        "state_dict_ema": model.state_dict(),
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1}]},
        "args": argparse.Namespace(model="pvt_v2", lr=1e-3, mean=None),
        "metric": 71.5,
    }
    torch.save(content, path / "checkpoint-7.pth.tar")
    return path / "checkpoint-7.pth.tar"


# Every way of saving for the smallest model; the others in one way.
@pytest.mark.parametrize(
    ("name", "save"),
    [
        *(("pvt_v2_b0", save) for save in (save_bare, save_safetensors, save_training)),
        *((name, save_bare) for name in SMALL_V2[1:]),
    ],
)
def test_timms_own_file_gives_timms_own_logits(
    name: str, save: Any, timm: ModuleType, tmp_path: Path
) -> None:
    theirs = fill_with_rule(timm.create_model(name, num_classes=10))
    path = save(theirs, tmp_path)
    ours = create_model(name, num_classes=10).eval()
    report = load_weights(ours, path, new_head=False, ema=save is save_training)
    assert len(report.loaded) == len(ours.state_dict())
    assert "Names: timm" in report.notes
    assert_outputs(ours, theirs, rule.images(1, 64, 96))


def test_timms_checkpoint_without_a_word_gives_the_plain_weights(
    timm: ModuleType, tmp_path: Path
) -> None:
    path = save_training(fill_with_rule(timm.create_model("pvt_v2_b0", num_classes=2)), tmp_path)
    checkpoint = read_checkpoint(path)
    assert (checkpoint.place, checkpoint.others) == ("state_dict", ("state_dict_ema",))
    assert not any(value.any() for value in checkpoint.state.values())
    assert checkpoint.facts == {"epoch": 7, "arch": "pvt_v2", "model": "pvt_v2"}


def test_timms_feature_extractor_gives_the_same_maps(timm: ModuleType, tmp_path: Path) -> None:
    theirs = fill_with_rule(timm.create_model("pvt_v2_b0", features_only=True))
    path = save_bare(theirs, tmp_path)
    ours = create_model("pvt_v2_b0", features_only=True, pretrained=path).eval()
    images = rule.images(1, 64, 96)
    with torch.no_grad():
        for found, wanted in zip(ours(images), theirs(images), strict=True):
            assert_close(found, wanted)


def save_whole(model: Any, path: Path) -> None:
    model.save_pretrained(path)
    assert (path / "model.safetensors").is_file()


def save_shards(model: Any, path: Path) -> None:
    model.save_pretrained(path, max_shard_size="4MB")
    assert len(list(path.glob("model-*.safetensors"))) > 2


def save_pickled(model: Any, path: Path) -> None:
    """As transformers wrote them before safetensors."""
    model.save_pretrained(path)
    (path / "model.safetensors").unlink()
    torch.save(model.state_dict(), path / "pytorch_model.bin")


def save_pickled_shards(model: Any, path: Path) -> None:
    model.save_pretrained(path)
    (path / "model.safetensors").unlink()
    places = {}
    for number, key in enumerate(model.state_dict()):
        places[key] = f"pytorch_model-{number % 3 + 1:05}-of-00003.bin"
    for shard in set(places.values()):
        part = {k: v for k, v in model.state_dict().items() if places[k] == shard}
        torch.save(part, path / shard)
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (path / "pytorch_model.bin.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("name", "save"),
    [
        *(("pvt_v2_b0", s) for s in (save_whole, save_shards, save_pickled, save_pickled_shards)),
        *(("pvt_tiny", s) for s in (save_whole, save_shards)),
        *((name, save_whole) for name in SMALL_V2[1:]),
    ],
)
def test_transformers_own_directory_gives_its_own_logits_with_the_right_epsilon(
    name: str, save: Any, transformers: ModuleType, tmp_path: Path
) -> None:
    theirs = fill_with_rule(foreign_classifier(transformers, name, 10))
    save(theirs, tmp_path)
    ours = create_model(name, num_classes=10, pretrained=tmp_path).eval()
    correct_epsilon(theirs)
    side = 224 if name == "pvt_tiny" else 64
    assert_outputs(ours, theirs, rule.images(1, side, side))


def test_transformers_backbone_gives_the_same_maps(
    transformers: ModuleType, tmp_path: Path
) -> None:
    config = foreign_classifier(transformers, "pvt_v2_b0", 2).config
    config.out_features = ["stage1", "stage2", "stage3", "stage4"]
    theirs = fill_with_rule(transformers.PvtV2Backbone(config))
    theirs.save_pretrained(tmp_path)
    ours = create_model("pvt_v2_b0", features_only=True, pretrained=tmp_path).eval()
    correct_epsilon(theirs)
    images = rule.images(1, 64, 64)
    with torch.no_grad():
        for found, wanted in zip(ours(images), theirs(images).feature_maps, strict=True):
            assert_close(found, wanted)


def foreign_classifier(transformers: ModuleType, name: str, classes: int) -> Any:
    """A classifier of transformers, built from the columns of Table 1."""
    size = SIZES[name]
    columns: dict[str, Any] = {
        "hidden_sizes": list(size.dims),
        "depths": list(size.depths),
        "num_attention_heads": list(size.num_heads),
        "mlp_ratios": list(size.mlp_ratios),
        "num_labels": classes,
    }
    if name.startswith("pvt_v2"):
        linear = name.endswith("_li")
        config = transformers.PvtV2Config(
            sr_ratios=list(size.sr_ratios), linear_attention=linear, **columns
        )
        return transformers.PvtV2ForImageClassification(config)
    config = transformers.PvtConfig(sequence_reduction_ratios=list(size.sr_ratios), **columns)
    return transformers.PvtForImageClassification(config)


def correct_epsilon(model: nn.Module) -> None:
    """Gives the norms of patch embedding and of reduction the released models' epsilon."""
    changed = 0
    for name, module in model.named_modules():
        parent = name.split(".")[-2] if "." in name else ""
        embeds = "patch_embedding" in name and name.endswith("layer_norm")
        reduces = name.endswith("layer_norm") and parent in ("attention", "self")
        if embeds or reduces:
            assert isinstance(module, nn.LayerNorm)
            module.eps = 1e-5
            changed += 1
    assert changed > 4


# Our files, read by them.


@pytest.mark.parametrize("name", SMALL_V2)
def test_timm_takes_our_file_and_gives_our_logits(
    name: str, timm: ModuleType, tmp_path: Path
) -> None:
    ours = built(name)
    path = tmp_path / "timm.safetensors"
    write_timm(path, find_pvt(ours.state_dict(), "ours"))
    theirs = timm.create_model(name, checkpoint_path=str(path)).eval()
    assert_outputs(ours, theirs, rule.images(1, 64, 96))


@pytest.mark.parametrize("name", SMALL)
def test_transformers_takes_our_directory_and_gives_our_logits_with_the_right_epsilon(
    name: str, transformers: ModuleType, tmp_path: Path
) -> None:
    ours = built(name)
    write_transformers(tmp_path / "there", find_pvt(ours.state_dict(), "ours"), classes=None)
    theirs = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "there")
    side = 224 if name == "pvt_tiny" else 64
    images = rule.images(1, side, side)
    with torch.no_grad():
        apart = (theirs.eval()(images).logits - ours(images)).abs().max()
    assert 1e-3 < apart < 0.1  # the rule's weights make the epsilon show
    correct_epsilon(theirs)
    assert_outputs(ours, theirs, images)


def test_transformers_takes_our_backbone(transformers: ModuleType, tmp_path: Path) -> None:
    ours = built("pvt_v2_b0", features_only=True)
    write_transformers(tmp_path / "there", find_pvt(ours.state_dict(), "ours"), classes=None)
    theirs = transformers.PvtV2Backbone.from_pretrained(
        tmp_path / "there", out_features=["stage1", "stage2", "stage3", "stage4"]
    )
    correct_epsilon(theirs)
    images = rule.images(1, 64, 64)
    with torch.no_grad():
        for found, wanted in zip(theirs.eval()(images).feature_maps, ours(images), strict=True):
            assert_close(found, wanted)


@pytest.mark.parametrize("name", ["pvt_tiny", "pvt_v2_b0"])
def test_class_names_travel_to_transformers_and_back(
    name: str, transformers: ModuleType, tmp_path: Path
) -> None:
    state = dict(create_model(name, num_classes=3).state_dict())
    names = ("crane", "Bär", "crane")  # ImageNet, too, has two classes of one name
    write_transformers(tmp_path / "there", find_pvt(state, "ours"), classes=names)
    theirs = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "there")
    assert theirs.config.id2label == dict(enumerate(names))
    assert theirs.classifier.out_features == 3
    assert read_checkpoint(tmp_path / "there").classes == names
    theirs.save_pretrained(tmp_path / "again")
    assert read_checkpoint(tmp_path / "again").classes == names
    assert_bits(read(tmp_path / "again").state, state)


@pytest.mark.parametrize("name", ["pvt_tiny", "pvt_v2_b0"])
def test_grey_images_and_no_stated_names_travel_too(
    name: str, transformers: ModuleType, tmp_path: Path
) -> None:
    state = dict(create_model(name, num_classes=3, in_chans=1).state_dict())
    write_transformers(tmp_path / "there", find_pvt(state, "ours"), classes=None)
    theirs = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "there")
    assert theirs.config.num_channels == 1
    assert theirs.config.num_labels == 3
    assert read_checkpoint(tmp_path / "there").classes is None


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "net.encoder.0."])
def test_what_stood_under_a_prefix_is_written_without_it(prefix: str, tmp_path: Path) -> None:
    official = bytes_like(shapes("pvt_v2_b0"))
    found = find_pvt(prefixed(official, prefix), "x")
    write_official(tmp_path / "o.pth", found)
    assert_bits(torch.load(tmp_path / "o.pth", weights_only=True), official)


def assert_outputs(ours: nn.Module, theirs: nn.Module, images: Tensor) -> None:
    with torch.no_grad():
        wanted = theirs(images)
        assert_close(ours(images), wanted if isinstance(wanted, Tensor) else wanted.logits)


def assert_close(found: Tensor, wanted: Tensor) -> None:
    assert wanted.abs().max() > 0.1  # or the comparison says nothing
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
