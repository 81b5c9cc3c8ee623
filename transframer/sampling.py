"""Drawing frames from a Transframer: chunk by chunk, with key/value caches, until every sample stops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from transframer.codec import Tokens, decode_frames, grid_from_tokens
from transframer.errors import ConfigError
from transframer.frames import Episode
from transframer.models.attention import KeyValueCache
from transframer.models.decoder import STOP, Context
from transframer.predictor import Estimate, Samples

if TYPE_CHECKING:
    from transframer.models.transframer import Transframer


def pick(
    logits: Float[Tensor, "b n"], temperature: float, top_p: float, generator: torch.Generator | None
) -> Int[Tensor, " b"]:
    """Draws an index from each row of logits.

    Args:
        logits: -inf where illegal.
        temperature: divides the logits; 0 takes the largest.
        top_p: keeps the smallest set of most likely indices whose probability reaches this (nucleus
            sampling, arXiv 1904.09751).

    >>> pick(torch.tensor([[0.0, 2.0, 1.0]]), 0.0, 1.0, None).tolist()
    [1]
    """
    if temperature == 0:
        return logits.argmax(-1)
    probability = (logits / temperature).softmax(-1)
    if top_p < 1:
        sorted_probability, order = probability.sort(-1, descending=True)
        kept = sorted_probability.cumsum(-1) - sorted_probability < top_p
        probability = torch.zeros_like(probability).scatter(-1, order, sorted_probability * kept)
    return torch.multinomial(probability, 1, generator=generator)[:, 0]


def first_more_likely_than_not(hazard: Float[Tensor, "b n"]) -> tuple[Int[Tensor, " b"], Bool[Tensor, " b"]]:
    """The first index of each row whose hazard reaches 1/2, and whether there is one (else 0)."""
    likely = hazard >= 0.5
    return likely.to(torch.uint8).argmax(-1), likely.any(-1)


class Sampler:
    """Draws frames for a batch of episodes.

    At temperature 0 the draw is an estimate. "mode" takes the likeliest channel, position and value of each
    event in turn. "median" takes the median of each coefficient in order, given those before it: zero unless
    one sign has half of the probability. Where many coefficients are possible and none is likely, the mode
    still codes one (some event is likelier than the stop) and so adds noise; the median leaves them zero. So
    the mode suits frames that hold a decision (the lit cell of a class), the median frames that hold a field
    (depth, flow, colour).

    Args:
        model: the Transframer to draw from.
        temperature: 0 is an estimate.
        estimate: "mode" or "median", used at temperature 0.
        top_p: nucleus sampling; 1 keeps every legal event.
        generator: on the model's device; required to reproduce a draw, unused when greedy.
        cached: false recomputes every event from the start of its chunk; for tests.

    Raises:
        ConfigError: a temperature below 0, top_p outside (0, 1], or an unknown estimate.
    """

    def __init__(
        self,
        model: Transframer,
        *,
        temperature: float = 1.0,
        top_p: float = 1.0,
        estimate: Estimate = "mode",
        generator: torch.Generator | None = None,
        cached: bool = True,
    ) -> None:
        if temperature < 0:
            raise ConfigError(f"temperature {temperature}", field="temperature", expected="0 or more")
        if not 0 < top_p <= 1:
            raise ConfigError(f"top_p {top_p}", field="top_p", expected="above 0, at most 1")
        if estimate not in ("mode", "median"):
            raise ConfigError(f"estimate {estimate!r}", field="estimate", expected="mode or median")
        self.model, self.cached = model, cached
        self.median = temperature == 0 and estimate == "median"
        self.temperature, self.top_p, self.generator = temperature, top_p, generator

    @torch.no_grad()
    def sample(self, episodes: Sequence[Episode]) -> Samples:
        """Draws one frame per episode; episodes have one size."""
        model = self.model
        training = model.training
        model.eval()
        tokens, log_prob = self.tokens(episodes)
        model.train(training)
        height, width = episodes[0].size
        grid = grid_from_tokens(tokens, (height // 8, width // 8))
        return Samples(decode_frames(grid, episodes), log_prob.cpu(), tokens.length.cpu())

    def tokens(self, episodes: Sequence[Episode]) -> tuple[Tokens, Float[Tensor, " b"]]:
        """The triples drawn for each episode, and their nats under the untempered model."""
        model, config = self.model, self.model.config
        batch = model.collate([episode.without_target() for episode in episodes]).to(model.device)
        dct = model.dct_images(batch)
        b = len(batch)
        grid = batch.grid_size
        drawn: list[Tensor] = []  # 3 x b per event
        log_prob = torch.zeros(b, device=model.device)
        length = torch.zeros(b, dtype=torch.long, device=model.device)
        alive = torch.ones(b, dtype=torch.bool, device=model.device)
        stride = config.chunk_events - config.chunk_overlap
        start = 0
        while True:
            events = torch.stack(drawn, -1) if drawn else length.new_zeros(3, b, 0)
            before = _tokens(events[:, :, :start], length.clamp(max=start))
            last = events[:, :, start - 1] if start else length.new_tensor([[0], [-1], [1]]).expand(3, b)
            context = model.encode(batch, dct, grid_from_tokens(before, grid), last[0])
            so_far = grid_from_tokens(_tokens(events, length), grid)
            chunk = _ChunkDecoder(self, context, last[:2], so_far)
            chunk.give(events[:, :, start:])
            while len(drawn) < start + config.chunk_events:
                event, nats = chunk.draw()
                stopping = event[0] == STOP
                log_prob += nats * alive
                length += alive & ~stopping
                alive &= ~stopping
                drawn.append(event)
                if not bool(alive.any()):
                    events = torch.stack(drawn, -1)
                    longest = int(length.max())
                    return _tokens(events[:, :, :longest], length), log_prob
            start += stride


def _tokens(events: Int[Tensor, "3 b n"], length: Int[Tensor, " b"]) -> Tokens:
    channel, position, value = events
    return Tokens(channel.clamp(max=STOP - 1), position, value, length)


class _ChunkDecoder:
    """Runs the decoders over one chunk: the given events at once, then one event at a time."""

    def __init__(
        self, sampler: Sampler, context: Context, last: Int[Tensor, "2 b"], grid: Int[Tensor, "b 192 gy gx"]
    ) -> None:
        self.grid = grid
        self.sampler, self.context, self.decoder = sampler, context, sampler.model.decoder
        self.last_channel, self.last_position = last[0][:, None], last[1][:, None]
        self.table = self.decoder.value_table()
        b = len(context.cells)
        self.next_input = self.decoder.start.expand(b, 1, -1)
        self.inputs: list[list[Tensor]] = [[], [], []]  # what each stack was fed, for the uncached path
        size = (b, sampler.model.config.chunk_events, self.decoder.start.shape[0] // self.decoder.heads)
        self.caches = [
            [
                KeyValueCache(self.table.new_zeros(size), self.table.new_zeros(size))
                for _ in self.decoder.layers(i)
            ]
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
        self._run(2, state + self._place(channel, position))
        self.next_input = vectors[:, -1:]
        self.last_channel, self.last_position = channel[:, -1:], position[:, -1:]

    def draw(self) -> tuple[Int[Tensor, "3 b"], Float[Tensor, " b"]]:
        """The next event of each sample, and its log-probability in nats."""
        decoder, context = self.decoder, self.context
        state = self._run(0, self.next_input)
        logits = decoder.channel_logits(state, context, self.last_channel, self.last_position)
        if self.sampler.median:
            channel, position, index, position_logits, value_logits = self._median_event(state, logits[:, 0])
        else:
            channel = self._pick(logits)
            state, position_logits = self._after_channel(state, channel)
            position = self._pick(position_logits)
            value_logits = self._after_position(state, channel, position)
            index = self._pick(value_logits)
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

    def _run(self, index: int, x: Tensor) -> Tensor:
        if self.sampler.cached:
            return self.decoder.run_stack(index, x, self.context, self.caches)
        self.inputs[index].append(x)
        return self.decoder.run_stack(index, torch.cat(self.inputs[index], 1), self.context, None)[
            :, -x.shape[1] :
        ]

    def _place(self, channel: Int[Tensor, "b l"], position: Int[Tensor, "b l"]) -> Float[Tensor, "b l d"]:
        """What the value decoder is told of where an event is."""
        around = self.decoder.neighbourhood_vector(self.context, self.grid, channel, position)
        return self.decoder.position_vector(self.context, position) + around

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
        state = self._run(2, state + self._place(channel, position))
        return self.decoder.value_logits(state, channel, self.table)

    def _pick(self, logits: Float[Tensor, "b 1 n"]) -> Int[Tensor, "b 1"]:
        sampler = self.sampler
        return pick(logits[:, 0], sampler.temperature, sampler.top_p, sampler.generator)[:, None]

    def _median_event(self, state: Tensor, logits: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The first coefficient in order whose median is not zero, given that those before it are zero.

        A pair's hazard is p(next is this pair) / p(next is not before it), the probability that its
        coefficient is not zero. That of any pair of a channel is at most the channel's own, so that only
        channels whose hazard reaches 1/2 need their positions looked at, and only pairs whose hazard does
        their values: the median is not zero where one sign has half of the probability.
        """
        probability = logits.softmax(-1)
        tail = probability.flip(-1).cumsum(-1).flip(-1)
        channel_hazard = probability / tail.clamp(min=1e-20)
        channel_hazard[:, STOP] = 1.0
        channels = torch.arange(STOP + 1, device=logits.device)
        cells = torch.arange(self.context.legal.shape[-1], device=logits.device)
        from_channel, from_position = torch.zeros_like(self.last_channel), torch.zeros_like(self.last_channel)
        while True:
            hazard = channel_hazard.masked_fill(channels < from_channel, 0.0)
            channel = first_more_likely_than_not(hazard)[0][:, None]
            after, position_logits = self._after_channel(state, channel)
            share = channel_hazard.gather(1, channel) * position_logits[:, 0].softmax(-1)
            hazard = share / (1 - share.cumsum(-1) + share).clamp(min=1e-6)
            looked_at = (channel == from_channel) & (cells < from_position)
            position, likely = (
                t[:, None] for t in first_more_likely_than_not(hazard.masked_fill(looked_at, 0.0))
            )
            value_logits = self._after_position(after, channel, position)
            coded = hazard.gather(1, position)
            value = coded * value_logits[:, 0].softmax(-1)  # b v: of this coefficient, zero apart
            zero = self.decoder.max_value
            negative = value[:, :zero].sum(-1, keepdim=True) >= 0.5
            positive = value[:, zero:].sum(-1, keepdim=True) > 0.5
            below = value.cumsum(-1) + torch.where(negative, 0.0, 1 - coded)
            index = first_more_likely_than_not(below)[0][:, None]
            found = (likely & (negative | positive)) | (channel == STOP)
            if bool(found.all()):
                return channel, position, index, position_logits, value_logits
            from_position = torch.where(found, from_position, torch.where(likely, position + 1, 0))
            from_channel = torch.where(found, from_channel, torch.where(likely, channel, channel + 1))
            self._forget(1)
            self._forget(2)

    def _forget(self, index: int) -> None:
        """Takes back the last event that a stack was fed."""
        for cache in self.caches[index]:
            cache.length -= 1 if self.sampler.cached else 0
        if not self.sampler.cached:
            self.inputs[index].pop()


def _log_prob(logits: Float[Tensor, "b 1 n"], index: Int[Tensor, "b 1"]) -> Float[Tensor, "b 1"]:
    return logits[:, 0].log_softmax(-1).gather(1, index)
