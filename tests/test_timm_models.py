"""Our models in timm's registry."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
from timm.models import load_checkpoint
from timm.optim import create_optimizer_v2

from pyramidvit import (
    PVTv1Classifier,
    PVTv1Pyramid,
    PVTv2Classifier,
    PVTv2Pyramid,
    create_model,
    list_models,
    register_with_timm,
)
from pyramidvit.errors import UserError
from pyramidvit.timm_models import main
from timm_registry import own_registry

EXACT = {"rtol": 0, "atol": 0}


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    with own_registry():
        yield


def test_timm_s_own_models_keep_their_names_unless_told_otherwise(
    recwarn: pytest.WarningsRecorder,
) -> None:
    assert register_with_timm() == list_models("pvt_[!v]*")
    assert register_with_timm() == list_models("pvt_[!v]*")  # as often as one likes
    assert isinstance(timm.create_model("pvt_tiny"), PVTv1Classifier)
    assert not isinstance(timm.create_model("pvt_v2_b0"), PVTv2Classifier)
    assert register_with_timm(override=True) == list_models()
    assert not recwarn  # timm warns of names that are taken twice
    assert isinstance(timm.create_model("pvt_v2_b0"), PVTv2Classifier)
    assert set(timm.list_models("pvt_*")) == set(list_models())


def test_timm_s_arguments_reach_the_model() -> None:
    register_with_timm(override=True)
    model = timm.create_model(
        "pvt_v2_b0", num_classes=7, in_chans=4, drop_rate=0.3, drop_path_rate=0.2, img_size=64
    )
    assert isinstance(model, PVTv2Classifier)
    assert (model.num_classes, model.in_chans, model.head_drop.p) == (7, 4, 0.3)
    assert model.block4[-1].drop_path.p == pytest.approx(0.2)
    config = timm.data.resolve_data_config({}, model=model)
    assert config["input_size"] == (4, 64, 64)
    model = timm.create_model("pvt_tiny", global_pool="avg", device="meta", dtype=torch.float16)
    assert model.global_pool == "avg"
    assert model.get_classifier().weight.dtype == torch.float16
    for name, kind in (("pvt_tiny", PVTv1Pyramid), ("pvt_v2_b0", PVTv2Pyramid)):
        pyramid = timm.create_model(name, features_only=True, out_indices=(1, -1), img_size=96)
        assert isinstance(pyramid, kind)
        assert pyramid.feature_info.reduction() == [8, 32]


@pytest.mark.parametrize("name", list_models())
def test_timm_finds_the_published_input(name: str) -> None:
    register_with_timm(override=True)
    assert timm.get_pretrained_cfg_value(name, "input_size") == (3, 224, 224)
    assert timm.data.resolve_data_config(timm.get_pretrained_cfg(name).to_dict()) == {
        "input_size": (3, 224, 224),
        "interpolation": "bicubic",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "crop_pct": 0.875,
        "crop_mode": "center",
    }


@pytest.mark.parametrize("name", ["pvt_tiny", "pvt_v2_b0"])
def test_weights_come_by_path_or_by_timm_s_description(name: str, tmp_path: Path) -> None:
    register_with_timm(override=True)
    source = create_model(name, num_classes=1000)
    state = source.state_dict()
    file = tmp_path / f"{name}.pth"
    torch.save(state, file)
    by_file = {"pretrained": True, "pretrained_cfg_overlay": {"file": str(file)}}
    for options in ({"pretrained": str(file)}, {"checkpoint_path": str(file)}, by_file):
        model = timm.create_model(name, **options)
        torch.testing.assert_close(model.state_dict(), state, **EXACT)

    model = timm.create_model(name, num_classes=5, in_chans=1, **by_file)
    grey = model.get_parameter("patch_embed1.proj.weight")
    assert grey.shape[1] == 1
    torch.testing.assert_close(grey, state["patch_embed1.proj.weight"].sum(1, keepdim=True))
    torch.testing.assert_close(
        model.state_dict()["block4.1.attn.q.weight"], state["block4.1.attn.q.weight"], **EXACT
    )
    part = timm.create_model(name, features_only=True, out_indices=(1,), **by_file)
    assert part.state_dict().keys() < state.keys()
    for key, value in part.state_dict().items():
        torch.testing.assert_close(value, state[key], **EXACT)
    torch.save({**state, "foreign.weight": torch.zeros(1)}, file)
    with pytest.raises(RuntimeError, match=r"foreign\.weight"):
        timm.create_model(name, features_only=True, **by_file)


def test_timm_s_optimizer_decays_learning_rates_by_layer() -> None:
    register_with_timm()
    model = timm.create_model("pvt_tiny")
    optimizer = create_optimizer_v2(model, opt="adamw", weight_decay=0.05, layer_decay=0.5)
    scale, decay = {}, {}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            scale[names[id(parameter)]] = group["lr_scale"]
            decay[names[id(parameter)]] = group["weight_decay"]
    assert scale["head.weight"] == 1
    assert scale["block4.1.mlp.fc1.weight"] == 0.5
    assert scale["patch_embed1.proj.weight"] == min(scale.values())
    assert (decay["cls_token"], decay["norm.bias"], decay["pos_embed1"]) == (0, 0, 0.05)


def test_a_script_is_run_with_the_models_registered(tmp_path: Path) -> None:
    model = create_model("pvt_tiny", num_classes=3)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "last.pth")
    (tmp_path / "neighbour.py").write_text("NAME = 'pvt_tiny'\n")
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, timm, neighbour\n"
        "if __name__ == '__main__':\n"
        "    options = {'num_classes': 3, 'checkpoint_path': sys.argv[2]}\n"
        "    model = timm.create_model(neighbour.NAME, **options)\n"
        "    print(type(model).__module__, sys.argv[1:2], timm.list_modules().count('__main__'))\n"
    )
    command = [sys.executable, "-m", "pyramidvit.timm_models"]
    done = subprocess.run(
        [*command, str(script), "--checkpoint", str(tmp_path / "last.pth")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "pyramidvit.backbones.pvt_v1 ['--checkpoint'] 0\n", done.stderr
    with pytest.raises(UserError, match=r"no such script: missing\.py"):
        main(["missing.py"])


def test_timm_s_checkpoints_load_here(tmp_path: Path) -> None:
    """As timm's train.py writes them."""
    model = create_model("pvt_tiny", num_classes=3)
    file = tmp_path / "model_best.pth.tar"
    torch.save({"epoch": 3, "arch": "pvt_tiny", "state_dict": model.state_dict()}, file)
    again = create_model("pvt_tiny", num_classes=3, pretrained=file)
    torch.testing.assert_close(again.state_dict(), model.state_dict(), **EXACT)
    load_checkpoint(again, str(file))
