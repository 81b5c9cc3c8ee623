"""Specialists in a benchmark: networks made for one task, trained for as long as the model was on it."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from transframer.benchmarks.baselines.catalog import has_specialist
from transframer.benchmarks.baselines.training import TrainedSpecialist, trained_specialist
from transframer.benchmarks.config import BenchmarkConfig
from transframer.benchmarks.drawn import batches, clock
from transframer.benchmarks.json_records import read
from transframer.benchmarks.results import SpecialistResult
from transframer.benchmarks.sources import naming
from transframer.errors import ConfigError
from transframer.task import Sample, Task
from transframer.testing import without_labels
from transframer.training.checkpoint import stored_config
from transframer.training.spent import task_seconds


@dataclass(frozen=True)
class Training:
    """How long a specialist trains.

    Attributes:
        seconds: of the device.
        run_seconds: what the measured run spent on the task; None where nothing says so.
    """

    seconds: float
    run_seconds: float | None


@dataclass(frozen=True)
class Answers:
    """What a specialist says of the held-out samples, one prediction each, and the wall time of all of it."""

    predictions: list[Any]
    seconds: float


def specialist_seconds(config: BenchmarkConfig, tasks: Sequence[Task]) -> dict[str, Training]:
    """How long the specialist of each task trains; tasks without a specialist are left out, and said so.

    Raises:
        ConfigError: nothing says how long the run trained on a task, and no minutes are given.
        CheckpointError: a file of the run that cannot be read.
    """
    able = [task.name for task in tasks if has_specialist(task)]
    if others := [task.name for task in tasks if task.name not in able]:
        print(f"no specialist for {', '.join(others)}: measured without one", file=sys.stderr, flush=True)
    try:
        spent: Mapping[str, float] = task_seconds(config.run)
    except ConfigError:
        if config.specialist_minutes is None:
            raise
        spent = {}
    if config.specialist_minutes is not None:
        return {name: Training(60 * config.specialist_minutes, spent.get(name)) for name in able}
    if unknown := [name for name in able if name not in spent]:
        raise ConfigError(
            f"the run did not train on {', '.join(unknown)}",
            file=config.run,
            field="specialists",
            expected="tasks that the run trained on, whose time their specialists get",
            next_step="say how long a specialist is to train: --specialist-minutes",
        )
    return {name: Training(spent[name], spent[name]) for name in able}


def specialist_of(
    task: Task, training: Training, config: BenchmarkConfig, size_px: int, device: torch.device
) -> TrainedSpecialist:
    """The trained specialist of a task, from its folder where it is there; its facts say the run's time too.

    It learns from the scenes of the world that the run learned from: those of the run's seed.

    Raises:
        TransframerError, SystemExit: as of `trained_specialist`.
    """
    trained = trained_specialist(
        task,
        seconds=training.seconds,
        seed=stored_config(config.run).seed,
        size_px=size_px,
        folder=config.specialist_folder,
        device=device,
    )
    return dataclasses.replace(trained, facts={**trained.facts, "run_seconds": training.run_seconds})


def specialist_answers(
    trained: TrainedSpecialist,
    task: Task,
    samples: Sequence[Sample],
    batch_size: int,
    device: torch.device,
) -> Answers:
    """The specialist's predictions for samples whose labels it is not given.

    Raises:
        TransframerError: a batch that cannot be predicted, naming its samples.
    """
    asked = [without_labels(task, sample) for sample in samples]
    predictions: list[Any] = []
    start = clock(device)
    for batch in batches(len(asked), batch_size):
        with naming(task, batch, "the specialist"):
            predictions += trained.network.predict([asked[index] for index in batch])
    return Answers(predictions, clock(device) - start)


def specialist_result(trained: TrainedSpecialist, answers: Answers) -> SpecialistResult:
    """What a result says of a specialist."""
    per_frame = answers.seconds / len(answers.predictions)
    return read(SpecialistResult, {**trained.facts, "seconds_per_frame": per_frame})
