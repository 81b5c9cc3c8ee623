"""Grids as sequences of (channel, position, value) triples, in the grid's memory order, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from transframer.codec import compiled
from transframer.codec.layout import N_CHANNELS, legal_mask
from transframer.errors import DataError
from transframer.frames import CodecSettings


class Tokens(NamedTuple):
    """A batch of sequences of triples, padded at the end with zeros.

    Attributes:
        channel: 0 to 191, ascending.
        position: raster index of the grid cell, y * gx + x; ascending inside a channel.
        value: the quantised coefficient, not 0.
        length: triples in each sequence.
    """

    channel: Int[Tensor, "b l"]
    position: Int[Tensor, "b l"]
    value: Int[Tensor, "b l"]
    length: Int[Tensor, " b"]

    @property
    def present(self) -> Bool[Tensor, "b l"]:
        """Where a triple is, and not padding."""
        return torch.arange(self.channel.shape[1], device=self.length.device) < self.length[:, None]

    def to(self, device: torch.device | str) -> Tokens:
        """The same tokens on a device."""
        return Tokens(*(tensor.to(device) for tensor in self))


def tokens_from_grid(grid: Int[Tensor, "b 192 gy gx"], max_value: int | None = None) -> Tokens:
    """The non-zero cells of each grid.

    Args:
        max_value: clips values to +- this; where it is None the inverse is exact.

    Returns:
        Tensors of int64; l is the longest length.

    >>> grid = torch.zeros(1, 192, 2, 2, dtype=torch.int16)
    >>> grid[0, 0, 1, 0], grid[0, 3, 0, 1] = 7, -2
    >>> tokens = tokens_from_grid(grid)
    >>> torch.stack(tokens[:3])[:, 0].T.tolist()
    [[0, 2, 7], [3, 1, -2]]
    """
    if (columns := compiled.find_nonzero(grid)) is not None:
        tokens = Tokens(*columns)
        return (
            tokens if max_value is None else tokens._replace(value=tokens.value.clamp_(-max_value, max_value))
        )
    b, positions = len(grid), grid.shape[2] * grid.shape[3]
    cells = N_CHANNELS * positions
    flat = grid.reshape(-1)
    found = flat.nonzero()[:, 0]  # ascending, so the grids' shares of it are found by bisection
    bounds = torch.searchsorted(found, torch.arange(b + 1, device=grid.device) * cells)
    start, length = bounds[:-1], bounds.diff()
    rank = torch.arange(int(length.max()) if b else 0, device=grid.device)
    index = found.index_select(0, (start[:, None] + rank).flatten().clamp(max=len(found) - 1)).view(b, -1)
    value = flat.index_select(0, index.flatten()).view(b, -1).long()
    if max_value is not None:
        value = value.clamp(-max_value, max_value)
    present = rank < length[:, None]
    cell = (index - torch.arange(b, device=grid.device)[:, None] * cells) * present
    channel = cell // positions
    return Tokens(channel, cell - channel * positions, value * present, length)


def grid_from_tokens(tokens: Tokens, grid_size: tuple[int, int]) -> Int[Tensor, "b 192 gy gx"]:
    """Scatters triples into grids of int16; the inverse of `tokens_from_grid`.

    Args:
        grid_size: cells (gy, gx).
    """
    grid = torch.zeros(
        len(tokens.length), N_CHANNELS, *grid_size, dtype=torch.int16, device=tokens.value.device
    )
    if compiled.scatter(*tokens, grid):
        return grid
    present = tokens.present
    cell = (tokens.channel * (grid_size[0] * grid_size[1]) + tokens.position) * present
    # added, so that padding, of value 0 in cell 0, leaves that cell alone
    grid.flatten(1).scatter_add_(1, cell, (tokens.value * present).to(torch.int16))
    return grid


def check_tokens(tokens: Tokens, settings: Sequence[CodecSettings], grid_size: tuple[int, int]) -> None:
    """Raises unless every sequence is well-formed: ordered, and each triple legal.

    Args:
        settings: one per sequence.
        grid_size: cells (gy, gx).

    Raises:
        DataError: a zero value, a channel or position out of range, a chroma block in a cell where
            halved chroma has none, or a (channel, position) that does not come after the one before it.
    """
    positions = grid_size[0] * grid_size[1]
    present = tokens.present
    _refuse(present & (tokens.value == 0), tokens, "a triple of value 0", "only non-zero coefficients")
    inside = (tokens.channel >= 0) & (tokens.channel < N_CHANNELS)
    inside &= (tokens.position >= 0) & (tokens.position < positions)
    _refuse(
        present & ~inside,
        tokens,
        "a triple outside the grid",
        f"{N_CHANNELS} channels, {positions} positions",
    )
    cell = (tokens.channel * positions + tokens.position) * present
    late = torch.zeros_like(present)
    late[:, 1:] = present[:, 1:] & (cell[:, 1:] <= cell[:, :-1])
    _refuse(late, tokens, "a triple out of order", "ascending (channel, position)")
    legal = torch.stack([legal_mask(grid_size, setting.subsampling).flatten() for setting in settings])
    illegal = present & ~legal.to(cell.device).gather(1, cell)
    _refuse(illegal, tokens, "a chroma triple off the halved grid", "even rows and columns of cells")


def _refuse(bad: Bool[Tensor, "b l"], tokens: Tokens, found: str, expected: str) -> None:
    if bad.any():
        row, index = bad.nonzero()[0].tolist()
        triple = tuple(int(column[row, index]) for column in tokens[:3])
        raise DataError(f"{found}, {triple}", field=f"sequence {row}, triple {index}", expected=expected)
