"""How long a run trained on each of its tasks, those runs included that it started from."""

from __future__ import annotations

import json
from pathlib import Path

from transframer.data.formats.atomic import write_json
from transframer.errors import CheckpointError, ConfigError
from transframer.training.checkpoint import MODEL, stored_config
from transframer.training.config import TrainConfig
from transframer.training.report import METRICS
from transframer.weights import located

SPENT = "spent.json"


def task_seconds(run: Path | str) -> dict[str, float]:
    """Seconds of its devices that a run spent on each task: its share of them by the weights of the tasks.

    The time is what the last line of the run's metrics.jsonl says, times the processes that trained together,
    each on a GPU or a core of its own; where that file is missing, the minutes of its settings. The run that
    it started from is added where that is still there, for tasks that it had. Weights that were moved from
    their run carry a file spent.json, which is read instead.

    Args:
        run: a run folder, a folder of weights, or the name of weights that come with the package.

    Returns:
        By task, above 0.

    Raises:
        CheckpointError: a file that cannot be read.
        ConfigError: nothing says how long the run trained.
    """
    return _task_seconds(located(run), frozenset())


def write_spent(folder: Path, seconds: dict[str, float]) -> None:
    """Writes what `task_seconds` reads from a folder of weights."""
    record = {"task_seconds": seconds, "minutes": sum(seconds.values()) / 60}
    write_json(folder / SPENT, record)


def _task_seconds(folder: Path, followed: frozenset[Path]) -> dict[str, float]:
    if (folder / SPENT).is_file():
        return _written(folder / SPENT)
    config = stored_config(folder)
    own = _seconds(folder, config)
    shares = {name: config.weights.get(name, 1.0) for name in config.tasks}
    spent = {name: own * share / sum(shares.values()) for name, share in shares.items()}
    followed |= {folder.resolve()}
    start = located(config.start_from) if config.start_from else None
    # A folder can have been removed and made again by a run that started from its own descendant.
    if start is None or not start.is_dir() or start.resolve() in followed:
        return spent
    before = _task_seconds(start, followed)
    return {name: spent.get(name, 0.0) + before.get(name, 0.0) for name in {**before, **spent}}


def _seconds(folder: Path, config: TrainConfig) -> float:
    # Beside the model of a run lies nothing of the run; its own folder is the one above.
    for path in (folder / METRICS, *([folder.parent / METRICS] if folder.name == MODEL else [])):
        if path.is_file():
            for line in reversed(path.read_text(encoding="utf-8").splitlines()):
                try:
                    record = json.loads(line)
                    return float(record["seconds"]) * int(record.get("processes", 1))
                except (ValueError, KeyError, TypeError):  # cut short by a kill
                    continue
    if config.minutes is None or not config.tasks:
        raise ConfigError(
            "nothing says how long this run trained",
            file=folder,
            expected=f"{METRICS} of a run, or {SPENT} beside weights",
            next_step="say how long a specialist is to train: --specialist-minutes",
        )
    return 60 * config.minutes


def _written(path: Path) -> dict[str, float]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {name: float(seconds) for name, seconds in record["task_seconds"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError("unreadable", file=path, expected="seconds by task, as JSON") from error
