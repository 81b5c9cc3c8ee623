"""Samples that could not be read while training: listed in the run folder, and where too many, the end."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from transframer.errors import DataError
from transframer.training.mixture import ReplacingSource, SampleSource

FILE = "bad_samples.jsonl"


class BadSamples:
    """The list of one process's bad samples, each once: `bad_samples.jsonl` of the run folder.

    A line is a JSON object: task, index (in the data set), files, reason, replaced_by. Processes of rank 1
    and above write bad_samples.rank1.jsonl and so on.

    Args:
        folder: the run folder, which need not exist before the first bad sample.
        max_share: the greatest share of a data set's samples that may be bad.
        sources: by task; those that replace samples are counted.
    """

    def __init__(
        self, folder: Path, rank: int, max_share: float, sources: Mapping[str, SampleSource]
    ) -> None:
        self.path = folder / (FILE if rank == 0 else f"bad_samples.rank{rank}.jsonl")
        self.max_share = max_share
        self.sizes = {
            name: len(source) for name, source in sources.items() if isinstance(source, ReplacingSource)
        }
        self.seen: set[tuple[str, int]] = set()

    def resume(self) -> None:
        """Counts what all processes of an earlier part of the run listed."""
        for path in self.path.parent.glob("bad_samples*.jsonl"):
            for line in path.read_text().splitlines():
                with suppress(ValueError, KeyError):  # a line that a kill cut off
                    entry = json.loads(line)
                    self.seen.add((entry["task"], entry["index"]))
        if self.path.is_file() and not self.path.read_text().endswith("\n"):
            with self.path.open("a") as file:
                file.write("\n")

    def note(self, bad: Sequence[tuple[str, Any]]) -> None:
        """Lists the samples not listed yet.

        Raises:
            DataError: more of a data set is bad than the run may have.
        """
        new = {(task, each.index): each for task, each in bad if (task, each.index) not in self.seen}
        if not new:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            for (task, _), each in new.items():
                file.write(json.dumps({"task": task, **each.to_json()}) + "\n")
        self.seen |= set(new)
        for task in {task for task, _ in new}:
            count = sum(name == task for name, _ in self.seen)
            if count > self.max_share * self.sizes[task]:
                raise DataError(
                    f"{count} of {self.sizes[task]} samples of {task} cannot be read",
                    file=self.path,
                    expected=f"at most {self.max_share:.2%} of them",
                    next_step="mend or remove the files listed there, or allow more with --max-bad-share",
                )
