"""Errors that a user can act on: what was read, what was found, what was expected, what to do next."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable


class TransframerError(Exception):
    """Base of every error a user can cause; the command line prints it and exits with code 2.

    Args:
        found: what is wrong, in one sentence.
        file: the file or folder it was found in.
        field: the field, option or column concerned.
        expected: what would have been right.
        next_step: what to do now.
    """

    def __init__(
        self,
        found: str,
        *,
        file: object = None,
        field: str | None = None,
        expected: str | None = None,
        next_step: str | None = None,
    ) -> None:
        self.found, self.file, self.field = found, file, field
        self.expected, self.next_step = expected, next_step
        place = ": ".join(str(part) for part in (file, field) if part)
        first = f"{place}: {found}" if place else found
        second = f"expected {expected}" if expected else ""
        super().__init__("\n".join(line for line in (first, second, next_step or "") if line))

    def __reduce__(self):  # DataLoader workers and torchrun pickle exceptions; keyword arguments need help
        return _rebuild, (type(self), self.found, self.file, self.field, self.expected, self.next_step)


def _rebuild(cls, found, file, field, expected, next_step):
    return cls(found, file=file, field=field, expected=expected, next_step=next_step)


class UnknownNameError(TransframerError):
    """A name (task, preset, dataset, option) that is not among the known ones."""


class PluginError(TransframerError):
    """A task plugin that cannot be imported, or that claims a name already taken."""


class DataError(TransframerError):
    """A file or sample that is missing, unreadable, truncated, too large or of the wrong form."""


class CheckpointError(TransframerError):
    """A run folder, checkpoint or weights file that is missing, damaged or of another code version."""


class ConfigError(TransframerError):
    """A setting that is out of range, or settings that contradict each other."""


def exit_code(run: Callable[[], object]) -> int:
    """Runs what a person started: 0, or 2 after an error that they can mend, told without a traceback."""
    try:
        run()
    except TransframerError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


_LEAST_LIKENESS = 0.35  # of a name that is worth a guess


def _ratio(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()


def unknown_name(
    what: str, name: str, known: Iterable[str], *, next_step: str | None = None
) -> UnknownNameError:
    """The error for an unknown name: lists the known ones and the nearest, as a whole or by one of its words.

    >>> print(unknown_name("task", "depht", ["depth_estimation", "view_synthesis"]))
    unknown task 'depht', did you mean 'depth_estimation'?
    expected one of depth_estimation, view_synthesis
    """

    def likeness(other: str) -> tuple[float, float]:
        whole, *words = (_ratio(name, part) for part in (other, *other.split("_")))
        return max(whole, *words), whole

    names = sorted(known)
    near = max(names, key=likeness, default="")
    hint = f", did you mean {near!r}?" if near and likeness(near)[0] >= _LEAST_LIKENESS else ""
    return UnknownNameError(
        f"unknown {what} {name!r}{hint}",
        expected=f"one of {', '.join(names)}" if names else None,
        next_step=next_step,
    )
