"""Exact speculative sampling on the CPU: the draft proposes several events, the decoders check them at once.

The draft's coefficients are independent, so that it draws a chain of events without a network. One pass of
the three stacks over the chain gives the decoders' own distribution at each of them. Channel, position and
value are checked one after the other: a proposal x, drawn from q, stays with probability min(1, p(x) / q(x));
at the first that does not, x is drawn anew from max(p - q, 0), normalised, and the chain ends. What comes out
is distributed as p (Leviathan et al., arXiv 2211.17192, Theorem 1; Chen et al., arXiv 2302.01318).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from transframer.codec.jit import lazy_kernel, reordered
from transframer.models.draw_kernels import make_buffers, write_event
from transframer.models.event_kernels import (
    F32,
    STOP,
    add_channel_prior,
    add_event,
    add_place,
    add_position_prior,
    add_value_prior,
    channel_logits,
    distribution,
    invert,
    pick,
    position_logits,
    run_stack,
    value_logits,
)


class Chain(NamedTuple):
    """Proposed events, entry by entry; those of a sample follow one another.

    Attributes:
        sample, at: whose they are, and which event of the chunk.
        last_channel, last_position: the pair before each.
        channel, position, value: as proposed, values as indices.
        of_channel, of_position, of_value: the probabilities that they were drawn with.
    """

    sample: np.ndarray
    at: np.ndarray
    last_channel: np.ndarray
    last_position: np.ndarray
    channel: np.ndarray
    position: np.ndarray
    value: np.ndarray
    of_channel: np.ndarray
    of_position: np.ndarray
    of_value: np.ndarray


@reordered
def _propose(chain, e, own, first, count, drawn, temperature, uniform, logits, heads, scene, state, buffers):
    """Proposes up to `count` events of one sample from entry e on; returns the entry after them.

    Args:
        logits: room for those of the channels, of the positions or of the values.
    """
    nothing = np.zeros(2, np.float32)
    c, p = state.last_channel[own], state.last_position[own]
    for j in range(count):
        decide = uniform[own, drawn + j]
        chain.sample[e], chain.at[e] = own, first + j
        chain.last_channel[e], chain.last_position[e] = c, p
        row = chain.of_channel[e]
        prior = logits[: len(row)]
        prior[:] = 0
        add_channel_prior(prior, own, c, p, scene)
        distribution(prior, len(row), temperature, 1.0, row, buffers)
        chosen = invert(row, len(row), decide[0])
        chain.channel[e], chain.position[e], chain.value[e] = chosen, 0, 0
        if chosen == STOP:
            return e + 1
        row = chain.of_position[e]
        prior = logits[: len(row)]
        prior[:] = 0
        add_position_prior(prior, own, chosen, p if chosen == c else -1, scene)
        distribution(prior, len(row), temperature, 1.0, row, buffers)
        c, p = chosen, invert(row, len(row), decide[1])
        row = chain.of_value[e]
        prior = logits[: len(row)]
        prior[:] = 0
        add_value_prior(prior, own, c, p, nothing, heads, scene)
        distribution(prior, len(row), temperature, 1.0, row, buffers)
        chain.position[e], chain.value[e] = p, invert(row, len(row), decide[2])
        e += 1
    return e


@reordered
def _check(proposed, drawn_with, probability, n, accept, again):
    """The proposal, or where it is refused an index drawn anew; and whether it stayed.

    Args:
        drawn_with, probability: what it was drawn with, and what it must be distributed as; the latter is
            overwritten where it is refused.
        accept, again: uniform numbers that decide.
    """
    if accept * drawn_with[proposed] < probability[proposed]:
        return proposed, True
    left = F32(0)
    for j in range(n):
        probability[j] = max(probability[j] - drawn_with[j], F32(0))
        left += probability[j]
    if left == 0:  # the two differ by rounding only
        return proposed, True
    return invert(probability, n, again), False


@lazy_kernel
def speculate(temperature, top_p, proposals, uniform, heads, layers, scene, memory, state, events, nats):
    """As `draw_kernels.draw`, with up to `proposals` events per pass; returns the passes, over samples.

    Args:
        uniform: b x n x 9 numbers in [0, 1): three proposals, checks, draws anew. An event that is proposed
            again, since one before it was refused, uses its numbers again: nothing was decided by them.
    """
    b, room = uniform.shape[:2]
    width, cells, values = scene.place.shape[2], scene.place.shape[1], heads.value.shape[0]
    zero, most = values // 2, b * proposals
    buffers = make_buffers(most, heads, layers, memory, cells)
    ints = np.zeros((7, most), np.int64)
    chain = Chain(
        ints[0], ints[1], ints[2], ints[3], ints[4], ints[5], ints[6],
        np.empty((most, STOP + 1), np.float32),
        np.empty((most, cells), np.float32),
        np.empty((most, values), np.float32),
    )  # fmt: skip
    x, after = np.empty((most, width), np.float32), np.empty((most, width), np.float32)
    logits = np.empty((most, STOP + 1), np.float32)
    here, sizes = np.empty((most, cells), np.float32), np.empty((most, values), np.float32)
    probability = np.empty(max(STOP + 1, cells, values), np.float32)
    alive, drawn, starts = np.arange(b), np.zeros(b, np.int64), np.zeros(b + 1, np.int64)
    channels, value = np.empty(most, np.int64), np.empty(most, np.int64)
    n, passes = b, 0
    while n:
        passes += n
        e = 0
        for i in range(n):
            own = alive[i]
            starts[i] = e
            count = min(proposals, room - drawn[own])
            e = _propose(
                chain, e, own, state.length[own], count, drawn[own], temperature, uniform, probability, heads,
                scene, state, buffers,
            )  # fmt: skip
        starts[n] = e
        for j in range(e):
            own = chain.sample[j]
            x[j] = state.next_input[own]
            channels[j], value[j] = chain.channel[j] % STOP, chain.value[j] - zero
        for i in range(n):
            for j in range(starts[i] + 1, starts[i + 1]):
                x[j] = 0
                add_event(
                    x[j : j + 1], 1, chain.sample[j - 1 :], channels[j - 1 :], chain.position[j - 1 :],
                    value[j - 1 :], heads, scene,
                )  # fmt: skip
        run_stack(0, x, e, chain.sample, chain.at, heads, layers, memory, buffers)
        channel_logits(
            x, e, chain.sample, chain.last_channel, chain.last_position, heads, scene, logits, buffers
        )
        first = x.copy()
        # A proposed stop runs through the other stacks as any channel; nothing looks at what comes of it.
        for j in range(e):
            x[j] += heads.channel_vector[channels[j]]
        run_stack(1, x, e, chain.sample, chain.at, heads, layers, memory, buffers)
        position_logits(
            x, e, chain.sample, channels, chain.last_channel, chain.last_position, heads, scene, here, buffers
        )
        after[:e] = x[:e]
        for j in range(e):
            if chain.channel[j] != STOP:
                state.grid[chain.sample[j], chain.position[j], channels[j]] += value[j]
        add_place(x, e, chain.sample, channels, chain.position, state.grid, heads, scene)
        for j in range(e):
            if chain.channel[j] != STOP:
                state.grid[chain.sample[j], chain.position[j], channels[j]] -= value[j]
        run_stack(2, x, e, chain.sample, chain.at, heads, layers, memory, buffers)
        value_logits(x, e, chain.sample, channels, chain.position, heads, scene, sizes, buffers)
        going = 0
        for i in range(n):
            own, stopped = alive[i], False
            for j in range(starts[i], starts[i + 1]):
                event = drawn[own]
                decide = uniform[own, event]
                log_sum = distribution(logits[j], STOP + 1, temperature, top_p, probability, buffers)
                c, stays = _check(
                    chain.channel[j], chain.of_channel[j], probability, STOP + 1, decide[3], decide[6]
                )
                gain = logits[j, c] - log_sum
                stopped = c == STOP
                if stopped:
                    nats[own] += gain
                    break
                # The parts of an event after one that was refused come from the decoders.
                sample, at, channel = chain.sample[j : j + 1], chain.at[j : j + 1], channels[j : j + 1]
                one, position, refused = x[j : j + 1], chain.position[j : j + 1], not stays
                if refused:
                    channel[0] = c
                    one[0] = first[j] + heads.channel_vector[c]
                    run_stack(1, one, 1, sample, at, heads, layers, memory, buffers)
                    last, last_cell = chain.last_channel[j : j + 1], chain.last_position[j : j + 1]
                    position_logits(
                        one, 1, sample, channel, last, last_cell, heads, scene, here[j : j + 1], buffers
                    )
                    after[j] = one[0]
                    p, more = pick(here[j], cells, temperature, top_p, decide[7], probability, buffers)
                    gain += more
                else:
                    log_sum = distribution(here[j], cells, temperature, top_p, probability, buffers)
                    p, stays = _check(
                        position[0], chain.of_position[j], probability, cells, decide[4], decide[7]
                    )
                    refused = not stays
                    gain += here[j, p] - log_sum
                if refused:
                    position[0] = p
                    one[0] = after[j]
                    add_place(one, 1, sample, channel, position, state.grid, heads, scene)
                    run_stack(2, one, 1, sample, at, heads, layers, memory, buffers)
                    value_logits(one, 1, sample, channel, position, heads, scene, sizes[j : j + 1], buffers)
                    v, more = pick(sizes[j], values, temperature, top_p, decide[8], probability, buffers)
                    gain += more
                else:
                    log_sum = distribution(sizes[j], values, temperature, top_p, probability, buffers)
                    v, stays = _check(
                        chain.value[j], chain.of_value[j], probability, values, decide[5], decide[8]
                    )
                    refused = not stays
                    gain += sizes[j, v] - log_sum
                write_event(own, event, c, p, v - zero, gain, events, nats, heads, scene, state)
                drawn[own] += 1
                if refused:
                    break
            alive[going] = own
            going += not stopped and drawn[own] < room
        n = going
    return passes
