"""JPEG coefficients plane by plane: any sampling, progressive files, and the blocks that pad a grid.

Chroma is resampled among coefficients: averaging pairs of pixels and the triangle filter are linear, so that
each is one matrix from neighbouring blocks to new ones, applied along one axis after the other.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from transframer.codec.compiled import AWAY_FROM_ZERO
from transframer.codec.dct import dct_matrix
from transframer.codec.jpeg_header import Header
from transframer.codec.layout import CHANNELS, ZIGZAG, grid_from_planes, grid_size, plane_tables
from transframer.errors import DataError
from transframer.frames import CodecSettings

_RASTER = torch.tensor([8 * row + column for row, column in ZIGZAG])
_DCT = dct_matrix().float()  # 8 frequencies x 8 pixels


def _pixel_matrix(blocks_out: int, blocks_in: int, pixels: Tensor) -> Tensor:
    """A matrix of pixels as one of DCT coefficients: frequency out, block out, block in, frequency in."""
    out = pixels.view(blocks_out, 8, blocks_in, 8)
    return torch.einsum("fx,oxiy,gy->foig", _DCT, out, _DCT)


_HALVING = _pixel_matrix(1, 2, torch.eye(8).repeat_interleave(2, 1) / 2)
_near, _pixel = torch.arange(16) // 2 + 8, torch.arange(16)
_TRIANGLE = torch.zeros(16, 24)
_TRIANGLE[_pixel, _near] = 0.75
_TRIANGLE[_pixel, _near + 2 * (_pixel % 2) - 1] = 0.25
_DOUBLING = _pixel_matrix(2, 3, _TRIANGLE)  # from a block and its neighbours


def grid_by_planes(data: bytes, name: str, header: Header, settings: CodecSettings) -> Tensor:
    """The grid of any file with a header that could be read: 192 gy gx, int16.

    Raises:
        DataError: pyjpegio is not installed, or cannot read the file.
    """
    halved, cells = settings.subsampling == "4:2:0", grid_size(header.size)
    planes = []
    for blocks, component in zip(_coefficients(data, name), header.components, strict=True):
        steps = torch.empty(64)
        steps[_RASTER] = torch.from_numpy(header.tables[component[2]]).float()
        planes.append(blocks * steps.view(8, 8, 1, 1))
    across, down = header.components[0][:2]
    luma = planes[0]
    for axis in (0, 1):
        luma = _along(axis, luma, partial(_padded, n=cells[axis]))
        for plane, chroma in enumerate(planes[1:], 1):
            n = cells[axis] // 2 if halved else cells[axis]
            planes[plane] = _along(axis, chroma, _resampling((down, across)[axis] == 2, halved, n))
    size = [side // 2 for side in cells] if halved else cells
    both = torch.stack(planes[1:]).flatten(1, 2) if planes[1:] else torch.zeros(2, 64, *size)
    ours = plane_tables(torch.tensor([settings.quality]))[..., None, None]
    quantised = (_rounded(luma.flatten(0, 1)[None] / ours[:, 0]), _rounded(both / ours[:, 1]))
    grid = grid_from_planes(quantised[0][None], quantised[1][None], torch.int16)[0]
    return fill_padding(grid, header.size, settings)


def fill_padding(grid: Tensor, size: tuple[int, int], settings: CodecSettings) -> Tensor:
    """Fills the blocks of a grid that hold no pixel of an image by repeating the last pixel, in place.

    Halved chroma has no such blocks.
    """
    blocks, cells = [-(-side // 8) for side in size], grid.shape[1:]
    if blocks == list(cells):
        return grid
    tables = plane_tables(torch.tensor([settings.quality]))[0].view(2, 8, 8, 1)
    for plane in range(1 if settings.subsampling == "4:2:0" else 3):
        channels, steps = torch.from_numpy(CHANNELS[plane]).view(8, 8), tables[min(plane, 1)]
        if blocks[1] < cells[1]:
            last = grid[:, :, blocks[1] - 1][channels] * steps  # v u gy
            grid[channels.flatten(), :, blocks[1]] = 0
            edge = _edge(last.transpose(0, 1), 7)[0] / steps[:, 0]
            grid[channels[:, 0], :, blocks[1]] = _rounded(edge).to(torch.int16)
        if blocks[0] < cells[0]:
            last = grid[:, blocks[0] - 1][channels] * steps  # v u gx
            grid[channels.flatten(), blocks[0]] = 0
            grid[channels[0], blocks[0]] = _rounded(_edge(last, 7)[0] / steps[0]).to(torch.int16)
    return grid


def _rounded(coefficients: Tensor) -> Tensor:
    """To whole numbers, halves away from zero."""
    return (coefficients * AWAY_FROM_ZERO).round_().clamp_(-32768, 32767)


def _along(axis: int, blocks: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Applies to v u by bx, along one axis, a function of frequencies ... blocks."""
    return function(blocks.movedim((axis, axis + 2), (0, -1))).movedim((0, -1), (axis, axis + 2))


def _resampling(is_halved: bool, halve: bool, n: int) -> Callable[[Tensor], Tensor]:
    """What brings chroma from the sampling it has to the one it should have, and to n blocks."""

    def resampled(blocks: Tensor) -> Tensor:
        if halve and not is_halved:
            pairs = _padded(blocks, 2 * n).unflatten(-1, (n, 2))
            return torch.einsum("foig,g...ni->f...no", _HALVING, pairs)[..., 0]
        if is_halved and not halve:
            before = torch.cat([_edge(blocks[..., :1], 0), blocks[..., :-1]], -1)
            after = torch.cat([blocks[..., 1:], _edge(blocks[..., -1:], 7)], -1)
            threes = torch.stack([before, blocks, after], -1)
            blocks = torch.einsum("foig,g...ni->f...no", _DOUBLING, threes).flatten(-2)
        return _padded(blocks, n)

    return resampled


def _padded(blocks: Tensor, n: int) -> Tensor:
    """The first n blocks, or more that repeat the last pixel."""
    more = n - blocks.shape[-1]
    if more <= 0:
        return blocks[..., :n]
    return torch.cat([blocks, _edge(blocks[..., -1:], 7).expand(*blocks.shape[:-1], more)], -1)


def _edge(blocks: Tensor, pixel: int) -> Tensor:
    """Blocks of one pixel of each row, repeated."""
    out = torch.zeros_like(blocks)
    out[0] = 8**0.5 * torch.einsum("g,g...->...", _DCT[:, pixel], blocks)
    return out


def _coefficients(data: bytes, name: str) -> list[Tensor]:
    """The file's quantised coefficients of each component: v u by bx, fp32."""
    try:
        import jpegio
    except ImportError:
        next_step = "pip install 'transframer[jpeg]', or convert the file to baseline"
        raise DataError(
            "a JPEG file that needs pyjpegio", file=name, expected="it installed", next_step=next_step
        ) from None
    with tempfile.TemporaryDirectory() as folder:  # it reads files only
        path = Path(folder) / "image.jpg"
        path.write_bytes(data)
        try:
            arrays = jpegio.read(os.fspath(path)).coef_arrays
        except (RuntimeError, ValueError) as error:
            found = f"a damaged JPEG file: {error}"
            raise DataError(found, file=name, expected="a whole file") from None
    blocks = [torch.from_numpy(array).unflatten(1, (-1, 8)).unflatten(0, (-1, 8)) for array in arrays]
    return [block.permute(1, 3, 0, 2).float() for block in blocks]
