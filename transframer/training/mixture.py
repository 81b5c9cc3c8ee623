"""Which task and which scene fill each place of each step's batch, and the batches themselves.

The order of the data is a pure function of (seed, step): the whole global batch of a step is laid out first
and the processes take slices of it, so that a run sees the same data, each scene once, on any number of
processes and workers, and continues after a stop with nothing saved but the step.
"""

from __future__ import annotations

import signal
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from transframer.errors import ConfigError, DataError, TransframerError
from transframer.predictor import FramePredictor
from transframer.seeds import seed_for
from transframer.task import Clip, Task

TIMEOUT_S = 300  # a worker that hangs is never found otherwise


@runtime_checkable
class SampleSource(Protocol):
    """Anything that yields labelled samples by index, such as the procedural world."""

    def samples(self, indices: Sequence[int], sample_type: type, clip: Clip) -> list[dict[str, Any]]:
        """One sample of this type per index; the same index gives the same sample."""
        ...


@runtime_checkable
class ReplacingSource(SampleSource, Protocol):
    """A source that puts another sample in the place of one that it cannot read, and says so.

    Attributes:
        bad: what was replaced since the list was last emptied; each has `index` and `to_json()`.
    """

    bad: list[Any]

    def __len__(self) -> int:
        """How many samples it has in all."""
        ...


def sources_by_task(
    tasks: Mapping[str, Task], source: SampleSource | Mapping[str, SampleSource]
) -> dict[str, SampleSource]:
    """The source of each task: its own, or the one that serves all."""
    return {name: source[name] if isinstance(source, Mapping) else source for name in tasks}


@dataclass(frozen=True)
class Place:
    """One place of a global batch: the name of a task, and the index of a scene."""

    task: str
    scene: int


@dataclass(frozen=True)
class Mixture:
    """The plan of the data.

    Attributes:
        weights: how often each task is drawn, relative to the others; all above 0.
        batch_size: places in a step's batch, over all processes.
        seed: of the run.
    """

    weights: Mapping[str, float]
    batch_size: int
    seed: int = 0

    def places(self, step: int) -> list[Place]:
        """The global batch of a step.

        Tasks are drawn by systematic sampling, so that each has the floor or the ceiling of its exact share
        of the batch; the offset of the draws moves by the golden ratio from step to step, so that the
        shares are near exact over any stretch of steps as well. A scene index is used once in a run.
        """
        generator = torch.Generator().manual_seed(seed_for(self.seed, step, "mixture"))
        start = seed_for(self.seed, "offset") / 2**63
        offset = (start + step * 0.6180339887498949) % 1.0
        total, names = sum(self.weights.values()), list(self.weights)
        bounds = torch.tensor([self.weights[name] for name in names], dtype=torch.float64).cumsum(0) / total
        draws = (torch.arange(self.batch_size, dtype=torch.float64) + offset) / self.batch_size
        drawn = torch.searchsorted(bounds, draws, right=True).clamp(max=len(names) - 1).tolist()
        # A source may let a scene's index choose among a task's clips: shuffled, no residue sticks to a task.
        scenes = (step * self.batch_size + torch.randperm(self.batch_size, generator=generator)).tolist()
        return [Place(names[task], scene) for task, scene in zip(drawn, scenes, strict=True)]

    def slice(self, step: int, rank: int, world_size: int) -> list[Place]:
        """The places of one process: every `world_size`-th, so that all processes get a like mixture."""
        if self.batch_size % world_size:
            raise ConfigError(
                f"{self.batch_size} episodes do not divide among {world_size} processes",
                field="batch_size",
                expected=f"a multiple of {world_size}",
            )
        return self.places(step)[rank::world_size]


@dataclass
class StepBatch:
    """One process's share of a step: the step, the task of each episode, and the collated episodes.

    Attributes:
        bad: samples that were replaced since the batch before, each with its task.
    """

    step: int
    tasks: list[str]
    batch: Any
    bad: list[tuple[str, Any]] = field(default_factory=list)


class StepBatches(IterableDataset):
    """The batches of one process from a step on, without end; each worker makes every n-th of them."""

    def __init__(
        self,
        mixture: Mixture,
        tasks: Mapping[str, Task],
        source: SampleSource | Mapping[str, SampleSource],
        predictor: FramePredictor,
        *,
        first_step: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.mixture, self.tasks, self.predictor = mixture, tasks, predictor
        self.sources = sources_by_task(tasks, source)
        self.first_step, self.rank, self.world_size = first_step, rank, world_size

    def make(self, step: int) -> StepBatch:
        """Renders, formats and collates this process's share of a step."""
        return self.make_all([step])[0]

    def make_all(self, steps: Sequence[int]) -> list[StepBatch]:
        """The same of several steps, for which each source is asked once per task.

        Samples that were replaced are named in the first of the batches.
        """
        shares = [self.mixture.slice(step, self.rank, self.world_size) for step in steps]
        places = [place for share in shares for place in share]
        episodes: list[Any] = [None] * len(places)
        bad = []
        for name in dict.fromkeys(place.task for place in places):
            task = self.tasks[name]
            at = [i for i, place in enumerate(places) if place.task == name]
            source = self.sources[name]
            samples = source.samples([places[i].scene for i in at], task.sample_type, task.clip)
            if isinstance(source, ReplacingSource):
                bad += [(name, each) for each in source.bad]
                source.bad.clear()
            for i, sample in zip(at, samples, strict=True):
                episodes[i] = task.format(sample)
        made: list[StepBatch] = []
        start = 0
        for step, share in zip(steps, shares, strict=True):
            batch = self.predictor.collate(episodes[start : start + len(share)])
            made.append(StepBatch(step, [place.task for place in share], batch, [] if made else bad))
            start += len(share)
        return made

    def __iter__(self) -> Iterator[StepBatch | TransframerError]:
        worker = get_worker_info()
        step, stride = self.first_step, 1
        if worker is not None:
            step, stride = step + worker.id, worker.num_workers
        while True:
            try:
                yield self.make(step)
            except TransframerError as error:  # the loader would bury its message under a worker's traceback
                yield error
                return
            step += stride


def _start_worker(worker: int) -> None:
    # The training process decides what a signal means: a worker that dies of it takes the last save along.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


def batches(dataset: StepBatches, workers: int = 0) -> Generator[StepBatch, None, None]:
    """The dataset's batches, in the order of the steps, made in `workers` processes (0: in this one).

    Raises:
        TransframerError: what a task or the source raised.
        DataError: where no batch came in five minutes, or a worker died.
    """
    loader = DataLoader(
        dataset,
        batch_size=None,
        num_workers=workers,
        worker_init_fn=_start_worker if workers else None,
        timeout=TIMEOUT_S if workers else 0,
        prefetch_factor=2 if workers else None,
    )
    stream = iter(loader)
    try:
        while True:
            problem = None
            try:
                item = next(stream)
            except RuntimeError as error:
                of_task = str(error).startswith("Caught ")  # or of the source: it holds their traceback
                if not workers or of_task or "DataLoader" not in str(error):
                    raise
                problem = str(error).splitlines()[0]
            if problem:  # raised out here, since the loader's own error would keep its workers alive
                raise DataError(
                    f"a data worker hung or died: {problem}",
                    next_step="continue with --resume; if memory ran out, with fewer workers",
                )
            if isinstance(item, TransframerError):
                raise item
            yield item
    finally:
        # An error's traceback keeps this frame, and what it names, alive: workers that outlive the loader
        # would hang the process at its exit, since they ignore the signal that ends them.
        started = list(getattr(stream, "_workers", ()))
        del stream, loader
        for worker in started:
            if worker.is_alive():  # it hangs
                worker.kill()
                worker.join()
