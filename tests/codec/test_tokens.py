import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transframer.codec import (
    Tokens,
    check_tokens,
    grid_from_image,
    grid_from_tokens,
    tokens_from_grid,
)
from transframer.errors import DataError
from transframer.frames import CodecSettings


@settings(deadline=None)
@given(
    b=st.integers(1, 4),
    gy=st.integers(1, 3),
    gx=st.integers(1, 3),
    density=st.sampled_from([0.0, 0.01, 0.3, 1.0]),
    seed=st.integers(0, 99),
)
def test_triples_and_grids_are_exact_inverses(b, gy, gx, density, seed):
    generator = torch.Generator().manual_seed(seed)
    shape = (b, 192, 2 * gy, 2 * gx)
    values = torch.randint(-2047, 2048, shape, generator=generator, dtype=torch.int16)
    grid = values * (torch.rand(shape, generator=generator) < density)
    tokens = tokens_from_grid(grid)
    assert torch.equal(grid_from_tokens(tokens, (2 * gy, 2 * gx)), grid)
    for i in range(b):  # slow oracle: a walk over the cells in memory order
        channel, y, x = grid[i].nonzero().unbind(1)
        n = int(tokens.length[i])
        assert torch.equal(tokens.channel[i, :n], channel)
        assert torch.equal(tokens.position[i, :n], y * 2 * gx + x)
        assert torch.equal(tokens.value[i, :n], grid[i, channel, y, x].long())
        assert not any(column[i, n:].any() for column in tokens[:3])
    check_tokens(tokens, [CodecSettings(subsampling="4:4:4")] * b, (2 * gy, 2 * gx))


def test_triples_of_a_photograph_are_well_formed(photograph):
    image = photograph("chelsea", (49, 64))[None]
    chosen = [CodecSettings(50, "4:2:0")]
    check_tokens(tokens_from_grid(grid_from_image(image, chosen)), chosen, (8, 8))


def test_max_value_clips_and_only_then():
    grid = torch.zeros(1, 192, 2, 2, dtype=torch.int16)
    grid[0, :3, 0, 0] = torch.tensor([900, -900, 5])
    assert tokens_from_grid(grid).value.tolist() == [[900, -900, 5]]
    assert tokens_from_grid(grid, max_value=127).value.tolist() == [[127, -127, 5]]


def test_what_the_padding_holds_does_not_matter():
    tokens = Tokens(
        torch.tensor([[0, 191, 192]]),
        torch.tensor([[1, 3, 77]]),
        torch.tensor([[4, -5, 6]]),
        torch.tensor([2]),
    )
    grid = grid_from_tokens(tokens, (2, 2))
    assert grid.count_nonzero() == 2
    assert (grid[0, 0, 0, 1], grid[0, 191, 1, 1]) == (4, -5)


@pytest.mark.parametrize(
    ("channel", "position", "value", "message"),
    [
        ([0, 0], [1, 1], [2, 2], "out of order"),
        ([3, 0], [0, 0], [2, 2], "out of order"),
        ([0, 192], [0, 0], [2, 2], "outside the grid"),
        ([0, 0], [0, 4], [2, 2], "outside the grid"),
        ([0, 1], [0, 0], [2, 0], "value 0"),
        ([0, 1], [0, 1], [2, 2], "off the halved grid"),
    ],
)
def test_malformed_triples_are_named(channel, position, value, message):
    tokens = Tokens(*(torch.tensor([column]) for column in (channel, position, value)), torch.tensor([2]))
    with pytest.raises(DataError, match=message) as error:
        check_tokens(tokens, [CodecSettings(subsampling="4:2:0")], (2, 2))
    assert "sequence 0, triple 1" in str(error.value)
