"""The settings of `transframer new-task`; imports nothing heavy."""

from __future__ import annotations

import re
from dataclasses import dataclass
from keyword import iskeyword
from pathlib import Path

from transframer.errors import ConfigError


@dataclass(frozen=True)
class NewTaskConfig:
    """What a new task is called, and where its package is written.

    Attributes:
        name: of the task, in lower case with underscores; also of its Python module.
        out: the folder for the package, new or empty; by default one of the task's name, here.
    """

    name: str
    out: str | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", self.name) or iskeyword(self.name):
            raise ConfigError(
                f"{self.name!r} is no name of a task",
                field="name",
                expected="lower case words and digits with underscores between, as edge_detection",
            )

    @property
    def folder(self) -> Path:
        """The folder for the package."""
        return Path(self.out or self.name)

    @property
    def class_name(self) -> str:
        """The name of the task's class: EdgeDetection for edge_detection."""
        return "".join(word.capitalize() for word in self.name.split("_"))
