"""What coding alone costs each task: `python -m transframer.benchmarks.codec --qualities 15 30 50 75`.

The ceiling of a task is the score of its true target frames, coded and decoded: the best that a model of
frames in that code can do. With the tokens a frame takes, it is the frontier by which a task's format and
quality are chosen: a better ceiling is worth having only while the model can still learn the longer frames.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import platform
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from transframer.codec import round_trips, token_count
from transframer.data.formats.atomic import write_json
from transframer.data.world import World
from transframer.errors import ConfigError, TransframerError
from transframer.frames import CodecSettings, Episode, Frame
from transframer.registry import get_task, task_names
from transframer.task import Sample, Task

QUALITIES = (15, 30, 50, 75)
_BATCH = 64


@dataclass(frozen=True)
class Ceiling:
    """The ceiling of one task at one quality.

    Attributes:
        quality: JPEG quality of the targets.
        default: whether it is the task's own quality.
        metrics: all metrics of the coded and decoded true targets.
        tokens: triples per frame, on average.
    """

    task: str
    quality: int
    default: bool
    metrics: dict[str, float]
    tokens: float


def dct_round_trips(episodes: Sequence[Episode]) -> tuple[list[Frame], int]:
    """The targets of episodes of one size by way of the DCT codec, and how many triples these take in all."""
    return round_trips(episodes), int(token_count(episodes).sum())


def ceiling(
    task: Task,
    samples: Sequence[Sample],
    coded: Callable[[Sequence[Episode]], tuple[list[Frame], int]] = dct_round_trips,
) -> tuple[dict[str, float], float]:
    """The metrics of the coded and decoded true targets of labelled samples, and mean tokens per frame.

    Args:
        coded: codes and decodes the targets of episodes of one size and counts their tokens, as
            `FramePredictor.round_trips` does by the code of a model.

    Raises:
        DataError: a sample without a label.
    """
    episodes = [task.format(sample) for sample in samples]
    alike: dict[tuple[tuple[int, int], int], list[int]] = defaultdict(list)
    for index, episode in enumerate(episodes):
        alike[episode.size, len(episode.context)].append(index)
    scores: dict[int, Any] = {}
    tokens = 0
    for indices in alike.values():
        for start in range(0, len(indices), _BATCH):
            chosen = indices[start : start + _BATCH]
            batch = [episodes[index] for index in chosen]
            frames, count = coded(batch)
            tokens += count
            for index, frame in zip(chosen, frames, strict=True):
                prediction = task.decode(frame, episodes[index].without_target())
                scores[index] = task.score(prediction, samples[index])
    metrics = task.summarise([scores[index] for index in range(len(samples))])
    return metrics, tokens / max(1, len(samples))


def frontier(task: Task, samples: Sequence[Sample], qualities: Sequence[int]) -> list[Ceiling]:
    """The ceiling at the task's own quality and, if it has a setting `quality`, at others, in order.

    At a quality that cannot hold the task's labels, the headline and the tokens are nan.
    """
    own = task.format(samples[0]).query.codec.quality
    tasks = {own: task}
    if any(setting.name == "quality" for setting in dataclasses.fields(task)):
        changes: list[dict[str, Any]] = [{"quality": q} for q in qualities if q != own]
        tasks |= {change["quality"]: dataclasses.replace(task, **change) for change in changes}
    found = []
    for quality, variant in sorted(tasks.items()):
        try:
            metrics, tokens = ceiling(variant, samples)
        except ConfigError:
            if quality == own:
                raise
            metrics, tokens = {task.headline.name: math.nan}, math.nan
        found.append(Ceiling(task.name, quality, quality == own, metrics, tokens))
    return found


def table(results: Sequence[Ceiling], tasks: Sequence[Task]) -> Table:
    """One row per task and quality; a task's own quality is marked by a star."""
    headlines = {task.name: task.headline for task in tasks}
    out = Table("task", "metric", "quality", "ceiling", "tokens per frame")
    for column in out.columns[2:]:
        column.justify = "right"
    last = None
    for result in results:
        metric = headlines[result.task]
        name = f"{metric.name} ({metric.unit})" if metric.unit else metric.name
        if last not in (None, result.task):
            out.add_section()
        out.add_row(
            result.task if result.task != last else "",
            name if result.task != last else "",
            f"{'* ' if result.default else ''}{result.quality}",
            f"{result.metrics[metric.name]:.4g}",
            f"{result.tokens:.1f}",
        )
        last = result.task
    return out


def _record(result: Ceiling) -> dict[str, Any]:
    """As JSON has it: null for nan."""
    metrics = {key: None if math.isnan(value) else value for key, value in result.metrics.items()}
    tokens = None if math.isnan(result.tokens) else result.tokens
    return dataclasses.asdict(result) | {"metrics": metrics, "tokens": tokens}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the frontier of every task, and saves it as JSON if asked.

    Args:
        arguments: of the command line; those of this process where None.
    """
    parser = argparse.ArgumentParser(description="Scores of coded and decoded true targets, and tokens.")
    parser.add_argument("--tasks", nargs="+", help="names of tasks (all)")
    parser.add_argument("--samples", type=int, default=200, help="held-out scenes of the world")
    parser.add_argument("--qualities", type=int, nargs="+", default=QUALITIES, help="besides the tasks' own")
    parser.add_argument("--size-px", type=int, default=64, help="side of the images")
    parser.add_argument("--seed", type=int, default=0, help="of the world")
    parser.add_argument("--json", type=Path, help="where to save the figures")
    options = parser.parse_args(arguments)
    try:
        if options.samples < 1:
            raise ConfigError(f"{options.samples} samples", field="samples", expected="at least 1")
        for quality in options.qualities:
            CodecSettings(quality)  # raises where there is no such quality
        tasks = [get_task(name) for name in options.tasks or task_names()]
        world = World("validation", options.seed, options.size_px)
        results = []
        for task in tasks:
            samples = world.samples(range(options.samples), task.sample_type, task.clip)
            results += frontier(task, samples, options.qualities)
        if options.json:
            protocol = {"split": "validation", "torch": torch.__version__, "machine": platform.machine()}
            protocol |= {"samples": options.samples, "size_px": options.size_px, "seed": options.seed}
            record = {"protocol": protocol, "ceilings": [_record(result) for result in results]}
            write_json(options.json, record, indent=2)
    except TransframerError as error:
        parser.exit(2, f"{error}\n")
    Console().print(table(results, tasks))


if __name__ == "__main__":
    main()
