"""The common part of data sets whose records hold one image and its labels."""

from __future__ import annotations

import abc
from collections.abc import Collection
from typing import Any

from jaxtyping import UInt8
from torch import Tensor

from transframer.data.dataset import Dataset


class StillDataset(Dataset):
    """One image for each record; the image is also its own target where the clip asks for one."""

    @property
    @abc.abstractmethod
    def labels(self) -> frozenset[str]:
        """The keys of the vocabulary that records have beside `images` and `target`."""

    @abc.abstractmethod
    def image(self, index: int) -> UInt8[Tensor, "3 h w"]:
        """The image of a record, RGB, 0-255."""

    @abc.abstractmethod
    def label_fields(self, index: int, keys: Collection[str]) -> dict[str, Any]:
        """Those of the labels asked for that the record has; `keys` is never empty."""

    @property
    def fields(self) -> frozenset[str]:
        """The image, the labels, and the image again as a target where the clip has one."""
        return self.labels | {"images"} | ({"target"} if self.clip.asks_for_its_image else set())

    def record(self, index: int, keys: Collection[str]) -> dict[str, Any]:
        """See `Dataset.record`."""
        image = self.image(index)
        record: dict[str, Any] = {"images": image[None]}
        if "target" in keys and self.clip.asks_for_its_image:
            record["target"] = image
        wanted = self.labels.intersection(keys)
        if wanted:
            record |= self.label_fields(index, wanted)
        return record
