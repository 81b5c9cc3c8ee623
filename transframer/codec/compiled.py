"""The compiled path of the codec: what it can take, and tensors in and out of its kernels.

Where Numba is installed (`pip install transframer[fast]`) and tensors are on the CPU, kernels do what the
PyTorch code beside them does, several times as fast on one thread. Every function here returns None where
that is not so; the caller then goes on in PyTorch. Coefficients are the same bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from transframer.codec.layout import CHANNELS, N_CHANNELS, grid_size, plane_tables
from transframer.frames import CodecSettings

# Coefficients to be quantised are whole numbers, 8 times the orthonormal DCT's, below 2^15: this factor
# carries halves away from zero, as libjpeg rounds, and nothing else over a half.
AWAY_FROM_ZERO = 1 + 2**-17


@cache
def kernels(name: str) -> ModuleType | None:
    """A module of kernels, `encode`, `decode`, `token` or `jpeg`; None where Numba is not installed."""
    try:
        return import_module(f"transframer.codec.{name}_kernels")
    except ImportError:
        return None


@cache
def tables(quality: int) -> np.ndarray:
    """Quantisation steps, 2 x 64, raster order."""
    return plane_tables(torch.tensor([quality]))[0].double().numpy()


def _settings(settings: Sequence[CodecSettings]) -> tuple[np.ndarray, np.ndarray]:
    halved = np.array([setting.subsampling == "4:2:0" for setting in settings])
    return halved, np.stack([tables(setting.quality) for setting in settings])


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


def encode(image: Tensor, settings: Sequence[CodecSettings]) -> Tensor | None:
    """Grids of images b 3 h w, the reference taken off already: see `dct.grid_from_image`."""
    if image.device.type != "cpu" or image.dtype not in (torch.uint8, torch.float32) or not image.numel():
        return None
    if (code := kernels("encode")) is None:
        return None
    halved, steps = _settings(settings)
    level = np.array([0 if setting.reference is not None else 128 for setting in settings], np.float32)
    grid = torch.zeros(
        len(image), N_CHANNELS, *grid_size((image.shape[2], image.shape[3])), dtype=torch.int16
    )
    nothing = torch.empty(0, 3, 0, 0)
    whole = image.dtype == torch.uint8
    pixels = (image, nothing) if whole else (nothing.byte(), image)
    scale = AWAY_FROM_ZERO / 8 / steps
    code.encode(*map(_array, pixels), whole, level, halved, scale, CHANNELS, grid.numpy())
    return grid


def decode(grid: Tensor, settings: Sequence[CodecSettings], size: tuple[int, int]) -> Tensor | None:
    """Images of grids; None also where any was coded against a reference: see `dct.image_from_grid`."""
    if grid.device.type != "cpu" or grid.dtype != torch.int16 or not grid.numel():
        return None
    if any(setting.reference is not None for setting in settings) or grid_size(size) != grid.shape[2:]:
        return None
    if (code := kernels("decode")) is None:
        return None
    image = torch.empty(len(grid), 3, *size, dtype=torch.uint8)
    halved, steps = _settings(settings)
    code.decode(_array(grid), halved, steps, CHANNELS, image.numpy())
    return image


def find_nonzero(grid: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """Channel, position, value and length of the triples of grids: see `tokens.tokens_from_grid`."""
    if grid.device.type != "cpu" or grid.dtype != torch.int16 or not grid.numel() or grid[0, 0].numel() % 4:
        return None
    if (code := kernels("token")) is None:
        return None
    words = np.require(_array(grid.flatten(2)).view(np.uint64), requirements="A")
    length = torch.empty(len(grid), dtype=torch.int64)
    code.count_nonzero(words, length.numpy())
    n = int(length.max())
    columns = torch.empty(3, len(grid) * n + 1, dtype=torch.int64)
    code.find_nonzero(words, n, *columns.numpy())
    channel, position, value = columns[:, :-1].unflatten(1, (len(grid), n))
    return channel, position, value, length


def scatter(channel: Tensor, position: Tensor, value: Tensor, length: Tensor, grid: Tensor) -> bool:
    """Adds triples to grids of zeros; False where it is left undone: see `tokens.grid_from_tokens`."""
    columns = (channel, position, value, length)
    if any(column.device.type != "cpu" or column.dtype != torch.int64 for column in columns):
        return False
    if (code := kernels("token")) is None:
        return False
    if not code.scatter(*(_array(column) for column in columns), grid.flatten(2).numpy()):
        grid.zero_()  # a triple outside the grid
        return False
    return True
