"""What a run learns from and begins with: its tasks, the sources of their samples, and the first weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transframer.data.catalog import open_dataset, task_for
from transframer.data.source import DatasetSource, checked_keys
from transframer.data.world import World
from transframer.errors import ConfigError
from transframer.models.presets import get_preset
from transframer.models.transfer import add_low_rank, extended
from transframer.models.transframer import Transframer
from transframer.task import Task
from transframer.task_settings import configured_task, task_settings
from transframer.training import checkpoint
from transframer.training.config import TrainConfig
from transframer.training.mixture import SampleSource


@dataclass(frozen=True)
class Material:
    """The tasks of a run with their settings in force, and where the samples of each come from."""

    tasks: Mapping[str, Task]
    sources: Mapping[str, SampleSource]
    held_out: Mapping[str, SampleSource]

    @classmethod
    def of(cls, config: TrainConfig) -> Material:
        """Opens what the settings name; held-out samples are of the validation split.

        Raises:
            TransframerError: data that cannot be opened, or that lack what a task needs.
        """
        stored = checkpoint.stored_config(config.start_from) if config.start_from else TrainConfig()
        settings = {**stored.task_settings, **config.task_settings}
        tasks = {name: configured_task(name, settings) for name in config.tasks}
        world = World("train", config.seed, config.size_px)
        unseen = World("validation", 0, config.size_px)
        sources: dict[str, SampleSource] = dict.fromkeys(tasks, world)
        held_out: dict[str, SampleSource] = dict.fromkeys(tasks, unseen)
        for name in (config.data_tasks or tasks) if config.data else ():
            tasks[name], sources[name], held_out[name] = _of_data(tasks[name], config)
        return cls(tasks, sources, held_out)

    @property
    def task_settings(self) -> dict[str, dict[str, Any]]:
        """Of each task, the fields that are not as registered."""
        settings = {name: task_settings(task) for name, task in self.tasks.items()}
        return {name: fields for name, fields in settings.items() if fields}

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of annotation that the tasks write, read off one held-out episode of each."""
        kinds: set[str] = set()
        for name, task in self.tasks.items():
            sample = self.held_out[name].samples([0], task.sample_type, task.clip)[0]
            episode = task.format(sample)
            kinds.update(frame.annotation.kind for frame in episode.context)
            kinds.add(episode.query.kind)
        return tuple(sorted(kinds))


def _of_data(task: Task, config: TrainConfig) -> tuple[Task, SampleSource, SampleSource]:
    """The task with the data's class names, and its training and validation samples."""
    assert config.data is not None
    train, validation = (
        open_dataset(config.data, split, task, format=config.data_format, options=config.data_options)
        for split in ("train", "validation")
    )
    if "classes" not in config.task_settings.get(task.name, {}):
        task = task_for(task, train)
    checked_keys(train, task.sample_type)
    source = DatasetSource(train, config.size_px, config.seed, replace_bad=True)
    return task, source, DatasetSource(validation, config.size_px)


def first_predictor(config: TrainConfig, material: Material) -> Transframer:
    """The predictor that a run begins with: of random weights, or the one to start from, with what it lacks.

    Raises:
        CheckpointError: there are no weights to start from.
        ConfigError: weights of another model than a Transframer.
    """
    if config.start_from is None:
        preset = get_preset(config.preset)
        return Transframer(dataclasses.replace(preset, tasks=tuple(material.tasks), kinds=material.kinds))
    # A resumed run has the model it began with in its own folder, in case the other is gone.
    folder = config.resume or config.start_from
    predictor, _ = checkpoint.load_run(folder)
    if not isinstance(predictor, Transframer):
        raise ConfigError(
            f"a {type(predictor).__name__}", file=folder, field="start_from", expected="a Transframer"
        )
    predictor = extended(predictor, material.tasks, material.kinds)
    if config.lora_rank:
        add_low_rank(predictor, config.lora_rank)
    return predictor
