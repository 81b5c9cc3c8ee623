"""The common part of data sets of photographs with depth."""

from __future__ import annotations

import abc
from collections.abc import Collection
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from transframer.data.datasets.stills import StillDataset
from transframer.errors import DataError

_NEAREST_M = 1e-3  # below it, published evaluations take a depth for unknown


class DepthStills(StillDataset):
    """One photograph for each record, with its depth in metres, 0 where unknown."""

    @abc.abstractmethod
    def depth_m(self, index: int) -> Float[Tensor, "h w"]:
        """The depth of a record in metres, 0 where unknown."""

    @property
    def labels(self) -> frozenset[str]:
        """Depth."""
        return frozenset({"depth_m"})

    def label_fields(self, index: int, keys: Collection[str]) -> dict[str, Any]:
        """See `StillDataset.label_fields`."""
        return {"depth_m": self.depth_m(index)}

    def record(self, index: int, keys: Collection[str]) -> dict[str, Any]:
        """See `Dataset.record`."""
        record = super().record(index, keys)
        height, width = record["images"].shape[2:]
        if "depth_m" in record and record["depth_m"].shape != (height, width):
            found_height, found_width = record["depth_m"].shape
            raise DataError(
                f"depth of {found_width} x {found_height} pixels",
                file=self.files(index)[-1],
                expected=f"{width} x {height}, as the photograph",
            )
        return record


def judged(record: dict[str, Any], rows: slice, columns: slice, cap_m: float) -> dict[str, Any]:
    """The record with unknown depth (0) outside a window, up to 1 mm, and from the cap on."""
    if "depth_m" not in record:
        return record
    depth = record["depth_m"]
    inside = torch.zeros_like(depth, dtype=torch.bool)
    inside[rows, columns] = True
    return {**record, "depth_m": depth * (inside & (depth > _NEAREST_M) & (depth < cap_m))}
