"""Drawing frames from a Transframer: chunk by chunk, with key/value caches, until every sample stops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transframer.codec import Tokens, decode_frames, grid_from_tokens
from transframer.errors import ConfigError
from transframer.frames import Episode
from transframer.models.attention import KeyValueCache
from transframer.models.decoder import STOP, Context
from transframer.predictor import Samples

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


class Sampler:
    """Draws frames for a batch of episodes.

    Args:
        model: the Transframer to draw from.
        temperature: 0 is greedy.
        top_p: nucleus sampling; 1 keeps every legal event.
        generator: on the model's device; required to reproduce a draw, unused when greedy.
        cached: false recomputes every event from the start of its chunk; for tests.

    Raises:
        ConfigError: a temperature below 0, or top_p outside (0, 1].
    """

    def __init__(
        self,
        model: Transframer,
        *,
        temperature: float = 1.0,
        top_p: float = 1.0,
        generator: torch.Generator | None = None,
        cached: bool = True,
    ) -> None:
        if temperature < 0:
            raise ConfigError(f"temperature {temperature}", field="temperature", expected="0 or more")
        if not 0 < top_p <= 1:
            raise ConfigError(f"top_p {top_p}", field="top_p", expected="above 0, at most 1")
        self.model, self.cached = model, cached
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
        height, width = episodes[0].size
        grid = (height // 8, width // 8)
        drawn: list[Tensor] = []  # 3 x b per event
        log_prob = torch.zeros(b, device=model.device)
        length = torch.zeros(b, dtype=torch.long, device=model.device)
        alive = torch.ones(b, dtype=torch.bool, device=model.device)
        stride = config.chunk_events - config.chunk_overlap
        start = 0
        while True:
            events = torch.stack(drawn, -1) if drawn else length.new_zeros(3, b, 0)
            before = Tokens(*events[:, :, :start], length.clamp(max=start))
            last = events[:, :, start - 1] if start else length.new_tensor([[0], [-1], [1]]).expand(3, b)
            context = model.encode(batch, dct, grid_from_tokens(before, grid), last[0])
            chunk = _ChunkDecoder(self, context, last[:2])
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
                    channel, position, value = events[:, :, :longest]
                    return Tokens(channel.clamp(max=STOP - 1), position, value, length), log_prob
            start += stride


class _ChunkDecoder:
    """Runs the decoders over one chunk: the given events at once, then one event at a time."""

    def __init__(self, sampler: Sampler, context: Context, last: Int[Tensor, "2 b"]) -> None:
        self.sampler, self.context, self.decoder = sampler, context, sampler.model.decoder
        self.last_channel, self.last_position = last[0][:, None], last[1][:, None]
        self.table = self.decoder.value_table()
        b = len(context.cells)
        self.next_input = self.decoder.start.expand(b, 1, -1)
        self.inputs: list[list[Tensor]] = [[], [], []]  # what each stack was fed, for the uncached path
        size = (b, sampler.model.config.chunk_events, self.decoder.start.shape[0] // self.decoder.heads)
        self.caches = [
            [KeyValueCache(self.table.new_zeros(size), self.table.new_zeros(size)) for _ in stack]
            for stack in self.decoder.stacks
        ]

    def give(self, events: Int[Tensor, "3 b n"]) -> None:
        """Takes the overlap with the chunk before as drawn."""
        if not events.shape[2]:
            return
        channel, position, value = events
        vectors = self.decoder.event_vector(self.context, channel, position, value, self.table)
        state = self._run(0, torch.cat([self.next_input, vectors[:, :-1]], 1))
        state = self._run(1, state + self.decoder.channel_vector(channel))
        self._run(2, state + self.decoder.position_vector(self.context, position))
        self.next_input = vectors[:, -1:]
        self.last_channel, self.last_position = channel[:, -1:], position[:, -1:]

    def draw(self) -> tuple[Int[Tensor, "3 b"], Float[Tensor, " b"]]:
        """The next event of each sample, and its log-probability in nats."""
        decoder, context = self.decoder, self.context
        state = self._run(0, self.next_input)
        logits = decoder.channel_logits(state, context, self.last_channel, self.last_position)
        channel, nats = self._pick(logits)
        coded = channel != STOP
        state = self._run(1, state + decoder.channel_vector(channel))
        logits = decoder.position_logits(state, context, channel, self.last_channel, self.last_position)
        position, position_nats = self._pick(logits)
        state = self._run(2, state + decoder.position_vector(context, position))
        index, value_nats = self._pick(decoder.value_logits(state, channel, self.table))
        nats = nats + (position_nats + value_nats) * coded
        # The stop's position and value carry nothing; they are those that scoring pads with.
        position = position * coded
        value = torch.where(coded, index - decoder.max_value, 1)
        self.next_input = decoder.event_vector(context, channel, position, value, self.table)
        self.last_channel, self.last_position = channel, position
        return torch.cat([channel, position, value], 1).T, nats[:, 0]

    def _run(self, index: int, x: Tensor) -> Tensor:
        if self.sampler.cached:
            return self.decoder.run_stack(index, x, self.context, self.caches)
        self.inputs[index].append(x)
        return self.decoder.run_stack(index, torch.cat(self.inputs[index], 1), self.context, None)[:, -x.shape[1] :]

    def _pick(self, logits: Float[Tensor, "b 1 n"]) -> tuple[Int[Tensor, "b 1"], Float[Tensor, "b 1"]]:
        sampler = self.sampler
        index = pick(logits[:, 0], sampler.temperature, sampler.top_p, sampler.generator)[:, None]
        return index, logits[:, 0].log_softmax(-1).gather(1, index)
