"""A plain encoder-decoder over triples, the stand-in for the public implementation in benchmarks of speed.

The public implementation of the paper is on no registry and trains on no frames, so that it cannot be timed
itself. This is what it computes, written as a competent plain PyTorch model: the events of a chunk, padded to
the longest of the batch, go through one stack of layers of multi-head attention, with one key/value head per
query head, scores by einsum, a causal mask and a softmax; the channel, position and value of an event are
predicted from the same state. It shares our U-Net, codec, chunks and batches, and has neither the draft nor
its hints, nor what our decoders are told of an event's place.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transframer.codec import (
    N_CHANNELS,
    Tokens,
    dct_from_image,
    grid_from_image,
    grid_from_tokens,
    quantisation,
    tokens_from_grid,
)
from transframer.models.batch import Batch
from transframer.models.chunks import chunk_count, cut, draw_chunk
from transframer.models.presets import TransframerConfig
from transframer.models.unet import MultiFrameUNet
from transframer.predictor import Loss


class PlainAttention(nn.Module):
    """Multi-head attention (arXiv 1706.03762) with its scores held."""

    def __init__(self, width: int, heads: int, memory_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(memory_width, width, bias=False)
        self.value = nn.Linear(memory_width, width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attends from x, b x n x width, to the memory, b x m x memory width; the mask (n x m) forbids."""
        q, k, v = (
            t.unflatten(-1, (self.heads, -1)) for t in (self.query(x), self.key(memory), self.value(memory))
        )
        scores = torch.einsum("bihd,bjhd->bhij", q * q.shape[-1] ** -0.5, k)
        if mask is not None:
            scores = scores.masked_fill(mask, -torch.finfo(scores.dtype).max)
        y = torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), v)
        return self.out(y.flatten(2))


class PlainLayer(nn.Module):
    """Self-attention, cross-attention and an MLP, each after a norm and added to what came before."""

    def __init__(self, width: int, heads: int, memory_width: int, hidden: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.attention = PlainAttention(width, heads, width)
        self.cross_attention = PlainAttention(width, heads, memory_width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """Applies the layer to events x, b x n x width."""
        y = self.norms[0](x)
        x = x + self.attention(y, y, mask)
        x = x + self.cross_attention(self.norms[1](x), memory)
        return x + self.mlp(self.norms[2](x))


class PlainTransframer(nn.Module):
    """p(channel, position, value | past), each from one state; trains as `Transframer` does.

    Args:
        config: of the model it stands beside: the same U-Net, width, heads and number of layers.
        hidden: of the layers' MLPs, which sets the number of parameters; see `stand_in`.
    """

    def __init__(self, config: TransframerConfig, hidden: int) -> None:
        super().__init__()
        self.config = replace(config, draft=False)
        width, cells = config.width, config.encoder_widths[0]
        depth = config.channel_layers + config.position_layers + config.value_layers
        self.encoder = MultiFrameUNet(self.config)
        self.start = nn.Parameter(torch.randn(width))
        self.channel = nn.Embedding(N_CHANNELS + 1, width)
        self.position = nn.Embedding(_CELLS, width)
        self.value = nn.Embedding(2 * config.max_value + 1, width)
        self.layers = nn.ModuleList(PlainLayer(width, config.heads, cells, hidden) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.channel_head = nn.Linear(width, N_CHANNELS + 1)
        self.position_head = nn.Linear(width, _CELLS)
        self.value_head = nn.Linear(width, 2 * config.max_value + 1)

    def loss(self, batch: Batch, generator: torch.Generator) -> Loss:
        """Nats of one chunk of each episode: the chunks, targets and weighting of `Transframer.loss`."""
        config = self.config
        assert batch.target is not None
        tokens = tokens_from_grid(
            grid_from_image(batch.target, batch.codec, batch.reference), config.max_value
        )
        events, overlap = config.chunk_events, config.chunk_overlap
        index = draw_chunk(chunk_count(tokens.length, events, overlap), generator)
        chunk = cut(tokens, index, events, overlap, config.max_value)
        memory = self._encode(batch, tokens, chunk.start, chunk.last_channel)
        longest = int(chunk.length.max())
        channel, position, value, scored = (
            t[:, :longest] for t in (chunk.channel, chunk.position, chunk.value, chunk.scored)
        )
        value = value + config.max_value
        x = self.channel(channel) + self.position(position) + self.value(value)
        x = torch.cat([self.start.expand(len(x), 1, -1), x[:, :-1]], 1)  # b n width
        mask = torch.ones(longest, longest, dtype=torch.bool, device=x.device).triu(1)
        for layer in self.layers:
            x = layer(x, memory, mask)
        x = self.norm(x)
        coded = channel < N_CHANNELS
        parts = {
            "channel": _nats(self.channel_head(x), channel) * scored,
            "position": _nats(self.position_head(x), position) * (scored & coded),
            "value": _nats(self.value_head(x), value) * (scored & coded),
        }
        parts = {name: nats.sum(1) for name, nats in parts.items()}
        nats, count = torch.stack(list(parts.values())).sum(0), scored.sum(1)
        return Loss((nats / count**config.length_power).mean(), nats.detach(), count, parts)

    def _encode(self, batch: Batch, tokens: Tokens, start: Tensor, last_channel: Tensor) -> Tensor:
        """Features of the target slots' cells, b x p x width, given the triples before the chunk."""
        with torch.no_grad():
            before = Tokens(
                tokens.channel, tokens.position, tokens.value, torch.minimum(start, tokens.length)
            )
            quality = torch.tensor([settings.quality for settings in batch.codec], device=start.device)
            partial = grid_from_tokens(before, batch.grid_size) * quantisation(quality)[..., None, None]
            every_cell = torch.zeros(len(batch.images), dtype=torch.bool)
            reference = dct_from_image(batch.reference, every_cell[:1].expand(len(batch)))
            dct = {
                "context": dct_from_image(batch.images, every_cell),
                "reference": reference.masked_fill(~batch.has_reference[:, None, None, None], 0.0),
                "partial": partial,
            }
        return self.encoder(batch, dct, last_channel)[0][-len(batch) :]


def stand_in(config: TransframerConfig, parameters: int) -> PlainTransframer:
    """The stand-in of a model, its MLPs as wide as brings its number of parameters nearest to this one."""
    depth = config.channel_layers + config.position_layers + config.value_layers
    per_unit = depth * (2 * config.width + 1)
    with torch.device("meta"):
        base = parameter_count(PlainTransframer(config, 1))
    return PlainTransframer(config, max(1, 1 + round((parameters - base) / per_unit)))


def parameter_count(model: nn.Module) -> int:
    """Trained numbers of a model."""
    return sum(parameter.numel() for parameter in model.parameters())


_CELLS = 64  # of frames of 64 x 64 pixels


def _nats(logits: Tensor, index: Tensor) -> Tensor:
    """b x n, the cross-entropy of each event."""
    return F.cross_entropy(logits.float().transpose(1, 2), index, reduction="none")
