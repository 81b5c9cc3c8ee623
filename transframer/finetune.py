"""Fine-tuning a trained model on a data set of your own, and what that does to the tasks it knew."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from transframer.benchmarks.config import BenchmarkConfig
from transframer.benchmarks.quality import benchmark_run, tasks_of_world
from transframer.benchmarks.results import TaskResult
from transframer.benchmarks.tables import interval, metric_name
from transframer.data.augmentation import augmentable
from transframer.data.catalog import open_dataset, task_for
from transframer.data.formats.atomic import write_text
from transframer.errors import unknown_name
from transframer.finetune_config import FinetuneConfig
from transframer.models.catalog import get_model
from transframer.registry import get_task, task_names
from transframer.task import Task
from transframer.task_settings import configured_task
from transframer.training.checkpoint import load_run
from transframer.training.config import TrainConfig
from transframer.training.loop import train
from transframer.training.material import other_classes

EPOCHS, LEAST_SAMPLES, MOST_SAMPLES = 10, 4_000, 200_000
CROP = 0.8  # docs/log.md has the measurements
OLD_TASKS = "old_tasks"


def finetune(config: FinetuneConfig) -> Path:
    """Trains a model that was trained before on a task of a data set; the result is a run like any other.

    Returns:
        The run folder. Beside the usual it holds old_tasks.md and old_tasks.json: the headline of each task
        that the model knew, on scenes of the world, before and after.

    Raises:
        TransframerError: as of `train`, before anything is written.
        SystemExit: when Ctrl-C or SIGTERM stopped the run, after it was saved; `transframer train --resume`
            continues it.
    """
    if config.task not in task_names():
        raise unknown_name("task", config.task, task_names())
    predictor, stored = load_run(config.from_)
    old = [name for name in tasks_of_world(predictor, stored) if name != config.task]
    del predictor
    folder = train(train_config(config, stored, old))
    if os.environ.get("RANK", "0") != "0":  # of several processes that trained together, one reports
        return folder
    if old and config.old_task_samples:
        # Both now: nothing is written into the folder to start from, and wrong settings are told at once.
        before = _measured(config, Path(config.from_), folder, old, stored.size_px, "before")
        after = _measured(config, folder, folder, old, stored.size_px, "after")
        text = forgetting_table(before, after)
        write_text(folder / f"{OLD_TASKS}.md", text)
        record = {"before": [r.to_json(pictures=False) for r in before],
                  "after": [r.to_json(pictures=False) for r in after]}  # fmt: skip
        write_text(folder / f"{OLD_TASKS}.json", json.dumps(record, indent=1) + "\n")
        print(text)
    print(f"next: {measuring(config).command}")
    return folder


def measuring(config: FinetuneConfig) -> BenchmarkConfig:
    """The benchmark of what was fine-tuned, on the test part of its data."""
    options = {key: value for key, value in config.data_options.items() if key != "train_samples"}
    return BenchmarkConfig(
        run=config.folder, data=str(config.data), data_format=config.data_format, data_options=options
    )


def train_config(config: FinetuneConfig, stored: TrainConfig, old: Sequence[str]) -> TrainConfig:
    """The settings of the training run that a fine-tuning amounts to.

    Args:
        stored: the settings of the model to start from.
        old: the tasks it knows, besides the one to learn.

    Raises:
        TransframerError: data that cannot be opened.
    """
    mixed = list(old) if config.old_tasks else []
    share = config.old_tasks if mixed else 0.0
    weights = {name: share / len(mixed) for name in mixed} | {config.task: 1 - share}
    kept = dict(stored.task_settings.get(config.task, {}))
    kept.pop("classes", None)  # they come from the new data
    task_settings = {**stored.task_settings, config.task: {**kept, **config.task_settings}}
    steps, rate = config.steps, config.learning_rate
    by_epochs = config.minutes is None and steps is None
    if rate is None or by_epochs:
        task = configured_task(config.task, task_settings)
        dataset = open_dataset(
            config.data, "train", task, format=config.data_format, options=config.data_options
        )
        if "classes" not in config.task_settings:
            task = task_for(task, dataset)
        if by_epochs:
            steps = _steps(len(dataset), weights[config.task], config.batch_size)
        if rate is None:
            rate = _learning_rate(config, task, stored)
    return TrainConfig(
        model=stored.model,
        preset=stored.preset,
        tasks=[config.task, *mixed],
        weights=weights if mixed else {},
        minutes=config.minutes,
        steps=steps,
        out=config.folder,
        start_from=Path(config.from_),
        model_settings=_model_settings(config.task) if stored.model == "transframer" else {},
        data=str(config.data),
        data_format=config.data_format,
        data_options=config.data_options,
        data_tasks=[config.task],
        task_settings=task_settings,
        crop=_crop(config),
        flip=config.flip,
        color=config.color,
        max_bad_share=config.max_bad_share,
        lora_rank=config.lora_rank,
        patience=config.patience,
        seed=config.seed,
        size_px=config.size_px or stored.size_px,
        batch_size=config.batch_size,
        learning_rate=rate,
        precision=_precision(config),
        workers=config.workers,
        validations=config.validations,
        validation_episodes=config.validation_samples,
        pictures=min(2, config.validation_samples),
        device=config.device,
    )


def _precision(config: FinetuneConfig) -> Literal["auto", "fp32", "bf16"]:
    """On a CPU fp32 where nothing else is asked for: bf16 is no faster for short frames (docs/log.md)."""
    on_cpu = config.device == "cpu" or (config.device == "auto" and not torch.cuda.is_available())
    return "fp32" if on_cpu and config.precision == "auto" else config.precision


def _model_settings(task: str) -> dict[str, float]:
    """What fine-tuning changes of a Transframer's settings (docs/log.md has the measurements).

    An encoder that is trained need not wait for its decoders to wake; and where the answer is not read off
    the sketch, as it is where the estimate is a mean, the sketch should not take the gradient.
    """
    read_off_sketch = get_task(task).estimate == "mean"
    return {"encoder_lr_scale": 1.0} | ({} if read_off_sketch else {"sketch_weight": 0.5})


def _crop(config: FinetuneConfig) -> float:
    if config.crop is None:
        # A window that is enlarged is softer than what is asked for where that is a picture.
        sample_type = get_task(config.task).sample_type
        whole = "target" in sample_type.__annotations__ or not augmentable(sample_type)
        return 1.0 if whole else CROP
    return config.crop


def _steps(samples: int, share: float, batch_size: int) -> int:
    """Steps of which this share of each batch sees a data set of so many samples for the default epochs."""
    seen = min(max(EPOCHS * samples, LEAST_SAMPLES), MOST_SAMPLES)
    return max(1, round(seen / share / batch_size))


def _learning_rate(config: FinetuneConfig, task: Task, stored: TrainConfig) -> float:
    """The preset's own where the classes are other than those it learned, else a part of it."""
    anew = config.task in stored.tasks and other_classes(task, stored)
    part = 2 if config.lora_rank else 1 if anew else 4
    return get_model(stored.model).learning_rates[stored.preset] / part


def _measured(
    config: FinetuneConfig, run: Path, folder: Path, tasks: Sequence[str], size_px: int, when: str
) -> list[TaskResult]:
    print(f"measuring the {len(tasks)} old tasks {when} fine-tuning", flush=True)
    return benchmark_run(
        BenchmarkConfig(
            run=run,
            tasks=list(tasks),
            samples=config.old_task_samples,
            size_px=size_px,
            out=folder / f"benchmark-{when}",
            device=config.device,
        )
    )


def forgetting_table(before: Sequence[TaskResult], after: Sequence[TaskResult]) -> str:
    """The headlines of the old tasks as Markdown, with 95 % intervals."""
    n = before[0].protocol["data"]["n"]
    lines = [
        f"The tasks that the model knew, on {n} held-out scenes of the world each, with 95 % intervals:",
        "",
        "| task | metric | before | after | floor |",
        "|---|---|---|---|---|",
    ]
    for old, new in zip(before, after, strict=True):
        cells = [interval(old.main.model), interval(new.main.model), f"{new.main.floor:.3g}"]
        lines.append(f"| {old.task} | {metric_name(old.headline)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
