"""Optical flow in Middlebury's `.flo`: "PIEH", int32 width and height, then float32 (u, v) by row."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from transframer.data.formats.atomic import whole_file
from transframer.errors import DataError

_MAGIC = b"PIEH"  # the float 202021.25 in little-endian bytes
_HEADER = struct.Struct("<4sii")


def read_flo(path: str | os.PathLike[str]) -> Float[Tensor, "2 h w"]:
    """Reads a flow field, in pixels (x, y); Middlebury marks unknown flow by values above 1e9.

    Raises:
        DataError: the file is missing, not a `.flo` file, or its size differs from what its header says.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            header = file.read(_HEADER.size)
            if len(header) < _HEADER.size or not header.startswith(_MAGIC):
                raise DataError("not a .flo file", file=path, expected='a file that starts with "PIEH"')
            _, width, height = _HEADER.unpack(header)
            # The size is checked before anything is allocated: a damaged header may ask for terabytes.
            if width < 1 or height < 1 or size != _HEADER.size + 8 * width * height:
                raise DataError(
                    f"{size} bytes with a header of {width} x {height} pixels",
                    file=path,
                    expected=f"{_HEADER.size + 8 * width * height} bytes" if min(width, height) > 0 else None,
                    next_step="the file is truncated or damaged: copy it again",
                )
            values = np.frombuffer(file.read(), dtype="<f4").reshape(height, width, 2)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", file=path) from error
    return torch.from_numpy(values.transpose(2, 0, 1).astype(np.float32))


def write_flo(path: str | os.PathLike[str], flow: Float[Tensor, "2 h w"]) -> None:
    """Writes a flow field, in pixels (x, y).

    Raises:
        DataError: the file cannot be written.
    """
    _, height, width = flow.shape
    values = flow.detach().cpu().permute(1, 2, 0).contiguous().numpy().astype("<f4")
    with whole_file(path) as temporary:
        temporary.write_bytes(_HEADER.pack(_MAGIC, width, height) + values.tobytes())
