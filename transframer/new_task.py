"""A new task: a package that works as it stands, to be changed step by step."""

from __future__ import annotations

import ast
import importlib.util
from importlib import resources
from pathlib import Path

from transframer.errors import ConfigError, DataError
from transframer.new_task_config import NewTaskConfig
from transframer.registry import task_origins

_SUFFIX = ".template"


def write_package(config: NewTaskConfig) -> list[Path]:
    """Writes the package of a new task, and prints what to do with it.

    Returns:
        The files written: the task, its tests, its metadata with the entry point, a README.

    Raises:
        ConfigError: the name is that of a task or of an importable module, or the folder holds something.
        DataError: the folder cannot be written.
    """
    _check_free(config)
    folder, written = config.folder, []
    names = {"my_task": config.name, "MyTask": config.class_name, "my-task": config.name.replace("_", "-")}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for template in sorted(resources.files("transframer").joinpath("templates").iterdir(), key=str):
            if not template.name.endswith(_SUFFIX):
                continue
            path, text = template.name.removesuffix(_SUFFIX), template.read_text(encoding="utf-8")
            for placeholder, name in names.items():
                path, text = path.replace(placeholder, name), text.replace(placeholder, name)
            written.append(folder / path)
            written[-1].write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot be written: {error.strerror or error}", file=folder) from error
    module = folder / f"{config.name}.py"
    print(f"{', '.join(path.name for path in written)} in {folder}")
    print(f"try it:     pytest {folder}")
    print(f"use it:     transframer --include {module} tasks, or pip install -e {folder}")
    print(f"change it:  the comments in {module} say what")
    return written


def _check_free(config: NewTaskConfig) -> None:
    origin = task_origins().get(config.name)
    if origin is not None:
        raise ConfigError(
            f"{config.name!r} is a task of {origin.source}", field="name", next_step="choose another name"
        )
    folder = config.folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(
            f"{folder} is there, and not an empty folder", field="--out", next_step="name another folder"
        )
    template = resources.files("transframer").joinpath("templates", "my_task.py.template")
    imports = [n for n in ast.walk(ast.parse(template.read_text())) if isinstance(n, ast.ImportFrom)]
    if config.class_name in {alias.name for node in imports for alias in node.names}:
        raise ConfigError(
            f"{config.class_name} is what a task is written with",
            field="name",
            next_step=f"choose another name, such as {config.name}_task",
        )
    found = importlib.util.find_spec(config.name)
    if found is not None and found.origin is not None:  # a folder without __init__.py has no origin
        raise ConfigError(
            f"there is a Python module {config.name!r} already: {found.origin}",
            field="name",
            next_step="choose another name, or the task could not be imported",
        )
