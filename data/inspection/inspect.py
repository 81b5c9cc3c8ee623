"""What one split of a data set holds: every file's header, every cheap label, and a sample read in full."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from transframer.data.dataset import Dataset
from transframer.data.datasets.sequences import SequenceDataset
from transframer.data.datasets.stills import StillDataset
from transframer.data.inspection.dense import Depths, DepthTally, Flows, FlowTally
from transframer.data.inspection.files import Files, Track, checked_files, untracked
from transframer.data.inspection.labels import Boxes, BoxTally, Classes, ClassTally
from transframer.data.inspection.shapes import Sequences, Sizes, sequences_of, sizes_of
from transframer.data.inspection.tasks import Coding, coding, setting
from transframer.data.source import checked_keys, resized
from transframer.errors import ConfigError, TransframerError
from transframer.task import Sample, Task

SAMPLES = 256
_CLASS_FIELDS = ("label", "mask", "box_labels", "instance_labels")
# Read of every record, since they take no decoding.
_CHEAP = frozenset({"label", "boxes", "box_labels"})
_FAILURES = (TransframerError, OSError, ValueError)


@dataclass(frozen=True)
class Problem:
    """What is wrong with some records.

    Attributes:
        file: where; several separated by commas where it is not known which of them.
        reason: in words.
        records: how many records it was met in.
    """

    file: str
    reason: str
    records: int = 1


@dataclass(frozen=True)
class Inspection:
    """The findings of one split.

    Attributes:
        records: how many the split has.
        sampled: how many were read in full.
        files: see `Files`.
        bad_records: how many records need a file that cannot be read, as far as was looked.
        unreadable: files and records that cannot be read.
        refused: records that can be read, and that the task does not take.
        task_problem: why the task takes none of the records; None where it does, and without a task.
    """

    records: int
    sampled: int
    files: Files
    bad_records: int
    unreadable: tuple[Problem, ...]
    refused: tuple[Problem, ...] = ()
    task_problem: str | None = None
    sizes: Sizes | None = None
    classes: tuple[Classes, ...] = ()
    boxes: Boxes | None = None
    depths: Depths | None = None
    flows: Flows | None = None
    sequences: Sequences | None = None
    coding: Coding | None = None


def inspected(
    dataset: Dataset,
    task: Task | None = None,
    *,
    size_px: int = 64,
    samples: int = SAMPLES,
    seed: int = 0,
    track: Track = untracked,
) -> Inspection:
    """Looks through a split; damaged files are findings, not errors.

    Args:
        task: with the class names of the data set, where it has such a setting (see `task_for`).
        size_px: side of the frames.
        samples: how many records are read in full; all where there are fewer.
        seed: of the choice of these.
        track: shows how far it is.

    Raises:
        DataError: the data set lacks what the task needs.
    """
    keys = checked_keys(dataset, task.sample_type) if task else dataset.fields
    return _Inspector(dataset, task, keys, size_px).inspection(samples, seed, track)


@dataclass
class _Inspector:
    dataset: Dataset
    task: Task | None
    keys: frozenset[str]
    size_px: int
    problems: Counter[tuple[str, str]] = field(default_factory=Counter)
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)
    bad_records: set[int] = field(default_factory=set)
    task_problem: str | None = None
    classes: dict[str, ClassTally] = field(default_factory=dict)
    boxes: BoxTally | None = None
    depths: DepthTally | None = None
    flows: FlowTally | None = None

    def inspection(self, samples: int, seed: int, track: Track) -> Inspection:
        """Looks at every file and into `samples` records that the seed picks, and sums up what was found."""
        dataset, count = self.dataset, len(self.dataset)
        chosen = self._chosen(samples, seed)
        # What is read as a stream cannot be read here and there.
        looked_at: Sequence[int] = chosen if dataset.shuffle_window else range(count)
        files = checked_files(dataset, looked_at, len(looked_at), track)
        headers = dict(zip(looked_at, files.sizes, strict=True))
        for path, reason in files.unreadable.items():
            self.problems[str(path), reason] += 1
        self.bad_records |= files.bad_records

        cheap = self.keys & _CHEAP
        with_labels = isinstance(dataset, (StillDataset, SequenceDataset)) and not dataset.shuffle_window
        self._open_tallies(self.keys - cheap if with_labels else self.keys)
        decoded, taken = self._read(chosen, track)
        if any(headers[index] not in (None, size) for index, size in decoded.items()):
            headers = {}  # records are not the images of the files, but parts of them
        sizes = {index: size for index, size in headers.items() if size} or decoded
        if with_labels and cheap:
            self._open_tallies(cheap)
            self._read_labels(range(count), cheap, sizes, track)
        return Inspection(
            count,
            len(decoded),
            files,
            len(self.bad_records),
            tuple(Problem(*where, records) for where, records in self.problems.items()),
            tuple(Problem(*where, records) for where, records in self.refused.items()),
            self.task_problem,
            sizes_of(sizes.values(), not any(headers.values()), self.size_px),
            tuple(tally.summary(tally.records == count) for tally in self.classes.values()),
            self.boxes.summary(len(self.boxes.per_image) == count) if self.boxes else None,
            self.depths.summary() if self.depths else None,
            self.flows.summary() if self.flows else None,
            sequences_of(dataset) if isinstance(dataset, SequenceDataset) else None,
            self._coding(taken),
        )

    def _open_tallies(self, keys: Iterable[str]) -> None:
        for key in _CLASS_FIELDS:
            if key in keys:
                names = self.dataset.classes.get(key) or setting(self.task, "classes") or ()
                self.classes[key] = ClassTally(key, names)
        if "boxes" in keys:
            self.boxes = BoxTally(self.size_px)
        if "depth_m" in keys:
            ends = setting(self.task, "min_depth_m"), setting(self.task, "max_depth_m")
            self.depths = DepthTally(ends if None not in ends else None)
        if "flow" in keys:
            self.flows = FlowTally(self.size_px, setting(self.task, "max_flow_px"))

    def _chosen(self, samples: int, seed: int) -> list[int]:
        count = len(self.dataset)
        if samples >= count or self.dataset.shuffle_window:
            return list(range(min(samples, count)))
        generator = torch.Generator().manual_seed(seed)
        return sorted(torch.randperm(count, generator=generator)[:samples].tolist())

    def _read(self, chosen: Sequence[int], track: Track) -> tuple[dict[int, tuple[int, int]], list[Sample]]:
        """Width and height of each record read in full, and the samples that the task takes."""
        decoded: dict[int, tuple[int, int]] = {}
        taken = []
        for index in track(chosen, "reading samples in full", len(chosen)):
            if index in self.bad_records:
                continue
            try:
                record = self.dataset.record(index, self.keys)
            except ConfigError:  # a library that is missing, say: no record can be read
                raise
            except _FAILURES as error:
                self._note(self.problems, index, error)
                self.bad_records.add(index)
                continue
            height, width = record["images"].shape[-2:]
            decoded[index] = width, height
            self._tally(record, decoded[index], self.classes, self.boxes)
            if "depth_m" in record and self.depths:
                self.depths.add(record["depth_m"])
            if "flow" in record and self.flows:
                self.flows.add(record["flow"], record.get("flow_valid"))
            if self.task and self.task_problem is None and (sample := self._taken(index, record)):
                taken.append(sample)
        return decoded, taken

    def _taken(self, index: int, record: dict[str, Any]) -> Sample | None:
        """The sample of a record where the task has a target for it."""
        assert self.task is not None
        sample = resized(record, self.size_px)
        try:
            return sample if self.task.format(sample).target is not None else None
        except ConfigError as error:  # a setting that no record will suit
            self.task_problem = str(error).replace("\n", "; ")
        except _FAILURES as error:
            self._note(self.refused, index, error)
        return None

    def _read_labels(
        self, indices: Sequence[int], keys: frozenset[str], sizes: dict[int, Any], track: Track
    ) -> None:
        dataset = self.dataset
        tallies = {name: tally for name, tally in self.classes.items() if name in keys}
        for index in track(indices, "reading labels", len(indices)):
            try:
                if isinstance(dataset, SequenceDataset):
                    sequence, context, _ = dataset.place(index)
                    record = sequence.label_fields(context[0], keys)
                else:
                    assert isinstance(dataset, StillDataset)
                    record = dataset.label_fields(index, keys)
            except _FAILURES as error:
                if index not in self.bad_records:
                    self._note(self.problems, index, error)
                    self.bad_records.add(index)
                continue
            self._tally(record, sizes.get(index), tallies, self.boxes)

    def _tally(
        self,
        record: dict[str, Any],
        size: tuple[int, int] | None,
        classes: dict[str, ClassTally],
        boxes: BoxTally | None,
    ) -> None:
        for key, tally in classes.items():
            tally.add(record.get(key))
        if boxes and "boxes" in record:
            boxes.add(record["boxes"], size)

    def _note(self, problems: Counter[tuple[str, str]], index: int, error: Exception) -> None:
        files = ", ".join(map(str, self.dataset.files(index)))
        if not isinstance(error, TransframerError):
            problems[files, str(error)] += 1
            return
        place = f"{error.field}: " if error.field else ""
        expected = f", expected {error.expected}" if error.expected else ""
        problems[str(error.file or files), f"{place}{error.found}{expected}"] += 1

    def _coding(self, taken: Sequence[Sample]) -> Coding | None:
        if self.task is None:
            return None
        try:
            return coding(self.task, taken)
        except _FAILURES as error:
            self.task_problem = self.task_problem or str(error).replace("\n", "; ")
            return None
