"""Attention as plain matrix products over sequences that follow one another in one row.

Several query heads share one key/value head, so that the heads of an event are just more query rows. Where
products are fast and PyTorch's fused kernel is slow backward (see `attention_path`), this is what trains: a
few products for each sequence, on slices of one row, forward and backward. Sequences are padded so that few
lengths come up: the library of products compiles a kernel for every new shape, which takes ten times as long
as one of these products.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_LENGTH = 32  # what lengths are multiples of
_CAUSAL_ROWS = 768  # query rows, all heads counted, of a causal product


class Span(NamedTuple):
    """Queries that see the same keys, by their places in padded rows.

    Attributes:
        causal: the last query sees all of the keys, the one before it one less.
        first: no span before this one sees any of the keys.
    """

    begin: int
    end: int
    key_begin: int
    key_end: int
    causal: bool
    first: bool


@dataclass(frozen=True)
class Padded:
    """Sequences padded to lengths of which there are few.

    Attributes:
        lengths: b, padded.
        place: T, where each event is in the padded row.
    """

    lengths: list[int]
    place: Tensor

    def to_past(self, heads: int) -> list[Span]:
        """Each event to itself and those before it, in blocks of queries."""
        spans, offset = [], 0
        for n in self.lengths:
            blocks = max(1, round(n * heads / _CAUSAL_ROWS))
            side = math.ceil(max(n, 1) / blocks / _LENGTH) * _LENGTH
            last = offset + n
            for end in range(last, offset, -side):  # these queries see no key after their last one
                spans.append(Span(max(end - side, offset), end, offset, end, True, end == last))
            offset = last
        return spans

    def to_memory(self, keys: int) -> list[Span]:
        """Each event to all of its own sequence's keys, equally many for each."""
        spans, offset = [], 0
        for row, n in enumerate(self.lengths):
            if n:
                spans.append(Span(offset, offset + n, row * keys, (row + 1) * keys, False, True))
            offset += n
        return spans


def padded(lengths: Sequence[int]) -> Padded:
    """Of sequences of these lengths that follow one another.

    >>> padded([2, 33]).lengths
    [32, 64]
    """
    longer = [math.ceil(n / _LENGTH) * _LENGTH for n in lengths]
    length, more = torch.tensor(lengths), torch.tensor(longer)
    shift = (more.cumsum(0) - more) - (length.cumsum(0) - length)
    return Padded(longer, torch.arange(sum(lengths)) + shift.repeat_interleave(length))


@torch.compiler.disable
def attend_by_products(
    query: Tensor, keys: Tensor, values: Tensor, sequences: Padded, causal: bool
) -> Tensor:
    """Attention of several query heads to one key/value head, T x heads x d.

    Scores stay in their precision, as a softmax in fp32 would copy them twice, and again for their gradient;
    its sums are in fp32 all the same.

    Args:
        query: T x heads x d.
        keys, values: T x d if causal, each event sees itself and those before it; else b x m x d.
    """
    heads = query.shape[1]
    spans = sequences.to_past(heads) if causal else sequences.to_memory(keys.shape[1])
    return _Products.apply(query, keys, values, sequences, spans)


class _Products(torch.autograd.Function):
    """softmax(query keys^T / sqrt(d)) values, span by span."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, keys: Tensor, values: Tensor, sequences: Padded, spans: list[Span]
    ) -> Tensor:
        heads, d = query.shape[1:]
        rows = _spread(query, sequences).view(-1, d)
        ctx.causal, ctx.shapes = spans[0].causal, (query.shape, keys.shape)
        if ctx.causal:
            keys, values = _spread(keys, sequences), _spread(values, sequences)
        keys, values = keys.reshape(-1, d), values.reshape(-1, d)
        out, weights = torch.empty_like(rows), []
        with torch.autocast(query.device.type, enabled=False):
            for begin, end, key_begin, key_end, causal, _ in spans:
                own, seen = rows[begin * heads : end * heads], keys[key_begin:key_end].T
                hidden = _later(end - begin, key_end - key_begin, heads, rows.dtype) if causal else rows[0, 0]
                scores = torch.addmm(hidden, own, seen, beta=int(causal), alpha=d**-0.5)
                weights.append(scores.softmax(-1))
                torch.mm(weights[-1], values[key_begin:key_end], out=out[begin * heads : end * heads])
        ctx.save_for_backward(rows, keys, values, *weights)
        ctx.sequences, ctx.spans = sequences, spans
        return out.view(-1, heads, d).index_select(0, sequences.place)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, keys, values, *weights = ctx.saved_tensors
        (_, heads, d), key_shape = ctx.shapes
        gradient, scale = _spread(gradient, ctx.sequences).view(-1, d), d**-0.5
        query_gradient = torch.empty_like(rows)
        key_gradient, value_gradient = torch.zeros_like(keys), torch.zeros_like(values)
        for (begin, end, key_begin, key_end, _, first), weight in zip(ctx.spans, weights, strict=True):
            here, there = slice(begin * heads, end * heads), slice(key_begin, key_end)
            given, asked, key, value = gradient[here], rows[here], keys[there], values[there]
            # The softmax's own gradient; sums in fp32.
            scores = torch._softmax_backward_data(given @ value.T, weight, -1, weight.dtype)
            torch.addmm(key[0, 0], scores, key, beta=0, alpha=scale, out=query_gradient[here])
            for total, *factors, alpha in (
                (key_gradient[there], scores.T, asked, scale),
                (value_gradient[there], weight.T, given, 1.0),
            ):
                before = key[0, 0] if first else total
                torch.addmm(before, *factors, beta=int(not first), alpha=alpha, out=total)
        place = ctx.sequences.place
        if ctx.causal:
            key_gradient, value_gradient = (t.index_select(0, place) for t in (key_gradient, value_gradient))
        query_gradient = query_gradient.view(-1, heads, d).index_select(0, place)
        return query_gradient, key_gradient.view(key_shape), value_gradient.view(key_shape), None, None


def _spread(events: Tensor, sequences: Padded) -> Tensor:
    """Events at their places in the padded row, zero between."""
    return events.new_zeros(sum(sequences.lengths), *events.shape[1:]).index_copy_(0, sequences.place, events)


def _later(queries: int, keys: int, heads: int, dtype: torch.dtype) -> Tensor:
    """queries * heads x keys, -inf where a key is later than the query, heads folded into the rows."""
    whole = _all_later(math.ceil(keys / 512) * 512, heads, dtype)
    return whole[(keys - queries) * heads : keys * heads, :keys]


@lru_cache(maxsize=4)  # every span of every layer is a part of the same
def _all_later(keys: int, heads: int, dtype: torch.dtype) -> Tensor:
    later = torch.full((keys, keys), -torch.inf, dtype=dtype).triu_(1)
    return later.repeat_interleave(heads, 0)
