"""Grids straight from JPEG files: their coefficients are read, requantised and laid out, no pixels decoded.

Those of a file in its own quantisation are also the quickest way to its pixels (`image_from_jpeg`).

Baseline files whose chroma is sampled as the settings ask are read by a compiled kernel where Numba is
installed; all others by pyjpegio (`pip install transframer[jpeg]`), see `jpeg_planes`. Coefficients in the
quantisation tables of the settings are the file's own; others are divided and rounded anew. Where an image
does not fill its last blocks, they are as the file has them: encoders other than libjpeg may not have
repeated the last pixel.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from transframer.codec import compiled
from transframer.codec.jpeg_header import Header, read_header
from transframer.codec.jpeg_planes import fill_padding, grid_by_planes
from transframer.codec.layout import CHANNELS, N_CHANNELS, ZIGZAG, grid_size
from transframer.errors import DataError
from transframer.frames import CodecSettings, Subsampling

_RASTER = np.array([8 * row + column for row, column in ZIGZAG])
_CHANNELS = np.ascontiguousarray(CHANNELS[:, _RASTER])  # of each plane and zigzag index
_MAY_TURN = (b"Exif\0\0", b"http://ns.adobe.com/xap/")  # how the data begin that tell which side is up
_FOUND = {-1: "a truncated JPEG file", -2: "a damaged JPEG file", -3: "a damaged JPEG file, with stray data"}


def jpeg_size(source: bytes | str | os.PathLike) -> tuple[int, int]:
    """Height and width of the image in a JPEG file, pixels, from its header; an EXIF tag that turns it is
    left aside.

    Args:
        source: the file's contents or its path.

    Raises:
        DataError: the file is missing, or not a JPEG file that `grid_from_jpeg` can read.
    """
    return read_header(*_read(source))[0].size


def grid_from_jpeg(source: bytes | str | os.PathLike, settings: CodecSettings) -> Int[Tensor, "192 gy gx"]:
    """Codes the image in a JPEG file: the grid that `grid_from_image` would give, without decoding pixels.

    Grey files and files of YCbCr in 4:4:4, 4:2:2, 4:4:0 and 4:2:0 are read, baseline or progressive. Chroma
    is brought to the settings' sampling: halved by averaging pairs of pixels, doubled by the triangle filter.
    An EXIF tag that turns the image is left aside: where there may be one, `load_image` is the way.

    Args:
        source: the file's contents or its path.
        settings: quality and subsampling of the grid; no reference.

    Returns:
        int16, of whole macroblocks; for the size in pixels see `jpeg_size`.

    Raises:
        DataError: the file is missing, truncated, damaged, or of another kind (CMYK, RGB, lossless); or the
            settings have a reference; or what is needed to read the file is not installed.
    """
    if settings.reference is not None:
        raise DataError("codec settings with a reference", expected="none: a JPEG file holds no residual")
    data, name = _read(source)
    header, scan = read_header(data, name)
    kernels = compiled.kernels("jpeg")
    plan = kernels and _plan(kernels, header, settings.quality, settings.subsampling)
    if kernels is None or plan is None:
        return grid_by_planes(data, name, header, settings)
    grid = torch.zeros(N_CHANNELS, *grid_size(header.size), dtype=torch.int16)
    end = kernels.decode_scan(np.frombuffer(data, np.uint8), scan, *plan, grid.numpy())
    if end < 0:
        raise _not_whole(end, name)
    return fill_padding(grid, header.size, settings)


def image_from_jpeg(data: bytes, name: str, max_pixels: int) -> UInt8[Tensor, "3 h w"] | None:
    """Decodes a JPEG file by kernels: the RGB that libjpeg gives, for small images several times as fast.

    Args:
        data: the file.
        name: of the file, for errors.
        max_pixels: the cap on width x height, checked before decoding.

    Returns:
        None where it is not done, and another library may read it or say what is wrong with it: no Numba; a
        file that is not baseline in 4:2:0, 4:4:4 or grey; one with EXIF or XMP data, which may turn it; one
        that is too large, or damaged.

    Raises:
        DataError: its data end too early, which libjpeg would fill up in grey, silently.
    """
    decoder, kernels = compiled.kernels("decode"), compiled.kernels("jpeg")
    if decoder is None or kernels is None:
        return None
    try:
        header, scan = read_header(data, name)
    except DataError:
        return None
    (height, width), chroma = header.size, {component[2] for component in header.components[1:]}
    if height * width > max_pixels or len(chroma) > 1 or any(mark in data[:scan] for mark in _MAY_TURN):
        return None
    subsampling: Subsampling = "4:2:0" if header.components[0][:2] == (2, 2) else "4:4:4"
    if subsampling == "4:2:0" and width <= 4:  # libjpeg repeats so narrow chroma, and filters all other
        return None
    plan = _plan(kernels, header, None, subsampling)
    if plan is None:
        return None
    grid = np.zeros((1, N_CHANNELS, *grid_size(header.size)), np.int16)
    end = kernels.decode_scan(np.frombuffer(data, np.uint8), scan, *plan, grid[0])
    if end == kernels.TRUNCATED:
        raise _not_whole(end, name)
    if end < 0:
        return None
    image = np.empty((1, 3, height, width), np.uint8)
    decoder.decode(grid, np.array([subsampling == "4:2:0"]), _own_tables(header)[None], CHANNELS, image)
    return torch.from_numpy(image[0])


def _not_whole(end: int, name: str) -> DataError:
    return DataError(_FOUND[end], file=name, expected="all of the image", next_step="replace the file")


def _own_tables(header: Header) -> np.ndarray:
    """A file's steps of luma and of chroma, 2 x 64, raster order."""
    steps = np.zeros((2, 64))
    luma, chroma = header.components[0], header.components[-1]
    steps[:, _RASTER] = header.tables[[luma[2], chroma[2]]]
    return steps


def _read(source: bytes | str | os.PathLike) -> tuple[bytes, str]:
    if isinstance(source, bytes):
        return source, "JPEG data"
    try:
        return Path(source).read_bytes(), os.fspath(source)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", file=source, expected="a JPEG file") from None


@lru_cache(256)
def _plan(
    kernels: ModuleType, header: Header, quality: int | None, subsampling: Subsampling
) -> tuple[Any, ...] | None:
    """What `decode_scan` needs besides the data of a baseline file sampled as asked; None of any other.

    Args:
        quality: of the grid; None leaves the coefficients in the file's own steps.
    """
    factors = [component[:2] for component in header.components]
    step = 2 if subsampling == "4:2:0" else 1
    if not header.baseline or (len(factors) > 1 and factors[0] != (step, step)):
        return None
    if len(factors) == 1:  # then the units are blocks, whatever the header says
        factors, side = [(1, 1)], 8
    else:
        side = 8 * step
    components = [
        (*factor, *component[3:], step if plane else 1)
        for plane, (factor, component) in enumerate(zip(factors, header.components, strict=True))
    ]
    ours = (_own_tables(header) if quality is None else compiled.tables(quality))[:, _RASTER]
    theirs = np.stack([header.tables[component[2]] for component in header.components])
    scale = theirs / ours[[min(plane, 1) for plane in range(len(theirs))]]
    units = [-(-pixels // side) for pixels in header.size]
    symbols = header.symbols.reshape(8, 256)
    fast, long, are_codes = kernels.code_tables(header.huffman.reshape(8, 16), symbols)
    if not are_codes:
        return None  # pyjpegio will say so
    scale *= compiled.AWAY_FROM_ZERO
    return fast, long, symbols, np.array(components), header.restart, np.array(units), scale, _CHANNELS
