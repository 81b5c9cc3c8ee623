"""Results on disk: written whole or not at all, found again by the digest of their protocol."""

from __future__ import annotations

import json
from pathlib import Path

from transframer.benchmarks.results import TaskResult
from transframer.data.formats.atomic import write_text


class ResultCache:
    """Task results in a folder, one JSON file per task and protocol.

    Args:
        folder: made when the first result is stored.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, task: str, digest: str) -> Path:
        """Where the result of this task under this protocol lies."""
        return self.folder / f"{task}-{digest}.json"

    def load(self, task: str, digest: str) -> TaskResult | None:
        """The stored result, or None where there is none, or none that can be read."""
        try:
            result = TaskResult.from_json(json.loads(self.path(task, digest).read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError):
            return None  # measured again, and replaced
        return result if (result.task, result.digest) == (task, digest) else None

    def store(self, result: TaskResult) -> None:
        """Keeps a result for the next benchmark with the same protocol.

        Raises:
            DataError: the file cannot be written.
        """
        write_text(self.path(result.task, result.digest), json.dumps(result.to_json(), allow_nan=False))
