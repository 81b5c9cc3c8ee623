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
from transframer.models.layer_kernels import linear, normalise, run_layer, softmax

F32 = np.float32
STOP = N_CHANNELS


class Heads(NamedTuple):
    """Weights around the stacks, matrices out x in; norms and scales are folded in.

    Attributes:
        layers: of each stack.
        channel, channel_bias: state -> logits of the channels and the stop.
        pointer, pointer_bias: state -> query of the position.
        value, value_bias: state -> logits of the values; `value_prior` adds to them by channel.
        correction, correction_bias: state -> corrections of the drafted centre and log spread.
        neighbours: 5 * N_CHANNELS x width, what asinh of a coefficient of five cells adds.
        drafted, drafted_bias: 3 x width, what log-odds, centre and log spread add.
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
        pointer_keys: b x p x width.
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
    linear(buffers.normal, heads.channel, logits, n)
    for i in range(n):
        add_channel_prior(logits[i], sample[i], last_channel[i], last_position[i], scene)


@reordered
def add_channel_prior(logits, own, last, position, scene):
    """Adds what the draft says of the channel after the pair (last, position); illegal ones are -inf."""
    if len(scene.rest):
        rest = scene.rest[own, last, position + 1]
        after = scene.before[own, last + 1]
        for c in range(last + 1, STOP + 1):
            logits[c] += scene.channel[own, c] + rest - after
        logits[last] += np.log(-np.expm1(min(rest, F32(-1e-7))))
    more = scene.last_legal[own, last] > position
    logits[: last if more else last + 1] = -np.inf


@reordered
def position_logits(x, n, sample, channel, last_channel, last_position, heads, scene, logits, buffers):
    """Logits n x p of the positions that a channel may have next."""
    width = x.shape[1]
    normalise(x, buffers.normal, n)
    for i in range(n):
        buffers.wide[i, :width] = heads.pointer_bias
    linear(buffers.normal, heads.pointer, buffers.wide, n)
    for i in range(n):
        logits[i] = 0
        linear(buffers.wide[i : i + 1], scene.pointer_keys[sample[i]], logits[i : i + 1], 1)
        after = last_position[i] if channel[i] == last_channel[i] else -1
        add_position_prior(logits[i], sample[i], channel[i], after, scene)


@reordered
def add_position_prior(logits, own, c, after, scene):
    """Adds what the draft says of the position in channel c; -inf up to `after`, and where c has no cell."""
    if len(scene.rest):
        logits += scene.position[own, c]
    for p in range(len(logits)):
        if p <= after or not scene.legal[own, c, p]:
            logits[p] = -np.inf


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
            a, b, d = scene.drafted[own, c, p]
            for j in range(width):
                row[j] += a * heads.drafted[0, j] + b * heads.drafted[1, j] + d * heads.drafted[2, j]


@reordered
def value_logits(x, n, sample, channel, position, heads, scene, logits, buffers):
    """Logits n x (2 * max_value + 1); -inf for 0, which is never coded."""
    normalise(x, buffers.normal, n)
    for i in range(n):
        logits[i] = heads.value_bias
    linear(buffers.normal, heads.value, logits, n)
    shift = np.zeros((1, 2), np.float32)
    for i in range(n):
        if len(scene.drafted):
            shift[0] = heads.correction_bias
            linear(buffers.normal[i : i + 1], heads.correction, shift, 1)
        add_value_prior(logits[i], sample[i], channel[i], position[i], shift[0], heads, scene)


@reordered
def add_value_prior(logits, own, c, p, shift, heads, scene):
    """Adds what is known of the value of a pair: by its channel, and by the draft.

    Args:
        shift: what the state adds to the drafted centre and log spread.
    """
    logits += heads.value_prior[c]
    if len(scene.drafted):
        drafted = scene.drafted[own, c, p]
        centre, spread = drafted[1] + shift[0], np.exp(-(drafted[2] + shift[1]))
        for v in range(len(logits)):
            logits[v] -= abs(heads.scale[v] - centre) * spread
    logits[len(logits) // 2] = -np.inf


@reordered
def add_event(x, n, sample, channel, position, value, heads, scene):
    """Adds the embeddings of past events to x."""
    for i in range(n):
        c, v = channel[i], value[i] + heads.value.shape[0] // 2
        x[i] += heads.channel_vector[c] + scene.place[sample[i], position[i]] + heads.value_vector[v]


@reordered
def distribution(logits, n, temperature, top_p, probability, buffers):
    """Probabilities that a row of logits is drawn with; returns the log of the sum of its exponentials.

    Args:
        temperature, top_p: as of `transframer.models.choosing.pick`.
        probability: becomes the probabilities, all on the likeliest at temperature 0.
    """
    likeliest = 0
    for j in range(n):
        probability[j] = logits[j]
        likeliest = j if logits[j] > logits[likeliest] else likeliest
    log_sum = softmax(probability, n, buffers.bits)
    if temperature == 0:
        probability[:n] = 0
        probability[likeliest] = 1
        return log_sum
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
            kept += share if kept < top_p else np.float64(0)
        for j in range(n):
            probability[j] /= kept
    return log_sum


@reordered
def invert(probability, n, uniform):
    """The index at which the sum of (unnormalised) probabilities passes a number in [0, 1) of their total."""
    total = np.float64(0)
    for j in range(n):
        total += probability[j]
    bound, below = uniform * total, np.float64(0)
    for j in range(n):
        below += probability[j]
        if below > bound:
            return j
    return int(probability[:n].argmax())


@reordered
def pick(logits, n, temperature, top_p, uniform, probability, buffers):
    """An index drawn from a row of logits, and its log-probability at temperature 1."""
    log_sum = distribution(logits, n, temperature, top_p, probability, buffers)
    index = invert(probability, n, uniform)
    return index, logits[index] - log_sum
