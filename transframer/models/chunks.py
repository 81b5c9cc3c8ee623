"""How a frame's events are cut into chunks, and which of them training visits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from transframer.codec import Tokens
from transframer.models.decoder import STOP
from transframer.models.segments import PackedEvents, segments_of


@dataclass
class Chunk:
    """One chunk of each of b episodes, padded to the longest.

    Attributes:
        channel, position, value: b x l events; the stop has position 0 and value 1, padding too.
        scored: b x l, true for events that are predicted here (not given as overlap, not padding).
        last_channel, last_position: b, the pair before the chunk; (0, -1) before the first.
        start: b, events of the frame before the chunk.
    """

    channel: Tensor
    position: Tensor
    value: Tensor
    scored: Tensor
    last_channel: Tensor
    last_position: Tensor
    start: Tensor

    @property
    def length(self) -> Tensor:
        """b, events up to the last scored one."""
        order = torch.arange(1, self.scored.shape[1] + 1, device=self.scored.device)
        return (self.scored * order).amax(1)

    def rows(self, index: Tensor) -> Chunk:
        """These episodes, padded no longer than the longest of them needs."""
        length = int(self.length[index].max())
        events = (t[index, :length] for t in (self.channel, self.position, self.value, self.scored))
        return Chunk(*events, *(t[index] for t in (self.last_channel, self.last_position, self.start)))

    def packed(self) -> PackedEvents:
        """The events of all episodes up to the last scored one of each; then stops that are not scored, so
        many as `padding` says."""
        device, lengths = self.start.device, self.length.tolist()
        last = max((i for i, length in enumerate(lengths) if length), default=0)
        real, lengths[last] = lengths[last], lengths[last] + padding(sum(lengths))
        row = torch.repeat_interleave(torch.tensor(lengths))
        at = torch.arange(len(row)) - torch.tensor([0, *lengths]).cumsum(0)[row]
        row, at = row.to(device), at.to(device)
        held = at.clamp(max=self.scored.shape[1] - 1)
        channel, position, value, scored = (
            t[row, held] for t in (self.channel, self.position, self.value, self.scored)
        )
        added = (row == last) & (at >= real)
        channel, position, value, scored = (
            t.masked_fill(added, filling)
            for t, filling in ((channel, STOP), (position, 0), (value, 1), (scored, False))
        )
        first = at == 0
        return PackedEvents(
            row=row,
            first=first,
            channel=channel,
            position=position,
            value=value,
            scored=scored,
            before_channel=torch.where(first, self.last_channel[row], channel.roll(1)),
            before_position=torch.where(first, self.last_position[row], position.roll(1)),
            segments=segments_of(lengths, device),
        )


def padding(events: int) -> int:
    """How many to add to a number of events, so that few numbers come up: 16 to each doubling.

    A library of products compiles a kernel for every new shape, on a CPU in half a millisecond for each; and
    every batch would bring a number of its own.

    >>> [n + padding(n) for n in (5, 16, 1000, 1030, 2049)]
    [16, 16, 1024, 1088, 2176]
    """
    step = max(16, 1 << (events - 1).bit_length() >> 5) if events else 1
    return -events % step


def chunk_count(length: Tensor, events: int, overlap: int) -> Tensor:
    """Chunks needed for frames of `length` triples, whose events are the triples and the stop.

    Chunk k starts at event k * (events - overlap); each but the first is given its first `overlap` events.

    >>> chunk_count(torch.tensor([0, 9, 10, 16, 17]), 10, 3).tolist()
    [1, 1, 2, 2, 3]
    """
    stride = events - overlap
    return ((length + 1 - events).clamp(min=0) + stride - 1) // stride + 1


def draw_chunk(count: Tensor, generator: torch.Generator) -> Tensor:
    """Draws one chunk of each frame, early ones more often: weight max((1 - k / count) ** 3, 0.1).

    The paper's bias (arXiv 2203.09494): later chunks refine what the early ones decided.
    """
    k = torch.arange(int(count.max()), device="cpu")
    weight = (1 - k / count.cpu()[:, None]).clamp(min=0) ** 3
    weight = weight.clamp(min=0.1) * (k < count.cpu()[:, None])
    return torch.multinomial(weight, 1, generator=generator)[:, 0].to(count.device)


def cut(tokens: Tokens, index: Tensor, events: int, overlap: int, max_value: int) -> Chunk:
    """Chunk number `index` (b) of each frame.

    Args:
        tokens: the frames' triples; values are clipped to max_value.
    """
    device = tokens.channel.device
    start = index * (events - overlap)
    at = start[:, None] + torch.arange(events, device=device)  # b l
    padded = torch.nn.functional.pad
    inside = at < tokens.length[:, None]
    at_clamped = at.clamp(max=tokens.channel.shape[1])  # one column of padding stands for all past the end

    def pick(values: Tensor, outside: int) -> Tensor:
        return padded(values, (0, 1)).gather(1, at_clamped).long().masked_fill(~inside, outside)

    before = (start - 1).clamp(min=0)[:, None]

    def pick_before(values: Tensor, first: int) -> Tensor:
        picked = padded(values, (0, 1)).gather(1, before)[:, 0].long()
        return torch.where(start > 0, picked, first)

    return Chunk(
        channel=pick(tokens.channel, STOP),
        position=pick(tokens.position, 0),
        value=pick(tokens.value, 1).clamp(-max_value, max_value),
        scored=(at <= tokens.length[:, None])
        & (at >= start[:, None] + torch.where(index > 0, overlap, 0)[:, None]),
        last_channel=pick_before(tokens.channel, 0),
        last_position=pick_before(tokens.position, -1),
        start=start,
    )
