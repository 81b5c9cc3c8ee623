"""Figures of depth maps and flow fields of a data set. Tallies take one record after another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

_VALUES_PER_RECORD = 4096  # percentiles of more take memory and tell the same


@dataclass(frozen=True)
class Depths:
    """What depths there are, over at most 4096 known pixels of each record.

    Attributes:
        records: how many records were read.
        percentiles_m: 1st, 50th and 99th; nan where none is known.
        unknown: share of the pixels without depth.
        wrong: pixels below 0 or not finite, where 0 should say that depth is unknown.
        out_of_range: share of the known pixels outside the task's range; None without a task.
    """

    records: int
    percentiles_m: tuple[float, ...]
    unknown: float
    wrong: int
    out_of_range: float | None


@dataclass
class DepthTally:
    """Measures depth maps; see `Depths`.

    Attributes:
        range_m: the least and the greatest depth that the task tells apart.
    """

    range_m: tuple[float, float] | None = None
    records: int = 0
    values: list[Tensor] = field(default_factory=list)
    pixels: int = 0
    known: int = 0
    wrong: int = 0
    out: int = 0

    def add(self, depth_m: Float[Tensor, "h w"]) -> None:
        """The depth of one record."""
        self.records += 1
        known = depth_m[depth_m.isfinite() & (depth_m > 0)]
        self.pixels += depth_m.numel()
        self.known += len(known)
        self.wrong += int((~depth_m.isfinite() | (depth_m < 0)).sum())
        if self.range_m:
            self.out += int(((known < self.range_m[0]) | (known > self.range_m[1])).sum())
        self.values.append(_some(known, self.records))

    def summary(self) -> Depths:
        """The figures so far."""
        return Depths(
            self.records,
            _percentiles(self.values, 1, 50, 99),
            1 - self.known / max(1, self.pixels),
            self.wrong,
            None if self.range_m is None else self.out / max(1, self.known),
        )


@dataclass(frozen=True)
class Flows:
    """How long flow vectors are, over at most 4096 known pixels of each record.

    Attributes:
        records: how many records were read.
        length_px: 50th and 99th percentile and the greatest of all, in pixels of the images on disk.
        component_px: 99th percentile of the larger component, in pixels of a frame.
        unknown: share of the pixels without flow.
        out_of_range: share of the known pixels with a component beyond the task's greatest, in a frame; None
            without a task.
    """

    records: int
    length_px: tuple[float, ...]
    component_px: float
    unknown: float
    out_of_range: float | None


@dataclass
class FlowTally:
    """Measures flow fields; see `Flows`.

    Attributes:
        size_px: side of a frame.
        greatest_px: the largest component that the task writes, in pixels of a frame.
    """

    size_px: int
    greatest_px: float | None = None
    lengths: list[Tensor] = field(default_factory=list)
    components: list[Tensor] = field(default_factory=list)
    pixels: int = 0
    known: int = 0
    out: int = 0
    longest_px: float = math.nan

    def add(self, flow: Float[Tensor, "2 h w"], valid: Bool[Tensor, "h w"] | None) -> None:
        """The flow of one record, and where it is known; None where it is wherever it is finite."""
        known = flow.isfinite().all(0)
        vectors = flow[:, known if valid is None else known & valid]
        _, height, width = flow.shape
        scale = torch.tensor([[self.size_px / width], [self.size_px / height]])
        component = (vectors * scale).abs().amax(0)
        self.pixels += height * width
        self.known += len(component)
        if self.greatest_px is not None:
            self.out += int((component > self.greatest_px).sum())
        length = vectors.norm(dim=0)
        if len(length):
            self.longest_px = float(np.fmax(self.longest_px, length.max().item()))
        self.lengths.append(_some(length, len(self.lengths)))
        self.components.append(_some(component, len(self.components)))

    def summary(self) -> Flows:
        """The figures so far."""
        return Flows(
            len(self.lengths),
            (*_percentiles(self.lengths, 50, 99), self.longest_px),
            _percentiles(self.components, 99)[0],
            1 - self.known / max(1, self.pixels),
            None if self.greatest_px is None else self.out / max(1, self.known),
        )


def _some(values: Float[Tensor, " n"], seed: int) -> Float[Tensor, " m"]:
    """At most 4096 of the values, the same ones each time."""
    if len(values) <= _VALUES_PER_RECORD:
        return values
    generator = torch.Generator().manual_seed(seed)
    return values[torch.randint(len(values), (_VALUES_PER_RECORD,), generator=generator)]


def _percentiles(values: Sequence[Tensor], *ranks: int) -> tuple[float, ...]:
    every = torch.cat([*values, torch.zeros(0)]).numpy()
    return tuple(np.percentile(every, ranks).tolist() if len(every) else [math.nan] * len(ranks))
