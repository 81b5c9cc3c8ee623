"""A few records of a data set, for what a handful of labels gives: the same ones on any machine."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from transframer.data.dataset import VALIDATION_SHARE, Dataset
from transframer.errors import ConfigError

OPTION = "train_samples"


class Subset(Dataset):
    """Some of the records of a split, in their order; of the same data a smaller one lies in any larger one.

    Which records is decided by a hash of their places in the split, and by nothing that they hold: classes
    are as frequent as chance has it. Of sequences, a record is a window.

    Args:
        whole: all records of the split.
        count: how many to keep.

    Raises:
        ConfigError: fewer records than that; a stream, in which one cannot jump.
    """

    def __init__(self, whole: Dataset, count: int) -> None:
        super().__init__(whole.root, whole.split, whole.clip)
        if whole.shuffle_window is not None:
            raise ConfigError(
                "a stream is read in its order, and a few records of it are not",
                file=whole.root,
                field=OPTION,
                next_step="read the data set from disk: without the option streaming",
            )
        if count > len(whole):
            raise ConfigError(
                f"{count} of {len(whole)} records of the {whole.split} part",
                file=whole.root,
                field=OPTION,
                expected=f"at most {len(whole)}",
            )
        self._whole = whole
        self._places = np.array(sorted(heapq.nsmallest(count, range(len(whole)), key=_rank)), dtype=np.int64)
        # Of the object here, since it stands for one of any format.
        self.name, self.protocol = whole.name, whole.protocol  # type: ignore[misc]

    @property
    def fields(self) -> frozenset[str]:
        """Those of the whole."""
        return self._whole.fields

    @property
    def classes(self) -> Mapping[str, tuple[str, ...]]:
        """Those of the whole, also where no record of a class is left."""
        return self._whole.classes

    def __len__(self) -> int:
        return len(self._places)

    def record(self, index: int, keys: Collection[str]) -> dict[str, Any]:
        """See `Dataset.record`."""
        return self._whole.record(int(self._places[index]), keys)

    def files(self, index: int) -> Sequence[Path]:
        """See `Dataset.files`."""
        return self._whole.files(int(self._places[index]))

    def evaluation(self, record: dict[str, Any]) -> dict[str, Any]:
        """By the protocol of the whole."""
        return self._whole.evaluation(record)


def few_labels(whole: Dataset, train_samples: Any) -> Dataset:
    """A split of a data set of which only so many training records are to be used.

    The training part keeps that many; validation a tenth of the number, since whoever has few labels holds
    out few (at least one, and no more than there are); test all.

    Args:
        train_samples: as the user wrote it.

    Raises:
        ConfigError: not a number of at least 1; as of `Subset`.
    """
    if type(train_samples) is not int or train_samples < 1:
        raise ConfigError(repr(train_samples), field=OPTION, expected="a whole number of at least 1")
    if whole.split == "test":
        return whole
    if whole.split == "validation":
        return Subset(whole, min(max(1, round(train_samples * VALIDATION_SHARE)), len(whole)))
    return Subset(whole, train_samples)


def _rank(index: int) -> bytes:
    return hashlib.blake2b(f"{OPTION} {index}".encode(), digest_size=8).digest()
