"""Images to grids of quantised DCT coefficients and back, as a baseline JPEG codec does it.

Everything is batched: an 8x8 DCT is a 64x64 matrix product over all blocks. `grid_from_image` follows the
fixed-point arithmetic of libjpeg (colour conversion, chroma averaging, DCT) in exact floating point, so that
its coefficients are libjpeg's; `dct_from_image` is the same transform without rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped, UInt8
from torch import Tensor

from transframer.codec.layout import BANDS, N_CHANNELS, ZIGZAG, grid_size, plane_tables
from transframer.errors import DataError
from transframer.frames import CodecSettings

# JFIF 1.02 in 16-bit fixed point (libjpeg's jccolor.c): for 8-bit pixels every product and sum is then
# exact in fp32, and rounding agrees with libjpeg's bit for bit.
_YCC_FROM_RGB = ((19595, 38470, 7471), (-11059, -21709, 32768), (32768, -27439, -5329))
_RGB_FROM_YCC = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))
# The accurate integer DCT of libjpeg (jfdctint.c) with its butterflies multiplied out, in units of 2^-13:
# rows are frequencies, columns the first four pixels; the others mirror them, with the sign of odd rows.
_INTEGER_DCT = (
    (8192, 8192, 8192, 8192),
    (11363, 9633, 6437, 2260),
    (10703, 4433, -4433, -10703),
    (9633, -2259, -11362, -6436),
    (8192, -8192, -8192, 8192),
    (6437, -11362, 2261, 9633),
    (4433, -10704, 10704, -4433),
    (2260, -6436, 9633, -11363),
)
_LEVEL_SHIFT = 128 * 8  # of the luma DC coefficient; Cb and Cr are centred on 0 already
_PIECE_PIXELS = 65536  # a piece whose planes stay in the L2 cache codes 1.5 times as fast on a CPU


class _Matrices(NamedTuple):
    """The constants of the codec on one device.

    On accelerators in fp64, which neither autocast nor TF32 matrix products degrade.
    """

    dct: Tensor  # 64 zigzag x 64 raster
    dct_rows: Tensor  # 64 raster x 64 raster, the first pass of the integer DCT
    dct_columns: Tensor  # 64 zigzag x 64 raster, the second; gives 8 times the orthonormal DCT
    ycc_from_rgb: Tensor
    rgb_from_ycc: Tensor


@cache
@torch.inference_mode(False)  # what is cached must serve training as well
def _matrices(device: torch.device) -> _Matrices:
    n = torch.arange(8, dtype=torch.float64)
    exact = torch.cos((2 * n + 1) * n[:, None] * torch.pi / 16) / 2
    exact[0] /= 2**0.5
    half = torch.tensor(_INTEGER_DCT, dtype=torch.float64)
    integer = torch.cat([half, half.flip(1) * (-1) ** n[:, None]], 1)
    zigzag = [8 * row + column for row, column in ZIGZAG]
    matrices = (
        torch.kron(exact, exact)[zigzag],
        torch.kron(torch.eye(8), integer / 2**11),
        torch.kron(integer / 2**15, torch.eye(8))[zigzag],
        torch.tensor(_YCC_FROM_RGB) / 65536,
        torch.tensor(_RGB_FROM_YCC),
    )
    dtype = torch.float32 if device.type == "cpu" else torch.float64
    return _Matrices(*(matrix.to(device, dtype) for matrix in matrices))


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
    >>> dct_from_image(grey, torch.tensor([True]))[0, :2, 0, 0].tolist()
    [16.0, 0.0]
    """
    out = torch.zeros(len(image), N_CHANNELS, *grid_size(_size(image)), device=image.device)
    for halved, rows in _pieces(halve_chroma.tolist(), image):
        luma, chroma = _coefficients(image[rows], halved, integer=False)
        luma[:, 0] -= _LEVEL_SHIFT
        out[rows] = _merge(luma, chroma, torch.float32)
    return out


def grid_from_image(
    image: Shaped[Tensor, "b 3 h w"],
    settings: Sequence[CodecSettings],
    reference: Float[Tensor, "b 3 h w"] | None = None,
) -> Int[Tensor, "b 192 gy gx"]:
    """Codes images: the quantised grids, equal to libjpeg's coefficients but for its fixed-point DCT.

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
    quality, halve, residual = _columns(settings, image.device, reference)
    if reference is not None:
        image = image - reference * residual[:, None, None, None]
    shift = _LEVEL_SHIFT * ~residual[:, None, None]
    tables = plane_tables(quality)[..., None, None]
    out = torch.zeros(
        len(image), N_CHANNELS, *grid_size(_size(image)), dtype=torch.int16, device=image.device
    )
    for halved, rows in _pieces(halve, image):
        luma, chroma = _coefficients(image[rows], halved, integer=True)
        luma[:, 0] -= shift[rows]
        luma /= tables[rows, 0]
        chroma /= tables[rows, 1:]
        # the conversion to int16 truncates, so that halves round away from zero
        luma, chroma = (x + torch.full_like(x, 0.5).copysign_(x) for x in (luma, chroma))
        out[rows] = _merge(luma, chroma, torch.int16)
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
    quality, halve, residual = _columns(settings, grid.device, reference)
    low = torch.where(residual, -torch.inf, 0.0)[:, None, None]
    high = torch.where(residual, torch.inf, 255.0)[:, None, None]
    shift = _LEVEL_SHIFT * ~residual[:, None, None]
    tables = plane_tables(quality)[..., None, None]
    rgb_from_ycc = _matrices(grid.device).rgb_from_ycc
    out = torch.empty(len(grid), 3, *size, dtype=torch.uint8, device=grid.device)
    for halved, rows in _pieces(halve, out):
        luma, chroma = _split(grid[rows], halved)
        luma, chroma = luma * tables[rows, 0], chroma * tables[rows, 1:]
        luma[:, 0] += shift[rows]
        y = _planes(luma)[:, : size[0], : size[1]].clamp(low[rows], high[rows])  # as libjpeg limits samples
        c = _planes(chroma.flatten(0, 1)).unflatten(0, (-1, 2))
        if halved:
            c = c[:, :, : -(-size[0] // 2), : -(-size[1] // 2)]
            c = F.interpolate(c, scale_factor=2, mode="bilinear", align_corners=False)
        ycc = torch.cat([y[:, None], c[:, :, : size[0], : size[1]]], 1)  # n 3 h w
        pixels = _colours(rgb_from_ycc, ycc)
        if reference is not None:
            pixels += reference[rows] * residual[rows, None, None, None]
        out[rows] = pixels.clamp_(0, 255).round_().to(torch.uint8)
    return out


def _columns(
    settings: Sequence[CodecSettings], device: torch.device, reference: Tensor | None
) -> tuple[Int[Tensor, " b"], list[bool], Bool[Tensor, " b"]]:
    """Quality, whether chroma is halved, whether the residual is coded: one entry per image."""
    residual = [setting.reference is not None for setting in settings]
    if any(residual) and reference is None:
        raise DataError("codec settings with a reference, but no reference image", expected="one per image")
    quality = torch.tensor([setting.quality for setting in settings], device=device)
    halve = [setting.subsampling == "4:2:0" for setting in settings]
    return quality, halve, torch.tensor(residual, device=device)


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


def _size(image: Tensor) -> tuple[int, int]:
    return image.shape[-2], image.shape[-1]


def _colours(matrix: Tensor, image: Tensor) -> Tensor:
    with torch.autocast(image.device.type, enabled=False):
        return (matrix @ image.flatten(2).to(matrix.dtype)).unflatten(2, image.shape[2:])


def _coefficients(image: Tensor, halved: bool, *, integer: bool) -> tuple[Tensor, Tensor]:
    """Luma n 64 gy gx and chroma n 2 64 cy cx of an image n 3 h w.

    Args:
        integer: round wherever libjpeg does, instead of staying linear.
    """
    ycc_from_rgb = _matrices(image.device).ycc_from_rgb
    height, width = _size(image)
    image = image.to(ycc_from_rgb.dtype)
    rows, columns = (8 * cells for cells in grid_size((height, width)))
    # libjpeg extends to the right before it halves chroma, and downwards after
    image = _extend(image, height + height % 2, columns)
    planes = _colours(ycc_from_rgb, image)
    if integer:  # halves upwards in Y, downwards in Cb and Cr: jccolor.c
        planes[:, :1] = (planes[:, :1] + 0.5).floor_()
        planes[:, 1:] = (planes[:, 1:] - 0.5).ceil_()
    luma, chroma = _extend(planes[:, 0], rows, columns), planes[:, 1:]
    if halved:
        chroma = F.avg_pool2d(chroma, 2)
        if integer:  # jcsample.c: the bias alternates so that halves do not all go upwards
            chroma += torch.tensor([0.25, 0.5], device=chroma.device).repeat(chroma.shape[-1] // 2)
            chroma.floor_()
        chroma = _extend(chroma, rows // 2, columns // 2)
    else:
        chroma = _extend(chroma, rows, columns)
    return _blocks(luma, integer), _blocks(chroma.flatten(0, 1), integer).unflatten(0, (-1, 2))


def _extend(image: Tensor, height: int, width: int) -> Tensor:
    """Replicates the last row and column up to a size."""
    down, right = height - image.shape[-2], width - image.shape[-1]
    if right:
        image = torch.cat([image, image[..., -1:].expand(*image.shape[:-1], right)], -1)
    if down:
        image = torch.cat([image, image[..., -1:, :].expand(*image.shape[:-2], down, width)], -2)
    return image


def _blocks(planes: Float[Tensor, "n h w"], integer: bool) -> Float[Tensor, "n 64 gy gx"]:
    """The orthonormal DCT of every 8x8 block; the integer one is a multiple of 1/8."""
    matrices = _matrices(planes.device)
    gy, gx = planes.shape[1] // 8, planes.shape[2] // 8
    pixels = planes.unflatten(2, (gx, 8)).unflatten(1, (gy, 8)).transpose(2, 3)  # n gy gx 8 8
    pixels = pixels.reshape(len(planes), gy * gx, 64).mT
    with torch.autocast(planes.device.type, enabled=False):
        if integer:
            passed = (matrices.dct_rows @ pixels).add_(0.5).floor_()
            coefficients = (matrices.dct_columns @ passed).add_(0.5).floor_().div_(8)
        else:
            coefficients = matrices.dct @ pixels
    return coefficients.unflatten(2, (gy, gx))


def _planes(coefficients: Float[Tensor, "n 64 gy gx"]) -> Float[Tensor, "n h w"]:
    """The inverse of `_blocks`."""
    dct = _matrices(coefficients.device).dct
    n, _, gy, gx = coefficients.shape
    with torch.autocast(coefficients.device.type, enabled=False):
        pixels = coefficients.flatten(2).mT.to(dct.dtype) @ dct  # n (gy gx) 64
    return pixels.view(n, gy, gx, 8, 8).transpose(2, 3).reshape(n, 8 * gy, 8 * gx)


def _merge(luma: Tensor, chroma: Tensor, dtype: torch.dtype) -> Tensor:
    """The grid, in channel order, of luma n 64 gy gx and chroma n 2 64 cy cx."""
    step = luma.shape[2] // chroma.shape[3]
    grid = torch.zeros(len(luma), N_CHANNELS, *luma.shape[2:], dtype=dtype, device=luma.device)
    for low, high in BANDS:
        middle = 2 * low + high  # 3 * low + (high - low)
        grid[:, 3 * low : middle] = luma[:, low:high]
        grid[:, middle : 3 * high, ::step, ::step] = chroma[:, :, low:high].flatten(1, 2)
    return grid


def _split(grid: Tensor, halved: bool) -> tuple[Tensor, Tensor]:
    """The inverse of `_merge`."""
    step = 2 if halved else 1
    luma = torch.cat([grid[:, 3 * low : 2 * low + high] for low, high in BANDS], 1)
    chroma = [
        grid[:, 2 * low + high : 3 * high, ::step, ::step].unflatten(1, (2, high - low))
        for low, high in BANDS
    ]
    return luma, torch.cat(chroma, 2)
