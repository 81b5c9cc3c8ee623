"""A run's own settings of its tasks, as plain values: class names of a data set, a depth range, a clip."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from transframer.errors import ConfigError
from transframer.registry import get_task
from transframer.task import Clip, Task


def configured_task(name: str, settings: Mapping[str, Mapping[str, Any]]) -> Task:
    """A registered task with a run's settings of it.

    Args:
        settings: by the name of the task, its fields as `task_settings` gives them or as YAML holds them.

    Raises:
        UnknownNameError: no such task, or no such field.
        ConfigError: a value that the field does not take.
    """
    own = dict(settings.get(name, {}))
    try:
        if isinstance(own.get("clip"), Mapping):
            own["clip"] = Clip(**{key: _tuples(value) for key, value in own["clip"].items()})
        return get_task(name, **{key: _tuples(value) for key, value in own.items()})
    except TypeError as error:
        raise ConfigError(f"{own}: {error}", field=f"task_settings.{name}") from error


def task_settings(task: Task) -> dict[str, Any]:
    """The fields of a task that are not as registered, as plain values.

    >>> task_settings(get_task("depth_estimation", max_depth_m=10.0))
    {'max_depth_m': 10.0}
    """
    registered = get_task(task.name)
    return {
        field.name: _plain(getattr(task, field.name))
        for field in dataclasses.fields(task)
        if getattr(task, field.name) != getattr(registered, field.name)
    }


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, (list, tuple)) else value


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
