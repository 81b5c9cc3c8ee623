"""Which pairs of channel and position a sequence may go on with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor

from transframer.codec import N_CHANNELS, legal_mask
from transframer.models.batch import Batch


def later_pairs(channel: Tensor, position: Tensor, grid: tuple[int, int]) -> Bool[Tensor, "b 192 p"]:
    """The pairs that come after these in the total order."""
    cells = grid[0] * grid[1]
    order = torch.arange(N_CHANNELS * cells, device=channel.device).view(N_CHANNELS, cells)
    return order > (channel * cells + position)[:, None, None]


def legal_cells(batch: Batch, grid: tuple[int, int]) -> tuple[Bool[Tensor, "b 193 p"], Int[Tensor, "b 193"]]:
    """The cells each channel has, and the last of them; the stop may follow itself, which is padding."""
    positions = grid[0] * grid[1]
    device = batch.images.device
    kinds = [settings.subsampling for settings in batch.codec]
    known = sorted(set(kinds))
    legal = torch.stack([F.pad(legal_mask(grid, kind), (0, 0, 0, 1)) for kind in known]).to(device)
    order = torch.arange(1, positions + 1, device=device)
    last = (legal * order).amax(-1) - 1
    last[:, N_CHANNELS] = positions
    pick = torch.tensor([known.index(kind) for kind in kinds], device=device)
    return legal[pick], last[pick]
