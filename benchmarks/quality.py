"""The benchmark of a trained run: every task against its floor and its ceiling, with a report."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

import torch

from transframer.benchmarks.cache import ResultCache
from transframer.benchmarks.config import BenchmarkConfig
from transframer.benchmarks.measure import measure
from transframer.benchmarks.picture_grid import picture_grid
from transframer.benchmarks.protocol import digest, stamp, weights_hash
from transframer.benchmarks.report import html_report
from transframer.benchmarks.results import TaskResult
from transframer.benchmarks.rollouts import tasks_to_roll_out, true_videos
from transframer.benchmarks.sources import Source, material_for, source_for
from transframer.benchmarks.specialists import specialist_of, specialist_seconds
from transframer.benchmarks.tables import interval, markdown, metric_name, number, print_table
from transframer.benchmarks.video_distance import VideoFeatures
from transframer.data.formats.atomic import write_text
from transframer.data.formats.images import save_png
from transframer.errors import unknown_name
from transframer.predictor import FramePredictor
from transframer.registry import task_names
from transframer.task import Task
from transframer.task_settings import configured_task
from transframer.training.checkpoint import load_run
from transframer.training.config import TrainConfig
from transframer.training.distributed import choose_device
from transframer.weights import located


def benchmark(config: BenchmarkConfig) -> list[TaskResult]:
    """Benchmarks a run, prints the table and writes results.json, results.md, report.html and pictures.png.

    Raises:
        TransframerError: as of `benchmark_run`; no room to write.
    """
    results = benchmark_run(config)
    write_results(config, results)
    print_table(results)
    print(f"report: {config.folder / 'report.html'}")
    return results


def benchmark_run(config: BenchmarkConfig) -> list[TaskResult]:
    """Measures a run, or reads from the cache what was measured before.

    Raises:
        CheckpointError: `config.run` is neither a run folder nor pretrained weights.
        UnknownNameError: no such task.
        ConfigError: the data cannot serve a task; no such device; rollouts asked of tasks that have none;
            specialists of a run of which nothing says how long it trained.
        DataError: a sample that cannot be predicted or scored; no room to write.
    """
    for name in config.tasks:
        if name not in task_names():
            raise unknown_name("task", name, task_names())
    device = choose_device(config.device)
    predictor, training = load_run(config.run)
    source = source_for(config, training)
    known = config.tasks or _learned(config, training, predictor) or task_names()
    tasks = [configured_task(name, training.task_settings) for name in known]
    if not config.tasks:  # all that the data can serve; where that is nothing, the source says so
        tasks = [task for task in tasks if source.serves(task)] or tasks
    return benchmark_tasks(config, predictor, tasks, source, device)


def _learned(config: BenchmarkConfig, training: TrainConfig, predictor: FramePredictor) -> list[str]:
    """The tasks that a run learned from the benchmark's kind of data: from the world, or from files."""
    if config.data != "world":
        return training.tasks_of_data or training.tasks
    return tasks_of_world(predictor, training) or training.tasks


def tasks_of_world(predictor: FramePredictor, training: TrainConfig) -> list[str]:
    """The tasks that a model learned from the world, in its own run or in the one that it started from.

    Those that an earlier run learned from data are known by their classes, where they have any of their own.
    """
    known = getattr(getattr(predictor, "config", None), "tasks", training.tasks)
    of_data = {*training.tasks_of_data}
    of_data |= {name for name, fields in training.task_settings.items() if "classes" in fields}
    return [name for name in known if name in task_names() and name not in of_data]


def benchmark_tasks(
    config: BenchmarkConfig,
    predictor: FramePredictor,
    tasks: Sequence[Task],
    source: Source,
    device: torch.device,
) -> list[TaskResult]:
    """Measures tasks one by one; those already measured under the same protocol are read from the cache.

    Each result is stored as soon as it is there, so that a benchmark that was interrupted goes on with the
    tasks that are missing.
    """
    cache = ResultCache(config.folder / "cache")
    predictor = predictor.to(device).eval()
    weights = weights_hash(predictor)
    results = []
    # Data that cannot serve a task, and a network that cannot be read, are said before any measurement.
    firsts = [source.held_out(task, 1) for task in tasks]
    rolled = tasks_to_roll_out(tasks, firsts, source, config)
    training_s = specialist_seconds(config, tasks) if config.specialists else {}
    features = VideoFeatures(config.video_features, device) if config.video_features else None
    for task in tasks:
        start = time.perf_counter()
        material = material_for(task, source, config)
        if task.name in rolled:
            material = replace(material, videos=true_videos(task, source, config, config.rollout_videos))
        rival = None
        if task.name in training_s:
            size_px = material.description["size_px"]
            rival = specialist_of(task, training_s[task.name], config, size_px, device)
        facts = features.facts if features else None, rival.facts if rival else None
        protocol = stamp(material, predictor, weights, config, device, *facts)
        result = None if config.no_cache else cache.load(task.name, digest(protocol))
        how = "from the cache"
        if result is None:
            result = measure(material, predictor, config, protocol, device, features, rival)
            cache.store(result)
            how = f"{time.perf_counter() - start:.1f} s"
        results.append(result)
        said = (
            f"{metric_name(result.headline)} {interval(result.main.model)}, floor {number(result.main.floor)}"
        )
        print(f"{task.name}: {said}, {how}", file=sys.stderr, flush=True)
    return results


def write_results(config: BenchmarkConfig, results: Sequence[TaskResult]) -> None:
    """Writes results.json, results.md, report.html and pictures.png, each whole or not at all.

    Raises:
        DataError: a file cannot be written.
    """
    record = {"command": config.command, "results": [result.to_json(pictures=False) for result in results]}
    write_text(config.folder / "results.json", json.dumps(record, indent=1, allow_nan=False) + "\n")
    write_text(config.folder / "results.md", markdown(results, config.command))
    write_text(config.folder / "report.html", html_report(results, config.command, located(config.run)))
    save_png(config.folder / "pictures.png", picture_grid(results))
