"""Sequences packed in one row: taken apart for attention, and put together again."""

import pytest
import torch

from transframer.models import segments
from transframer.models.segments import picked, segments_of

LENGTHS = [3, 0, 41, 1, 40]


@pytest.fixture(params=[0, 8, 10**6], ids=["alone", "grouped", "together"])
def packed(request, monkeypatch):
    """Segments in as many groups as there are lengths, in some, or in one."""
    monkeypatch.setattr(segments, "_GROUP_EVENTS", request.param)
    return segments_of(LENGTHS, torch.device("cpu"))


def test_what_is_taken_apart_comes_back_in_its_place(packed):
    x = torch.randn(sum(LENGTHS), 2)
    assert torch.equal(packed.map(lambda rows, own: own, x), x)


def test_each_sequence_is_seen_from_its_first_event_on_with_its_row(packed):
    row = torch.repeat_interleave(torch.tensor(LENGTHS))
    number = torch.cat([torch.arange(length) for length in LENGTHS])

    def check(rows, own_row, own_number):
        assert torch.equal(own_row, rows[:, None].expand_as(own_row))
        assert torch.equal(own_number[:, 0], torch.zeros(len(rows), dtype=torch.long))
        assert bool((own_number.diff(dim=1) >= 0).all())
        return own_number.cumsum(1)

    sums = packed.map(check, row, number)
    assert torch.equal(sums, number * (number + 1) // 2)


def test_gradients_are_those_of_the_sequences_apart(packed):
    x = torch.randn(sum(LENGTHS), 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(sum(LENGTHS), 3, dtype=torch.float64)
    (packed.map(lambda rows, own: own.cumsum(1) ** 2, x) * weight).sum().backward()
    apart = torch.cat([part.cumsum(0) ** 2 for part in x.split(LENGTHS)])
    (expected,) = torch.autograd.grad((apart * weight).sum(), x)
    torch.testing.assert_close(x.grad, expected)


def test_groups_are_as_many_as_pay():
    device = torch.device("cpu")
    assert [len(rows) for rows, _ in segments_of([5, 250, 5, 255], device).groups] == [2, 2]
    assert [len(rows) for rows, _ in segments_of([90, 96, 96, 96], device).groups] == [4]


@pytest.mark.parametrize("shape", [(4, 1), (7,)])
def test_picking_is_indexing(shape):
    table = torch.randn(4, 5, 2)
    row, index = torch.randint(4, shape), torch.randint(5, (4, 3) if len(shape) == 2 else shape)
    assert torch.equal(picked(table, row, index), table[row, index])
