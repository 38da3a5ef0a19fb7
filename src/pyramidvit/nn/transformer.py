"""The transformer of DETR (arXiv 2005.12872), whose layers other detectors with queries share.

Reference: mmdetection 2.13 and mmcv 1.3, whose parameter names are kept. Shape letters: B images,
N tokens of an image, Q queries, C channels.
"""

import torch
from torch import Tensor, nn


class QueryAttention(nn.Module):
    """Attention with several heads from queries to tokens, which a caller adds to the queries.

    Args:
        dim: Channels C, a multiple of `num_heads`.
        num_heads: Heads.
        drop_rate: Dropout of the attention and of the output.
    """

    def __init__(self, dim: int, num_heads: int = 8, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(dim, num_heads, dropout=drop_rate, batch_first=True)
        self.drop = nn.Dropout(drop_rate)

    def forward(
        self,
        queries: Tensor,
        tokens: Tensor,
        places: tuple[Tensor, Tensor] | None = None,
        padding: Tensor | None = None,
    ) -> Tensor:
        """What queries [B, Q, C] read from tokens [B, N, C]; [B, Q, C].

        Args:
            queries: Who asks.
            tokens: Who is asked.
            places: Of the queries and of the tokens, added for asking and not to what is read.
            padding: Bool [B, N], true for tokens that are not to be read.
        """
        keys = tokens
        if places is not None:
            queries, keys = queries + places[0], tokens + places[1]
        read, _ = self.attn(queries, keys, tokens, key_padding_mask=padding, need_weights=False)
        dropped: Tensor = self.drop(read)
        return dropped


class HiddenLayer(nn.Module):
    """A linear layer, ReLU and a linear layer back, as `layers.0.0` and `layers.1`.

    Args:
        dim: Channels in and out.
        hidden: Channels between.
        drop_rate: Dropout of the hidden and of the outgoing channels.
    """

    def __init__(self, dim: int, hidden: int, drop_rate: float = 0.0) -> None:
        super().__init__()
        first = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(inplace=True), nn.Dropout(drop_rate))
        self.layers = nn.Sequential(first, nn.Linear(hidden, dim), nn.Dropout(drop_rate))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out


class EncoderLayer(nn.Module):
    """Tokens read each other; every part adds to what it is given, and a norm follows."""

    def __init__(self, dim: int, hidden: int, drop_rate: float) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([QueryAttention(dim, drop_rate=drop_rate)])
        self.ffns = nn.ModuleList([HiddenLayer(dim, hidden, drop_rate)])
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))

    def forward(self, x: Tensor, places: Tensor, padding: Tensor | None) -> Tensor:
        x = self.norms[0](x + self.attentions[0](x, x, (places, places), padding))
        x = self.norms[1](x + self.ffns[0](x))
        return x


class DecoderLayer(nn.Module):
    """Queries read each other, then the tokens; otherwise as an encoder's layer."""

    def __init__(self, dim: int, hidden: int, drop_rate: float) -> None:
        super().__init__()
        self.attentions = nn.ModuleList(QueryAttention(dim, drop_rate=drop_rate) for _ in range(2))
        self.ffns = nn.ModuleList([HiddenLayer(dim, hidden, drop_rate)])
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))

    def forward(
        self, x: Tensor, own: Tensor, tokens: Tensor, places: Tensor, padding: Tensor | None
    ) -> Tensor:
        x = self.norms[0](x + self.attentions[0](x, x, (own, own)))
        x = self.norms[1](x + self.attentions[1](x, tokens, (own, places), padding))
        x = self.norms[2](x + self.ffns[0](x))
        return x


class Encoder(nn.Module):
    """Layers without a last norm."""

    def __init__(self, dim: int, hidden: int, depth: int, drop_rate: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(dim, hidden, drop_rate) for _ in range(depth))

    def forward(self, x: Tensor, places: Tensor, padding: Tensor | None) -> Tensor:
        for layer in self.layers:
            x = layer(x, places, padding)
        return x


class Decoder(nn.Module):
    """Layers that are all listened to, through one norm."""

    def __init__(self, dim: int, hidden: int, depth: int, drop_rate: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(dim, hidden, drop_rate) for _ in range(depth))
        self.post_norm = nn.LayerNorm(dim)

    def forward(
        self, own: Tensor, tokens: Tensor, places: Tensor, padding: Tensor | None
    ) -> Tensor:
        x, heard = torch.zeros_like(own), []
        for layer in self.layers:
            x = layer(x, own, tokens, places, padding)
            heard.append(self.post_norm(x))
        return torch.stack(heard)


class Transformer(nn.Module):
    """An encoder of tokens, and a decoder of queries that read them.

    Args:
        dim: Channels C, a multiple of 8.
        hidden: Channels of the hidden layers.
        depth: Layers L of the encoder, and of the decoder.
        drop_rate: Dropout, everywhere.
    """

    def __init__(self, dim: int, hidden: int, depth: int, drop_rate: float) -> None:
        super().__init__()
        self.encoder = Encoder(dim, hidden, depth, drop_rate)
        self.decoder = Decoder(dim, hidden, depth, drop_rate)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(
        self, tokens: Tensor, places: Tensor, queries: Tensor, padding: Tensor | None = None
    ) -> Tensor:
        """What each layer of the decoder says of the queries: [L, B, Q, C].

        Args:
            tokens: [B, N, C].
            places: [B, N, C], where each token lies.
            queries: [B, Q, C], the queries' own places; what they know starts at 0.
            padding: Bool [B, N], true for tokens that are not to be read.
        """
        tokens = self.encoder(tokens, places, padding)
        heard: Tensor = self.decoder(queries, tokens, places, padding)
        return heard
