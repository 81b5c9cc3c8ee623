"""Sequences of several lengths in one row, without padding.

All but attention treats every event alike, so that the chunks of a batch can follow one another, whatever
their lengths. Attention takes them apart again, in groups of about the same length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# What one more group costs in attention, in events (see `length_groups`): a rough figure for a CPU;
# elsewhere, unmeasured, launches rule, and only much padding is worth a group.
_GROUP_EVENTS, _GROUP_EVENTS_ACCELERATOR = 64, 1024


@dataclass(frozen=True)
class Segments:
    """Which of T events belong to which sequence.

    Attributes:
        lengths: b, events of each sequence, in the order in which they follow one another.
        groups: for k sequences of about n events each: k, their rows in the batch; and k x n, their events,
            the last one again where a sequence is shorter.
        order: T, where each event is in the groups' events, one group after the other.
    """

    lengths: Sequence[int]
    groups: list[tuple[Tensor, Tensor]]
    order: Tensor

    @torch.compiler.disable
    def map(self, function: Callable[..., Tensor], *packed: Tensor) -> Tensor:
        """Applies a function to each group, and packs what comes.

        Args:
            function: takes the rows of the sequences (k) and of each tensor k x n x ..., gives k x n x ...;
                what it says of an event must not depend on later events of the sequence.
            packed: T x ... each.
        """
        parts = []
        for rows, events in self.groups:
            own = (t.index_select(0, events.flatten()).unflatten(0, events.shape) for t in packed)
            parts.append(function(rows, *own).flatten(0, 1))
        return torch.cat(parts).index_select(0, self.order)


@dataclass(frozen=True)
class PackedEvents:
    """The events of a batch's chunks, T in all.

    Attributes:
        row: T, of the chunk in the batch.
        first: T, whether an event is the first of its chunk.
        channel, position, value, scored: T, as of `transframer.models.chunks.Chunk`.
        before_channel, before_position: T, the pair before each event; (0, -1) before a frame's first.
        segments: which belong together.
    """

    row: Tensor
    first: Tensor
    channel: Tensor
    position: Tensor
    value: Tensor
    scored: Tensor
    before_channel: Tensor
    before_position: Tensor
    segments: Segments


def segments_of(lengths: Sequence[int], device: torch.device) -> Segments:
    """Of sequences of these lengths that follow one another."""
    cost = _GROUP_EVENTS if device.type == "cpu" else _GROUP_EVENTS_ACCELERATOR
    offset = torch.tensor([0, *lengths]).cumsum(0)
    order, groups, before = torch.empty(sum(lengths), dtype=torch.long), [], 0
    for members in length_groups(lengths, cost):
        rows = torch.tensor(members)
        last = torch.tensor([lengths[i] - 1 for i in members])[:, None]
        line = torch.arange(int(last.max()) + 1)
        events = offset[rows, None] + torch.minimum(line, last)
        real = line <= last
        order[events[real]] = before + torch.arange(real.numel()).view(real.shape)[real]
        groups.append((rows.to(device), events.to(device)))
        before += real.numel()
    return Segments(lengths, groups, order.to(device))


def length_groups(lengths: Sequence[int], group_events: int) -> list[list[int]]:
    """Sequences in groups that are padded to their longest, so that the least is computed in all.

    Args:
        lengths: events of each sequence; those without are in no group.
        group_events: what a group costs beside its events, padding included, in events.

    >>> length_groups([96, 3, 90, 2, 0, 96], group_events=10)
    [[1, 3], [0, 2, 5]]
    """
    order = sorted((i for i, length in enumerate(lengths) if length), key=lambda i: lengths[i])
    best = [(0, 0)]  # of the shortest n: the least cost, and where the last group begins
    for end in range(1, len(order) + 1):
        longest = lengths[order[end - 1]]
        best.append(min((best[i][0] + (end - i) * longest + group_events, i) for i in range(end)))
    groups, end = [], len(order)
    while end:
        begin = best[end][1]
        groups.append(sorted(order[begin:end]))
        end = begin
    return groups[::-1]


def picked(table: Tensor, row: Tensor, index: Tensor) -> Tensor:
    """table[row, index] for b x n x ...; its gradient is a plain sum, several times as fast on a CPU."""
    flat = row * table.shape[1] + index
    return table.flatten(0, 1).index_select(0, flat.flatten()).view(*flat.shape, *table.shape[2:])
