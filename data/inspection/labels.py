"""Figures of classes and boxes of a data set. Tallies take one record after another."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

UNLABELLED = 255


@dataclass(frozen=True)
class Classes:
    """How often each class occurs.

    Attributes:
        key: "label", "mask", "box_labels" or "instance_labels".
        names: of the classes; empty where the data set names none.
        records: how many records were read.
        every_record: whether these are all of the split.
        counts: pixels (mask), boxes, instances or records by class id; as many as names, or as ids found.
        records_with: records that have the class, by class id.
        wrong: ids that are no class, and how often each occurs.
        unlabelled: the share of the pixels that are 255, and of records without a label.
    """

    key: str
    names: tuple[str, ...]
    records: int
    every_record: bool
    counts: tuple[int, ...]
    records_with: tuple[int, ...]
    wrong: dict[int, int]
    unlabelled: float

    @property
    def empty(self) -> list[str]:
        """The classes that do not occur."""
        return [self.name(place) for place, count in enumerate(self.counts) if not count]

    @property
    def imbalance(self) -> float:
        """The most frequent class over the least frequent that occurs; nan where none does."""
        present = [count for count in self.counts if count]
        return max(present) / min(present) if present else math.nan

    def name(self, place: int) -> str:
        """Of a class by its id."""
        return self.names[place] if place < len(self.names) else f"class {place}"


@dataclass
class ClassTally:
    """Counts class ids; see `Classes`."""

    key: str
    names: Sequence[str] = ()
    records: int = 0
    values: int = 0
    unlabelled: int = 0
    records_without: int = 0
    counts: Counter[int] = field(default_factory=Counter)
    records_with: Counter[int] = field(default_factory=Counter)

    def add(self, ids: Int[Tensor, "*n"] | int | None) -> None:
        """The ids of one record; None where it has no label."""
        self.records += 1
        if ids is None:
            self.records_without += 1
            return
        found, counts = torch.as_tensor(ids).unique(return_counts=True)
        self.values += int(counts.sum())
        for value, count in zip(found.tolist(), counts.tolist(), strict=True):
            if value == UNLABELLED and self.key == "mask":
                self.unlabelled += count
            else:
                self.counts[value] += count
                self.records_with[value] += 1

    def summary(self, every_record: bool) -> Classes:
        """The figures so far."""
        highest = max((place for place in self.counts if place >= 0), default=-1)
        known = len(self.names) or highest + 1
        share = self.unlabelled / self.values if self.values else 0.0
        without = self.records_without / max(1, self.records)
        return Classes(
            self.key,
            tuple(self.names),
            self.records,
            every_record,
            tuple(self.counts[place] for place in range(known)),
            tuple(self.records_with[place] for place in range(known)),
            {value: n for value, n in sorted(self.counts.items()) if not 0 <= value < known},
            without + (1 - without) * share,
        )


@dataclass(frozen=True)
class Boxes:
    """How many boxes images have, and how large they are.

    Attributes:
        records: how many records were read.
        every_record: whether these are all of the split.
        boxes: in all.
        per_image: the fewest, the median and the most in one record.
        short_side_px: the smallest, median and largest short side, in pixels of the image on disk.
        outside: boxes that leave their image.
        flat: boxes without area.
        vanishing: boxes narrower or lower than a pixel in a frame.
        size_px_needed: side of the frames in which 99 % of the boxes have a pixel; nan without boxes.
    """

    records: int
    every_record: bool
    boxes: int
    per_image: tuple[float, float, float]
    short_side_px: tuple[float, float, float]
    outside: int
    flat: int
    vanishing: int
    size_px_needed: float


@dataclass
class BoxTally:
    """Counts and measures boxes; see `Boxes`."""

    size_px: int
    per_image: list[int] = field(default_factory=list)
    short_sides: list[Tensor] = field(default_factory=list)
    shares: list[Tensor] = field(default_factory=list)
    outside: int = 0
    flat: int = 0

    def add(self, boxes: Float[Tensor, "n 4"], image: tuple[int, int] | None) -> None:
        """The boxes of one record.

        Args:
            image: its width and height, without which a box's share of the image is not known.
        """
        self.per_image.append(len(boxes))
        extent = boxes[:, 2:] - boxes[:, :2]
        whole = (extent > 0).all(1)
        self.flat += int((~whole).sum())
        self.short_sides.append(extent[whole].amin(1))
        if image is not None:
            sides = torch.tensor(image)
            self.outside += int(((boxes[:, :2] < -0.5) | (boxes[:, 2:] > sides + 0.5)).any(1).sum())
            self.shares.append((extent[whole] / sides).amin(1))

    def summary(self, every_record: bool) -> Boxes:
        """The figures so far."""
        shares = torch.cat([*self.shares, torch.zeros(0)])
        return Boxes(
            len(self.per_image),
            every_record,
            sum(self.per_image),
            _three(torch.tensor(self.per_image).float()),
            _three(torch.cat([*self.short_sides, torch.zeros(0)])),
            self.outside,
            self.flat,
            int((shares * self.size_px < 1).sum()),
            1 / np.quantile(shares.numpy(), 0.01, method="lower").item() if len(shares) else math.nan,
        )


def _three(values: Float[Tensor, " n"]) -> tuple[float, float, float]:
    """Smallest, median, largest; nan where there are none."""
    if not len(values):
        return math.nan, math.nan, math.nan
    return values.min().item(), np.median(values.numpy()).item(), values.max().item()
