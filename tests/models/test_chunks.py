"""Every event is predicted in exactly one chunk, and early chunks are visited more."""

import torch

from transframer.codec import Tokens
from transframer.models.chunks import chunk_count, cut, draw_chunk
from transframer.models.decoder import STOP


def ramp(length):
    """A sequence whose every event can be told from the others."""
    index = torch.arange(length)[None]
    return Tokens(index % 192, index, index + 1, torch.tensor([length]))


def test_chunks_score_every_event_once():
    events, overlap = 10, 3
    for length in range(0, 40):
        tokens = ramp(length)
        seen = []
        count = int(chunk_count(tokens.length, events, overlap))
        for k in range(count):
            chunk = cut(tokens, torch.tensor([k]), events, overlap, 1000)
            seen += chunk.position[0, chunk.scored[0] & (chunk.channel[0] != STOP)].tolist()
            stops = int((chunk.scored[0] & (chunk.channel[0] == STOP)).sum())
            assert stops == (k == count - 1), "the stop is the last event of the last chunk"
            assert chunk.scored.any()
            if k:
                assert chunk.last_position.item() == chunk.start.item() - 1
        assert seen == list(range(length))


def test_values_are_clipped_and_rows_are_trimmed():
    tokens = ramp(8)
    chunk = cut(tokens, torch.tensor([0]), 20, 3, 5)
    assert chunk.value[0, :9].tolist() == [1, 2, 3, 4, 5, 5, 5, 5, 1]
    assert chunk.rows(torch.tensor([0])).channel.shape == (1, 9)


def test_early_chunks_are_drawn_more_often():
    count = torch.full((30000,), 3)
    drawn = draw_chunk(count, torch.Generator().manual_seed(0)).bincount(minlength=3) / 30000
    weight = torch.tensor([1.0, (2 / 3) ** 3, 0.1])
    assert (drawn - weight / weight.sum()).abs().max() < 0.02
    assert draw_chunk(torch.tensor([1, 1]), torch.Generator().manual_seed(0)).tolist() == [0, 0]
