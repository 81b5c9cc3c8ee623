"""Attention layers of the decoders (causal, multi-query, cached) and of the encoder (all frames)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transframer.models.packed_attention import attend_by_products
from transframer.models.segments import Segments

# Products keep all scores for the backward pass: with 1,280 keys ten times the memory, and no faster.
_FEW_KEYS = 768


class Mlp(nn.Sequential):
    """Two linear layers around a GELU."""

    def __init__(self, width: int, ratio: float) -> None:
        hidden = int(width * ratio)
        super().__init__(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))


@dataclass
class KeyValueCache:
    """Keys and values of the past events of one layer, preallocated.

    Attributes:
        keys, values: b x capacity x head width.
        length: events held so far.
        end: the same in a tensor of one number, where every event is added by the same operations on the same
            tensors (`transframer.models.graphed`); who sets it moves it on, and `length` stands still.
    """

    keys: Tensor
    values: Tensor
    length: int = 0
    end: Tensor | None = None

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Adds b x l x d keys and values.

        Returns:
            All that there are, and l x m, which of them each of the new events sees; None for all.
        """
        if self.end is not None:
            self.keys.index_copy_(1, self.end, keys.to(self.keys.dtype))
            self.values.index_copy_(1, self.end, values.to(self.values.dtype))
            held = torch.arange(self.keys.shape[1], device=keys.device) <= self.end
            return self.keys, self.values, held[None]
        past, l = self.length, keys.shape[1]
        self.length = past + l
        self.keys[:, past : self.length] = keys
        self.values[:, past : self.length] = values
        mask = None
        if l > 1:
            mask = torch.ones(l, self.length, dtype=torch.bool, device=keys.device).tril(past)
        return self.keys[:, : self.length], self.values[:, : self.length], mask

    def select(self, rows: Tensor) -> None:
        """Keeps only these rows of the batch."""
        self.keys, self.values = self.keys[rows], self.values[rows]


def attend(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """Attention of several query heads to one key/value head, b x n x heads x d.

    Args:
        query: b x n x heads x d.
        keys, values: b x m x d.
        mask: n x m or b x 1 x 1 x m, true where allowed; None with `causal`, where n = m.
    """
    path, (b, n) = attention_path(query), query.shape[:2]
    if path == "products" and mask is None:
        if causal:
            keys, values = keys.flatten(0, 1), values.flatten(0, 1)
        y = attend_by_products(query.flatten(0, 1), keys, values, [n] * b, causal)
        return y.view(query.shape)
    dtype = query.dtype
    with torch.autocast(query.device.type, enabled=False) if path != "sdpa" else nullcontext():
        if path != "sdpa":
            query, keys, values = query.float(), keys.float(), values.float()
        if causal or (mask is not None and query.shape[1] > 1):
            keys, values = (t.unsqueeze(1).expand(-1, query.shape[2], -1, -1) for t in (keys, values))
            heads_first = query.transpose(1, 2)  # b heads n d
            y = F.scaled_dot_product_attention(heads_first, keys, values, attn_mask=mask, is_causal=causal)
            return y.transpose(1, 2).to(dtype)
        # Where all queries see the same keys the heads are just more query rows of the one key/value head.
        rows = query.flatten(1, 2)[:, None]
        y = F.scaled_dot_product_attention(rows, keys[:, None], values[:, None], attn_mask=mask)
        return y.view(query.shape).to(dtype)


def attend_to_past(query: Tensor, keys: Tensor, values: Tensor, segments: Segments) -> Tensor:
    """Causal attention in sequences that follow one another: T x heads x d queries, T x d keys and values."""
    if attention_path(query) == "products":
        return attend_by_products(query, keys, values, segments.lengths, causal=True)
    return segments.map(
        lambda _, query, keys, values: attend(query, keys, values, None, query.shape[1] > 1),
        query, keys, values,
    )  # fmt: skip


def attend_to_memory(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, segments: Segments
) -> Tensor:
    """From sequences that follow one another, T x heads x d, each to its own memory.

    Args:
        keys, values: b x m x d.
        mask: b x m, true where allowed; None where all is.
    """
    if attention_path(query) == "products" and mask is None:
        return attend_by_products(query, keys, values, segments.lengths, causal=False)

    def attending(rows: Tensor, query: Tensor) -> Tensor:
        own, allowed = (keys.index_select(0, rows), values.index_select(0, rows)), None
        if mask is not None:
            allowed = mask.index_select(0, rows)[:, None, None]
        return attend(query, *own, allowed, False)

    return segments.map(attending, query)


def attention_path(query: Tensor) -> str:
    """The fastest way to attend, as measured: "sdpa", "fp32" (the same on operands cast up) or "products".

    PyTorch's fused attention wins or ties everywhere but in the backward pass in bf16 on a CPU, so only where
    a gradient is due. Milliseconds forward + backward, 8 chunks of 256 events, 8 heads of 32, causal / to 64
    cells, on a CPU without bf16 products (AVX2): in fp32 fused 59 / 17, products 71 / 15; in bf16 fused
    239 / 75, products 972 / 170, fused on fp32 53 / 19. Forward alone, bf16: fused 17 / 6, products 416 / 77.
    Where the CPU multiplies bf16 (AVX-512), in bf16: fused 41 / 16, products 21 / 5, fused on fp32 31 / 11;
    and across frames (8 episodes, 4 heads, 192 cells) products 8, fused on fp32 16. With AMX, a whole step
    of a prototype made 2,280 tokens/s fused and 3,314 by products.
    """
    if query.device.type != "cpu" or query.dtype != torch.bfloat16 or not torch.is_grad_enabled():
        return "sdpa"
    return "products" if cpu_multiplies_bf16() else "fp32"


@cache
def cpu_multiplies_bf16() -> bool:
    """Whether the CPU's matrix products run in bf16 rather than through a slow fallback."""
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _fused(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attention without a mask, b x heads x n x d, by PyTorch's fused kernel but where that is slower."""
    path = attention_path(query)
    if path == "sdpa":
        return F.scaled_dot_product_attention(query, keys, values)
    if path == "products" and keys.shape[2] <= _FEW_KEYS:
        scores = (query * query.shape[-1] ** -0.5) @ keys.transpose(2, 3)
        return scores.softmax(-1).to(values.dtype) @ values
    with torch.autocast(query.device.type, enabled=False):
        y = F.scaled_dot_product_attention(query.float(), keys.float(), values.float())
    return y.to(query.dtype)


class MultiQueryAttention(nn.Module):
    """Attention with several query heads and one key/value head (arXiv 1911.02150)."""

    def __init__(self, width: int, heads: int, memory_width: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(memory_width or width, 2 * width // heads, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def project(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of a memory, each b x m x head width."""
        keys, values = self.key_value(memory).chunk(2, dim=-1)
        return keys, values

    def forward(self, x: Tensor, attending: Callable[[Tensor], Tensor]) -> Tensor:
        """From ... x width events; `attending` is given their queries, ... x heads x head width."""
        query = self.query(x).unflatten(-1, (self.heads, -1))
        return self.out(attending(query).flatten(-2))


class DecoderLayer(nn.Module):
    """Causal self-attention, cross-attention to the encoder and an MLP, each behind a gate."""

    def __init__(
        self, width: int, heads: int, mlp_ratio: float, memory_width: int, gate_init: float, dropout: float
    ) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.attention = MultiQueryAttention(width, heads)
        self.cross_attention = MultiQueryAttention(width, heads, memory_width)
        self.mlp = Mlp(width, mlp_ratio)
        self.gates = nn.Parameter(torch.full((3,), gate_init))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        memory: tuple[Tensor, Tensor],
        memory_mask: Tensor | None = None,
        cache: KeyValueCache | None = None,
        segments: Segments | None = None,
    ) -> Tensor:
        """Applies the layer to events.

        Args:
            x: b x l x width, which follow those in the cache, if one is given; T x width with segments.
            memory: keys and values from `cross_attention.project`, of b episodes.
            memory_mask: b x m, true where the memory is real; None where all of it is.
            segments: which events belong to which episode, where they are packed.
        """

        def to_past(query: Tensor) -> Tensor:
            if segments is not None:
                return attend_to_past(query, *own, segments)
            keys, values, mask = (*own, None) if cache is None else cache.append(*own)
            return attend(query, keys, values, mask, cache is None and query.shape[1] > 1)

        def to_memory(query: Tensor) -> Tensor:
            if segments is not None:
                return attend_to_memory(query, *memory, memory_mask, segments)
            mask = None if memory_mask is None else memory_mask[:, None, None]
            return attend(query, *memory, mask, False)

        gates = self.gates.unbind()
        y = self.norms[0](x)
        own = self.attention.project(y)
        x = x + gates[0] * self.dropout(self.attention(y, to_past))
        x = x + gates[1] * self.dropout(self.cross_attention(self.norms[1](x), to_memory))
        return x + gates[2] * self.dropout(self.mlp(self.norms[2](x)))


class FrameAttention(nn.Module):
    """Self-attention over all cells of all frames of an episode; frames come packed, not padded."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, groups: Sequence[Tensor], last_only: bool = False) -> Tensor:
        """Attends among frames x, f x m x width.

        Args:
            groups: the packed indices of each episode's frames, k x n for the k episodes of n frames; every
                frame is in one of them.
            last_only: only the last frame of each episode attends, to all of its frames.

        Returns:
            f x m x width; or, of the frames that attend, in the order of their indices.
        """
        m, width = x.shape[1:]
        packed = self.query_key_value(x)
        asking = [slots[:, -1:] if last_only else slots for slots in groups]
        out = []
        for slots, askers in zip(groups, asking, strict=True):
            k, n = slots.shape
            # index_select rather than indexing: its gradient is a plain sum, several times as fast on a CPU
            own = packed.index_select(0, slots.flatten()).view(k, n * m, 3, self.heads, -1)
            query, keys, values = own.permute(2, 0, 3, 1, 4)  # k heads n*m d each
            y = _fused(query[:, :, -askers.shape[1] * m :], keys, values)
            out.append(y.transpose(1, 2).reshape(-1, m, width))
        order = torch.cat([askers.flatten() for askers in asking]).argsort()
        return self.out(torch.cat(out).index_select(0, order))
