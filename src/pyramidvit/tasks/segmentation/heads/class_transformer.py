"""The transformer of Trans2Seg (arXiv 2101.08461): an encoder of tokens, a decoder of classes.

Reference: xieenze/Trans2Seg, whose parameter names are kept, and whose oddities are too, since
weights are learnt with them; the comments name them. There the image size is fixed. Here the
encoder's position table is resized to the grid of tokens, bilinearly with aligned corners as
there, and of any ratio. The norm and the feed-forward network that read a whole attention map
have a grid of their own; on another grid the maps are resized to it, bilinearly, and what the
network adds is resized back. On that grid nothing is resized, as in the reference.

Shape letters: B images, K classes, N = h * w tokens of the last map, E channels.
"""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....nn.attention import attend, split_heads
from ....nn.tokens import Grid, to_map, to_tokens

TABLE_SIDE = 32  # of the square position table
IDLE_BEFORE = ("norm4", "mlp3")  # parts of the decoder's blocks that no output depends on
IDLE_IN_LAST = ("attn.proj", "norm2", "mlp", "norm3", "mlp2")


class ClassTransformer(nn.Module):
    """Both of them.

    Args:
        num_classes: Classes K.
        in_dim: Channels of the incoming map.
        dim: Channels E, a multiple of `num_heads`.
        depth: Blocks of the encoder, and of the decoder.
        num_heads: Attention heads.
        mlp_ratio: Hidden channels of the feed-forward networks over E.
        side: Of the grid that attention maps are refined on.
    """

    def __init__(
        self,
        num_classes: int,
        in_dim: int,
        dim: int,
        depth: int,
        num_heads: int,
        mlp_ratio: int,
        side: int,
    ) -> None:
        super().__init__()
        hidden = dim * mlp_ratio
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + TABLE_SIDE**2, dim))
        self.cls_embed = nn.Parameter(torch.empty(1, num_classes, dim))
        encoder = (EncoderBlock(dim, num_heads, hidden) for _ in range(depth))
        decoder = (DecoderBlock(dim, num_heads, hidden, side) for _ in range(depth))
        self.blocks_encoder = nn.ModuleList(encoder)
        self.blocks_decoder = nn.ModuleList(decoder)
        self.norm = nn.LayerNorm(dim)
        self.hybrid_embed = nn.ModuleDict({"proj": nn.Linear(in_dim, dim)})
        for table in (self.cls_token, self.pos_embed, self.cls_embed):
            nn.init.trunc_normal_(table, std=0.02)
        init_linear(self)
        # Only the last block's attention goes anywhere, and nothing else of that block. What no
        # output depends on has no gradient, for which processes that train together would wait.
        for i, block in enumerate(self.blocks_decoder):
            for part in IDLE_IN_LAST if i == depth - 1 else IDLE_BEFORE:
                block.get_submodule(part).requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Maps [B, C, h, w] to features [B, E, h, w] and attention [B, K, heads, h, w]."""
        grid = (x.shape[2], x.shape[3])
        tokens = self.encode(self.hybrid_embed["proj"](to_tokens(x)), grid)  # [B, N, E]
        features = to_map(tokens, grid)
        query = self.cls_embed.expand(x.shape[0], -1, -1)  # [B, K, E]
        decoder = [block for block in self.blocks_decoder if isinstance(block, DecoderBlock)]
        for block in decoder[:-1]:
            _, query = block.ask(query, tokens)
            query = query + self.cls_embed
            tokens = block.move_on(tokens)
        maps, _ = decoder[-1].ask(query, tokens)  # [B, K, heads, N]
        return features, decoder[-1].refine(maps.reshape(*maps.shape[:3], *grid))

    def encode(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Tokens [B, N, E] that have seen each other, and a class token that is then dropped."""
        token = self.cls_token.expand(tokens.shape[0], -1, -1)
        positions = table_for(self.pos_embed, grid)
        tokens = torch.cat((token, tokens), dim=1) + positions  # [B, 1 + N, E]
        for block in self.blocks_encoder:
            tokens = block(tokens)
        tokens = self.norm(tokens)
        return tokens[:, 1:]


class EncoderBlock(nn.Module):
    """Attention of tokens to each other, then a feed-forward network."""

    def __init__(self, dim: int, num_heads: int, hidden: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1 = nn.LayerNorm(dim)
        qkv, proj = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim)
        self.attn = nn.ModuleDict({"qkv": qkv, "proj": proj})
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = feed_forward(dim, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Maps tokens [B, N, E] to [B, N, E]."""
        dim = x.shape[2]
        q, kv = self.attn["qkv"](self.norm1(x)).split((dim, 2 * dim), dim=2)
        x = x + self.attn["proj"](attend(q, kv, self.num_heads))
        x = x + self.mlp(self.norm2(x))
        return x


class DecoderBlock(nn.Module):
    """Classes ask the tokens; what they ask, the tokens and their attention move on apart."""

    def __init__(self, dim: int, num_heads: int, hidden: int, side: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.grid = (side, side)
        self.norm1 = nn.LayerNorm(dim)
        self.norm1_clsembed = nn.LayerNorm(dim)
        self.attn = nn.ModuleDict(
            {
                "fc_q": nn.Linear(dim, dim, bias=False),
                "fc_kv": nn.Linear(dim, 2 * dim, bias=False),
                "proj": nn.Linear(dim, dim),
            }
        )
        self.norm2 = nn.LayerNorm(dim)
        self.norm3 = nn.LayerNorm(dim)
        self.norm4 = nn.LayerNorm(side * side)
        self.mlp = feed_forward(dim, hidden)
        self.mlp2 = feed_forward(dim, hidden)
        self.mlp3 = feed_forward(side * side, 3 * side * side)

    def ask(self, query: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Queries [B, K, E] look at tokens [B, N, E].

        Returns:
            Their attention [B, K, heads, N] before the softmax, and the next queries [B, K, E].
        """
        batch, classes, dim = query.shape
        width = dim // self.num_heads
        q = self.attn["fc_q"](self.norm1_clsembed(query))
        q = q.reshape(batch, self.num_heads, classes, width)  # an oddity: no axes change places
        k, v = self.attn["fc_kv"](self.norm1(tokens)).chunk(2, dim=2)
        k, v = split_heads(k, self.num_heads), split_heads(v, self.num_heads)  # [B, heads, N, .]
        attention = q @ k.transpose(2, 3) * width**-0.5  # [B, heads, K, N]
        found = (attention.softmax(dim=3) @ v).reshape(batch, classes, dim)  # nor here
        query = 2 * self.attn["proj"](found)  # an oddity: added to itself, not to what came in
        query = query + self.mlp(self.norm2(query))
        return attention.transpose(1, 2), query

    def move_on(self, tokens: Tensor) -> Tensor:
        """The tokens [B, N, E] for the next block."""
        tokens = 2 * tokens  # an oddity, as above
        tokens = tokens + self.mlp2(self.norm3(tokens))
        return tokens

    def refine(self, maps: Tensor) -> Tensor:
        """Attention maps [B, K, heads, h, w] that a network has seen whole."""
        maps = 2 * maps  # an oddity, as above
        small = resize(maps.flatten(1, 2), self.grid)  # [B, K * heads, side, side]
        change = self.mlp3(self.norm4(small.flatten(2))).view_as(small)
        return maps + resize(change, (maps.shape[3], maps.shape[4])).view_as(maps)


def feed_forward(dim: int, hidden: int) -> nn.Sequential:
    """Two linear layers around a GELU."""
    layers = OrderedDict[str, nn.Module](
        fc1=nn.Linear(dim, hidden), act=nn.GELU(), fc2=nn.Linear(hidden, dim)
    )
    return nn.Sequential(layers)


def init_linear(module: nn.Module) -> None:
    """Linear layers, of which some have no bias, as the backbones' are."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def resize(x: Tensor, grid: Grid) -> Tensor:
    """Resizes maps [B, C, H, W] bilinearly; exact where the size is right already."""
    if not torch.compiler.is_exporting() and (x.shape[2], x.shape[3]) == grid:
        return x  # resizing would return the same values; exported graphs always resize
    return F.interpolate(x, grid, mode="bilinear", align_corners=False)


def table_for(table: Tensor, grid: Grid) -> Tensor:
    """The position table [1, 1 + N, E] for a grid; row 0 is the class token's."""
    if not torch.compiler.is_exporting() and grid == (TABLE_SIDE, TABLE_SIDE):
        return table  # as in `resize`
    square = to_map(table[:, 1:], (TABLE_SIDE, TABLE_SIDE))
    fitted = F.interpolate(square, grid, mode="bilinear", align_corners=True)
    return torch.cat((table[:, :1], to_tokens(fitted)), dim=1)
