"""Drawing frames from a Transframer: chunk by chunk, until every sample stops."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transframer.codec import Tokens, code_episodes, decode_frames, grid_from_tokens
from transframer.errors import ConfigError
from transframer.frames import ESTIMATES, Episode, Estimate, Frame
from transframer.models.choosing import Choice, ChunkDecoder, stops
from transframer.models.compiled import CompiledChunk, CompiledDecoder
from transframer.models.decoder import STOP
from transframer.models.graphed import GraphedChunk
from transframer.predictor import Samples

if TYPE_CHECKING:
    from transframer.models.transframer import Transframer


class Sampler:
    """Draws frames for a batch of episodes.

    At temperature 0 the draw is an estimate. "mode" takes the likeliest channel, position and value of each
    event in turn. "median" takes the median of each coefficient in order, given those before it: zero unless
    one sign has half of the probability. Where many coefficients are possible and none is likely, the mode
    still codes one (some event is likelier than the stop) and so adds noise; the median leaves them zero. So
    the mode suits frames that hold a decision (the lit cell of a class), the median frames that hold a field
    (depth). "mean" takes the mean of each coefficient instead, rounded, where it is coded with a probability
    of 0.3 or more, else zero: where it is uncertain which way something moves, the median is no motion, and
    the mean, which minimises the squared error, half of each. A model with a sketch gives its mean by
    `sketched` instead, at once.

    Args:
        model: the Transframer to draw from.
        temperature: 0 is an estimate.
        estimate: "mode", "median" or "mean", used at temperature 0.
        top_p: nucleus sampling; 1 keeps every legal event.
        generator: on any device; required to reproduce a draw, unused when greedy.
        proposals: events that the draft proposes and the decoders check in one pass, at the same
            distribution (see `transframer.models.speculation_kernels`); 0 draws them one by one. Needs a
            model with a draft, kernels, and the mode as estimate.
        compiled: false decodes in PyTorch, operation by operation, where kernels could (see
            `transframer.models.compiled`), or on a GPU a recorded step (see `transframer.models.graphed`).
        cached: false recomputes every event from the start of its chunk, in PyTorch; for tests.

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
        proposals: int = 0,
        compiled: bool = True,
        cached: bool = True,
    ) -> None:
        if not 0 <= temperature < math.inf:
            raise ConfigError(f"temperature {temperature}", field="temperature", expected="0 or more")
        if not 0 < top_p <= 1:
            raise ConfigError(f"top_p {top_p}", field="top_p", expected="above 0, at most 1")
        if estimate not in ESTIMATES:
            raise ConfigError(f"estimate {estimate!r}", field="estimate", expected=", ".join(ESTIMATES))
        self.model, self.generator, self.cached = model, generator, cached
        self.choice = Choice(temperature, top_p, estimate, proposals)
        self.compiled = compiled and cached and CompiledDecoder.available(model.decoder)
        on_gpu = model.device.type == "cuda"
        self.graphed = compiled and cached and on_gpu and not self.choice.by_coefficient
        self.passes = 0  # of the decoders over a sample, in speculation
        able = self.compiled and not self.choice.by_coefficient and model.draft is not None
        if proposals < 0 or (proposals and not able):
            raise ConfigError(
                f"{proposals} proposals per pass",
                field="proposals",
                expected="0, unless the model has a draft, runs as kernels and decides event by event",
            )

    def sample(self, episodes: Sequence[Episode], samples_per_query: int = 1) -> Samples:
        """Draws frames for episodes of one size; see `FramePredictor.sample`."""
        with self.model.evaluating():
            tokens, log_prob = self.tokens(episodes, samples_per_query)
        height, width = episodes[0].size
        grid = grid_from_tokens(tokens, (height // 8, width // 8))
        queries = [episode for episode in episodes for _ in range(samples_per_query)]
        return Samples(decode_frames(grid, queries), log_prob.cpu(), tokens.length.cpu(), grid.cpu())

    @torch.no_grad()
    def tokens(
        self, episodes: Sequence[Episode], samples_per_query: int = 1
    ) -> tuple[Tokens, Float[Tensor, " n"]]:
        """The triples drawn for each episode, and their nats under the untempered model.

        The first chunk needs the encoder once per episode; later ones once per sample, as their partial
        targets differ. A sample that has stopped is in no later chunk.
        """
        model, config = self.model, self.model.config
        batch = model.collate([episode.without_target() for episode in episodes]).to(model.device)
        dct = model.dct_images(batch)
        decoder = CompiledDecoder(model.decoder, self.choice) if self.compiled else None
        of_episode = torch.arange(len(batch), device=model.device).repeat_interleave(samples_per_query)
        going = torch.arange(len(of_episode), device=model.device)
        events = stops(len(going), 0, model.device)
        length = torch.zeros_like(going)
        log_prob = torch.zeros(len(going), device=model.device)
        start = 0
        while len(going):
            own = events[:, going]
            if start == 0:
                last = going.new_tensor([[0], [-1]]).expand(2, len(going))
                partial = grid_from_tokens(_tokens(own, length), batch.grid_size)
                every = torch.arange(len(batch), device=model.device)
                context = model.encode(batch, dct, partial[: len(batch)], torch.zeros_like(every))
                if samples_per_query > 1:
                    context = context.select(of_episode)
            else:
                last = own[:2, :, start - 1]
                before = _tokens(own[:, :, :start], length[going].clamp(max=start))
                partial = grid_from_tokens(before, batch.grid_size)
                here, frames = batch.select(of_episode[going])
                images = {name: dct[name][frames if name == "context" else of_episode[going]] for name in dct}
                context = model.encode(here, images, partial, last[0])
            so_far = grid_from_tokens(_tokens(own, length[going]), batch.grid_size)
            given = own[:, :, start:]
            arguments = context, config.chunk_events, last, so_far
            chunk: CompiledChunk | ChunkDecoder
            if decoder is not None:
                chunk = decoder.chunk(*arguments)
            else:
                kind = GraphedChunk if self.graphed else ChunkDecoder
                chunk = kind(model.decoder, context, self.choice, *arguments[1:], self.cached)
            chunk.give(given)
            uniform = self._uniform(len(of_episode), config.chunk_events - given.shape[2])
            drawn, nats = chunk.draw(uniform[going])
            self.passes += chunk.passes
            new = stops(len(of_episode), drawn.shape[2], model.device)
            new[:, going] = drawn
            events = torch.cat([events, new], 2)
            log_prob[going] += nats
            length = (events[0] != STOP).sum(1)
            going = going[~(drawn[0] == STOP).any(1)]
            start += config.chunk_events - config.chunk_overlap
        return _tokens(events[:, :, : int(length.max())], length), log_prob

    def _uniform(self, b: int, n: int) -> Float[Tensor, "b n k"]:
        """The numbers that decide n draws of each sample; a sample's do not depend on when others stop."""
        size, device = (b, n, self.choice.uniforms), self.model.device
        if self.choice.temperature == 0:
            return torch.zeros(size, device=device)
        source = device if self.generator is None else self.generator.device
        return torch.rand(size, generator=self.generator, device=source).to(device)


def sketched(model: Transframer, episodes: Sequence[Episode]) -> Samples:
    """The frames that the model sketches (see `transframer.models.sketch`), its estimate of their mean."""
    asked = [episode.without_target() for episode in episodes]
    batch = model.collate(asked).to(model.device)
    with model.evaluating():
        sketch = model.encode_start(batch).sketch
    assert sketch is not None, "a model that sketches"
    images = (sketch + batch.level).clamp(0, 255).round().to(torch.uint8).cpu()
    frames = [Frame(image, episode.query) for image, episode in zip(images, asked, strict=True)]
    grid = code_episodes([replace(e, target=frame) for e, frame in zip(asked, frames, strict=True)])
    return Samples(frames, torch.full((len(batch),), torch.nan), torch.zeros(len(batch)).long(), grid)


def _tokens(events: Int[Tensor, "3 b n"], length: Int[Tensor, " b"]) -> Tokens:
    channel, position, value = events
    return Tokens(channel.clamp(max=STOP - 1), position, value, length)
