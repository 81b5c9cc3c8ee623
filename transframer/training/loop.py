"""The training run: from settings to a run folder with a trained model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from transframer.errors import ConfigError, unknown_name
from transframer.models.catalog import model_of
from transframer.predictor import FramePredictor
from transframer.seeds import seed_for
from transframer.task import Task
from transframer.training import checkpoint
from transframer.training.config import TrainConfig
from transframer.training.distributed import Ranks, ranks
from transframer.training.folders import DISK_FULL, disk_error
from transframer.training.mixture import SampleSource
from transframer.training.precision import keep_kernels
from transframer.training.run import Run
from transframer.training.stopping import StopRequests


def train(config: TrainConfig) -> Path:
    """Trains a predictor on the world or on a data set, as the settings say.

    Returns:
        The run folder.

    Raises:
        TransframerError: for settings that cannot be met, before anything is written; a full disk; a loss
            that is no longer finite.
        SystemExit: with 130 or 143 when Ctrl-C or SIGTERM stopped the run, after it was saved.
    """
    from transframer.registry import task_names
    from transframer.training.material import Material, first_predictor, learnable

    keep_kernels()
    if config.resume:
        config = config.over(checkpoint.load_config(config.resume))
    with ranks(config.device) as group:
        chosen = bool(config.tasks or config.resume)
        config = settle(config, group, task_names())
        material = Material.of(config)
        config = dataclasses.replace(config, task_settings=material.task_settings)
        torch.manual_seed(seed_for(config.seed, "weights"))
        predictor = first_predictor(config, material)
        config, material = learnable(config, material, predictor, chosen=chosen)
        if config.start_from and not config.resume:
            stored = checkpoint.stored_config(config.start_from)
            config = dataclasses.replace(
                config,
                model=model_of(predictor),
                preset=stored.preset,
                model_settings={**stored.model_settings, **config.model_settings},
                gan=stored.gan,
            )
        return fit(config, predictor, material.tasks, material.sources, material.held_out, group)


def settle(config: TrainConfig, group: Ranks, known_tasks: Sequence[str]) -> TrainConfig:
    """The settings with every default resolved.

    Raises:
        ConfigError: for a run folder that exists.
        UnknownNameError: for an unknown task.
    """
    config.require_end()
    for name in (*config.tasks, *config.weights, *config.data_tasks, *config.task_settings):
        if name not in known_tasks:
            raise unknown_name("task", name, known_tasks)
    folder = config.folder
    taken = not config.resume and folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))
    if group.from_first(taken):  # rank 0 says, since it may have made the folder before another rank looks
        raise ConfigError(
            "the run folder exists already",
            file=config.folder,
            next_step=f"continue it with --resume {config.folder}, or give another --out",
        )
    return dataclasses.replace(config, tasks=list(config.tasks or known_tasks))


def fit(
    config: TrainConfig,
    predictor: FramePredictor,
    tasks: Mapping[str, Task],
    source: SampleSource | Mapping[str, SampleSource],
    held_out: SampleSource | Mapping[str, SampleSource],
    group: Ranks,
) -> Path:
    """Trains any predictor on any tasks and sources; the rest is as in `train`.

    Args:
        config: settled settings (see `settle`).
        source: the samples to learn from, of all tasks or by task.
        held_out: the samples to validate on, likewise.
        group: the processes that train together.
    """
    run = Run(config, predictor, tasks, source, held_out, group)
    try:
        with StopRequests() as requests:
            return run.go(requests)
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise disk_error(error, config.folder) from error
