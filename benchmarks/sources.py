"""Where the samples of a benchmark come from: the world's test split, or a real labelled pair."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import UInt8
from torch import Tensor

from transframer.benchmarks.config import BenchmarkConfig
from transframer.errors import ConfigError, DataError, PluginError, TransframerError
from transframer.frames import Episode
from transframer.registry import get_task, task_names
from transframer.task import Sample, Task
from transframer.training.config import TrainConfig


class Source(abc.ABC):
    """Held-out samples for any task, and others for its floor.

    Attributes:
        floor_split: what the samples are that the floor is fitted on.
    """

    floor_split: ClassVar[str] = "training"

    @abc.abstractmethod
    def held_out(self, task: Task, n: int) -> Sequence[Sample]:
        """At most n samples that no run was trained on.

        Raises:
            ConfigError: the source cannot serve the task.
        """

    @abc.abstractmethod
    def floor_samples(self, task: Task, n: int, measured: Sequence[Sample]) -> Sequence[Sample]:
        """At most n samples on which the trivial prediction is fitted, and nothing else.

        Args:
            measured: the held-out samples, for a source that has no others.
        """

    def serves(self, task: Task) -> bool:
        """Whether the source has labels for a task."""
        return True

    @abc.abstractmethod
    def description(self, task: Task) -> dict[str, Any]:
        """What the held-out samples of a task are, for the protocol."""


@dataclass(frozen=True)
class Material:
    """What one task is measured on.

    Attributes:
        samples: held out.
        episodes: the formatted samples, every one with its target.
        floor_samples: the floor is fitted on them, and nothing else is.
        floor_split: what these are.
        description: of the samples, for the protocol.
        videos: true ones, each a prompt and what follows it, for the rollouts of the task; else None.
    """

    task: Task
    samples: Sequence[Sample]
    episodes: Sequence[Episode]
    floor_samples: Sequence[Sample]
    description: dict[str, Any]
    floor_split: str = "training"
    videos: UInt8[Tensor, "k t 3 h w"] | None = None


@dataclass(frozen=True)
class WorldSource(Source):
    """The procedural world: its test split, and its train split for the floors.

    Attributes:
        seed: of the world.
        size_px: height and width of a frame.
    """

    seed: int
    size_px: int

    def held_out(self, task: Task, n: int) -> Sequence[Sample]:
        """The first n scenes of the test split.

        Raises:
            ConfigError: the model's task has other classes than the world.
        """
        worlds: tuple[str, ...] | None = getattr(type(task), "classes", None)
        if worlds is not None and task.classes != worlds:  # type: ignore[attr-defined]
            raise ConfigError(
                f"the model's {task.name} has classes of its own",
                field="data",
                expected="data of the classes that the model was trained on",
                next_step="give its data set with --data, or other --tasks",
            )
        return self._samples("test", task, n)

    def training(self, task: Task, n: int) -> Sequence[Sample]:
        """The first n scenes of the train split."""
        return self._samples("train", task, n)

    def floor_samples(self, task: Task, n: int, measured: Sequence[Sample]) -> Sequence[Sample]:
        """The first n scenes of the train split."""
        return self.training(task, n)

    def description(self, task: Task) -> dict[str, Any]:
        """Source, split and size."""
        return {"source": "world", "split": "test", "size_px": self.size_px}

    def _samples(self, split: str, task: Task, n: int) -> Sequence[Sample]:
        from transframer.data.world import World

        return World(split, self.seed, self.size_px).samples(range(n), task.sample_type, task.clip)


@dataclass(frozen=True)
class MotorcycleSource(Source):
    """The real, labelled Middlebury 2014 stereo pair that scikit-image ships; floors from the world.

    Attributes:
        seed: of the world.
        size_px: height and width of a frame.
    """

    seed: int
    size_px: int

    def held_out(self, task: Task, n: int) -> Sequence[Sample]:
        """The crops of the pair, at most n.

        Raises:
            ConfigError: the pair has no label for this task; names the tasks it has labels for.
        """
        if not self.serves(task):
            able = self._served()
            raise ConfigError(
                f"the motorcycle pair has no label for {task.name}",
                field="data",
                expected=f"tasks among {', '.join(able)}",
                next_step=f"choose with --tasks {' '.join(able)}",
            )
        return self._samples(task)[:n]

    def serves(self, task: Task) -> bool:
        """Whether the task asks for depth, flow or another view."""
        try:
            self._samples(task)
        except DataError:
            return False
        return True

    def floor_samples(self, task: Task, n: int, measured: Sequence[Sample]) -> Sequence[Sample]:
        """The first n scenes of the world's train split, where the run was trained too."""
        return WorldSource(self.seed, self.size_px).training(task, n)

    def description(self, task: Task) -> dict[str, Any]:
        """Source, split and size, and what to know of it."""
        return {
            "source": "motorcycle (Middlebury 2014)",
            "split": "all",
            "size_px": self.size_px,
            "note": "The samples are overlapping crops of one scene: they tell whether a run carries over to "
            "real input, not how good it is in general, and the interval is narrower than it should be.",
        }

    def _served(self) -> list[str]:
        served = []
        for name in task_names():
            with suppress(PluginError):  # a broken plugin is not what was asked about
                if self.serves(get_task(name)):
                    served.append(name)
        return served

    def _samples(self, task: Task) -> list[dict[str, Any]]:
        from transframer.data.datasets.motorcycle import motorcycle_samples

        return motorcycle_samples(task.sample_type, self.size_px)


def source_for(config: BenchmarkConfig, training: TrainConfig) -> Source:
    """The source that a benchmark asks for.

    Args:
        training: the settings of the measured run. One that learned from a part of the motorcycle pair is
            measured on the other part; to compare another with it, name the format too.
    """
    size_px = config.size_px or training.size_px
    if config.data == "world":
        return WorldSource(config.seed, size_px)
    if config.data == "motorcycle" and config.data_format is None and training.data != config.data:
        config.require_whole("the motorcycle pair, which is measured whole")
        return MotorcycleSource(config.seed, size_px)
    from transframer.benchmarks.data_source import DataSource

    return DataSource(
        config.data, size_px, config.data_format, config.data_options, config.split, config.seed
    )


def material_for(task: Task, source: Source, config: BenchmarkConfig) -> Material:
    """Fetches and formats what a task is measured on.

    Raises:
        ConfigError: the source cannot serve the task.
        DataError: a sample without its label; any error of formatting, naming the sample.
    """
    samples = source.held_out(task, config.samples)
    episodes = []
    for index, sample in enumerate(samples):
        with naming(task, index, "formatting"):
            episode = task.format(sample)
            if episode.target is None:
                raise DataError("no label", expected="a labelled sample, whose episode has a target")
            episodes.append(episode)
    floor_samples = source.floor_samples(task, config.floor_samples, samples)
    return Material(task, samples, episodes, floor_samples, source.description(task), source.floor_split)


@contextmanager
def naming(task: Task, index: int | range, step: str) -> Iterator[None]:
    """Makes an error say which sample it happened on; a user's error keeps its class."""
    place = f"{task.name}, {step} of sample {index}"
    if isinstance(index, range):
        place = f"{task.name}, {step} of samples {index.start} to {index.stop - 1}"
    try:
        yield
    except TransframerError as error:
        raise type(error)(
            f"{place}: {error.found}",
            file=error.file,
            field=error.field,
            expected=error.expected,
            next_step=error.next_step,
        ) from error
    except Exception as error:
        error.add_note(f"while benchmarking: {place}")
        raise
