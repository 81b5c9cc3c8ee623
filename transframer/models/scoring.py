"""What a Transframer's likelihood says of whole frames: of one target, or of every candidate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float

from transframer.codec import code_episodes, grid_from_tokens, tokens_from_grid
from transframer.frames import Episode, Frame
from transframer.models.chunks import chunk_count, cut
from transframer.predictor import FramePredictor

if TYPE_CHECKING:
    from transframer.models.transframer import Transframer

_CANDIDATES = 64  # scored at once


def log_prob(model: Transframer, episodes: Sequence[Episode]) -> Float[torch.Tensor, " b"]:
    """As of `Transframer.log_prob`, of a model in evaluation mode."""
    batch = model.collate(episodes).to(model.device)
    tokens, dct = model.tokens(batch), model.dct_images(batch)
    config = model.config
    count = chunk_count(tokens.length, config.chunk_events, config.chunk_overlap)
    total = torch.zeros(len(batch), device=model.device, dtype=torch.float64)
    grid = grid_from_tokens(tokens, batch.grid_size)
    for k in range(int(count.max())):
        at = torch.full_like(count, k)
        chunk = cut(tokens, at, config.chunk_events, config.chunk_overlap, config.max_value)
        chunk.scored &= (k < count)[:, None]
        context = model.encode_chunk(batch, dct, tokens, chunk)
        total -= sum(model.score_chunk(context, chunk, grid).values())
    return total.float()


def posteriors(
    model: Transframer, episodes: Sequence[Episode], candidates: Sequence[Sequence[Frame]]
) -> list[Float[torch.Tensor, " k"]]:
    """As of `Transframer.posteriors`, of a model in evaluation mode."""
    batch = model.collate([episode.without_target() for episode in episodes]).to(model.device)
    context, config = model.encode_start(batch), model.config
    out = []
    for i, (episode, frames) in enumerate(zip(episodes, candidates, strict=True)):
        grid = code_episodes([replace(episode, target=frame) for frame in frames]).to(model.device)
        tokens = tokens_from_grid(grid, config.max_value)
        if int(tokens.length.max()) >= config.chunk_events:
            out += FramePredictor.posteriors(model, [episode], [frames])
            continue
        first = torch.zeros_like(tokens.length)
        chunk = cut(tokens, first, config.chunk_events, config.chunk_overlap, config.max_value)
        clipped = grid_from_tokens(tokens, batch.grid_size)
        nats = []
        for rows in torch.arange(len(grid), device=model.device).split(_CANDIDATES):
            own = context.select(torch.full_like(rows, i))
            parts = model.score_chunk(own, chunk.rows(rows), clipped[rows])
            nats.append(torch.stack(list(parts.values())).sum(0))
        out.append((-torch.cat(nats).double()).softmax(0).float().cpu())
    return out
