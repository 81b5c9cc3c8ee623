"""A data set as a source of samples: resized, in a shuffled order, a bad one replaced and noted."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from math import gcd
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from transframer.data.augmentation import Augmentation
from transframer.data.dataset import Dataset
from transframer.data.formats.images import resize_image, resize_nearest
from transframer.errors import ConfigError, DataError, TransframerError
from transframer.seeds import seed_for
from transframer.task import Clip

# Several replacements of one sample that are all bad are no accident.
_ATTEMPTS = 8


@dataclass(frozen=True)
class BadSample:
    """A record that could not be read.

    Attributes:
        index: in the data set.
        files: those it is read from.
        reason: the error's message.
        replaced_by: the record taken in its place.
    """

    index: int
    files: tuple[str, ...]
    reason: str
    replaced_by: int

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"index": self.index, "files": list(self.files), "reason": self.reason,
                "replaced_by": self.replaced_by}  # fmt: skip


@dataclass
class DatasetSource:
    """Samples of one task out of a data set, by an index without end.

    Index i is place i modulo n of epoch i // n, and every epoch has its own order, a function of the seed and
    the epoch; a data set that is read as a stream is shuffled within windows. So each epoch has every record
    once, on any number of processes.

    Attributes:
        dataset: the records.
        size_px: height and width of the samples; both sides are scaled separately, as `predict` does.
        seed: of the order.
        shuffled: False keeps the order of the data set.
        replace_bad: a record that cannot be read is replaced by another, which its index decides, and noted
            in `bad`; otherwise it is an error.
        check: raises a TransframerError for a sample that can be read but is of no use; it counts as bad.
        augmentation: what is changed each time that a record comes again, as the seed and the index decide;
            the first time it is new as it is.
        share: how many of the indices are asked for, where other tasks take the rest: after the first
            n / share of them, n records were there.
        bad: the records replaced since the list was last emptied.
    """

    dataset: Dataset
    size_px: int
    seed: int = 0
    shuffled: bool = True
    replace_bad: bool = False
    check: Callable[[dict[str, Any]], object] | None = None
    augmentation: Augmentation = field(default_factory=Augmentation)
    share: float = 1.0
    bad: list[BadSample] = field(default_factory=list)
    _order: tuple[int, Int[Tensor, " n"]] = (-1, torch.zeros(0, dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.dataset)

    def samples(self, indices: Sequence[int], sample_type: type, clip: Clip) -> list[dict[str, Any]]:
        """One sample of this type per index.

        Args:
            clip: that which the data set was opened with.

        Raises:
            DataError: the data set lacks what the task needs; a record that cannot be read, where it is not
                replaced, or nor can any of those in its place.
        """
        keys = checked_keys(self.dataset, sample_type)
        return [self._sample(index, keys) for index in indices]

    def record_index(self, index: int) -> int:
        """Which record of the data set an index of the source means."""
        n = len(self.dataset)
        epoch, place = divmod(index, n)
        if not self.shuffled:
            return place
        if self._order[0] != epoch:
            self._order = (epoch, self._permutation(epoch, n))
        return int(self._order[1][place])

    def subset(self, n: int) -> list[int]:
        """n records at random, of all of the data set even where it is read as a stream, in their order."""
        generator = self._generator(0)
        return sorted(torch.randperm(len(self.dataset), generator=generator)[:n].tolist())

    def _generator(self, epoch: int) -> torch.Generator:
        return torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63)

    def _permutation(self, epoch: int, n: int) -> Int[Tensor, " n"]:
        generator = self._generator(epoch)
        window = self.dataset.shuffle_window
        if window is None or window >= n:
            return torch.randperm(n, generator=generator)
        parts = [
            start + torch.randperm(min(window, n - start), generator=generator)
            for start in range(0, n, window)
        ]
        return torch.cat(parts)

    def _sample(self, index: int, keys: Collection[str]) -> dict[str, Any]:
        number, n = self.record_index(index), len(self.dataset)
        # Far off, since bad records come in clusters; but a stream cannot jump: its next record stands in.
        step = 1 if self.dataset.shuffle_window else _long_step(n)
        failed: list[tuple[int, TransframerError]] = []
        for _ in range(min(_ATTEMPTS, n)):
            try:
                record = read_record(self.dataset, number, keys)
                if index * self.share >= n:  # it was there before
                    record = self.augmentation(record, seed_for(self.seed, "augmentation", index))
                sample = resized(record, self.size_px)
                if self.check:
                    self.check(sample)
            except ConfigError:  # a missing library or a wrong setting: no record will do
                raise
            except TransframerError as error:
                if not self.replace_bad:
                    raise
                failed.append((number, error))
                number = (number + step) % n
                continue
            self.bad += [
                BadSample(place, tuple(map(str, self.dataset.files(place))), str(error), number)
                for place, error in failed
            ]
            return sample
        raise DataError(
            f"{len(failed)} records in a row cannot be read; the first: {failed[0][1]}",
            file=self.dataset.root,
            next_step="run `transframer data check` on it",
        ) from failed[0][1]


def evenly(n: int, of: int) -> list[int]:
    """At most n places, evenly spread over so many, since data are often sorted by class.

    >>> evenly(3, of=10), evenly(3, of=2)
    ([0, 3, 6], [0, 1])
    """
    n = min(n, of)
    return [place * of // n for place in range(n)]


def _long_step(n: int) -> int:
    """About 0.6 n, and without a common divisor: going on by it comes by every record."""
    return next(step for step in range(max(1, round(0.618 * n)), n + 2) if gcd(step, n) == 1)


def read_record(dataset: Dataset, index: int, keys: Collection[str]) -> dict[str, Any]:
    """A record; whatever an unreadable file raises, as an error that names it.

    Raises:
        TransframerError: names the file.
    """
    try:
        return dataset.record(index, keys)
    except ConfigError:
        raise
    except (TransframerError, OSError, ValueError) as error:
        if isinstance(error, TransframerError) and error.file:
            raise
        files = ", ".join(map(str, dataset.files(index)))
        raise DataError(f"record {index} cannot be read: {error}", file=files) from error


def checked_keys(dataset: Dataset, sample_type: type) -> frozenset[str]:
    """The keys of a task's samples that the data set has.

    Raises:
        DataError: the data set lacks one that the task requires, or all that could be its label.
    """
    required = frozenset(sample_type.__required_keys__)  # type: ignore[attr-defined]
    optional = frozenset(sample_type.__optional_keys__)  # type: ignore[attr-defined]
    labels = optional - {"times", "query_time"}
    missing = required - dataset.fields
    if missing or (labels and not labels & dataset.fields):
        raise DataError(
            f"the data set has no {', '.join(sorted(missing or labels))}",
            file=dataset.root,
            expected=f"what {sample_type.__name__} holds; this one has {', '.join(sorted(dataset.fields))}",
            next_step="choose a task that these labels serve, or another format",
        )
    return (required | optional) & dataset.fields


def serves(dataset: Dataset, sample_type: type) -> bool:
    """Whether the data set has what a task's samples need."""
    try:
        checked_keys(dataset, sample_type)
    except DataError:
        return False
    return True


def resized(record: dict[str, Any], size_px: int) -> dict[str, Any]:
    """A record with all its images and labels brought to size_px x size_px, each side scaled separately.

    Images by the antialiased bicubic filter, labels by the nearest pixel, so that no two are mixed. Flow,
    boxes and cameras are scaled along; boxes and instances that vanish stay: nothing true is dropped.
    """
    height, width = record["images"].shape[-2:]
    size, scale_x, scale_y = (size_px, size_px), size_px / width, size_px / height
    sample = dict(record)
    if (height, width) == size:
        return sample
    sample["images"] = torch.stack([resize_image(image, size) for image in record["images"]])
    if "target" in record:
        sample["target"] = resize_image(record["target"], size)
    for key in ("mask", "depth_m", "instances", "flow_valid"):
        if key in record:
            sample[key] = resize_nearest(record[key], size)
    if "flow" in record:
        scale = (scale_x, scale_y)
        sample["flow"] = torch.stack(
            [
                resize_nearest(plane, size) * factor
                for plane, factor in zip(record["flow"], scale, strict=True)
            ]
        )
    if "normals" in record:
        sample["normals"] = torch.stack([resize_nearest(plane, size) for plane in record["normals"]])
    if "boxes" in record:
        sample["boxes"] = record["boxes"] * torch.tensor([scale_x, scale_y, scale_x, scale_y])
    if "cameras" in record:
        sample["cameras"] = [camera.resized(scale_x, scale_y) for camera in record["cameras"]]
    if "query_camera" in record:
        sample["query_camera"] = record["query_camera"].resized(scale_x, scale_y)
    return sample
