"""Images to grids of quantised DCT coefficients and back, as a baseline JPEG codec does it.

Everything is batched. What is on a CPU goes through compiled kernels where Numba is installed; the code here
serves every device. `grid_from_image` follows the fixed-point arithmetic of libjpeg (colour conversion,
chroma averaging, DCT) in floating point, so that its coefficients are libjpeg's: exactly in fp64, and in fp32
but for about one in a million at quality 100. `dct_from_image` is the same transform without rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped, UInt8
from torch import Tensor

from transframer.codec import compiled
from transframer.codec.colour import exact_dtype, image_from_planes, planes_from_image
from transframer.codec.compiled import AWAY_FROM_ZERO
from transframer.codec.layout import N_CHANNELS, grid_from_planes, grid_size, plane_tables, planes_from_grid
from transframer.errors import DataError
from transframer.frames import CodecSettings

# The accurate integer DCT of libjpeg (jfdctint.c) with its butterflies multiplied out, in units of 2^-13:
# rows are frequencies, columns the first four pixels; the others mirror them, with the sign of odd rows.
INTEGER_DCT = (
    (8192, 8192, 8192, 8192),
    (11363, 9633, 6437, 2260),
    (10703, 4433, -4433, -10703),
    (9633, -2259, -11362, -6436),
    (8192, -8192, -8192, 8192),
    (6437, -11362, 2261, 9633),
    (4433, -10704, 10704, -4433),
    (2260, -6436, 9633, -11363),
)
_GREY = 128.0
_PIECE_PIXELS = 65536  # a piece whose planes stay in the cache codes 1.5 times as fast on a CPU


class _Matrices(NamedTuple):
    """The 8x8 DCT on one device, frequencies x pixels, both in raster order.

    The integer DCT is 8 times the orthonormal one, and is rounded after each of its two passes.
    """

    dct: Tensor  # 64 x 64
    integer_rows: Tensor  # 16 x 16, of two blocks side by side: on a CPU 2.7 times as fast as 8 x 8
    integer_columns: Tensor  # 64 x 64, of a whole block, so that frequencies come to the front


def dct_matrix() -> Float[Tensor, "8 8"]:
    """The orthonormal DCT: frequencies x pixels, fp64."""
    n = torch.arange(8, dtype=torch.float64)
    dct = torch.cos((2 * n + 1) * n[:, None] * torch.pi / 16) / 2
    dct[0] /= 2**0.5
    return dct


@cache
@torch.inference_mode(False)  # what is cached must serve training as well
def _matrices(device: torch.device) -> _Matrices:
    dct, n = dct_matrix(), torch.arange(8)
    half = torch.tensor(INTEGER_DCT, dtype=torch.float64)
    integer = torch.cat([half, half.flip(1) * (-1) ** n[:, None]], 1)
    eye = torch.eye(8)
    matrices = (
        torch.kron(dct, dct).float(),  # 1/8 is exact then, and with it the halves of blocks of one colour
        torch.kron(eye[:2, :2], integer / 2**11),
        torch.kron(integer / 2**15, eye),
    )
    return _Matrices(*(matrix.to(device, exact_dtype(device)) for matrix in matrices))


def _dct(planes: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c 64 gy gx"]:
    """The orthonormal DCT of every 8x8 block."""
    b, c, height, width = planes.shape
    with torch.autocast(planes.device.type, enabled=False):
        coefficients = _matrices(planes.device).dct @ _blocks(planes).mT
    return coefficients.view(b, c, 64, height // 8, width // 8)


def _integer_dct(planes: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c 64 gy gx"]:
    """The integer DCT of every 8x8 block: whole numbers, 8 times the orthonormal DCT."""
    matrices = _matrices(planes.device)
    b, c, height, width = planes.shape
    with torch.autocast(planes.device.type, enabled=False):
        rows = (planes.reshape(-1, 16) @ matrices.integer_rows.mT).add_(0.5).floor_()
        blocks = _blocks(rows.view(planes.shape))
        coefficients = (matrices.integer_columns @ blocks.mT).add_(0.5).floor_()
    return coefficients.view(b, c, 64, height // 8, width // 8)


def _inverse_dct(coefficients: Float[Tensor, "b c 64 gy gx"]) -> Float[Tensor, "b c h w"]:
    dct = _matrices(coefficients.device).dct
    b, c, _, gy, gx = coefficients.shape
    with torch.autocast(coefficients.device.type, enabled=False):
        blocks = coefficients.to(dct.dtype).reshape(b * c, 64, -1).mT @ dct
    return blocks.view(b, c, gy, gx, 8, 8).transpose(3, 4).reshape(b, c, 8 * gy, 8 * gx)


def _blocks(planes: Float[Tensor, "b c h w"]) -> Float[Tensor, "bc cells 64"]:
    b, c, height, width = planes.shape
    return planes.reshape(b * c, height // 8, 8, width // 8, 8).transpose(2, 3).reshape(b * c, -1, 64)


def dct_from_image(
    image: Shaped[Tensor, "b 3 h w"], halve_chroma: Bool[Tensor, " b"]
) -> Float[Tensor, "b 192 gy gx"]:
    """The DCT-image: the unquantised grid of an image.

    JFIF YCbCr, centred on 0, orthonormal 8x8 DCT, edges replicated to whole 16x16 macroblocks. Linear in
    the image but for the level shift of 128 grey levels.

    Args:
        image: uint8 or float, 0-255.
        halve_chroma: which images are 4:2:0; the others are 4:4:4. Best kept on the CPU.

    Returns:
        fp32; the luma DC is 8 times the block's mean less 128, so -1024 to 1016.

    >>> grey = torch.full((1, 3, 16, 16), 130, dtype=torch.uint8)
    >>> dct_from_image(grey, torch.tensor([True]))[0, :2, 0, 0].round(decimals=3).tolist()
    [16.0, 0.0]
    """
    _require_one_each(len(halve_chroma), len(image))
    height, width = image.shape[-2:]
    out = torch.empty(len(image), N_CHANNELS, *grid_size((height, width)), device=image.device)
    level = torch.full((len(image),), _GREY, device=image.device)
    for halved, rows in _pieces(halve_chroma.tolist(), image):
        luma, chroma = planes_from_image(image[rows], level[rows], halved, integer=False)
        out[rows] = grid_from_planes(_dct(luma), _dct(chroma), torch.float32)
    return out


def grid_from_image(
    image: Shaped[Tensor, "b 3 h w"],
    settings: Sequence[CodecSettings],
    reference: Float[Tensor, "b 3 h w"] | None = None,
) -> Int[Tensor, "b 192 gy gx"]:
    """Codes images: the quantised grids, equal to libjpeg's coefficients (accurate integer DCT).

    Args:
        image: uint8 or float, 0-255.
        settings: one per image. Those with a `reference` code the residual, image - reference.
        reference: 0-255; needed where any of the settings asks for it, elsewhere ignored.

    Returns:
        int16, rounded to nearest with halves away from zero.

    Raises:
        DataError: the settings ask for a reference and none is given.

    >>> grey = torch.full((1, 3, 16, 16), 132, dtype=torch.uint8)
    >>> grid_from_image(grey, [CodecSettings(quality=50)])[0, :2, 0, 0].tolist()
    [2, 0]
    """
    residual = _residual(settings, reference, len(image))
    if reference is not None and any(residual):
        image = image - reference * torch.tensor(residual, device=image.device)[:, None, None, None]
    if (grid := compiled.encode(image, settings)) is not None:
        return grid
    tables, halve = _columns(settings, image.device)
    level = _GREY * ~torch.tensor(residual, device=image.device)
    scale = AWAY_FROM_ZERO / 8 / tables
    height, width = image.shape[-2:]
    out = torch.empty(
        len(image), N_CHANNELS, *grid_size((height, width)), dtype=torch.int16, device=image.device
    )
    for halved, rows in _pieces(halve, image):
        luma, chroma = planes_from_image(image[rows], level[rows], halved, integer=True)
        luma = _integer_dct(luma).mul_(scale[rows, :1]).round_()
        chroma = _integer_dct(chroma).mul_(scale[rows, 1:]).round_()
        out[rows] = grid_from_planes(luma, chroma, torch.int16)
    return out


def image_from_grid(
    grid: Int[Tensor, "b 192 gy gx"],
    settings: Sequence[CodecSettings],
    size: tuple[int, int],
    reference: Float[Tensor, "b 3 h w"] | None = None,
) -> UInt8[Tensor, "b 3 h w"]:
    """Decodes grids, with libjpeg's triangle filter for halved chroma.

    Args:
        settings: one per image, as it was coded.
        size: height and width of the images, pixels.
        reference: 0-255, as it was coded.

    Raises:
        DataError: the settings ask for a reference and none is given.

    >>> grid = torch.zeros(1, 192, 2, 2, dtype=torch.int16)
    >>> grid[0, 0] = 2
    >>> image_from_grid(grid, [CodecSettings(quality=50)], (16, 16))[0, :, 0, 0].tolist()
    [132, 132, 132]
    """
    residuals = _residual(settings, reference, len(grid))
    if reference is not None and len(set(residuals)) == 2:  # so that an image decodes alone as in a batch
        out = torch.empty(len(grid), 3, *size, dtype=torch.uint8, device=grid.device)
        for kind in (False, True):
            part = [row for row, residual in enumerate(residuals) if residual == kind]
            out[part] = image_from_grid(grid[part], [settings[row] for row in part], size, reference[part])
        return out
    if (image := compiled.decode(grid, settings, size)) is not None:
        return image
    tables, halve = _columns(settings, grid.device)
    residual = torch.tensor(residuals, device=grid.device)[:, None, None, None]
    # libjpeg brings planes to 8 bits before it goes to RGB; a residual has no such limits
    low, high = torch.where(residual, -torch.inf, -_GREY), torch.where(residual, torch.inf, _GREY - 1)
    out = torch.empty(len(grid), 3, *size, dtype=torch.uint8, device=grid.device)
    for halved, rows in _pieces(halve, out):
        luma, chroma = planes_from_grid(grid[rows], halved)
        luma = _inverse_dct(luma * tables[rows, :1]).add_(0.5).floor_().clamp_(low[rows], high[rows])
        chroma = _inverse_dct(chroma * tables[rows, 1:]).add_(0.5).floor_().clamp_(low[rows], high[rows])
        pixels = image_from_planes(luma.add_(_GREY * ~residual[rows]), chroma, size)
        if reference is not None:
            pixels += reference[rows] * residual[rows]
        out[rows] = pixels.clamp_(0, 255).round_().to(torch.uint8)
    return out


def _residual(settings: Sequence[CodecSettings], reference: Tensor | None, images: int) -> list[bool]:
    """Whether the residual is coded: one entry per image."""
    _require_one_each(len(settings), images)
    residual = [setting.reference is not None for setting in settings]
    if any(residual) and reference is None:
        raise DataError("codec settings with a reference, but no reference image", expected="one per image")
    return residual


def _require_one_each(settings: int, images: int) -> None:
    if settings != images:
        raise DataError(f"codec settings for {settings} of {images} images", expected="settings for each")


def _columns(
    settings: Sequence[CodecSettings], device: torch.device
) -> tuple[Float[Tensor, "b 2 64 1 1"], list[bool]]:
    """Quantisation tables, and whether chroma is halved: one entry per image."""
    quality = torch.tensor([setting.quality for setting in settings], device=device)
    halve = [setting.subsampling == "4:2:0" for setting in settings]
    return plane_tables(quality)[..., None, None], halve


def _pieces(halve: list[bool], image: Tensor) -> Iterator[tuple[bool, slice | Tensor]]:
    """Sub-batches of one subsampling, and on a CPU of few pixels."""
    pixels = image.shape[-2] * image.shape[-1]
    n = max(1, _PIECE_PIXELS // pixels) if image.device.type == "cpu" else len(halve)
    if len(set(halve)) == 1:
        for start in range(0, len(halve), n):
            yield halve[0], slice(start, start + n)
        return
    halves = torch.tensor(halve, dtype=torch.bool)
    for halved in (True, False):
        for rows in (halves == halved).nonzero()[:, 0].split(n):
            if len(rows):
                yield halved, rows.to(image.device)
