"""Kernels that draw the events of a chunk on the CPU: the three stacks, their logits, the choice.

The same as `transframer.models.choosing` does in PyTorch, event by event for all samples that have not
stopped, without a step of Python between events. Arrays are as in `transframer.models.decoder.Context` and
`.draft.EventPrior` unless said otherwise.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from transframer.codec.jit import reordered
from transframer.codec.layout import N_CHANNELS
from transframer.models.layer_kernels import normalise, product, row_product, run_layer, softmax

F32 = np.float32
STOP = N_CHANNELS


class Heads(NamedTuple):
    """Weights around the stacks, matrices in x out; norms and scales are folded in.

    Attributes:
        layers: of each stack.
        channel, channel_bias: state -> logits of the channels and the stop.
        pointer, pointer_bias: state -> query of the position.
        value, value_bias: state -> logits of the values; `value_prior` adds to them by channel.
        correction, correction_bias: state -> corrections of the drafted centre and log spread.
        neighbours: asinh of the coefficients of five cells -> width.
        drafted, drafted_bias: 3 -> width.
        channel_vector, value_vector: what an event's channel and value add to its embedding.
        scale: asinh of the values.
    """

    layers: np.ndarray
    channel: np.ndarray
    channel_bias: np.ndarray
    pointer: np.ndarray
    pointer_bias: np.ndarray
    value: np.ndarray
    value_bias: np.ndarray
    value_prior: np.ndarray
    correction: np.ndarray
    correction_bias: np.ndarray
    neighbours: np.ndarray
    drafted: np.ndarray
    drafted_bias: np.ndarray
    channel_vector: np.ndarray
    value_vector: np.ndarray
    scale: np.ndarray


class Scene(NamedTuple):
    """What the encoder and the draft say of b samples; without a draft, its arrays are empty.

    Attributes:
        place: b x p x width, embedding of a position with the encoder's feature there.
        pointer_keys: b x width x p.
        legal, last_legal: b x (N_CHANNELS + 1) x p, b x (N_CHANNELS + 1).
        rest, before, channel, position: of `EventPrior`.
        drafted: b x N_CHANNELS x p x 3, log-odds, centre, log spread.
        columns: cells in a row.
    """

    place: np.ndarray
    pointer_keys: np.ndarray
    legal: np.ndarray
    last_legal: np.ndarray
    rest: np.ndarray
    before: np.ndarray
    channel: np.ndarray
    position: np.ndarray
    drafted: np.ndarray
    columns: int


@reordered
def run_stack(stack, x, n, sample, at, heads, layers, memory, buffers):
    """One of the three stacks over entries x."""
    first = heads.layers[:stack].sum()
    for layer in range(first, first + heads.layers[stack]):
        run_layer(layer, x, n, sample, at, layers, memory, buffers)


@reordered
def channel_logits(x, n, sample, last_channel, last_position, heads, scene, logits, buffers):
    """Logits n x (N_CHANNELS + 1) of the channels that may follow; illegal ones are -inf."""
    normalise(x, buffers.normal, n)
    for i in range(n):
        logits[i] = heads.channel_bias
    product(buffers.normal, heads.channel, logits, n, x.shape[1], STOP + 1)
    for i in range(n):
        own, last, position = sample[i], last_channel[i], last_position[i]
        if len(scene.rest):
            rest = scene.rest[own, last, position + 1]
            after = scene.before[own, last + 1]
            for c in range(last + 1, STOP + 1):
                logits[i, c] += scene.channel[own, c] + rest - after
            logits[i, last] += np.log(-np.expm1(min(rest, F32(-1e-7))))
        more = scene.last_legal[own, last] > position
        logits[i, : last if more else last + 1] = -np.inf


@reordered
def position_logits(x, n, sample, channel, last_channel, last_position, heads, scene, logits, buffers):
    """Logits n x p of the positions that a channel may have next."""
    width = x.shape[1]
    cells = scene.pointer_keys.shape[2]
    normalise(x, buffers.normal, n)
    for i in range(n):
        buffers.wide[i, :width] = heads.pointer_bias
    product(buffers.normal, heads.pointer, buffers.wide, n, width, width)
    for i in range(n):
        own, c = sample[i], channel[i]
        if len(scene.rest):
            logits[i] = scene.position[own, c]
        else:
            logits[i] = 0
        row_product(buffers.wide[i], scene.pointer_keys[own], logits[i], width, cells)
        after = last_position[i] if c == last_channel[i] else -1
        for p in range(cells):
            if p <= after or not scene.legal[own, c, p]:
                logits[i, p] = -np.inf


@reordered
def add_place(x, n, sample, channel, position, grid, heads, scene):
    """Adds to x what the value decoder is told of where an event is; see `TripleDecoder.place_vector`.

    Args:
        grid: b x p x N_CHANNELS, coefficients so far; later ones are not looked at.
    """
    width, cells, gx = x.shape[1], scene.place.shape[1], scene.columns
    for i in range(n):
        own, c, p = sample[i], channel[i], position[i]
        row = x[i]
        column = p % gx
        row += scene.place[own, p]
        for side in range(5):
            at, inside, bound = p, True, c
            if side == 1:
                at, inside, bound = p - 1, column > 0, c + 1
            elif side == 2:
                at, inside, bound = p - gx, p >= gx, c + 1
            elif side == 3:
                at, inside = p + 1, column < gx - 1
            elif side == 4:
                at, inside = p + gx, p + gx < cells
            if not inside:
                continue
            near = grid[own, at]
            for k in range(bound):
                if near[k]:
                    amount = F32(np.arcsinh(F32(near[k])))
                    weights = heads.neighbours[side * N_CHANNELS + k]
                    for j in range(width):
                        row[j] += amount * weights[j]
        if len(scene.drafted):
            row += heads.drafted_bias
            row_product(scene.drafted[own, c, p], heads.drafted, row, 3, width)


@reordered
def value_logits(x, n, sample, channel, position, heads, scene, logits, buffers):
    """Logits n x (2 * max_value + 1); -inf for 0, which is never coded."""
    width, values = x.shape[1], heads.value.shape[1]
    normalise(x, buffers.normal, n)
    for i in range(n):
        logits[i] = heads.value_bias
    product(buffers.normal, heads.value, logits, n, width, values)
    shift = buffers.scratch[:2]
    for i in range(n):
        logits[i] += heads.value_prior[channel[i]]
        if len(scene.drafted):
            shift[:] = heads.correction_bias
            row_product(buffers.normal[i], heads.correction, shift, width, 2)
            drafted = scene.drafted[sample[i], channel[i], position[i]]
            centre, spread = drafted[1] + shift[0], np.exp(-(drafted[2] + shift[1]))
            for v in range(values):
                logits[i, v] -= abs(heads.scale[v] - centre) * spread
        logits[i, values // 2] = -np.inf


@reordered
def add_event(x, n, sample, channel, position, value, heads, scene):
    """Adds the embeddings of past events to x."""
    for i in range(n):
        c, v = channel[i], value[i] + heads.value.shape[1] // 2
        x[i] += heads.channel_vector[c] + scene.place[sample[i], position[i]] + heads.value_vector[v]


@reordered
def pick(logits, n, temperature, top_p, uniform, probability, buffers):
    """An index drawn from a row of logits, and its log-probability at temperature 1.

    Args:
        temperature, top_p: as of `transframer.models.choosing.pick`.
        uniform: in [0, 1), picks by the inverse of the distribution function.
        probability: room for n.
    """
    index = 0
    for j in range(n):
        probability[j] = logits[j]
        index = j if logits[j] > logits[index] else index
    log_sum = softmax(probability, n, buffers.bits)
    if temperature == 0:
        return index, logits[index] - log_sum
    if temperature != 1:
        for j in range(n):
            probability[j] = logits[j] / temperature
        softmax(probability, n, buffers.bits)
    if top_p < 1:
        order = np.argsort(-probability[:n], kind="mergesort")
        kept = np.float64(0)
        for j in order:
            share = np.float64(probability[j])
            probability[j] = probability[j] if kept < top_p else F32(0)
            kept += share
    total = np.float64(0)
    for j in range(n):
        total += probability[j]
    bound, below = uniform * total, np.float64(0)
    for j in range(n):
        below += probability[j]
        if below > bound:
            index = j
            break
    return index, logits[index] - log_sum
