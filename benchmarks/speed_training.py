"""How fast a training step is: ours beside a plain decoder of the same size, and beside the limit.

A step of ours is the loss of a batch of frames of 64 px, of all tasks in turns, its gradient and an update by
AdamW; a token is an event that was scored. The comparison is that of `training_speed`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from transframer.benchmarks import training_speed
from transframer.benchmarks.plain import parameter_count
from transframer.benchmarks.sampling_speed import settings_of
from transframer.benchmarks.sources import WorldSource
from transframer.benchmarks.timing import Clock, Row, Spread, in_turns, rates, row
from transframer.frames import Episode
from transframer.models.transframer import Transframer
from transframer.registry import get_task

BATCH, SIZE_PX = 16, 64


def episodes(count: int) -> list[Episode]:
    """Training frames of the world, in turns of all tasks."""
    tasks, source = [get_task(name) for name in training_speed.TASKS], WorldSource(0, SIZE_PX)
    each = -(-count // len(tasks))
    by_task = [[task.format(sample) for sample in source.training(task, each)] for task in tasks]
    return [episode for turn in zip(*by_task, strict=True) for episode in turn][:count]


def model_of(preset: str, asked: Sequence[Episode], device: torch.device) -> Transframer:
    """A model with random weights that learns these episodes."""
    kinds = {frame.annotation.kind for e in asked for frame in e.context} | {e.query.kind for e in asked}
    config = settings_of(preset)
    tasks = tuple(sorted({episode.task for episode in asked}))
    torch.manual_seed(0)
    return Transframer(replace(config, tasks=tasks, kinds=tuple(sorted(kinds)))).to(device).train()


def stepper(model: Any, batch: Any, precision: str = "fp32") -> Callable[[], int]:
    """A function that makes one step on a batch and returns the events it scored.

    Args:
        precision: "fp32", or "bf16" as training does it, by autocast.
    """
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-5)
    generator = torch.Generator()

    def step() -> int:
        optimiser.zero_grad()
        with torch.autocast(model.device.type, torch.bfloat16, enabled=precision == "bf16"):
            loss = model.loss(batch, generator.manual_seed(0))  # the same chunks for all, in every round
        loss.total.backward()
        optimiser.step()
        return int(loss.events.sum())

    return step


def speeds(
    presets: Sequence[str],
    clock: Clock,
    *,
    rounds: int,
    matrix_rate: float,
    batch_size: int = BATCH,
    precision: str = "fp32",
    report: Callable[[str], object] = lambda what: None,
) -> Iterator[Row]:
    """Our rows of each size, as soon as they are measured.

    Args:
        presets: the sizes.
        rounds: how many steps are timed.
        matrix_rate: floating-point operations per second in this precision, for the limit.
        batch_size: frames of a step.
        precision: "fp32" or "bf16".
        report: told what is going to be measured.
    """
    asked = episodes(batch_size)
    for preset in presets:
        report(f"training: {preset}, {precision}, batch {batch_size}")
        model = model_of(preset, asked, clock.device)
        step = stepper(model, model.collate(asked).to(clock.device), precision)
        with FlopCounterMode(display=False) as counter:
            tokens = step()
        operations = counter.get_total_flops()
        laps = in_turns({"ours": step}, clock, rounds, warm_up=False)["ours"]
        facts = {
            "preset": preset,
            "batch": batch_size,
            "parameters": parameter_count(model),
            "frames_per_s": Spread.of(rates(batch_size, laps, clock)),
            "operations_per_step": operations,
            "limit_from_products": tokens * matrix_rate / operations,
        }
        what = f"{preset}, step, {precision}, batch {batch_size}"
        yield row("training", what, "ours", "tokens/s", tokens, laps, clock, facts=facts)


def beside_plain(
    presets: Sequence[str],
    *,
    rounds: int,
    lengths: Sequence[str] = ("tasks", "long"),
    precisions: Sequence[str] = training_speed.PRECISIONS,
    batch_size: int = 8,
    report: Callable[[str], object] = lambda what: None,
) -> Iterator[Row]:
    """Ours and the plain decoder, in turns; on the CPU, by processor time.

    Args:
        presets: the sizes.
        rounds: batches that are timed.
        lengths: "tasks" or "long", see `training_speed.Speed`.
        precisions: "fp32" or "bf16".
        batch_size: frames of a step.
        report: told what is going to be measured.
    """
    for preset, precision, length in product(presets, precisions, lengths):
        report(f"training: {preset}, {precision}, {length}, beside the plain decoder")
        config = settings_of(preset)
        speed = training_speed.speeds(
            config, preset, precision=precision, batch=batch_size, rounds=rounds, length=length
        )
        what = f"{speed.what}, {precision}, batch {batch_size}"
        common = {"preset": preset, "batch": batch_size, "clock": "processor time"}
        for who, rate, frames, parameters, saved in (
            ("ours, beside plain", speed.ours, speed.frames, speed.parameters, speed.memory),
            ("plain", speed.peer, speed.peer_frames, speed.peer_parameters, speed.peer_memory),
        ):
            facts = {**common, "parameters": parameters, "frames_per_s": Spread(frames)}
            facts["saved_bytes_per_frame"] = saved
            ratio = Spread(speed.ratio, speed.low, speed.high) if who == "plain" else None
            yield Row("training", what, who, "tokens/s", Spread(rate), None, ratio, facts)
