"""Portable float maps (`.pfm`): disparity and depth as Middlebury and SceneFlow store them."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from transframer.data.formats.atomic import whole_file
from transframer.errors import DataError

# "Pf" (grey) or "PF" (colour), width, height, and a scale whose sign gives the byte order.
_HEADER = re.compile(rb"(P[fF])\s+(\d{1,9})\s+(\d{1,9})\s+([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s")


def read_pfm(path: str | os.PathLike[str]) -> Float[Tensor, "c h w"]:
    """Reads a float map, top row first (the file has the bottom row first), c = 1 or 3.

    Values are as stored: infinity is Middlebury's mark of an unknown disparity.

    Raises:
        DataError: the file is missing, not a `.pfm` file, or its size differs from what its header says.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", file=path) from error
    header = _HEADER.match(data)
    if header is None:
        raise DataError("not a .pfm file", file=path, expected='a header such as "Pf 640 480 -1.0"')
    channels = 3 if header[1] == b"PF" else 1
    width, height, scale = int(header[2]), int(header[3]), float(header[4])
    expected = 4 * channels * width * height
    found = len(data) - header.end()
    if found != expected or expected == 0:
        raise DataError(
            f"{found} bytes of pixels for {width} x {height} x {channels}",
            file=path,
            expected=f"{expected} bytes" if expected else "at least one pixel",
            next_step="the file is truncated or damaged: copy it again",
        )
    order = "<f4" if scale < 0 else ">f4"
    values = np.frombuffer(data, dtype=order, offset=header.end()).reshape(height, width, channels)
    return torch.from_numpy(values[::-1].transpose(2, 0, 1).astype(np.float32))


def write_pfm(path: str | os.PathLike[str], values: Float[Tensor, "c h w"]) -> None:
    """Writes a float map of 1 or 3 channels, little-endian.

    Raises:
        DataError: the number of channels is not 1 or 3, or the file cannot be written.
    """
    channels, height, width = values.shape
    if channels not in (1, 3):
        raise DataError(f"{channels} channels", file=path, expected="1 or 3")
    rows = values.detach().cpu().permute(1, 2, 0).flip(0).contiguous().numpy().astype("<f4")
    kind = "PF" if channels == 3 else "Pf"
    with whole_file(path) as temporary:
        temporary.write_bytes(f"{kind}\n{width} {height}\n-1.0\n".encode() + rows.tobytes())
