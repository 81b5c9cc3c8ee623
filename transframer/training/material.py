"""What a run learns from and begins with: its tasks, the sources of their samples, and the first weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

from transframer.data.augmentation import Augmentation
from transframer.data.catalog import open_dataset, task_for
from transframer.data.source import DatasetSource, checked_keys
from transframer.data.world import World
from transframer.errors import ConfigError, DataError
from transframer.frames import Episode
from transframer.models.catalog import get_model, model_of
from transframer.models.transfer import add_low_rank, extended
from transframer.models.transframer import Transframer
from transframer.predictor import FramePredictor
from transframer.task import Task
from transframer.task_settings import configured_task, task_settings
from transframer.training import checkpoint
from transframer.training.config import TrainConfig
from transframer.training.mixture import SampleSource


@dataclass(frozen=True)
class Material:
    """The tasks of a run with their settings in force, and where the samples of each come from.

    Attributes:
        known_settings: of tasks that the model may know beside those trained.
    """

    tasks: Mapping[str, Task]
    sources: Mapping[str, SampleSource]
    held_out: Mapping[str, SampleSource]
    known_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, config: TrainConfig) -> Material:
        """Opens what the settings name; held-out samples are of the validation split.

        Raises:
            TransframerError: data that cannot be opened, or that lack what a task needs.
        """
        settings: dict[str, Mapping[str, Any]] = {**config.task_settings}
        if config.start_from and not config.resume:  # the stored settings of a run are whole
            settings = {**checkpoint.stored_config(config.start_from).task_settings, **settings}
        tasks = {name: configured_task(name, settings) for name in config.tasks}
        world = World("train", config.seed, config.size_px)
        unseen = World("validation", 0, config.size_px)
        sources: dict[str, SampleSource] = dict.fromkeys(tasks, world)
        held_out: dict[str, SampleSource] = dict.fromkeys(tasks, unseen)
        for name in (config.data_tasks or tasks) if config.data else ():
            tasks[name], sources[name], held_out[name] = _of_data(tasks[name], config)
        return cls(tasks, sources, held_out, settings)

    @property
    def task_settings(self) -> dict[str, dict[str, Any]]:
        """Of each task, the fields that are not as registered."""
        settings = {name: task_settings(task) for name, task in self.tasks.items()}
        return {name: {**fields} for name, fields in {**self.known_settings, **settings}.items() if fields}

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of annotation that the tasks write, read off one held-out episode of each."""
        kinds: set[str] = set()
        for episode in self.episodes.values():
            kinds.update(frame.annotation.kind for frame in episode.context)
            kinds.add(episode.query.kind)
        return tuple(sorted(kinds))

    @cached_property
    def episodes(self) -> dict[str, Episode]:
        """One held-out episode of each task."""
        return {
            name: task.format(self.held_out[name].samples([0], task.sample_type, task.clip)[0])
            for name, task in self.tasks.items()
        }

    def only(self, names: Sequence[str]) -> Material:
        """That of these tasks alone."""
        return Material(
            {name: self.tasks[name] for name in names},
            {name: self.sources[name] for name in names},
            {name: self.held_out[name] for name in names},
            self.known_settings,
        )


def _of_data(task: Task, config: TrainConfig) -> tuple[Task, SampleSource, SampleSource]:
    """The task with the data's class names, and its training and validation samples."""
    assert config.data is not None
    train, validation = (
        open_dataset(config.data, split, task, format=config.data_format, options=config.data_options)
        for split in ("train", "validation")
    )
    named = task_for(task, train)
    if "classes" not in config.task_settings.get(task.name, {}):
        task = named
    elif len(named.classes) != len(task.classes):  # type: ignore[attr-defined]
        raise ConfigError(
            f"{len(task.classes)} classes for data of {len(named.classes)}",  # type: ignore[attr-defined]
            field=f"task_settings.{task.name}.classes",
            expected="a name for each class of the data, in their order",
        )
    checked_keys(train, task.sample_type)
    check = partial(_require_target, task)
    augmentation = Augmentation(config.crop, config.flip, config.color)
    augmentation.check(task.sample_type)
    source = DatasetSource(
        train,
        config.size_px,
        config.seed,
        replace_bad=True,
        check=check,
        augmentation=augmentation,
        share=config.share(task.name),
    )
    return task, source, DatasetSource(validation, config.size_px, check=check)


def _require_target(task: Task, sample: Mapping[str, Any]) -> None:
    if task.format(sample).target is None:
        raise DataError("no label", expected="a sample with what the task asks for")


def learnable(
    config: TrainConfig, material: Material, predictor: FramePredictor, *, chosen: bool
) -> tuple[TrainConfig, Material]:
    """Settings and material without the tasks that the predictor cannot learn.

    Args:
        chosen: whether the user named the tasks; then each must be learnable.

    Raises:
        ConfigError: names the tasks that are not, and why.
    """
    reasons = {name: predictor.refusal(episode) for name, episode in material.episodes.items()}
    able = [name for name, reason in reasons.items() if reason is None]
    refused = {name: reason for name, reason in reasons.items() if reason is not None}
    if refused and (chosen or not able):
        listed = "; ".join(f"{name} ({reason})" for name, reason in refused.items())
        raise ConfigError(
            f"the {model_of(predictor)} model cannot learn {listed}",
            field="tasks",
            expected=f"among these tasks: {', '.join(able)}" if able else "tasks that it can learn",
            next_step="leave them out, or take --model transframer, which learns any task",
        )
    return dataclasses.replace(config, tasks=able), material.only(able)


def first_predictor(config: TrainConfig, material: Material) -> FramePredictor:
    """The predictor that a run begins with: of random weights, or the one to start from, with what it lacks.

    Raises:
        CheckpointError: there are no weights to start from.
        ConfigError: settings that the weights to start from do not allow.
    """
    if config.start_from is None:
        model = get_model(config.model)
        return model.build(config.preset, config.changes, list(material.tasks), material.kinds)
    # A resumed run has what it began with in its own folder, in case the other is gone; not so where it was
    # killed between its first checkpoint and its first model.
    own = config.resume if config.resume and (config.resume / checkpoint.MODEL).is_dir() else None
    folder = own or config.start_from
    predictor, stored = checkpoint.load_run(folder)
    if isinstance(predictor, Transframer):
        anew = [name for name, task in material.tasks.items() if other_classes(task, stored)]
        predictor = extended(predictor, material.tasks, material.kinds, anew, config.changes)
    elif config.changes and not config.resume:
        raise ConfigError(
            f"{config.changes} beside weights to start from",
            field="model_settings",
            expected=f"none: a {model_of(predictor)} model to start from is as it is",
        )
    elif config.lora_rank:
        raise ConfigError(
            f"low-rank changes of a {model_of(predictor)} model",
            field="lora_rank",
            expected="a transframer; of this model all weights are learned",
        )
    if config.lora_rank:
        add_low_rank(predictor, config.lora_rank)
    return predictor


def other_classes(task: Task, stored: TrainConfig) -> bool:
    """Whether a task has classes, and others than a model that was trained with these settings learned."""
    classes = getattr(task, "classes", None)
    return classes != getattr(configured_task(task.name, stored.task_settings), "classes", None)
