"""`transframer data check`: what a data set holds, what cannot be read, and what to change."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from transframer.data.catalog import open_dataset, task_for
from transframer.data.dataset import SPLITS, Dataset
from transframer.data.formats.atomic import write_json
from transframer.data.inspection.advice import Advice, advice
from transframer.data.inspection.files import Item, Track, copies
from transframer.data.inspection.inspect import Inspection, inspected
from transframer.data.inspection.report import report
from transframer.data.inspection.tasks import Served, served_tasks
from transframer.data_config import CheckConfig, DataConfig
from transframer.errors import TransframerError
from transframer.registry import task_names
from transframer.task import Task
from transframer.task_settings import configured_task, task_settings


def check(config: CheckConfig) -> int:
    """Prints the findings of each split and what to change.

    Returns:
        The exit code: 0, or 1 where there is something to mend.

    Raises:
        TransframerError: data that cannot be opened, or that lack what the task needs.
    """
    task = configured_task(config.task, {config.task: config.task_settings}) if config.task else None
    splits, absent = _opened(config, task)
    first = next(iter(splits.values()))
    format = config.format or first.name
    if task:
        task = with_classes(task, first, config)
    print(f"{config.data}: {format}, {task.name if task else 'no task'} at {config.size_px} px")
    for topic, words in first.protocol.items():
        print(f"  {topic + ' (protocol)':<22} {words}")
    print("  " + ", ".join(f"{split} {len(splits[split])}" for split in SPLITS if split in splits))
    for split, reason in absent.items():
        print(f"  no {split} split: {reason}")
    served = [] if task else _served(config, first.split)
    for each in served:
        print(f"  serves {each.task}" if each.problem is None else f"  not {each.task}: {each.problem}")

    found: dict[str, Inspection] = {}
    for split in [config.split] if config.split != "all" else splits:
        with _progress(split) as track:
            found[split] = inspected(
                splits[split],
                task,
                size_px=config.size_px,
                samples=config.samples,
                seed=config.seed,
                track=track,
            )
        print(f"\n{split}")
        for name, text in report(found[split]):
            print(f"  {name:<14} {text}", flush=True)
    twice = copies({split: each.files for split, each in found.items()})
    todo = advice(found, twice, task, config.size_px)
    print("\nwhat to change" if todo else "\nnothing to change")
    for line in todo:
        print(f"  {'!' if line.mend else '-'} {line}")
    if config.json:
        _save(config, format, task, splits, absent, served, found, twice, todo)
    return int(any(line.mend for line in todo))


def with_classes(task: Task, dataset: Dataset, config: DataConfig) -> Task:
    """The task with the data set's class names, where the settings name none."""
    return task if "classes" in config.task_settings else task_for(task, dataset)


def _opened(config: CheckConfig, task: Task | None) -> tuple[dict[str, Dataset], dict[str, str]]:
    """The splits by name, and why others cannot be opened; raises where the one asked for cannot, or none."""
    opened, errors, format = {}, {}, config.format
    for split in SPLITS:
        try:
            dataset = open_dataset(config.data, split, task, format=format, options=config.data_options)
            format = format or dataset.name  # guessed once
            len(dataset)  # a sequence may have no window of the task's length
            opened[split] = dataset
        except TransframerError as error:
            errors[split] = error
            if split == config.split:
                raise
    if not opened:
        raise next(iter(errors.values()))
    return opened, {split: str(error).replace("\n", "; ") for split, error in errors.items()}


def _served(config: CheckConfig, split: str) -> list[Served]:
    def opened(task: Task) -> Dataset:  # of several layouts, each task may take another
        return open_dataset(config.data, split, task, format=config.format, options=config.data_options)

    return served_tasks(task_names(), opened, config.size_px)


@contextmanager
def _progress(split: str) -> Iterator[Track]:
    """Shows a bar on stderr where that is a terminal."""
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:

        def track(items: Iterable[Item], doing: str, total: int) -> Iterator[Item]:
            return iter(bar.track(items, total=total, description=f"{split}: {doing}"))

        yield track


def _save(
    config: CheckConfig,
    format: str,
    task: Task | None,
    splits: Mapping[str, Dataset],
    absent: Mapping[str, str],
    served: list[Served],
    found: Mapping[str, Inspection],
    twice: list[tuple[Path, Path]],
    todo: list[Advice],
) -> None:
    protocol = {
        "data": config.data, "format": format, "task": task.name if task else None,
        "task_settings": task_settings(task) if task else {}, "size_px": config.size_px,
        "samples": config.samples, "seed": config.seed,
    }  # fmt: skip
    record = {
        "protocol": protocol,
        "records": {split: len(each) for split, each in splits.items()},
        "absent": dict(absent),
        "served_tasks": served,
        "splits": found,
        "copies": twice,
        "what_to_change": todo,
    }
    assert config.json is not None
    write_json(Path(config.json), _plain(record), indent=2)


def _plain(value: Any) -> Any:
    """As JSON has it: null for nan, texts as keys."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if hasattr(value, "to_json"):
        return _plain(value.to_json())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, (list, tuple, set)):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
