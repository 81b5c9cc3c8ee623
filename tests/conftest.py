"""What several tests share: a registry that forgets, and distributions made by hand."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from transframer import registry


@pytest.fixture
def fresh_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The registry as in a new process, and as it was when the test ends."""
    monkeypatch.delenv(registry.VARIABLE, raising=False)
    monkeypatch.setattr(registry, "_included", {})
    monkeypatch.setattr(registry, "_failed", {})
    monkeypatch.setattr(sys, "path", list(sys.path))
    modules = set(sys.modules)
    yield
    os.environ.pop(registry.VARIABLE, None)  # set by `include` itself, so monkeypatch would not know
    for name in set(sys.modules) - modules:
        if not name.startswith(("transframer.", "torch")):
            del sys.modules[name]


@pytest.fixture
def distribution(tmp_path: Path) -> Callable[[str, dict[str, str]], Path]:
    """Writes an installed distribution that announces tasks; returns the folder to put on the path."""

    def write(name: str, tasks: dict[str, str], folder: str = "site") -> Path:
        info = tmp_path / folder / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [f"[{registry.GROUP}]", *(f"{task} = {target}" for task, target in tasks.items())]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
        return info.parent

    return write
