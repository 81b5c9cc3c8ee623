"""Batches of the world rendered on the training device: several steps at a time, beside the training."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from transframer.data.world import LABELS, Clips, World
from transframer.errors import ConfigError
from transframer.task import Clip
from transframer.training.mixture import SampleSource, StepBatch, StepBatches, batches

Render = Literal["cpu", "device"]
PIECE_PX = 1 << 22  # pixels of the episodes rendered at once, one frame of each: 1,024 of 64 x 64


class DeviceWorld(World):
    """A world that renders on a device and hands its clips over on the CPU, where tasks write episodes.

    All clips of a call are moved together: on a GPU nothing waits for a single sample.
    """

    @classmethod
    def of(cls, world: World, device: torch.device) -> DeviceWorld:
        """The same world, rendered on this device."""
        return cls(world.split, world.seed, world.size, device, world.min_box_share)

    def at(
        self,
        indices: Sequence[int] | Int[Tensor, " b"],
        steps: Int[Tensor, "b t"],
        clip: Clip,
        labels: Collection[str] = LABELS,
        flows: int = 1,
    ) -> Clips:
        """See `World.at`; the clips are on the CPU."""
        clips = super().at(indices, steps, clip, labels, flows)
        rendered = {field.name: getattr(clips, field.name) for field in fields(clips)}
        return replace(clips, **{name: x.cpu() for name, x in rendered.items() if x is not None})


def rendered(
    sources: Mapping[str, SampleSource], render: Render, device: torch.device
) -> dict[str, SampleSource]:
    """The sources of the tasks, those of the world rendering where the setting says.

    Args:
        render: where scenes are rendered.
        device: that of the training.

    Raises:
        ConfigError: "device" where a task learns from something else than the world.
    """
    others = [name for name, source in sources.items() if not isinstance(source, World)]
    if render == "device" and others:
        raise ConfigError(
            f"'device', but {', '.join(others)} learn from data, which workers read",
            field="render",
            expected="cpu, unless all tasks learn from the world",
        )
    if render == "cpu":
        return dict(sources)
    return {
        name: DeviceWorld.of(world, device) for name, world in sources.items() if isinstance(world, World)
    }


def training_batches(dataset: StepBatches, workers: int) -> Generator[StepBatch, None, None]:
    """The dataset's batches, in the order of the steps: rendered on a device, or made by workers.

    Raises:
        TransframerError: as of `batches`.
    """
    worlds = [source for source in dataset.sources.values() if isinstance(source, DeviceWorld)]
    return _in_pieces(dataset, worlds[0]) if worlds else batches(dataset, workers)


def _in_pieces(dataset: StepBatches, world: DeviceWorld) -> Generator[StepBatch, None, None]:
    """Renders pieces of several steps in a thread, each while the training uses up the one before."""
    height, width = world.size
    share = dataset.mixture.batch_size // dataset.world_size
    count, step = max(1, PIECE_PX // (share * height * width)), dataset.first_step
    side: contextlib.AbstractContextManager = contextlib.nullcontext()
    if world.device.type == "cuda":
        # A stream of its own, and one that goes first: what is rendered waits for no step of the training.
        side = torch.cuda.stream(torch.cuda.Stream(world.device, priority=-1))

    def piece(first: int) -> list[StepBatch]:
        with side:
            return dataset.make_all(range(first, first + count))

    with ThreadPoolExecutor(1, "render") as thread:
        following = thread.submit(piece, step)
        while True:
            made = following.result()
            step += count
            following = thread.submit(piece, step)
            yield from made
