"""Kernels of the decoder's layers on the CPU: a few rows by a matrix, softmax, attention, MLP.

An entry is one event of one sample: x holds one row per entry, `sample` says whose it is and `at` which event
of the chunk. Entries of one call may be one event of each of many samples, many events of one, or both.
Everything is float32; sums may be reordered. Layer norms' scales and gates are folded into the matrices
beside them (`transframer.models.packing`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from transframer.codec.jit import prefetch, reordered

F32 = np.float32
_LOG2_E, _LN_2_HIGH, _LN_2_LOW = F32(1.44269504), F32(0.693359375), F32(-2.12194440e-4)
_TILE, _MANY, _LINE = 16, 16, 16  # rows of a matrix, rows of x, numbers in a line of the cache
_SMALLEST = F32(-87.0)  # exp of less is no normal float32


class Layers(NamedTuple):
    """The weights of all layers, those of the three stacks one after the other; matrices are out x in.

    `qkv` maps to the queries of all heads, then the keys and values of the one key/value head.
    """

    qkv: np.ndarray
    qkv_bias: np.ndarray
    attention_out: np.ndarray
    cross_query: np.ndarray
    cross_query_bias: np.ndarray
    cross_out: np.ndarray
    up: np.ndarray
    up_bias: np.ndarray
    down: np.ndarray
    down_bias: np.ndarray


class Memory(NamedTuple):
    """What the layers attend to: of the encoder, and of the past events; keys are stored transposed.

    Attributes:
        cross_keys, cross_values: b x layers x head width x m, and b x layers x m x head width.
        cross_bias: b x m, 0 where the memory is real, else -inf.
        keys, values: b x layers x head width x capacity, and b x layers x capacity x head width.
    """

    cross_keys: np.ndarray
    cross_values: np.ndarray
    cross_bias: np.ndarray
    keys: np.ndarray
    values: np.ndarray


class Buffers(NamedTuple):
    """Room for intermediate results."""

    normal: np.ndarray  # n x width
    wide: np.ndarray  # n x the widest of qkv and hidden
    heads: np.ndarray  # heads x head width
    scores: np.ndarray  # heads x the longer of capacity and m
    scratch: np.ndarray  # as long as the longest row that exponentials are taken of
    bits: np.ndarray  # int32, the same


@reordered
def linear(x, w, y, n):
    """y[:n, :m] += x[:n, :k] @ w.T for w m x k.

    The matrix is read once and in order, which a single row needs to get at the speed of memory, with four
    rows at a time for each of its; a tile of it stays in the nearest cache for all rows, and where these are
    many the next is brought near meanwhile.
    """
    m, k = w.shape
    whole = n // 4 * 4
    # Lines of the next tile that are asked for with each pair of outputs of four rows.
    lines = -(-_TILE * k // _LINE // max(whole // 4 * (_TILE // 2), 1))
    for tile in range(0, m, _TILE):
        end = min(m, tile + _TILE)
        # With many rows the tile is mostly read from the cache, where two of its rows at a time are faster.
        paired = tile + (end - tile) // 2 * 2 if n >= _MANY else tile
        coming, last = end * k, min(m, end + _TILE) * k
        for r in range(0, whole, 4):
            for o in range(tile, paired, 2):
                for _ in range(lines):
                    if coming < last:
                        prefetch(w, coming)
                    coming += _LINE
                a, b, c, d = F32(0), F32(0), F32(0), F32(0)
                e, f, g, h = F32(0), F32(0), F32(0), F32(0)
                for j in range(k):
                    v, u = w[o, j], w[o + 1, j]
                    a += v * x[r, j]
                    b += v * x[r + 1, j]
                    c += v * x[r + 2, j]
                    d += v * x[r + 3, j]
                    e += u * x[r, j]
                    f += u * x[r + 1, j]
                    g += u * x[r + 2, j]
                    h += u * x[r + 3, j]
                y[r, o] += a
                y[r + 1, o] += b
                y[r + 2, o] += c
                y[r + 3, o] += d
                y[r, o + 1] += e
                y[r + 1, o + 1] += f
                y[r + 2, o + 1] += g
                y[r + 3, o + 1] += h
            for o in range(paired, end):
                a, b, c, d = F32(0), F32(0), F32(0), F32(0)
                for j in range(k):
                    v = w[o, j]
                    a += v * x[r, j]
                    b += v * x[r + 1, j]
                    c += v * x[r + 2, j]
                    d += v * x[r + 3, j]
                y[r, o] += a
                y[r + 1, o] += b
                y[r + 2, o] += c
                y[r + 3, o] += d
        for r in range(whole, n):
            for o in range(tile, end):
                a = F32(0)
                for j in range(k):
                    a += w[o, j] * x[r, j]
                y[r, o] += a


@reordered
def product(x, w, y, n, k, m):
    """y[:n, :m] += x[:n, :k] @ w[:k, :m] for matrices that stay in the cache, four rows by four at a time."""
    whole, inner = n // 4 * 4, k // 4 * 4
    for r in range(0, whole, 4):
        for i in range(0, inner, 4):
            a0, a1, a2, a3 = x[r, i], x[r, i + 1], x[r, i + 2], x[r, i + 3]
            b0, b1, b2, b3 = x[r + 1, i], x[r + 1, i + 1], x[r + 1, i + 2], x[r + 1, i + 3]
            c0, c1, c2, c3 = x[r + 2, i], x[r + 2, i + 1], x[r + 2, i + 2], x[r + 2, i + 3]
            d0, d1, d2, d3 = x[r + 3, i], x[r + 3, i + 1], x[r + 3, i + 2], x[r + 3, i + 3]
            for j in range(m):
                w0, w1, w2, w3 = w[i, j], w[i + 1, j], w[i + 2, j], w[i + 3, j]
                y[r, j] += a0 * w0 + a1 * w1 + a2 * w2 + a3 * w3
                y[r + 1, j] += b0 * w0 + b1 * w1 + b2 * w2 + b3 * w3
                y[r + 2, j] += c0 * w0 + c1 * w1 + c2 * w2 + c3 * w3
                y[r + 3, j] += d0 * w0 + d1 * w1 + d2 * w2 + d3 * w3
    for r in range(n):
        for i in range(inner if r < whole else 0, k):
            for j in range(m):
                y[r, j] += x[r, i] * w[i, j]


@reordered
def exponentials(x, n, bits):
    """x[:n] = exp(x[:n]) for x <= 88, and 0 below -87; Cephes' polynomial, within 2 ulp.

    Two loops, so that both use vector instructions: powers of two are made as bits of a second array.
    """
    power = bits.view(np.float32)
    for j in range(n):
        t = x[j]
        within = max(t, _SMALLEST)
        whole = np.floor(within * _LOG2_E + F32(0.5))
        r = within - whole * _LN_2_HIGH - whole * _LN_2_LOW
        p = F32(1.9875691500e-4) * r + F32(1.3981999507e-3)
        p = p * r + F32(8.3334519073e-3)
        p = p * r + F32(4.1665795894e-2)
        p = p * r + F32(1.6666665459e-1)
        p = p * r + F32(5.0000001201e-1)
        p = p * r * r + r + F32(1.0)
        x[j] = p if t >= _SMALLEST else F32(0.0)
        bits[j] = (np.int32(whole) + np.int32(127)) << np.int32(23)
    for j in range(n):
        x[j] *= power[j]


@reordered
def softmax(x, n, bits):
    """x[:n] becomes its exponentials over their sum; returns the logarithm of the sum that they had."""
    largest = F32(-np.inf)
    for j in range(n):
        largest = max(largest, x[j])
    for j in range(n):
        x[j] -= largest
    exponentials(x, n, bits)
    total = F32(0.0)
    for j in range(n):
        total += x[j]
    scale = F32(1.0) / total
    for j in range(n):
        x[j] *= scale
    return largest + np.log(total)


@reordered
def normalise(x, y, n):
    """y = (x - mean) / standard deviation of each row: a layer norm whose scale comes later."""
    width = x.shape[1]
    for r in range(n):
        mean = F32(0.0)
        for j in range(width):
            mean += x[r, j]
        mean /= width
        variance = F32(0.0)
        for j in range(width):
            variance += (x[r, j] - mean) ** 2
        scale = F32(1.0) / np.sqrt(variance / width + F32(1e-5))
        for j in range(width):
            y[r, j] = (x[r, j] - mean) * scale


@reordered
def gelu(x, n, t, bits):
    """x[:n] * Phi(x[:n]); the error function by Abramowitz and Stegun 7.1.26, within 1.5e-7."""
    for j in range(n):
        t[j] = F32(-0.5) * x[j] * x[j]
    exponentials(t, n, bits)
    for j in range(n):
        a = abs(x[j])
        u = F32(1.0) / (F32(1.0) + F32(0.3275911 * 0.7071067811865476) * a)
        p = F32(1.061405429) * u + F32(-1.453152027)
        p = p * u + F32(1.421413741)
        p = p * u + F32(-0.284496736)
        p = p * u + F32(0.254829592)
        tail = F32(0.5) * p * u * t[j]  # Phi(-|x|)
        x[j] *= tail if x[j] < 0 else F32(1.0) - tail


@reordered
def bring(keys, values, length, part, parts):
    """Has a part of what an entry attends to brought near; arguments as of `attend`."""
    d, capacity = keys.shape
    for i in range(part * d // parts, (part + 1) * d // parts):
        for j in range(0, length, _LINE):
            prefetch(keys, i * capacity + j)
    for j in range(part * length // parts * d, (part + 1) * length // parts * d, _LINE):
        prefetch(values, j)


@reordered
def attend(query, keys, values, bias, length, out, next_keys, next_values, next_length, buffers):
    """out += softmax(query @ keys / sqrt(d) + bias) @ values for all heads of one entry.

    Args:
        query, out: heads * d.
        keys, values: d x capacity, capacity x d, of which the first `length` count.
        bias: per key; empty for none.
        next_keys, next_values, next_length: those of the entry after it, which are brought near meanwhile.
    """
    heads, d = buffers.heads.shape
    scale = F32(1.0 / np.sqrt(d))
    scores = buffers.scores
    for h in range(heads):
        for i in range(d):
            buffers.heads[h, i] = query[h * d + i] * scale
        for j in range(length):
            scores[h, j] = bias[j] if len(bias) else F32(0.0)
    product(buffers.heads, keys, scores, heads, d, length)
    for h in range(heads):
        bring(next_keys, next_values, next_length, h, heads)
        softmax(scores[h], length, buffers.bits)
    buffers.heads[:] = 0
    product(scores, values, buffers.heads, heads, length, d)
    for h in range(heads):
        for i in range(d):
            out[h * d + i] = buffers.heads[h, i]


@reordered
def run_layer(layer, x, n, sample, at, layers, memory, buffers):
    """One layer over the first n entries, whose keys and values join those of the past."""
    width = x.shape[1]
    d = buffers.heads.shape[1]
    hidden, m = layers.up.shape[1], memory.cross_keys.shape[3]
    y, wide = buffers.normal, buffers.wide
    nothing = memory.cross_bias[0, :0]
    normalise(x, y, n)
    for i in range(n):
        wide[i, : width + 2 * d] = layers.qkv_bias[layer]
    linear(y, layers.qkv[layer], wide, n)
    for i in range(n):
        memory.keys[sample[i], layer, :, at[i]] = wide[i, width : width + d]
        memory.values[sample[i], layer, at[i]] = wide[i, width + d : width + 2 * d]
    for i in range(n):
        own, other, more = sample[i], sample[min(i + 1, n - 1)], at[i + 1] + 1 if i + 1 < n else 0
        keys, values = memory.keys[own, layer], memory.values[own, layer]
        others = memory.keys[other, layer], memory.values[other, layer], more
        attend(wide[i, :width], keys, values, nothing, at[i] + 1, y[i], *others, buffers)
    linear(y, layers.attention_out[layer], x, n)
    normalise(x, y, n)
    for i in range(n):
        wide[i, :width] = layers.cross_query_bias[layer]
    linear(y, layers.cross_query[layer], wide, n)
    for i in range(n):
        own, other, more = sample[i], sample[min(i + 1, n - 1)], m if i + 1 < n else 0
        keys, values = memory.cross_keys[own, layer], memory.cross_values[own, layer]
        others = memory.cross_keys[other, layer], memory.cross_values[other, layer], more
        attend(wide[i, :width], keys, values, memory.cross_bias[own], m, y[i], *others, buffers)
    linear(y, layers.cross_out[layer], x, n)
    normalise(x, y, n)
    for i in range(n):
        wide[i, :hidden] = layers.up_bias[layer]
        x[i] += layers.down_bias[layer]
    linear(y, layers.up[layer], wide, n)
    for i in range(n):
        gelu(wide[i], hidden, buffers.scratch, buffers.bits)
    linear(wide, layers.down[layer], x, n)
