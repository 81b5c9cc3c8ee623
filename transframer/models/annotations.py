"""Annotations as vectors: kind and task by embedding, time by Fourier features, camera by ray maps."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from transframer.models.batch import Annotations

SPARE_NAMES = 16  # room in an embedding table for names that a later fine-tuning adds


def fourier_features(x: Tensor, n_frequencies: int, largest_period: float) -> Tensor:
    """Sines and cosines of x at periods largest_period / 2**k, k = 0 .. n_frequencies - 1.

    Args:
        x: any shape, floating.

    Returns:
        The shape of x with 2 * n_frequencies appended.
    """
    frequencies = 2 * math.pi / largest_period * 2.0 ** torch.arange(n_frequencies, device=x.device)
    angles = x[..., None] * frequencies.to(x.dtype)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


TIME_FEATURES = 21


def time_features(time: Tensor) -> Tensor:
    """A time or a difference of times in seconds or frames, and its waves of periods from 64 down to 1/8.

    Returns:
        The shape of time with TIME_FEATURES appended.
    """
    return torch.cat([time[..., None], fourier_features(time, TIME_FEATURES // 2, 64.0)], -1)


class AxialPositions(nn.Module):
    """One vector per cell of a grid of any size: Fourier features of row and column, each through a layer."""

    n_frequencies = 8
    largest_period = 256.0  # cells: a row of 2,048 pixels

    def __init__(self, width: int) -> None:
        super().__init__()
        self.row = nn.Linear(2 * self.n_frequencies, width)
        self.column = nn.Linear(2 * self.n_frequencies, width, bias=False)

    def forward(self, grid: tuple[int, int], device: torch.device) -> Tensor:
        """Positions of a (gy, gx) grid, gy*gx x width in raster order."""
        dtype = self.row.weight.dtype
        rows, columns = (
            fourier_features(
                torch.arange(n, device=device, dtype=dtype), self.n_frequencies, self.largest_period
            )
            for n in grid
        )
        return (self.row(rows)[:, None] + self.column(columns)[None]).flatten(0, 1)


class AnnotationEmbedding(nn.Module):
    """Embeds frame annotations: one vector per frame, and a map where a camera is known."""

    ray_frequencies = 5
    ray_period = 32.0  # metres; the shortest period is 2

    def __init__(self, width: int, n_kinds: int, n_tasks: int) -> None:
        super().__init__()
        self.kind = nn.Embedding(n_kinds + SPARE_NAMES, width)
        self.task = nn.Embedding(n_tasks + SPARE_NAMES, width)
        self.time = nn.Linear(TIME_FEATURES, width)
        self.reference = nn.Linear(1, width)
        self.rays = nn.Conv2d(6 + 6 * 2 * self.ray_frequencies, width, 1)

    def vector(self, annotations: Annotations, task: Tensor) -> Tensor:
        """Kind, task, time and reference weight of f frames, f x width."""
        dtype = self.kind.weight.dtype
        time = annotations.time.to(dtype)
        return (
            self.kind(annotations.kind)
            + self.task(task)
            + self.time(time_features(time)) * annotations.has_time[:, None]
            + self.reference(annotations.reference[:, None].to(dtype))
        )

    def map(self, annotations: Annotations) -> Tensor:
        """Rays of f frames, f x width x gy x gx; zero where a frame has no camera."""
        rays = annotations.rays.to(self.rays.weight.dtype)
        waves = fourier_features(rays, self.ray_frequencies, self.ray_period)  # f 6 gy gx 2k
        waves = waves.permute(0, 1, 4, 2, 3).flatten(1, 2)
        return self.rays(torch.cat([rays, waves], 1)) * annotations.has_camera[:, None, None, None]
