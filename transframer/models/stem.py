"""Convolutions from pixels to the block grid, finer than one cell per block."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.layers import ScaledStdConv2d
from timm.models.nfnet import _nonlin_gamma
from torch import Tensor, nn

from transframer.models.batch import Batch
from transframer.models.motion import (
    TimedPairs,
    averaged,
    correlated,
    mean_displacement,
    timed_pairs,
)

_SHARPNESS = 4.0  # what a cosine of 1 counts
_SOFTMAX_SHARPNESS = 16.0  # the same in the softmax over displacements, at the start
norm_free_conv = partial(ScaledStdConv2d, gamma=_nonlin_gamma["silu"], eps=1e-5)


class PixelStem(nn.Module):
    """From the pixels of context frames to features of their cells and of the target slots' cells.

    The target slot has no pixels yet: it receives the context frames' features at half and at a quarter of
    the resolution, summed with weights that each frame's annotation gives, so that it starts from an image
    aligned with its own cells, and time annotations can make it a difference of frames.

    Args:
        widths: channels at half and at a quarter of the resolution.
        width: channels of the cells, and of the annotations.
        finer: give the target slots' finer features as well.
    """

    def __init__(self, widths: Sequence[int], width: int, finer: bool) -> None:
        super().__init__()
        half, quarter = widths
        self.to_half = nn.Conv2d(3, half, 4, 2, 1)
        self.to_quarter = norm_free_conv(half, quarter, 3, 2, padding=1)
        self.weigh_half = nn.Linear(width, 2 * half) if finer else None
        self.weigh = nn.Linear(width, 2 * quarter)
        self.motion = MotionCosts(quarter)
        self.fused = nn.Sequential(
            norm_free_conv(quarter, quarter, 3), nn.SiLU(), norm_free_conv(quarter, quarter, 3), nn.SiLU()
        )
        self.coarse = norm_free_conv(quarter, width, 3, 2, padding=1)

    def forward(
        self, batch: Batch, annotation: Float[Tensor, "f w"]
    ) -> tuple[Float[Tensor, "fb w gy gx"], tuple[Tensor, ...]]:
        """Features of context frames (f) and target slots (b).

        Returns:
            Of all cells, (f + b) x width x gy x gx; and, where `finer`, of the target slots at a quarter of
            the resolution and at half of it.
        """
        images = (batch.images.to(annotation.dtype) - 127.5) / 64.0
        half = F.silu(self.to_half(images.contiguous(memory_format=torch.channels_last)))
        quarter = F.silu(self.to_quarter(half))
        fused = _summed(quarter, self.weigh(annotation), batch)
        pairs = timed_pairs(batch)
        if len(pairs.rows):
            fused = fused.index_add(0, pairs.rows, self.motion(quarter, pairs).to(fused.dtype))
        fused = fused.contiguous(memory_format=torch.channels_last)
        fused = fused + self.fused(fused)
        cells = self.coarse(torch.cat([quarter, fused]))
        if self.weigh_half is None:
            return cells, ()
        return cells, (fused, _summed(half, self.weigh_half(annotation), batch))


def _summed(x: Tensor, weights: Tensor, batch: Batch) -> Tensor:
    """The weighted features of each episode's context frames, summed and divided by their number's root."""
    scale, shift = weights[..., None, None].chunk(2, 1)
    weighted = x * (1 + scale) + shift
    count = x.new_zeros(len(batch)).index_add_(0, batch.episode, x.new_ones(len(batch.episode)))
    fused = x.new_zeros(len(batch), *x.shape[1:]).index_add_(0, batch.episode, weighted.to(x.dtype))
    fused = fused.contiguous(memory_format=torch.channels_last)
    return fused / count[:, None, None, None].sqrt()


class MotionCosts(nn.Module):
    """How alike the features of two frames are under each displacement, and under which they are most alike.

    A cost volume as of `transframer.models.motion`, of learned features instead of colours (FlowNetC, arXiv
    1504.06852); and the mean displacement under its softmax, over windows of several sides, which its
    convolution would be long in finding.

    Args:
        width: channels of x.
        features: channels that are compared.
    """

    cells = 16  # of the search's grid along the short side of the image
    most_cells = 128  # along the long side, of which the costs of the sampling are the square
    reach = 4  # cells that the search looks to each side
    windows = (1, 3, 5, 9)  # sides of the squares of cells that have to match

    def __init__(self, width: int, features: int = 32) -> None:
        super().__init__()
        self.features = nn.Conv2d(width, features, 1)
        # Neither convolution begins as nothing: what reads them does, and would leave no gradient.
        self.out = nn.Conv2d((2 * self.reach + 1) ** 2, width, 1)
        self.found = nn.Conv2d(3 * len(self.windows), width, 1, bias=False)
        self.log_sharpness = nn.Parameter(torch.full((len(self.windows),), math.log(_SOFTMAX_SHARPNESS)))

    def forward(self, x: Float[Tensor, "f c h w"], pairs: TimedPairs) -> Float[Tensor, "n c h w"]:
        """Features of the motion between the frames of each pair, at the place of x."""
        size = x.shape[2:]
        cell = max(1, min(size) // self.cells, math.ceil(max(size) / self.most_cells))
        rows, columns = (max(1, side // cell) for side in size)
        dtype = torch.promote_types(x.dtype, torch.float32)  # half precision has no pixel exact beyond 256
        seen_as, x = x.dtype, self.features(x).to(dtype)
        if cell > 1:
            x = F.interpolate(x, (rows, columns), mode="area")
        x = F.normalize(F.instance_norm(x), dim=1)  # what is everywhere tells no places apart
        line = torch.arange(-self.reach, self.reach + 1, device=x.device, dtype=dtype)
        alike = correlated(x[pairs.early], x[pairs.late], pairs.early_at, pairs.late_at, line)
        found = []
        for window, sharpness in zip(self.windows, self.log_sharpness.exp(), strict=True):
            mean = averaged(alike, window)
            found += [mean_displacement(mean * sharpness, line), mean.amax(1, keepdim=True)]
        motion = self.out((alike * _SHARPNESS).to(seen_as)) + self.found(torch.cat(found, 1).to(seen_as))
        return motion if cell == 1 else F.interpolate(motion, size, mode="bilinear", align_corners=False)
