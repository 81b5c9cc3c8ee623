"""Drawing frames from a Transframer: chunk by chunk, until every sample stops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transframer.codec import Tokens, decode_frames, grid_from_tokens
from transframer.errors import ConfigError
from transframer.frames import Episode
from transframer.models.choosing import Choice, ChunkDecoder
from transframer.models.decoder import STOP
from transframer.predictor import Estimate, Samples

if TYPE_CHECKING:
    from transframer.models.transframer import Transframer


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
        self.model = model
        median = temperature == 0 and estimate == "median"
        self.choice = Choice(temperature, top_p, median, generator, cached)

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
            chunk = ChunkDecoder(model.decoder, context, self.choice, config.chunk_events, last[:2], so_far)
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
