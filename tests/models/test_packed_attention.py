"""Attention by products over sequences of several lengths against a slow reference in fp64."""

import math

import pytest
import torch

from tests.models.conftest import with_gradients
from transframer.models import packed_attention
from transframer.models.packed_attention import attend_by_products, spans_to_past

LENGTHS, HEADS, D, CELLS = [5, 0, 1, 33, 64], 2, 4, 3
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.03}


def slow(query, keys, values, causal):
    """Each sequence, each event on its own."""
    out, begin = [], 0
    for row, length in enumerate(LENGTHS):
        for i in range(length):
            seen = slice(begin, begin + i + 1)
            k, v = (keys[seen], values[seen]) if causal else (keys[row], values[row])
            out.append((query[begin + i] @ k.T / D**0.5).softmax(-1) @ v)
        begin += length
    return torch.stack(out)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 64, 10**6], ids=["blocks", "two blocks", "whole"])
def test_sequences_attend_in_value_and_gradient(causal, dtype, rows, monkeypatch):
    monkeypatch.setattr(packed_attention, "_CAUSAL_ROWS", rows)
    generator, events = torch.Generator().manual_seed(1), sum(LENGTHS)
    seen = (events, D) if causal else (len(LENGTHS), CELLS, D)
    shapes = (events, HEADS, D), seen, seen, (events, HEADS, D)
    *inputs, gradient = (torch.randn(shape, generator=generator).to(dtype) for shape in shapes)
    exact = with_gradients(lambda *t: slow(*t, causal), [t.double() for t in inputs], gradient)
    got = with_gradients(lambda *t: attend_by_products(*t, LENGTHS, causal), inputs, gradient)
    for value, truth in zip(got, exact, strict=True):
        assert value.dtype == dtype
        assert (value.double() - truth).abs().max() <= TOLERANCE[dtype] * truth.abs().max()


def test_few_shapes_come_up():
    """Each product's shape is a kernel to compile: of sequences of 1 to 256 events there are few."""
    shapes = set()
    for length in range(1, 257):
        spans = spans_to_past([length], 8)
        assert max(span.end for span in spans) == math.ceil(length / 32) * 32
        shapes |= {(span.end - span.begin, span.key_end - span.key_begin) for span in spans}
    assert len(shapes) <= 16
