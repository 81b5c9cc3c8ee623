"""Every event is predicted in exactly one chunk, and early chunks are visited more."""

import torch

from transframer.codec import Tokens
from transframer.models.chunks import chunk_count, cut, draw_chunk, padding
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


def test_packing_adds_stops_that_are_not_scored():
    lengths, events = torch.tensor([19, 7, 0]), 20
    index = torch.arange(19).expand(3, -1)
    tokens = Tokens(index % 192, index, index + 1, lengths)
    chunk = cut(tokens, torch.zeros(3, dtype=torch.long), events, 3, 1000)
    packed = chunk.packed()
    assert chunk.length.tolist() == [20, 8, 1]
    assert packed.segments.lengths == [20, 8, 4]  # 29 events, to a multiple of 16
    assert packed.row.tolist() == [0] * 20 + [1] * 8 + [2] * 4
    assert packed.position.tolist() == [*range(19), 0, *range(7), 0, 0, 0, 0, 0]
    assert (packed.channel == STOP).tolist() == [False] * 19 + [True] + [False] * 7 + [True] * 5
    assert packed.scored.tolist() == [True] * 29 + [False] * 3


def test_few_numbers_of_events_come_up():
    numbers = [n + padding(n) for n in range(4097)]
    assert all(n <= m <= n * 17 / 16 + 16 for n, m in enumerate(numbers))
    assert len({m for m in numbers if m > 1024}) == 32


def test_early_chunks_are_drawn_more_often():
    count = torch.full((30000,), 3)
    drawn = draw_chunk(count, torch.Generator().manual_seed(0)).bincount(minlength=3) / 30000
    weight = torch.tensor([1.0, (2 / 3) ** 3, 0.1])
    assert (drawn - weight / weight.sum()).abs().max() < 0.02
    assert draw_chunk(torch.tensor([1, 1]), torch.Generator().manual_seed(0)).tolist() == [0, 0]
