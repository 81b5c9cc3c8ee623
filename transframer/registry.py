"""Discovery of tasks: entry points, `--include` and `TRANSFRAMER_TASKS`, without importing until asked."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import inspect
import os
import pkgutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeGuard

from transframer.errors import PluginError, unknown_name

if TYPE_CHECKING:
    from transframer.task import Task

GROUP = "transframer.tasks"
VARIABLE = "TRANSFRAMER_TASKS"
_DEFINING = ("sample_type", "headline", "round_trip_bound")  # what `Task` declares and leaves to each task


@dataclass(frozen=True)
class Origin:
    """Where a task comes from.

    Attributes:
        source: the distribution that announces it, or the file, folder or module that was included.
        target: "module:Class".
    """

    source: str
    target: str


_included: dict[str, dict[str, Origin]] = {}  # what was included -> its tasks
_failed: dict[str, str] = {}  # what could not be imported -> why, in one line


def task_names() -> tuple[str, ...]:
    """The names of all registered tasks, sorted; imports none of them (but loads what was included).

    Raises:
        PluginError: two sources claim one name.
    """
    return tuple(sorted(task_origins()))


def task_origins() -> dict[str, Origin]:
    """Every registered task's name and where it comes from.

    Raises:
        PluginError: two sources claim one name.
    """
    for wanted in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
        if wanted not in _included and wanted not in _failed:
            try:
                _included[wanted] = _tasks_defined_by(wanted)
            except PluginError as error:
                _failed[wanted] = error.found
    origins: dict[str, Origin] = {}
    for name, origin in (*_announced(tuple(sys.path)), *_claims_of_includes()):
        known = origins.setdefault(name, origin)
        if known.target != origin.target:
            raise _clash(name, known, origin)
    return origins


def failed_plugins() -> dict[str, str]:
    """What could not be imported so far in this process, and why, each in one line."""
    return dict(_failed)


def task_class(name: str) -> type[Task]:
    """The class of a registered task; imports that task's module and no other's.

    Raises:
        UnknownNameError: no such task; lists the known names, the nearest and the plugins that failed.
        PluginError: its plugin cannot be imported, or does not hold what it announces.
    """
    origins = task_origins()
    if name not in origins:
        raise unknown_name("task", name, origins, next_step=_advice(bool(origins)))
    origin = origins[name]
    module_name, _, attribute = origin.target.partition(":")
    module = _imported(module_name, origin.source)
    found = getattr(module, attribute, None)
    if not _is_task(found):
        raise PluginError(f"plugin {origin.source}: {origin.target} is not a concrete Task", field=name)
    if getattr(found, "name", None) != name:
        raise PluginError(
            f"plugin {origin.source}: {origin.target} is announced as {name!r} but calls itself "
            f"{getattr(found, 'name', None)!r}",
            next_step="give the entry point and the class the same name",
        )
    if missing := [each for each in _DEFINING if not hasattr(found, each)]:
        raise PluginError(
            f"plugin {origin.source}: {origin.target} has no {', '.join(missing)}",
            field=name,
            expected="class variables, as transframer.task.Task describes them",
        )
    return found


def get_task(name: str, **settings: Any) -> Task:
    """A registered task, with its fields set as given.

    Args:
        name: the registered name.
        settings: values for the task's own fields.

    Raises:
        UnknownNameError: no such task, or no such setting.
        PluginError: its plugin cannot be imported, or does not hold what it announces.
    """
    cls = task_class(name)
    known = [field.name for field in fields(cls)]
    for setting in settings:
        if setting not in known:
            raise unknown_name(f"setting of {name}", setting, known)
    return cls(**settings)


def include(source: str | Path) -> tuple[str, ...]:
    """Registers every concrete task defined in a file, package folder or module.

    The source is added to the environment variable `TRANSFRAMER_TASKS` too, so that data-loading
    workers and the processes of a distributed run know it.

    Args:
        source: a .py file, a folder with an `__init__.py` (all its modules are imported), or the name
            of an importable module.

    Returns:
        The names of the tasks it defines.

    Raises:
        PluginError: it cannot be imported, defines no task, or claims a name already taken.
    """
    path = Path(source)
    wanted = str(path.resolve()) if path.exists() else str(source)
    if wanted not in _included:
        _included[wanted] = _tasks_defined_by(wanted)
        try:
            task_origins()
        except PluginError:
            del _included[wanted]
            raise
    _failed.pop(wanted, None)
    others = [other for other in os.environ.get(VARIABLE, "").split(os.pathsep) if other]
    if wanted not in others:
        os.environ[VARIABLE] = os.pathsep.join([*others, wanted])
    return tuple(_included[wanted])


@functools.cache
def _announced(search_path: tuple[str, ...]) -> tuple[tuple[str, Origin], ...]:
    # The search path is the cache's key. A distribution found twice on it is read once by importlib.
    return tuple(
        (point.name, Origin(point.dist.name if point.dist else "?", point.value))
        for point in importlib.metadata.entry_points(group=GROUP)
    )


def _claims_of_includes() -> Iterator[tuple[str, Origin]]:
    for tasks in _included.values():
        yield from tasks.items()


def _tasks_defined_by(source: str) -> dict[str, Origin]:
    module = _imported(_module_name(source), source)
    modules = [module]
    for info in pkgutil.walk_packages(getattr(module, "__path__", []), module.__name__ + "."):
        modules.append(_imported(info.name, source))
    found: dict[str, Origin] = {}
    for module in modules:
        for attribute, value in vars(module).items():
            if _is_task(value) and value.__module__ == module.__name__:
                if not isinstance(getattr(value, "name", None), str):
                    raise PluginError(
                        f"plugin {source}: {attribute} has no name", expected="`name: ClassVar[str]`"
                    )
                origin = Origin(source, f"{module.__name__}:{attribute}")
                if found.setdefault(value.name, origin) != origin:
                    raise _clash(value.name, found[value.name], origin)
    if not found:
        raise PluginError(
            f"plugin {source}: it defines no task",
            expected="a frozen dataclass derived from transframer.task.Task, with all its methods",
        )
    return found


def _module_name(source: str) -> str:
    """The name to import a source by; a file or folder is first made importable."""
    path = Path(source)
    if not path.exists():
        if path.suffix == ".py" or os.sep in source:
            raise PluginError(f"plugin {source}: there is no such file")
        return source
    if path.is_dir() and not (path / "__init__.py").is_file():
        raise PluginError(
            f"plugin {source}: the folder has no __init__.py", next_step="name a .py file in it"
        )
    if "." in path.stem or (path.is_file() and path.suffix != ".py"):
        raise PluginError(
            f"plugin {source}: no Python module can have that name",
            expected="a file NAME.py or a folder, NAME without dots",
        )
    # By name and through sys.path, so that a spawned data-loading worker can unpickle the task.
    parts, folder = [path.stem], path.resolve().parent
    while (folder / "__init__.py").is_file():
        parts, folder = [folder.name, *parts], folder.parent
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
        importlib.invalidate_caches()
    top = importlib.util.find_spec(parts[0])
    expected = folder / parts[0]
    if top is None or Path(top.origin or "").resolve() not in (
        expected / "__init__.py",
        expected.with_suffix(".py"),
    ):
        raise PluginError(
            f"plugin {source}: the module name {parts[0]!r} is taken by {top.origin if top else 'another'}",
            next_step="rename the file",
        )
    return ".".join(parts)


def _imported(module_name: str, source: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except Exception as error:  # a plugin's code can raise anything
        cause = str(error).partition("\n")[0]
        found = f"plugin {source}: importing {module_name} failed: {type(error).__name__}: {cause}"
        _failed[source] = found
        raise PluginError(found, next_step="mend or uninstall the plugin") from error


def _clash(name: str, first: Origin, second: Origin) -> PluginError:
    return PluginError(
        f"two tasks are named {name!r}: {first.target} of {first.source} "
        f"and {second.target} of {second.source}",
        next_step=f"rename one, uninstall one or leave it out of {VARIABLE} and --include",
    )


def _is_task(value: Any) -> TypeGuard[type[Task]]:
    from transframer.task import Task

    return isinstance(value, type) and issubclass(value, Task) and not inspect.isabstract(value)


def _advice(any_registered: bool) -> str | None:
    lines = list(_failed.values())
    if not any_registered:
        lines.append("no task is registered at all: is the package installed? run pip install -e .")
    return "\n".join(lines) or None
