"""Pretrained weights that come with the package, by name; imports no torch."""

from __future__ import annotations

from pathlib import Path

GENERALIST = "generalist"

_FOLDER = Path(__file__).parent


def names() -> list[str]:
    """The weights that there are."""
    return sorted(path.parent.name for path in _FOLDER.glob("*/config.json"))


def located(run: Path | str) -> Path:
    """The folder of weights by name; a path stays as it is; an existing folder of that name wins."""
    path = Path(run)
    if str(run) in names() and not path.exists():
        return _FOLDER / str(run)
    return path


def home(run: Path | str) -> Path:
    """Where results of a run belong: its own folder; runs/NAME for weights that come with the package."""
    return Path("runs") / run if located(run) != Path(run) else Path(run)
