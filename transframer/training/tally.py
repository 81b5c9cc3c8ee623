"""Sums over the steps between two lines of the log, per task and per head of the model."""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from transframer.predictor import Loss
from transframer.training.distributed import Ranks


class Tally:
    """Collects losses without waiting for the device, and adds them up over steps and processes.

    Args:
        tasks: the names of the tasks trained.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        self.tasks = list(tasks)
        self.clear()

    def clear(self) -> None:
        """Starts a new interval."""
        self.heads: list[str] = []
        self.columns: list[Tensor] = []
        self.task_ids: list[int] = []
        self.steps, self.skipped, self.seconds, self.waited = 0, 0, 0.0, 0.0

    def add(self, loss: Loss, tasks: Sequence[str], seconds: float, waited: float, skipped: bool) -> None:
        """Counts one step.

        Args:
            tasks: the task of each episode.
            seconds: what the step took.
            waited: of these, the seconds until its data were there.
            skipped: whether its update was left out because it was not finite.
        """
        self.heads = list(loss.parts)
        rows = [torch.ones_like(loss.nats), loss.events, loss.nats, *loss.parts.values()]
        self.columns.append(torch.stack([row.detach().double() for row in rows]))  # 3+heads b
        self.task_ids += [self.tasks.index(task) for task in tasks]
        self.steps += 1
        self.skipped += skipped
        self.seconds += seconds
        self.waited += waited

    def summary(self, ranks: Ranks) -> dict[str, Any]:
        """The interval as entries of a line of metrics.jsonl (see `report.py`); every process must ask."""
        values = torch.cat(self.columns, dim=1).cpu()  # 3+heads n
        sums = torch.zeros(len(values), len(self.tasks), dtype=torch.float64)
        sums = ranks.sum(sums.index_add(1, torch.tensor(self.task_ids), values))
        frames, events, nats = sums[:3].sum(dim=1).tolist()
        summary = {
            "nats_per_event": nats / max(events, 1),
            "heads": _per_event(sums.sum(dim=1), self.heads),
            "tasks": {
                name: {
                    "frames": int(column[0]),
                    "nats_per_event": float(column[2] / column[1].clamp(min=1)),
                    "heads": _per_event(column, self.heads),
                }
                for name, column in zip(self.tasks, sums.T, strict=True)
                if column[0]
            },
            "frames_per_s": frames / self.seconds,
            "tokens_per_s": events / self.seconds,
            "seconds_per_step": self.seconds / self.steps,
            "waiting_for_data": self.waited / self.seconds,
            "skipped_steps": self.skipped,
            "peak_memory_mib": peak_memory_mib(),
        }
        if ranks.device.type == "cuda":
            summary["peak_gpu_memory_mib"] = torch.cuda.max_memory_allocated(ranks.device) / 2**20
        return summary


def peak_memory_mib() -> float:
    """The greatest resident size of this process so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # bytes there, KiB elsewhere


def _per_event(sums: Tensor, heads: list[str]) -> dict[str, float]:
    return {head: float(sums[3 + i] / sums[1].clamp(min=1)) for i, head in enumerate(heads)}
