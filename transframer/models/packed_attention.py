"""Attention as plain matrix products over sequences that follow one another in one row.

Several query heads share one key/value head, so that the heads of an event are just more query rows. Where
products are fast and PyTorch's fused kernel is slow backward (see `attention_path`), this is what trains: a
few products for each sequence, on slices of one row, forward and backward. The slices are longer than the
sequences, so that few lengths come up: the library of products compiles a kernel for every new shape, which
takes ten times as long as one of these products. What a slice overhangs belongs to the next sequence, which
writes its own results there later.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_LENGTH = 32  # what lengths of slices are multiples of
_CAUSAL_ROWS = 768  # query rows, all heads counted, of a causal product


class Span(NamedTuple):
    """Queries that see the same keys, by their places in the row.

    Attributes:
        begin, end: of the slice of queries.
        real: where those of the sequence end; what is between it and `end` is not to see nor be seen.
        key_begin, key_end: of the slice of keys.
        causal: the last query sees all of the keys, the one before it one less.
        first: no span of the sequence before this one sees any of the keys.
    """

    begin: int
    end: int
    real: int
    key_begin: int
    key_end: int
    causal: bool
    first: bool


def spans_to_past(lengths: Sequence[int], heads: int) -> list[Span]:
    """Each event to itself and those before it, in blocks of queries; sequences follow one another.

    >>> [(span.begin, span.end, span.real) for span in spans_to_past([2, 33], heads=8)]
    [(0, 32, 2), (2, 66, 35)]
    """
    spans, offset = [], 0
    for n in lengths:
        real, last = offset + n, offset + _longer(n)
        blocks = max(1, round((last - offset) * heads / _CAUSAL_ROWS))
        side = _longer(max(1, (last - offset) // blocks))
        for end in range(last, offset, -side):  # these queries see no key after their last one
            begin = max(end - side, offset)
            spans.append(Span(begin, end, min(real, end), offset, end, True, end == last))
        offset = real
    return spans


def spans_to_memory(lengths: Sequence[int], keys: int) -> list[Span]:
    """Each event to all of its own sequence's keys, equally many for each."""
    spans, offset = [], 0
    for row, n in enumerate(lengths):
        if n:
            end, here = offset + _longer(n), row * keys
            spans.append(Span(offset, end, offset + n, here, here + keys, False, True))
        offset += n
    return spans


def _longer(n: int) -> int:
    return math.ceil(n / _LENGTH) * _LENGTH


@torch.compiler.disable
def attend_by_products(
    query: Tensor, keys: Tensor, values: Tensor, lengths: Sequence[int], causal: bool
) -> Tensor:
    """Attention of several query heads to one key/value head, T x heads x d.

    Scores stay in their precision, as a softmax in fp32 would copy them twice, and again for their gradient;
    its sums are in fp32 all the same.

    Args:
        query: T x heads x d, of b sequences that follow one another.
        keys, values: T x d if causal, each event sees itself and those before it; else b x m x d.
        lengths: b, whose sum is T.
    """
    heads = query.shape[1]
    spans = spans_to_past(lengths, heads) if causal else spans_to_memory(lengths, keys.shape[1])
    return _Products.apply(query, keys, values, spans)


class _Products(torch.autograd.Function):
    """softmax(query keys^T / sqrt(d)) values, span by span."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, keys: Tensor, values: Tensor, spans: list[Span]) -> Tensor:
        events, heads, d = query.shape
        overhang = max(span.end for span in spans) - events
        rows = _extended(query, overhang).view(-1, d)
        ctx.key_shape, ctx.spans = keys.shape, spans
        if spans[0].causal:
            keys, values = _extended(keys, overhang), _extended(values, overhang)
        keys, values = keys.reshape(-1, d), values.reshape(-1, d)
        out, weights = torch.empty_like(rows), []
        with torch.autocast(query.device.type, enabled=False):
            for begin, end, real, key_begin, key_end, causal, _ in spans:
                own, seen = rows[begin * heads : end * heads], keys[key_begin:key_end].T
                hidden = _later(end - begin, key_end - key_begin, heads, rows.dtype) if causal else rows[0, 0]
                scores = torch.addmm(hidden, own, seen, beta=int(causal), alpha=d**-0.5)
                weights.append(scores.softmax(-1))
                weights[-1][(real - begin) * heads :].zero_()
                torch.mm(weights[-1], values[key_begin:key_end], out=out[begin * heads : end * heads])
        ctx.save_for_backward(rows, keys, values, *weights)
        return out.view(-1, heads, d)[:events]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, keys, values, *weights = ctx.saved_tensors
        events, heads, d = gradient.shape
        gradient = _extended(gradient, len(rows) // heads - events).reshape(-1, d)
        scale = d**-0.5
        query_gradient = torch.empty_like(rows)
        key_gradient, value_gradient = torch.zeros_like(keys), torch.zeros_like(values)
        for (begin, end, _, key_begin, key_end, _, first), weight in zip(ctx.spans, weights, strict=True):
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
        if ctx.spans[0].causal:
            key_gradient, value_gradient = key_gradient[:events], value_gradient[:events]
        query_gradient = query_gradient.view(-1, heads, d)[:events]
        return query_gradient, key_gradient.view(ctx.key_shape), value_gradient.view(ctx.key_shape), None


def _extended(events: Tensor, more: int) -> Tensor:
    """Events with zeros after them."""
    return torch.cat([events, events.new_zeros(more, *events.shape[1:])])


def _later(queries: int, keys: int, heads: int, dtype: torch.dtype) -> Tensor:
    """queries * heads x keys, -inf where a key is later than the query, heads folded into the rows."""
    whole = _all_later(math.ceil(keys / 512) * 512, heads, dtype)
    return whole[(keys - queries) * heads : keys * heads, :keys]


@lru_cache(maxsize=4)  # every span of every layer is a part of the same
def _all_later(keys: int, heads: int, dtype: torch.dtype) -> Tensor:
    later = torch.full((keys, keys), -torch.inf, dtype=dtype).triu_(1)
    return later.repeat_interleave(heads, 0)
