"""What the codec costs a task on the records of a data set, and which tasks a data set serves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from transframer.benchmarks.codec import ceiling
from transframer.codec import token_count
from transframer.data.catalog import task_for
from transframer.data.dataset import Dataset
from transframer.data.source import checked_keys, read_record, resized
from transframer.errors import DataError, TransframerError
from transframer.models.chunks import chunk_count
from transframer.models.presets import PRESETS
from transframer.registry import get_task
from transframer.task import Sample, Task

_FINER_BY = 15  # JPEG quality
_TRIED = 5  # records, until one can be read


@dataclass(frozen=True)
class Coding:
    """What coding alone costs a task on some records.

    Attributes:
        records: how many were coded and decoded.
        headline: the task's metric, its unit, and whether higher is better.
        value: the headline of the coded and decoded true targets, the best that a model can reach.
        bound: the worst that it is on samples of the procedural world.
        tokens_mean: triples in a frame.
        tokens_largest: triples in the longest frame.
        chunks_largest: chunks of the longest frame, by preset.
        finer: where the value is worse than the bound and a higher quality makes it better, that quality,
            the headline and the triples in a frame; else None.
    """

    records: int
    headline: tuple[str, str, bool]
    value: float
    bound: float
    tokens_mean: float
    tokens_largest: int
    chunks_largest: dict[str, int]
    finer: tuple[int, float, float] | None

    @property
    def worse_than_world(self) -> bool:
        """Whether coding costs more than on any sample of the world."""
        return _worse(self.value, self.bound, self.headline[2])


def _worse(value: float, other: float, higher_is_better: bool) -> bool:
    return value < other if higher_is_better else value > other


def coding(task: Task, samples: Sequence[Sample]) -> Coding | None:
    """The cost of coding labelled samples of one size that the task takes; None where there are none."""
    if not samples:
        return None
    headline = task.headline
    metrics, mean = ceiling(task, samples)
    value = metrics[headline.name]
    largest = max(int(token_count([task.format(sample)])) for sample in samples)
    return Coding(
        len(samples),
        (headline.name, headline.unit, headline.higher_is_better),
        value,
        task.round_trip_bound,
        mean,
        largest,
        {
            name: int(chunk_count(torch.tensor([largest]), preset.chunk_events, preset.chunk_overlap))
            for name, preset in PRESETS.items()
        },
        _finer(task, samples, value)
        if _worse(value, task.round_trip_bound, headline.higher_is_better)
        else None,
    )


def _finer(task: Task, samples: Sequence[Sample], value: float) -> tuple[int, float, float] | None:
    """A higher quality with its headline and tokens, where it brings a better headline."""
    quality = setting(task, "quality")
    if quality is None or quality > 100 - _FINER_BY:
        return None
    quality += _FINER_BY
    try:
        metrics, tokens = ceiling(dataclasses.replace(task, quality=quality), samples)  # type: ignore[call-arg]
    except TransframerError:  # a quality at which the task's labels do not fit
        return None
    found = metrics[task.headline.name]
    return (quality, found, tokens) if _worse(value, found, task.headline.higher_is_better) else None


@dataclass(frozen=True)
class Served:
    """A task whose samples have the fields of a data set.

    Attributes:
        task: its name.
        problem: why it cannot take the records nevertheless; None where it can.
    """

    task: str
    problem: str | None


def served_tasks(names: Sequence[str], opened: Callable[[Task], Dataset], size_px: int) -> list[Served]:
    """The tasks that a data set has labels for, each tried on a record.

    Args:
        names: of the tasks that come into question.
        opened: opens the data set for a task.
    """
    found = []
    for name in names:
        try:
            task = get_task(name)
            dataset = opened(task)
            keys = checked_keys(dataset, task.sample_type)
            len(dataset)
        except TransframerError:  # it lacks a field, or has no sequence so long
            continue
        problem = _problem(task_for(task, dataset), dataset, keys, size_px)
        if problem != "":
            found.append(Served(name, problem))
    return found


def _problem(task: Task, dataset: Dataset, keys: frozenset[str], size_px: int) -> str | None:
    """Why the task refuses a record; None where it takes it, "" where it wants another number of images."""
    fewest, most = task.context_images
    problem = "no record can be read"
    for index in range(min(_TRIED, len(dataset))):
        try:
            record = read_record(dataset, index, keys)
        except TransframerError:
            continue
        if not fewest <= len(record["images"]) <= most:
            return ""
        try:
            task.format(resized(record, size_px))
        except DataError as error:
            problem = str(error).replace("\n", "; ")
        except TransframerError as error:  # a setting that no record will suit
            return str(error).replace("\n", "; ")
        else:
            return None
    return problem


def setting(task: Task | None, name: str) -> Any:
    """A task's own setting, None where it has no such."""
    return getattr(task, name, None)
