"""The rows of a Hugging Face data set: opened, cut into splits, read at once or as a stream."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from transframer.data.datasets.huggingface_columns import is_image
from transframer.errors import DataError, TransframerError

WINDOW = 256  # how many records of a stream are kept, so that they may be shuffled
_BUILDERS = {".parquet": "parquet", ".arrow": "arrow", ".csv": "csv", ".json": "json", ".jsonl": "json"}
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


class Stream:
    """Records of a stream by number: cheap where numbers rise, from the start again where they fall far."""

    def __init__(self, rows: Any, numbers: np.ndarray, name: str) -> None:
        self._source, self._numbers, self._name = rows, numbers, name
        self._reset()

    def _reset(self) -> None:
        self._records: Iterator[dict[str, Any]] | None = None
        self._next = 0
        self._kept: dict[int, dict[str, Any]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"_source": self._source, "_numbers": self._numbers, "_name": self._name}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._reset()

    def _of_the_split(self) -> Iterator[dict[str, Any]]:
        found = 0
        for number, row in enumerate(self._source):
            if found < len(self._numbers) and number == self._numbers[found]:
                found += 1
                yield row

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index in self._kept:
            return self._kept[index]
        if self._records is None or index < self._next:
            self._reset()
            self._records = self._of_the_split()
        while self._next <= index:
            row = next(self._records, None)
            if row is None:
                found, self._records = self._next, None
                raise DataError(
                    f"the stream ends after {found} of {len(self._numbers)} records",
                    file=self._name,
                    next_step="set length to the number of rows that the split has",
                )
            self._kept[self._next] = row
            self._kept.pop(self._next - 2 * WINDOW, None)
            self._next += 1
        return self._kept[index]


def load_splits(
    root: Path, subset: str | None, streaming: bool, cache_dir: str | None
) -> tuple[dict[str, Any], dict[str, int]]:
    """The splits of a data set by name, "all" of one without splits, and their lengths where known.

    Raises:
        DataError: no such data set, or one that `datasets` cannot open.
    """
    import datasets

    name = root.as_posix()
    if not root.exists() and not _HUB_ID.fullmatch(name):
        raise DataError(
            "no such file or folder", file=root, expected="a path, or an id on the hub: user/name"
        )
    options: dict[str, Any] = {"streaming": streaming, "cache_dir": cache_dir}
    try:
        if (root / "dataset_dict.json").is_file() or (root / "state.json").is_file():
            loaded = datasets.load_from_disk(name)
        elif root.is_file():
            if root.suffix not in _BUILDERS:
                raise DataError("not a file that is read", file=root, expected=", ".join(_BUILDERS))
            loaded = datasets.load_dataset(_BUILDERS[root.suffix], data_files=name, **options)
        else:
            loaded = datasets.load_dataset(name, subset, **options)
    except TransframerError:
        raise
    except Exception as error:  # pyarrow, fsspec and the hub each raise errors of their own
        raise DataError(
            f"`datasets` cannot open it: {error}",
            file=root,
            expected="an id on the hub, or a folder of parquet, arrow, CSV, JSON or images",
            next_step="is the id right, and the subset named where there are several?",
        ) from error
    splits = dict(loaded) if isinstance(loaded, dict) else {"all": loaded}
    lengths = {}
    for split, rows in splits.items():
        if isinstance(rows, datasets.Dataset):
            lengths[split] = len(rows)
            splits[split] = rows.to_iterable_dataset() if streaming else rows
        elif split in (rows.info.splits or {}):
            lengths[split] = rows.info.splits[split].num_examples or 0
    return splits, lengths


def features_of(rows: Any, root: Path) -> Any:
    """The features of rows; a stream of CSV or JSON shows them only when it is read.

    Raises:
        DataError: there is no row.
    """
    import datasets

    if rows.features is not None:
        return rows.features
    first = list(rows.take(1))
    if not first:
        raise DataError("no row", file=root)
    return datasets.Dataset.from_list(first).features


def encoded(rows: Any, features: Any, names: Sequence[str]) -> Any:
    """The rows with these columns, images left as bytes: they are decoded by `load_image`, under its cap."""
    import datasets

    rows = rows.select_columns(list(names))
    if isinstance(rows, datasets.IterableDataset):
        return rows.decode(False) if any(is_image(features[name]) for name in names) else rows
    for name in names:
        if is_image(features[name]):
            image: Any = datasets.Image(decode=False)
            listed = isinstance(features[name], datasets.List | datasets.LargeList)
            rows = rows.cast_column(name, type(features[name])(image) if listed else image)
    return rows
