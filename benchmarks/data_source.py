"""Samples of a data set for a benchmark: its test part, by its own protocol, and never its training part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from transframer.benchmarks.sources import Source
from transframer.data.catalog import open_dataset, task_for
from transframer.data.dataset import Dataset
from transframer.data.source import DatasetSource, checked_keys, evenly, read_record, resized, serves
from transframer.errors import ConfigError
from transframer.task import Sample, Task


@dataclass(frozen=True)
class DataSource(Source):
    """The test part of a data set. A sample that cannot be read is an error: none is skipped.

    The floor is fitted on the measured samples themselves, since a benchmark loads no training data: it knows
    their answers on average, so that it is a little better than one fitted elsewhere.

    Attributes:
        data: the folder, or the id on the Hugging Face hub.
        size_px: height and width of a frame.
        format, options: as of `open_dataset`.
        split: "test", or "validation" for choices that must not look at the test part.
        seed: of the subset, where not all samples are measured.
    """

    floor_split: ClassVar[str] = "the measured"
    data: str
    size_px: int
    format: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    split: str = "test"
    seed: int = 0
    _opened: dict[str, Dataset] = field(default_factory=dict)

    def held_out(self, task: Task, n: int) -> Sequence[Sample]:
        """A random subset of n samples in the order of the data; all of them for 0 or for n beyond them.

        Raises:
            ConfigError: the data have other classes than the model's task, or not what the task needs.
            DataError: a sample that cannot be read.
        """
        dataset = self._dataset(task)
        keys = checked_keys(dataset, task.sample_type)
        self._require_classes(task, dataset)
        if 0 < n < len(dataset):
            chosen = DatasetSource(dataset, self.size_px, self.seed).subset(n)
        else:
            chosen = list(range(len(dataset)))
        records = (dataset.evaluation(read_record(dataset, index, keys)) for index in chosen)
        return [resized(record, self.size_px) for record in records]

    def floor_samples(self, task: Task, n: int, measured: Sequence[Sample]) -> Sequence[Sample]:
        """At most n of those measured, evenly spread."""
        return [measured[place] for place in evenly(n, len(measured))]

    def serves(self, task: Task) -> bool:
        """Whether the data have what the task needs."""
        return serves(self._dataset(task), task.sample_type)

    def description(self, task: Task) -> dict[str, Any]:
        """Format, split, how many samples there are, size, and the protocol that was applied."""
        dataset = self._dataset(task)
        return {
            "source": f"{dataset.name} ({self.data})",
            "split": self.split,
            "of": len(dataset),
            "size_px": self.size_px,
            "protocol": {
                **dataset.protocol,
                **_range_of(task),
                "resolution": f"images and labels resized to {self.size_px} x {self.size_px} px and scored "
                "there: compare with others only at this size",
            },
        }

    def _dataset(self, task: Task) -> Dataset:
        key = f"{task.name} {task.clip}"  # rollouts ask for the same task's data in longer clips
        if key not in self._opened:
            self._opened[key] = open_dataset(
                self.data, self.split, task, format=self.format, options=self.options
            )
        return self._opened[key]

    def _require_classes(self, task: Task, dataset: Dataset) -> None:
        theirs: tuple[str, ...] = getattr(task_for(task, dataset), "classes", ())
        own: tuple[str, ...] = getattr(task, "classes", ())
        if theirs == own:
            return
        raise ConfigError(
            f"the data have {len(theirs)} classes ({', '.join(theirs[:4])}, ...), the model's {task.name} "
            f"has {len(own)} ({', '.join(own[:4])}, ...)",
            field="data",
            expected="data of the classes that the model was trained on",
            next_step=f"fine-tune: transframer finetune --from RUN --task {task.name} --data {self.data}",
        )


def _range_of(task: Task) -> dict[str, str]:
    """What a task leaves unjudged of its own, whatever the data set's protocol says."""
    low, high = (getattr(task, name, None) for name in ("min_depth_m", "max_depth_m"))
    return {} if low is None or high is None else {"of that": f"depth of {low:g} to {high:g} m, the task's"}
