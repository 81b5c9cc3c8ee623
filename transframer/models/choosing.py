"""Choosing the events of one chunk, one after the other, with key/value caches."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from transframer.frames import Estimate
from transframer.models.attention import KeyValueCache
from transframer.models.decoder import STOP, Context, TripleDecoder

# Below 1/2 a median is zero. A mean need not be, but looking at all coefficients takes too long: from 0.15 on
# instead gave at most .002 dB more, and less on video, in nearly twice the time (docs/log.md).
LEAST: dict[str, float] = {"mode": 0.0, "median": 0.5, "mean": 0.3}

# Between looks at which samples have stopped, on an accelerator: a look waits for all it was told to do.
PATIENCE = 16


@dataclass(frozen=True)
class Choice:
    """How an event is chosen from its probabilities; see `transframer.sampling.Sampler`."""

    temperature: float = 1.0
    top_p: float = 1.0
    estimate: Estimate = "mode"
    proposals: int = 0

    @property
    def by_coefficient(self) -> bool:
        """Whether each coefficient in order is decided, instead of the next event."""
        return self.least > 0

    @property
    def least(self) -> float:
        """How likely to be coded a coefficient must be to be looked at; 0 where events are drawn instead."""
        return LEAST[self.estimate] if self.temperature == 0 else 0.0

    @property
    def uniforms(self) -> int:
        """Random numbers that decide an event."""
        return 9 if self.proposals else 3


def pick(
    logits: Float[Tensor, "b n"], temperature: float, top_p: float, uniform: Float[Tensor, " b"]
) -> Int[Tensor, " b"]:
    """Draws an index from each row of logits.

    Args:
        logits: -inf where illegal.
        temperature: divides the logits; 0 takes the largest.
        top_p: keeps the smallest set of most likely indices whose probability reaches this (nucleus
            sampling, arXiv 1904.09751).
        uniform: in [0, 1), decides the draw, by the inverse of the distribution function.

    >>> pick(torch.tensor([[0.0, 2.0, 1.0]]), 0.0, 1.0, torch.zeros(1)).tolist()
    [1]
    """
    if temperature == 0:
        return logits.argmax(-1)
    probability = (logits.double() / temperature).softmax(-1)
    if top_p < 1:
        sorted_probability, order = probability.sort(stable=True, dim=-1, descending=True)
        kept = sorted_probability.cumsum(-1) - sorted_probability < top_p
        probability = torch.zeros_like(probability).scatter(-1, order, sorted_probability * kept)
    below = probability.cumsum(-1)
    return (below <= uniform.double()[:, None] * below[:, -1:]).sum(-1)


def stops(b: int, n: int, device: torch.device) -> Int[Tensor, "3 b n"]:
    """Events that are all the stop, whose position and value are those that scoring pads with."""
    return torch.tensor([STOP, 0, 1], device=device)[:, None, None].repeat(1, b, n)


def without_padding(events: Int[Tensor, "3 b n"]) -> Int[Tensor, "3 b m"]:
    """Events up to the last sample's stop."""
    longest = int((events[0] != STOP).sum(1).max()) if events.shape[1] else 0
    return events[:, :, : longest + 1]


def first_likely(hazard: Float[Tensor, "b n"], least: float) -> tuple[Int[Tensor, " b"], Bool[Tensor, " b"]]:
    """The first index of each row whose hazard is at least this, and whether there is one (else 0)."""
    likely = hazard >= least
    return likely.to(torch.uint8).argmax(-1), likely.any(-1)


class ChunkDecoder:
    """Runs the decoders over one chunk: the given events at once, then one event at a time.

    Args:
        decoder: the decoders.
        context: what they see of the encoder.
        choice: how events are chosen.
        capacity: events in the chunk.
        last: the pair before the chunk; (0, -1) before the first.
        grid: the coefficients so far, those of the events that will be given included.
        cached: false recomputes every event from the start of the chunk.
    """

    def __init__(
        self,
        decoder: TripleDecoder,
        context: Context,
        choice: Choice,
        capacity: int,
        last: Int[Tensor, "2 b"],
        grid: Int[Tensor, "b 192 gy gx"],
        cached: bool = True,
    ) -> None:
        self.decoder, self.context, self.choice, self.grid = decoder, context, choice, grid
        self.cached, self.passes = cached, 0
        self.last_channel, self.last_position = last[0][:, None], last[1][:, None]
        self.table = decoder.values.table()
        b = len(context.cells)
        self.next_input = decoder.start.expand(b, 1, -1)
        self.inputs: list[list[Tensor]] = [[], [], []]  # what each stack was fed, for the uncached path
        size = (b, capacity, decoder.start.shape[0] // decoder.heads)
        self.caches = [
            [KeyValueCache(self.table.new_zeros(size), self.table.new_zeros(size)) for _ in decoder.layers(i)]
            for i in range(3)
        ]

    def give(self, events: Int[Tensor, "3 b n"]) -> None:
        """Takes the overlap with the chunk before as drawn."""
        if not events.shape[2]:
            return
        channel, position, value = events
        vectors = self.decoder.event_vector(self.context, channel, position, value, self.table)
        state = self._run(0, torch.cat([self.next_input, vectors[:, :-1]], 1))
        state = self._run(1, state + self.decoder.channel_vector(channel))
        drafted = self.decoder.draft_at(self.context, channel, position)
        place = self.decoder.place_vector(self.context, self.grid, channel, position, drafted)
        self._run(2, state + place)
        self.next_input = vectors[:, -1:]
        self.last_channel, self.last_position = channel[:, -1:], position[:, -1:]

    def draw(self, uniform: Float[Tensor, "b n 3"]) -> tuple[Int[Tensor, "3 b m"], Float[Tensor, " b"]]:
        """Draws until every sample has stopped, or n events each.

        Args:
            uniform: numbers in [0, 1) that decide the draws of an event's channel, position and value.

        Returns:
            The events, stops where a sample has no more, and the log-probability of each sample's in nats.
        """
        b, n, _ = uniform.shape
        events, nats = stops(b, n, uniform.device), uniform.new_zeros(b)
        rows = torch.arange(b, device=uniform.device)
        patience = 1 if uniform.device.type == "cpu" else PATIENCE
        for i in range(n):
            event, gained = self._event(uniform[:, i])
            events[:, rows, i] = event
            nats = nats.index_add(0, rows, gained.to(nats.dtype))
            if (i + 1) % patience:
                continue
            going = (event[0] != STOP).nonzero()[:, 0]
            if not len(going):
                break
            if 2 * len(going) <= len(rows):  # the others leave the batch
                self._keep(going)
                rows, uniform = rows[going], uniform[going]
        return without_padding(events), nats

    def _event(self, uniform: Float[Tensor, "b 3"]) -> tuple[Int[Tensor, "3 b"], Float[Tensor, " b"]]:
        """The next event of each sample, and its log-probability in nats."""
        decoder, context = self.decoder, self.context
        state = self._run(0, self.next_input)
        logits = decoder.channel_logits(state, context, self.last_channel, self.last_position)
        if self.choice.by_coefficient:
            channel, position, index, position_logits, value_logits = self._coefficient(state, logits[:, 0])
        else:
            channel = self._pick(logits, uniform[:, 0])
            state, position_logits = self._after_channel(state, channel)
            position = self._pick(position_logits, uniform[:, 1])
            value_logits = self._after_position(state, channel, position)
            index = self._pick(value_logits, uniform[:, 2])
        coded = channel != STOP
        nats = _log_prob(logits, channel)
        nats = nats + (_log_prob(position_logits, position) + _log_prob(value_logits, index)) * coded
        # The stop's position and value carry nothing; they are those that scoring pads with.
        position = position * coded
        value = torch.where(coded, index - decoder.max_value, 1)
        self._write(channel, position, value * coded)
        self.next_input = decoder.event_vector(context, channel, position, value, self.table)
        self.last_channel, self.last_position = channel, position
        return torch.cat([channel, position, value], 1).T, nats[:, 0]

    def _keep(self, rows: Int[Tensor, " k"]) -> None:
        """Goes on with these samples only."""
        self.context, self.grid = self.context.select(rows), self.grid[rows]
        self.next_input = self.next_input[rows]
        self.last_channel, self.last_position = self.last_channel[rows], self.last_position[rows]
        self.inputs = [[x[rows] for x in stack] for stack in self.inputs]
        for cache in (cache for stack in self.caches for cache in stack):
            cache.select(rows)

    def _run(self, index: int, x: Tensor) -> Tensor:
        if self.cached:
            return self.decoder.run_stack(index, x, self.context, self.caches)
        self.inputs[index].append(x)
        return self.decoder.run_stack(index, torch.cat(self.inputs[index], 1), self.context, None)[
            :, -x.shape[1] :
        ]

    def _write(self, channel: Tensor, position: Tensor, value: Tensor) -> None:
        flat = self.grid.flatten(1)
        cell = channel.clamp(max=STOP - 1) * (flat.shape[1] // STOP) + position
        # added, since what the stop writes is 0 and must leave its cell alone
        self.grid = flat.scatter_add(1, cell, value.to(flat.dtype)).view_as(self.grid)

    def _after_channel(self, state: Tensor, channel: Tensor) -> tuple[Tensor, Float[Tensor, "b 1 p"]]:
        state = self._run(1, state + self.decoder.channel_vector(channel))
        last = self.last_channel, self.last_position
        return state, self.decoder.position_logits(state, self.context, channel, *last)

    def _after_position(self, state: Tensor, channel: Tensor, position: Tensor) -> Float[Tensor, "b 1 v"]:
        drafted = self.decoder.draft_at(self.context, channel, position)
        place = self.decoder.place_vector(self.context, self.grid, channel, position, drafted)
        state = self._run(2, state + place)
        return self.decoder.value_logits(state, channel, drafted, self.table)

    def _pick(self, logits: Float[Tensor, "b 1 n"], uniform: Float[Tensor, " b"]) -> Int[Tensor, "b 1"]:
        return pick(logits[:, 0], self.choice.temperature, self.choice.top_p, uniform)[:, None]

    def _coefficient(self, state: Tensor, logits: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The first coefficient in order whose estimate is not zero, given that those before it are zero.

        A pair's hazard is p(next is this pair) / p(next is not before it), the probability that its
        coefficient is not zero. That of any pair of a channel is at most the channel's own, so that only
        channels whose hazard reaches the least one need their positions looked at, and only pairs whose
        hazard does their values. The median is not zero where one sign has half of the probability.
        """
        least = self.choice.least
        probability = logits.softmax(-1)
        tail = probability.flip(-1).cumsum(-1).flip(-1)
        channel_hazard = probability / tail.clamp(min=1e-20)
        channel_hazard[:, STOP] = 1.0
        channels = torch.arange(STOP + 1, device=logits.device)
        cells = torch.arange(self.context.legal.shape[-1], device=logits.device)
        from_channel, from_position = torch.zeros_like(self.last_channel), torch.zeros_like(self.last_channel)
        while True:
            hazard = channel_hazard.masked_fill(channels < from_channel, 0.0)
            channel = first_likely(hazard, least)[0][:, None]
            after, position_logits = self._after_channel(state, channel)
            share = channel_hazard.gather(1, channel) * position_logits[:, 0].softmax(-1)
            hazard = share / (1 - share.cumsum(-1) + share).clamp(min=1e-6)
            looked_at = (channel == from_channel) & (cells < from_position)
            position, likely = (t[:, None] for t in first_likely(hazard.masked_fill(looked_at, 0.0), least))
            value_logits = self._after_position(after, channel, position)
            coded = hazard.gather(1, position)
            value = coded * value_logits[:, 0].softmax(-1)  # b v: of this coefficient, zero apart
            index = _mean(value) if self.choice.estimate == "mean" else _median(value, coded)
            # a stop's value counts for nothing, but must have a probability
            index = index.where(channel != STOP, self.decoder.max_value + 1)
            found = (likely & (index != self.decoder.max_value)) | (channel == STOP)
            if bool(found.all()):
                return channel, position, index, position_logits, value_logits
            from_position = torch.where(found, from_position, torch.where(likely, position + 1, 0))
            from_channel = torch.where(found, from_channel, torch.where(likely, channel, channel + 1))
            self._forget(1)
            self._forget(2)

    def _forget(self, index: int) -> None:
        """Takes back the last event that a stack was fed."""
        for cache in self.caches[index]:
            cache.length -= 1 if self.cached else 0
        if not self.cached:
            self.inputs[index].pop()


def _median(value: Float[Tensor, "b v"], coded: Float[Tensor, "b 1"]) -> Int[Tensor, "b 1"]:
    """The index of the median of a coefficient, from the probabilities of its values but 0, and of any."""
    zero = value.shape[1] // 2
    negative = value[:, :zero].sum(-1, keepdim=True) >= 0.5
    positive = value[:, zero:].sum(-1, keepdim=True) > 0.5
    below = value.cumsum(-1) + torch.where(negative, 0.0, 1 - coded)
    index = first_likely(below, 0.5)[0][:, None]
    return index.where(negative | positive, zero)


def _mean(value: Float[Tensor, "b v"]) -> Int[Tensor, "b 1"]:
    """The index of the mean of a coefficient, rounded, from the probabilities of its values but 0."""
    zero = value.shape[1] // 2
    values = torch.arange(-zero, zero + 1, device=value.device, dtype=value.dtype)
    return (value * values).sum(-1, keepdim=True).round().long() + zero


def _log_prob(logits: Float[Tensor, "b 1 n"], index: Int[Tensor, "b 1"]) -> Float[Tensor, "b 1"]:
    return logits[:, 0].log_softmax(-1).gather(1, index)
