"""Attention layers of the decoders (causal, multi-query, cached) and of the encoder (all frames)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache, lru_cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transframer.models.segments import Segments

# Products keep all scores for the backward pass: with 1,280 keys ten times the memory, and no faster.
_FEW_KEYS = 768
# Queries of causal products at a time: 257 in thirds take .86 of the time, 200 in halves as much as at once.
_CAUSAL_BLOCK = 96


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
    path = attention_path(query)
    if path == "products":
        return _attend_by_products(query, keys, values, mask, causal)
    dtype = query.dtype
    with torch.autocast(query.device.type, enabled=False) if path == "fp32" else nullcontext():
        if path == "fp32":
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


def _attend_by_products(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, causal: bool
) -> Tensor:
    """`attend` as two matrix products per sequence, the heads folded into the query rows.

    Scores stay in their precision, as a softmax in fp32 would copy them twice, and again for their gradient;
    its sums are in fp32 all the same. What is not allowed is subtracted by the product itself.
    """
    n, heads, d = query.shape[1:]
    with torch.autocast(query.device.type, enabled=False):
        rows, columns = (query * d**-0.5).flatten(1, 2), keys.transpose(1, 2)  # b n*heads d, b d m
        if causal:
            side = math.ceil(n / max(1, round(n / _CAUSAL_BLOCK)))
            parts = []
            for begin in range(0, n, side):  # these queries see no key after their last one
                end = min(begin + side, n)
                block = rows[:, begin * heads : end * heads]
                scores = torch.baddbmm(_later(begin, end, heads, rows.dtype), block, columns[..., :end])
                parts.append(scores.softmax(-1) @ values[:, :end])
            return torch.cat(parts, 1).view(query.shape)
        if mask is None:
            scores = rows @ columns
        else:
            allowed = mask[:, None] if mask.ndim == 2 else mask.transpose(1, 2)  # (b) n heads m
            hidden = torch.zeros(allowed.shape, dtype=rows.dtype).masked_fill_(~allowed, -torch.inf)
            scores = torch.baddbmm(hidden.expand(*query.shape[:3], -1).flatten(1, 2), rows, columns)
        return (scores.softmax(-1) @ values).view(query.shape)


@lru_cache(maxsize=32)  # every layer asks for the same
def _later(begin: int, end: int, heads: int, dtype: torch.dtype) -> Tensor:
    """(end - begin) * heads x end, -inf where a key is later than the query, heads folded into the rows."""
    later = torch.full((end, end), -torch.inf, dtype=dtype).triu_(1)
    return later[begin:].repeat_interleave(heads, 0)


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
        apart = _at_once if segments is None else segments.map

        def to_past(rows: Tensor | None, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            mask = None
            if cache is not None:
                keys, values, mask = cache.append(keys, values)
            return attend(query, keys, values, mask, cache is None and query.shape[1] > 1)

        def to_memory(rows: Tensor | None, query: Tensor) -> Tensor:
            keys, values, mask = (*memory, memory_mask)
            if rows is not None:
                keys, values = keys.index_select(0, rows), values.index_select(0, rows)
                mask = None if mask is None else mask.index_select(0, rows)
            return attend(query, keys, values, None if mask is None else mask[:, None, None], False)

        gates = self.gates.unbind()
        y = self.norms[0](x)
        own = self.attention.project(y)
        x = x + gates[0] * self.dropout(self.attention(y, lambda query: apart(to_past, query, *own)))
        y = self.cross_attention(self.norms[1](x), partial(apart, to_memory))
        x = x + gates[1] * self.dropout(y)
        return x + gates[2] * self.dropout(self.mlp(self.norms[2](x)))


def _at_once(function: Callable[..., Tensor], *events: Tensor) -> Tensor:
    """What `Segments.map` is to events that are packed, for b x l events."""
    return function(None, *events)


class FrameAttention(nn.Module):
    """Self-attention over all cells of all frames of an episode; frames come packed, not padded."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, groups: Sequence[Tensor]) -> Tensor:
        """Attends among frames x, f x m x width.

        Args:
            groups: the packed indices of each episode's frames, k x n for the k episodes of n frames; every
                frame is in one of them.
        """
        m, width = x.shape[1:]
        packed = self.query_key_value(x)
        out = []
        for slots in groups:
            k, n = slots.shape
            # index_select rather than indexing: its gradient is a plain sum, several times as fast on a CPU
            own = packed.index_select(0, slots.flatten()).view(k, n * m, 3, self.heads, -1)
            y = _fused(*own.permute(2, 0, 3, 1, 4))  # k heads n*m d
            out.append(y.transpose(1, 2).reshape(k * n, m, width))
        order = torch.cat([slots.flatten() for slots in groups]).argsort()
        return self.out(torch.cat(out).index_select(0, order))
