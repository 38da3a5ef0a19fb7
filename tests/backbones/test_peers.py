"""The same weights in two other implementations give the same outputs.

timm has PVT v2, transformers has both versions; models are built there, never downloaded.
transformers gives the norms of its patch embeddings and reductions the epsilon 1e-6 where the
released models have 1e-5; that is set right before the comparison.
"""

import copy
import re
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

import rule
from pyramidvit import create_model, list_models
from pyramidvit.backbones import pvt_v1, pvt_v2
from pyramidvit.models import BackboneModel

TOLERANCE = 1e-10  # float64
TOLERANCE_FLOAT32 = 1e-5
State = dict[str, Tensor]

# A released name, and what it is called elsewhere; {0} and {1} are the stage from 0 and the block.
TRANSFORMERS_V1 = {
    r"patch_embed(\d)\.proj": "patch_embeddings.{0}.projection",
    r"patch_embed(\d)\.norm": "patch_embeddings.{0}.layer_norm",
    r"pos_embed(\d)": "patch_embeddings.{0}.position_embeddings",
    r"cls_token": "patch_embeddings.3.cls_token",
    r"block(\d)\.(\d+)\.norm1": "block.{0}.{1}.layer_norm_1",
    r"block(\d)\.(\d+)\.norm2": "block.{0}.{1}.layer_norm_2",
    r"block(\d)\.(\d+)\.attn\.q": "block.{0}.{1}.attention.self.query",
    r"block(\d)\.(\d+)\.attn\.k": "block.{0}.{1}.attention.self.key",
    r"block(\d)\.(\d+)\.attn\.v": "block.{0}.{1}.attention.self.value",
    r"block(\d)\.(\d+)\.attn\.sr": "block.{0}.{1}.attention.self.sequence_reduction",
    r"block(\d)\.(\d+)\.attn\.norm": "block.{0}.{1}.attention.self.layer_norm",
    r"block(\d)\.(\d+)\.attn\.proj": "block.{0}.{1}.attention.output.dense",
    r"block(\d)\.(\d+)\.mlp\.fc1": "block.{0}.{1}.mlp.dense1",
    r"block(\d)\.(\d+)\.mlp\.fc2": "block.{0}.{1}.mlp.dense2",
    r"norm": "layer_norm",
}
TRANSFORMERS_V2 = {
    r"patch_embed(\d)\.proj": "layers.{0}.patch_embedding.proj",
    r"patch_embed(\d)\.norm": "layers.{0}.patch_embedding.layer_norm",
    r"block(\d)\.(\d+)\.norm1": "layers.{0}.blocks.{1}.layer_norm_1",
    r"block(\d)\.(\d+)\.norm2": "layers.{0}.blocks.{1}.layer_norm_2",
    r"block(\d)\.(\d+)\.attn\.q": "layers.{0}.blocks.{1}.attention.query",
    r"block(\d)\.(\d+)\.attn\.k": "layers.{0}.blocks.{1}.attention.key",
    r"block(\d)\.(\d+)\.attn\.v": "layers.{0}.blocks.{1}.attention.value",
    r"block(\d)\.(\d+)\.attn\.sr": "layers.{0}.blocks.{1}.attention.spatial_reduction",
    r"block(\d)\.(\d+)\.attn\.norm": "layers.{0}.blocks.{1}.attention.layer_norm",
    r"block(\d)\.(\d+)\.attn\.proj": "layers.{0}.blocks.{1}.attention.proj",
    r"block(\d)\.(\d+)\.mlp\.fc1": "layers.{0}.blocks.{1}.mlp.dense1",
    r"block(\d)\.(\d+)\.mlp\.fc2": "layers.{0}.blocks.{1}.mlp.dense2",
    r"block(\d)\.(\d+)\.mlp\.dwconv\.dwconv": "layers.{0}.blocks.{1}.mlp.dwconv.dwconv",
    r"norm(\d)": "layers.{0}.layer_norm",
}


@pytest.fixture(scope="module")
def timm() -> ModuleType:
    return pytest.importorskip("timm")


@pytest.fixture(scope="module")
def transformers() -> ModuleType:
    return pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def images() -> Tensor:
    return rule.images(1, 224, 224, torch.float64)


@pytest.fixture(scope="module")
def odd_images() -> Tensor:
    return rule.images(1, 97, 131, torch.float64)


@pytest.fixture(scope="module", params=list_models("pvt_v2*"))
def v2(request: pytest.FixtureRequest) -> tuple[str, BackboneModel]:
    return request.param, rule.build(request.param, torch.float64)


def test_timm_gives_the_same_v2_logits_and_maps(
    v2: tuple[str, BackboneModel], timm: ModuleType, odd_images: Tensor
) -> None:
    name, ours = v2
    state = ours.state_dict()
    with torch.device("meta"):
        theirs = timm.create_model(name).eval()
        pyramid = create_model(name, features_only=True).eval()
    theirs.load_state_dict({timm_name(k): v for k, v in state.items()}, assign=True)
    pyramid.load_state_dict({k: state[k] for k in pyramid.state_dict()}, assign=True)
    with torch.no_grad():
        wanted, maps = theirs.forward_intermediates(odd_images)
        features = ours.forward_features(odd_images)
        assert_equal(features, wanted)
        assert_equal(ours.forward_head(features), theirs.forward_head(wanted))
        assert_equal_lists(pyramid(odd_images), maps)
        assert_equal_in_float32(ours, theirs, odd_images)


def test_transformers_gives_the_same_v2_logits_and_maps(
    v2: tuple[str, BackboneModel], transformers: ModuleType, images: Tensor, odd_images: Tensor
) -> None:
    name, ours = v2
    size = pvt_v2.SIZES[name]
    config = transformers.PvtV2Config(
        num_labels=1000, linear_attention=size.linear, **published_config(size)
    )
    with torch.device("meta"):
        theirs = transformers.PvtV2ForImageClassification(config).eval()
    state = split_keys_and_values(ours.state_dict())
    state = {other_name(k, TRANSFORMERS_V2, "pvt_v2"): v for k, v in state.items()}
    theirs.load_state_dict(state, assign=True)
    set_epsilon(theirs, r"(patch_embedding|attention)\.layer_norm$")
    with torch.no_grad():
        assert_equal(ours(images), theirs(images).logits)
        wanted = theirs(odd_images, output_hidden_states=True)
        features, maps = ours.forward_intermediates(odd_images)
        assert_equal(ours.forward_head(features), wanted.logits)
        assert_equal_lists(maps, wanted.hidden_states)
        assert_equal_in_float32(ours, theirs, odd_images)


@pytest.mark.parametrize("name", list_models("pvt_[!v]*"))
def test_transformers_gives_the_same_v1_logits(
    name: str, transformers: ModuleType, images: Tensor
) -> None:
    ours = rule.build(name, torch.float64)
    size = pvt_v1.SIZES[name]
    config = transformers.PvtConfig(num_labels=1000, **published_config(size))
    with torch.device("meta"):
        theirs = transformers.PvtForImageClassification(config).eval()
    state = split_keys_and_values(ours.state_dict())
    state = {other_name(k, TRANSFORMERS_V1, "pvt"): v for k, v in state.items()}
    theirs.load_state_dict(state, assign=True)
    set_epsilon(theirs, r"(patch_embeddings\.\d|attention\.self)\.layer_norm$")
    with torch.no_grad():
        assert_equal(ours(images), theirs(images).logits)
        assert_equal_in_float32(ours, theirs, images)


def published_config(size: pvt_v1.PVTv1Size | pvt_v2.PVTv2Size) -> dict[str, list[int]]:
    """What both configurations of transformers call the columns of Table 1."""
    return {
        "hidden_sizes": list(size.dims),
        "depths": list(size.depths),
        "num_attention_heads": list(size.num_heads),
        "sr_ratios": list(size.sr_ratios),
        "mlp_ratios": list(size.mlp_ratios),
    }


def split_keys_and_values(state: State) -> State:
    """Parts each `attn.kv` into `attn.k`, its first rows, and `attn.v`."""
    split: State = {}
    for name, value in state.items():
        if ".attn.kv." in name:
            for part, rows in zip("kv", value.chunk(2), strict=True):
                split[name.replace(".attn.kv.", f".attn.{part}.")] = rows
        else:
            split[name] = value
    return split


def other_name(name: str, names: dict[str, str], prefix: str) -> str:
    layer, dot, kind = name.rpartition(".") if name.endswith(("weight", "bias")) else (name, "", "")
    if layer == "head":
        return f"classifier.{kind}"
    for pattern, other in names.items():
        if match := re.fullmatch(pattern, layer):
            numbers = [int(number) for number in match.groups()]
            stage = [numbers[0] - 1] if numbers else []
            return f"{prefix}.encoder.{other.format(*stage, *numbers[1:])}{dot}{kind}"
    raise KeyError(name)


def timm_name(name: str) -> str:
    name = name.replace("patch_embed1", "patch_embed").replace("dwconv.dwconv", "dwconv")
    for i in range(4):
        name = name.replace(f"patch_embed{i + 1}.", f"stages.{i}.downsample.")
        name = name.replace(f"block{i + 1}.", f"stages.{i}.blocks.")
        name = re.sub(rf"^norm{i + 1}\.", f"stages.{i}.norm.", name)
    return name


def set_epsilon(model: nn.Module, pattern: str) -> None:
    """Gives the norms whose names match the epsilon of the released models."""
    norms = [layer for name, layer in model.named_modules() if re.search(pattern, name)]
    assert norms
    for norm in norms:
        assert isinstance(norm, nn.LayerNorm)
        norm.eps = 1e-5


def assert_equal(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=0, atol=TOLERANCE)


def assert_equal_in_float32(ours: nn.Module, theirs: nn.Module, images: Tensor) -> None:
    images = images.float()
    found, wanted = copy.deepcopy(ours).float()(images), theirs.float()(images)
    wanted = wanted if isinstance(wanted, Tensor) else wanted.logits
    torch.testing.assert_close(found, wanted, rtol=0, atol=TOLERANCE_FLOAT32)


def assert_equal_lists(found: list[Tensor], wanted: list[Tensor]) -> None:
    for i, (ours, theirs) in enumerate(zip(found, wanted, strict=True)):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=TOLERANCE, msg=f"map {i} differs")
