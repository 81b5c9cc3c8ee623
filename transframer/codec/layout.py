"""The layout of a coded frame: channel order, grid size, legal cells, quantisation tables.

A coded frame is a GRID of integers, 192 x gy x gx: one cell per 8x8 block of luma, one channel per
coefficient of a plane. Channels run from coarse to fine, so that a prefix of the grid in memory order is
a blurred picture: bands of zigzag indices {0}, {1-3}, {4-15}, {16-63} (Transframer, arXiv 2203.09494),
inside a band all Y, then all Cb, then all Cr.
"""

from __future__ import annotations

from functools import cache

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from transframer.frames import Subsampling

BANDS = ((0, 1), (1, 4), (4, 16), (16, 64))
N_CHANNELS = 192

_CHANNELS = [
    (band, plane, index)
    for band, (low, high) in enumerate(BANDS)
    for plane in range(3)
    for index in range(low, high)
]
channel_band, channel_plane, channel_zigzag = torch.tensor(_CHANNELS).unbind(1)  # each: Int (192,)

# (row, column) of each zigzag index: along anti-diagonals, odd ones downwards, even ones upwards.
ZIGZAG = sorted(
    ((row, column) for row in range(8) for column in range(8)),
    key=lambda cell: (sum(cell), cell[0] if sum(cell) % 2 else cell[1]),
)

# ITU-T T.81, Annex K, tables K.1 and K.2, in raster order.
_LUMA = """
16 11 10 16 24 40 51 61  12 12 14 19 26 58 60 55  14 13 16 24 40 57 69 56  14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77  24 35 55 64 81 104 113 92  49 64 78 87 103 121 120 101  72 92 95 98 112 100 103 99
"""
_CHROMA = """
17 18 24 47 99 99 99 99  18 21 26 66 99 99 99 99  24 26 56 99 99 99 99 99  47 66 99 99 99 99 99 99
99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99
"""
_TABLES = torch.tensor([[int(step) for step in table.split()] for table in (_LUMA, _CHROMA)])

_RASTER = torch.tensor([8 * row + column for row, column in ZIGZAG])[channel_zigzag]
_ORDER = 64 * channel_plane + _RASTER  # of each channel, its place in planes x raster frequencies
CHANNELS = _ORDER.argsort().view(3, 64).numpy()  # of each plane and raster frequency, its channel


def grid_size(size: tuple[int, int]) -> tuple[int, int]:
    """Cells (gy, gx) of the grid of an image of `size` (height, width): whole 16x16 macroblocks.

    >>> grid_size((64, 50))
    (8, 8)
    """
    return 2 * -(-size[0] // 16), 2 * -(-size[1] // 16)


def plane_tables(quality: Int[Tensor, " b"]) -> Float[Tensor, "b 2 64"]:
    """Quantisation steps of luma and of chroma, raster order: Annex K scaled as `jpeg_set_quality` does.

    Args:
        quality: 1 to 100.
    """
    scale = torch.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    tables = (_TABLES.to(quality.device) * scale[:, None, None] + 50) // 100
    return tables.clamp(1, 255).float()  # one byte a step: libjpeg's force_baseline


def quantisation(quality: Int[Tensor, " b"]) -> Float[Tensor, "b 192"]:
    """Quantisation step of every channel of the grid, 1 to 255.

    Args:
        quality: JPEG quality, 1 to 100.

    >>> quantisation(torch.tensor([50, 100]))[:, :6].tolist()
    [[16.0, 17.0, 17.0, 11.0, 12.0, 14.0], [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]]
    """
    plane, raster = (channel.to(quality.device) for channel in (channel_plane, _RASTER))
    return plane_tables(quality)[:, plane.clamp(max=1), raster]


def grid_from_planes(
    luma: Shaped[Tensor, "b 1 64 gy gx"], chroma: Shaped[Tensor, "b 2 64 cy cx"], dtype: torch.dtype
) -> Shaped[Tensor, "b 192 gy gx"]:
    """Arranges the coefficients of planes, 8x8 frequencies in raster order, as a grid of a data type.

    Args:
        chroma: of the same height and width as luma, or half of them.
    """
    step = luma.shape[-1] // chroma.shape[-1]
    stack = torch.zeros(len(luma), 3, *luma.shape[2:], dtype=dtype, device=luma.device)
    stack[:, :1] = luma
    stack[:, 1:, :, ::step, ::step] = chroma
    return stack.flatten(1, 2).index_select(1, _ORDER.to(stack.device))


def planes_from_grid(
    grid: Shaped[Tensor, "b 192 gy gx"], halved: bool
) -> tuple[Shaped[Tensor, "b 1 64 gy gx"], Shaped[Tensor, "b 2 64 cy cx"]]:
    """Luma and chroma coefficients: the inverse of `grid_from_planes`.

    Args:
        halved: whether the chroma planes have half the height and width.
    """
    step = 2 if halved else 1
    stack = grid.index_select(1, _ORDER.argsort().to(grid.device)).unflatten(1, (3, 64))
    return stack[:, :1], stack[:, 1:, :, ::step, ::step]


@cache
def legal_mask(grid_size: tuple[int, int], subsampling: Subsampling) -> Bool[Tensor, "192 positions"]:
    """Where the grid may be non-zero; positions in raster order, y * gx + x.

    With halved chroma, the chroma block at (i, j) of its plane sits in cell (2i, 2j).

    Args:
        grid_size: cells (gy, gx) as given by `grid_size`.

    >>> legal_mask((2, 2), "4:2:0")[:2].tolist()
    [[True, True, True, True], [True, False, False, False]]
    """
    with torch.inference_mode(False):  # the cached tensor must serve training as well
        step = 2 if subsampling == "4:2:0" else 1
        chroma = torch.zeros(grid_size, dtype=torch.bool)
        chroma[::step, ::step] = True
        return (channel_plane == 0)[:, None] | chroma.flatten()


def legal_positions(
    channel: int, grid_size: tuple[int, int], subsampling: Subsampling
) -> Int[Tensor, " positions"]:
    """Positions at which a channel may be non-zero, ascending.

    >>> legal_positions(1, (4, 4), "4:2:0").tolist()
    [0, 2, 8, 10]
    """
    return legal_mask(grid_size, subsampling)[channel].nonzero()[:, 0]
