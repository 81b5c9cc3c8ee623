"""A data set without files, whose records say their own number, and some of which cannot be read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NotRequired, TypedDict

import torch

from transframer.data.dataset import Dataset
from transframer.errors import DataError


class ToySample(TypedDict):
    images: torch.Tensor
    label: NotRequired[int]
    times: NotRequired[torch.Tensor]


class Numbers(Dataset):
    """Record i is grey level i of 16 x 16 pixels with label i; those in `bad` raise."""

    name: ClassVar[str] = "numbers"
    summary: ClassVar[str] = "numbers"

    def __init__(
        self, root="numbers", split="train", clip=None, n: int = 10, bad: Sequence[int] = ()
    ) -> None:
        super().__init__(root, split, clip)
        self.n, self.broken, self.error = n, set(bad), DataError("truncated", file="a.png")
        self.asked: list[int] = []

    @property
    def fields(self):
        return frozenset({"images", "label"})

    @property
    def classes(self):
        return {"label": tuple(map(str, range(self.n)))}

    def __len__(self):
        return self.n

    def record(self, index, keys) -> dict[str, Any]:
        self.asked.append(index)
        if index in self.broken:
            raise self.error
        record: dict[str, Any] = {"images": torch.full((1, 3, 16, 16), index % 256, dtype=torch.uint8)}
        return record | ({"label": index} if "label" in keys else {})

    def files(self, index):
        return [Path(f"{index}.png")]
