"""Kernels that Python calls for a chunk: take given events, draw the others."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from transframer.codec.jit import lazy_kernel, reordered
from transframer.models.event_kernels import (
    F32,
    STOP,
    add_event,
    add_place,
    channel_logits,
    pick,
    position_logits,
    run_stack,
    value_logits,
)
from transframer.models.layer_kernels import Buffers, softmax


class State(NamedTuple):
    """Where b samples are in their chunk.

    Attributes:
        next_input: b x width, what the first stack is fed next.
        last_channel, last_position: b, the pair before; (0, -1) before the first.
        length: b, events of the chunk so far.
        grid: b x p x N_CHANNELS, coefficients so far.
    """

    next_input: np.ndarray
    last_channel: np.ndarray
    last_position: np.ndarray
    length: np.ndarray
    grid: np.ndarray


class Choices(NamedTuple):
    """The events that are being chosen, one per entry, and their log-probabilities."""

    channel: np.ndarray
    position: np.ndarray
    value: np.ndarray  # its index among -max_value .. max_value
    nats: np.ndarray


@reordered
def make_buffers(n, heads, layers, memory, cells):
    """Room for n entries."""
    width, d = layers.cross_query.shape[1], memory.keys.shape[2]
    attended = max(memory.keys.shape[3], memory.cross_keys.shape[3])
    wide = max(layers.qkv.shape[1], layers.up.shape[1])
    longest = max(wide, attended, heads.value.shape[0], STOP + 1, cells)
    return Buffers(
        np.empty((n, width), np.float32),
        np.empty((n, wide), np.float32),
        np.empty((width // d, d), np.float32),
        np.empty((width // d, attended), np.float32),
        np.empty(longest, np.float32),
        np.empty(longest, np.int32),
    )


@lazy_kernel
def give(events, heads, layers, scene, memory, state):
    """Takes events b x n x 3 of the chunk as drawn; the grid has their coefficients already."""
    b, n = events.shape[:2]
    width = state.next_input.shape[1]
    x, after = np.empty((b * n, width), np.float32), np.zeros((b * n, width), np.float32)
    sample, at = np.empty(b * n, np.int64), np.empty(b * n, np.int64)
    flat = events.reshape(b * n, 3)
    channel, position, value = flat[:, 0].copy(), flat[:, 1].copy(), flat[:, 2].copy()
    buffers = make_buffers(b * n, heads, layers, memory, scene.place.shape[1])
    for i in range(b * n):
        sample[i], at[i] = i // n, state.length[i // n] + i % n
    add_event(after, b * n, sample, channel, position, value, heads, scene)
    for i in range(b * n):
        x[i] = after[i - 1] if i % n else state.next_input[sample[i]]
    run_stack(0, x, b * n, sample, at, heads, layers, memory, buffers)
    for i in range(b * n):
        x[i] += heads.channel_vector[channel[i]]
    run_stack(1, x, b * n, sample, at, heads, layers, memory, buffers)
    add_place(x, b * n, sample, channel, position, state.grid, heads, scene)
    run_stack(2, x, b * n, sample, at, heads, layers, memory, buffers)
    for row in range(b):
        i = row * n + n - 1
        state.next_input[row] = after[i]
        state.last_channel[row], state.last_position[row] = channel[i], position[i]
        state.length[row] += n


@lazy_kernel
def draw(temperature, top_p, least, mean, uniform, heads, layers, scene, memory, state, events, nats):
    """Draws events until every sample has stopped or the room is used up.

    Args:
        least: 0 draws event by event; above it, coefficients are decided in turn that are at least so likely
            to be coded, by their mean or median.
        uniform: b x n x 3 numbers in [0, 1) that decide the draws, those of an event for its three parts.
        events: b x n x 3, filled with stops; what is drawn is written here.
        nats: b, to which the log-probability of what is drawn is added.
    """
    b, room = uniform.shape[:2]
    width, cells = scene.place.shape[2], scene.place.shape[1]
    buffers = make_buffers(b, heads, layers, memory, cells)
    choices = Choices(
        np.zeros(b, np.int64), np.zeros(b, np.int64), np.zeros(b, np.int64), np.zeros(b, np.float32)
    )
    x = np.empty((b, width), np.float32)
    sample, at = np.arange(b), np.empty(b, np.int64)
    last_channel, last_position = np.empty(b, np.int64), np.empty(b, np.int64)
    logits = np.empty((b, STOP + 1), np.float32)
    here = np.empty((b, cells), np.float32)
    values = np.empty((b, heads.value.shape[0]), np.float32)
    probability = np.empty(max(STOP + 1, cells, heads.value.shape[0]), np.float32)
    n = b
    for event in range(room):
        for i in range(n):
            own = sample[i]
            x[i] = state.next_input[own]
            at[i] = state.length[own]
            last_channel[i], last_position[i] = state.last_channel[own], state.last_position[own]
        run_stack(0, x, n, sample, at, heads, layers, memory, buffers)
        channel_logits(x, n, sample, last_channel, last_position, heads, scene, logits, buffers)
        if least > 0:
            next_coefficients(
                least, mean, x, n, sample, at, last_channel, last_position, logits, here, values, probability,
                heads, layers, scene, memory, state.grid, choices, buffers,
            )  # fmt: skip
        going = 0
        for i in range(n):
            own = sample[i]
            if least == 0:
                choices.channel[i], choices.nats[i] = pick(
                    logits[i], STOP + 1, temperature, top_p, uniform[own, event, 0], probability, buffers
                )
            if choices.channel[i] == STOP:
                nats[own] += choices.nats[i]
                continue
            # Those that go on move up, and the others have left.
            x[going], sample[going], at[going] = x[i], own, at[i]
            last_channel[going], last_position[going] = last_channel[i], last_position[i]
            choices.channel[going], choices.nats[going] = choices.channel[i], choices.nats[i]
            choices.position[going], choices.value[going] = choices.position[i], choices.value[i]
            going += 1
        n = going
        if n == 0:
            break
        if least == 0:
            for i in range(n):
                x[i] += heads.channel_vector[choices.channel[i]]
            run_stack(1, x, n, sample, at, heads, layers, memory, buffers)
            position_logits(
                x, n, sample, choices.channel, last_channel, last_position, heads, scene, here, buffers
            )
            for i in range(n):
                choices.position[i], gain = pick(
                    here[i], cells, temperature, top_p, uniform[sample[i], event, 1], probability, buffers
                )
                choices.nats[i] += gain
            add_place(x, n, sample, choices.channel, choices.position, state.grid, heads, scene)
            run_stack(2, x, n, sample, at, heads, layers, memory, buffers)
            value_logits(x, n, sample, choices.channel, choices.position, heads, scene, values, buffers)
            for i in range(n):
                choices.value[i], gain = pick(
                    values[i], values.shape[1], temperature, top_p, uniform[sample[i], event, 2],
                    probability, buffers,
                )  # fmt: skip
                choices.nats[i] += gain
        for i in range(n):
            v = choices.value[i] - values.shape[1] // 2
            where = sample[i], event, choices.channel[i], choices.position[i], v
            write_event(*where, choices.nats[i], events, nats, heads, scene, state)


@reordered
def write_event(own, event, c, p, v, gain, events, nats, heads, scene, state):
    """An event of one sample that is settled: written, scored, and what the next is drawn from."""
    events[own, event, 0], events[own, event, 1], events[own, event, 2] = c, p, v
    nats[own] += gain
    state.grid[own, p, c] += v
    state.last_channel[own], state.last_position[own] = c, p
    state.length[own] += 1
    row = state.next_input[own]
    v += heads.value.shape[0] // 2
    for j in range(len(row)):
        row[j] = heads.channel_vector[c, j] + scene.place[own, p, j] + heads.value_vector[v, j]


@reordered
def next_coefficients(
    least, mean, x, n, sample, at, last_channel, last_position, logits, here, values, probability,
    heads, layers, scene, memory, grid, choices, buffers,
):  # fmt: skip
    """The next coefficient of each entry whose estimate is not zero; see `choosing.ChunkDecoder`.

    Args:
        x: states after the first stack.
        logits: of the channels; its rows become the channels' hazards.
        here, values: room for the logits of positions and values.
    """
    cells, width, zero = here.shape[1], x.shape[1], values.shape[1] // 2
    after, y = np.empty((n, width), np.float32), np.empty((n, width), np.float32)
    hazard, log_share = np.empty((n, cells), np.float32), np.empty((n, cells), np.float32)
    channel_nats = np.empty((n, STOP + 1), np.float32)
    from_channel, from_position = np.zeros(n, np.int64), np.zeros(n, np.int64)
    again, opened = np.ones(n, np.bool_), np.arange(n)
    who, samples, ats = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64)
    channels, positions = np.empty(n, np.int64), np.empty(n, np.int64)
    lasts, last_cells = np.empty(n, np.int64), np.empty(n, np.int64)
    for i in range(n):
        channel_nats[i] = logits[i]
        channel_nats[i] -= softmax(logits[i], STOP + 1, buffers.bits)
        tail = F32(0)
        for c in range(STOP, -1, -1):
            tail += logits[i, c]
            logits[i, c] /= max(tail, F32(1e-20))
        logits[i, STOP] = 1
    left = n
    while left:
        k = 0
        for j in range(left):
            i = opened[j]
            if not again[i]:
                continue
            c = from_channel[i]
            while logits[i, c] < least:
                c += 1
            choices.channel[i], choices.nats[i], from_position[i] = c, channel_nats[i, c], 0
            if c < STOP:
                y[k] = x[i] + heads.channel_vector[c]
                who[k], samples[k], ats[k], channels[k] = i, sample[i], at[i], c
                lasts[k], last_cells[k] = last_channel[i], last_position[i]
                k += 1
        run_stack(1, y, k, samples, ats, heads, layers, memory, buffers)
        position_logits(y, k, samples, channels, lasts, last_cells, heads, scene, here, buffers)
        for j in range(k):
            i = who[j]
            after[i], log_share[i] = y[j], here[j]
            log_share[i] -= softmax(here[j], cells, buffers.bits)
            passed = F32(0)
            for p in range(cells):
                share = logits[i, channels[j]] * here[j, p]
                passed += share
                hazard[i, p] = share / max(F32(1) - passed + share, F32(1e-6))
        k, remaining = 0, 0
        for j in range(left):
            i = opened[j]
            if choices.channel[i] == STOP:
                continue
            p = from_position[i]
            while p < cells and hazard[i, p] < least:
                p += 1
            again[i] = p == cells
            from_position[i] = p + 1
            if again[i]:
                from_channel[i] = choices.channel[i] + 1
                opened[remaining] = i
                remaining += 1
            else:
                y[k] = after[i]
                who[k], samples[k], ats[k] = i, sample[i], at[i]
                channels[k], positions[k] = choices.channel[i], p
                k += 1
        add_place(y, k, samples, channels, positions, grid, heads, scene)
        run_stack(2, y, k, samples, ats, heads, layers, memory, buffers)
        value_logits(y, k, samples, channels, positions, heads, scene, values, buffers)
        for j in range(k):
            i, p = who[j], positions[j]
            for v in range(values.shape[1]):
                probability[v] = values[j, v]
            log_sum = softmax(probability, values.shape[1], buffers.bits)
            v = mean_of(probability, hazard[i, p]) if mean else median_of(probability, hazard[i, p])
            if v == zero:
                opened[remaining] = i
                remaining += 1
                continue
            choices.position[i], choices.value[i] = p, v
            choices.nats[i] += log_share[i, p] + values[j, v] - log_sum
        left = remaining


@reordered
def median_of(probability, coded):
    """The index of the median of a coefficient that is coded so likely, and then has these values."""
    zero = len(probability) // 2
    negative, positive = F32(0), F32(0)
    for v in range(zero):
        negative += coded * probability[v]
        positive += coded * probability[zero + 1 + v]
    if negative < 0.5 and positive <= 0.5:
        return zero
    below, v = F32(0) if negative >= 0.5 else F32(1) - coded, -1
    while (below < 0.5 and v + 1 < len(probability)) or v < 0:
        v += 1
        below += coded * probability[v]
    return v


@reordered
def mean_of(probability, coded):
    """The index of its mean, rounded."""
    zero, total = len(probability) // 2, F32(0)
    for v in range(zero):
        total += F32(v + 1) * (probability[zero + 1 + v] - probability[zero - 1 - v])
    return zero + int(np.rint(coded * total))
