"""What a block computes again in the backward pass changes neither outputs nor gradients."""

import pytest
import torch
from torch import Tensor, nn

import rule
from pyramidvit.engine.memory import kept_bytes
from pyramidvit.nn import recompute
from pyramidvit.nn.block import Block
from pyramidvit.nn.bounds import Bounds
from pyramidvit.nn.feed_forward import ConvFeedForward, FeedForward

GRID = (4, 6)
KINDS = ["plain", "convolution", "relu"]


class Nothing(nn.Module):
    """In the place of attention, which these tests are not about."""

    def forward(self, x: Tensor, grid: object, bounds: object) -> Tensor:
        return x


def build(kind: str, drop_path: float = 0.0) -> Block:
    torch.manual_seed(0)
    if kind == "plain":
        mlp: nn.Module = FeedForward(16, 4)
    else:
        mlp = ConvFeedForward(16, 4, relu_first=kind == "relu")
    block = Block(16, Nothing(), mlp, drop_path)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.4)
    return block.train()


def learn(block: Block, x: Tensor, bounds: Bounds | None = None) -> list[Tensor]:
    """The output and all gradients of one pass."""
    torch.manual_seed(1)  # for stochastic depth
    x = x.clone().requires_grad_()
    block.zero_grad()
    out = block(x, GRID, bounds)
    (out.float().sin() * torch.linspace(0, 1, out.shape[2])).sum().backward()
    gradients = [x.grad, *(p.grad for name, p in block.named_parameters() if "norm1" not in name)]
    return [out.detach().clone(), *(g.clone() for g in gradients if g is not None)]


def apart(found: Tensor, plain: Tensor) -> float:
    return float((found.double() - plain.double()).norm() / plain.double().norm())


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_plain_training(
    kind: str, padded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(recompute.PIECE, "cpu", 2 * 24 * 64 * 4)  # two images at a time
    x = torch.randn(5, 24, 16)
    sizes = [(128, 192), (64, 192), (128, 64), (32, 32), (128, 160)]
    bounds = Bounds(sizes, (128, 192), torch.device("cpu")) if padded else None
    block = build(kind, drop_path=0.4)
    plain = learn(block, x, bounds)
    block.recompute = True
    again = learn(block, x, bounds)
    assert len(plain) == len(again) == 2 + len([*block.mlp.parameters(), *block.norm2.parameters()])
    assert all(apart(a, p) < 1e-6 for a, p in zip(again, plain, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_in_bfloat16_are_as_close_to_float32_as_plain_ones(kind: str) -> None:
    block, x = build(kind), torch.randn(3, 24, 16)
    exact = learn(block, x)
    found = []
    for again in (False, True):
        block.recompute = again
        with torch.autocast("cpu", torch.bfloat16):
            found.append([apart(f, e) for f, e in zip(learn(block, x), exact, strict=True)])
    assert all(again < 1.5 * plain + 1e-3 for plain, again in zip(*found, strict=True))
    assert all(p.grad is None or p.grad.dtype == torch.float32 for p in block.parameters())


def test_sums_over_pieces_are_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """256 images that all say the same: added in bfloat16, the sum would stop growing."""
    block, image = build("plain"), torch.randn(1, 24, 16)
    block.recompute = True
    with torch.autocast("cpu", torch.bfloat16):
        one = learn(block, image)
        monkeypatch.setitem(recompute.PIECE, "cpu", 1)  # one image at a time
        many = learn(block, image.expand(256, -1, -1))
    for single, total in zip(one[2:], many[2:], strict=True):
        torch.testing.assert_close(total, 256 * single, rtol=1e-4, atol=1e-3)


def test_the_input_alone_is_kept() -> None:
    block, x = build("convolution"), torch.randn(2, 24, 16, requires_grad=True)
    block.recompute = True
    # the norm before attention keeps x, means, deviations; the second half keeps its own input
    assert kept_bytes(block, lambda: block(x, GRID)) == 2 * x.nbytes + 2 * 2 * 24 * 4


def test_layers_that_somebody_exchanged_or_listens_to_are_run_as_they_are() -> None:
    block, x, heard = build("convolution"), torch.randn(2, 24, 16), []
    block.mlp.fc1 = nn.Sequential(block.mlp.fc1)
    block.mlp.act.register_forward_hook(lambda *_: heard.append(1))
    plain = learn(block, x)
    block.recompute = True
    again = learn(block, x)
    assert all(torch.equal(a, p) for a, p in zip(again, plain, strict=True))
    assert len(heard) == 3  # once, then once forward and once more backward


@pytest.mark.parametrize("name", ["pvt_tiny", "pvt_v2_b0"])
def test_a_model_recomputes_what_it_is_told(name: str) -> None:
    kept: dict[str, int] = {}
    single, double = (
        {what: gradients_of(name, what, dtype, kept) for what in ("none", "feed_forward", "blocks")}
        for dtype in (torch.float32, torch.float64)
    )
    assert kept["none"] > 2 * kept["feed_forward"] > 2 * kept["blocks"]
    for what in ("feed_forward", "blocks"):
        for again, plain, exact in zip(single[what], single["none"], double["none"], strict=True):
            # In float32 plain training itself may be off by more; then ours must be off by less.
            assert apart(again, plain) < 1e-5 or apart(again, exact) <= apart(plain, exact)
        for again, exact in zip(double[what], double["none"], strict=True):
            assert apart(again, exact) < 1e-12


def gradients_of(
    name: str, what: str, dtype: torch.dtype, kept: dict[str, int]
) -> list[torch.Tensor]:
    """Logits, and gradients other than 0, of a model that recomputes something."""
    model = rule.build(name, dtype, drop_path_rate=0.3).train()
    images = rule.images(2, 32, 64, dtype)
    model.set_recompute(what)
    assert model.grad_checkpointing is (what == "blocks")
    if dtype == torch.float32:
        kept[what] = kept_bytes(model, lambda: model(images))
    torch.manual_seed(0)
    logits = model(images)
    logits.square().mean().backward()
    return [logits.detach(), *(p.grad for p in model.parameters() if p.grad.any())]


def test_a_model_cannot_recompute_what_there_is_not() -> None:
    model = rule.build("pvt_v2_b0")
    with pytest.raises(ValueError, match=r"recompute must be one of .*feed_forward.*, got all"):
        model.set_recompute("all")
