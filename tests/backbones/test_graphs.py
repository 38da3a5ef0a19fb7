"""Whole-graph capture: torch.compile and torch.export give what eager execution gives."""

import pytest
import torch
from torch import Tensor
from torch.export import Dim

import rule
from pyramidvit import list_models
from pyramidvit.models import BackboneModel

ARCHITECTURES = ["pvt_tiny", "pvt_v2_b0", "pvt_v2_b2_li"]  # one small model of each kind
Result = Tensor | list[Tensor]


@pytest.fixture(autouse=True)
def fresh_compiler() -> None:
    torch.compiler.reset()


@torch.no_grad()
@pytest.mark.parametrize("name", list_models())
def test_a_classifier_compiles_to_one_graph(name: str) -> None:
    model = rule.build(name)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert_equal(compiled, model, rule.images(2, 64, 96))


@torch.no_grad()
def test_a_pyramid_compiles_to_one_graph_for_any_size() -> None:
    """v1, whose position tables are resized; exported programs below show the same of v2."""
    model = rule.build("pvt_tiny", features_only=True)
    compiled = torch.compile(model, backend="eager", fullgraph=True, dynamic=True)
    for batch, height, width in ((2, 64, 96), (3, 97, 131), (2, 224, 224)):
        assert_equal(compiled, model, rule.images(batch, height, width))


def test_a_compiled_graph_trains() -> None:
    model = rule.build("pvt_v2_b0", out_indices=(0, 1), features_only=True).train()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    images = rule.images(2, 64, 64)
    gradients = []
    for run in (model, compiled):
        torch.manual_seed(0)
        model.zero_grad()
        sum(x.square().mean() for x in run(images)).backward()
        gradients.append([p.grad.norm() for p in model.parameters()])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-5)


@torch.no_grad()
def test_the_default_compiler_keeps_the_outputs() -> None:
    model = rule.build("pvt_v2_b0", features_only=True, out_indices=(0, 1))  # it takes its time
    compiled = torch.compile(model, fullgraph=True)
    assert_equal(compiled, model, rule.images(2, 64, 96))


@torch.no_grad()
@pytest.mark.parametrize("features_only", [False, True])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_exported_program_takes_any_batch_and_size(name: str, features_only: bool) -> None:
    model = rule.build(name, features_only=features_only)
    # From 64 up: a graph holds no grid of one cell, which broadcasts unlike any other.
    side = {"min": 64, "max": 2048}
    dims = {0: Dim("batch"), 2: Dim("height", **side), 3: Dim("width", **side)}
    program = torch.export.export(
        model, (rule.images(2, 96, 128),), dynamic_shapes={"images": dims}
    )
    for batch, height, width in ((1, 224, 224), (3, 97, 131), (5, 64, 70)):
        assert_equal(program.module(), model, rule.images(batch, height, width))


def assert_equal(found: torch.nn.Module, model: BackboneModel, images: Tensor) -> None:
    results: list[Result] = [found(images), model(images)]
    torch.testing.assert_close(*results, rtol=0, atol=2e-5)
