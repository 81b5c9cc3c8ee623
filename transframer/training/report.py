"""What a run tells: a progress bar on a terminal, plain lines elsewhere and in log.txt, metrics.jsonl.

Each line of metrics.jsonl is one JSON object with `kind`, `step`, `seconds` (trained so far, by the clock),
`processes` (that train together) and

    kind "train"       progress (0 to 1), learning_rate, gradient_norm (before clipping), nats_per_event,
                       heads {head: nats per event}, tasks {task: {frames, nats_per_event, heads}},
                       frames_per_s, tokens_per_s, seconds_per_step, waiting_for_data (share of the time),
                       skipped_steps, peak_memory_mib, on a GPU peak_gpu_memory_mib; means over the steps
                       since the line before
    kind "validation"  tasks {task: {bits_per_frame}}: exact, of held-out frames, by the averaged weights
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from transframer.errors import ConfigError
from transframer.predictor import Likelihood

METRICS, LOG = "metrics.jsonl", "log.txt"
WAITING = 0.2  # of the time: so much is said


def end_log(folder: Path, line: str) -> None:
    """Makes this the last line of a run's log, where it is not."""
    path = folder / LOG
    lines = path.read_text().splitlines() if path.is_file() else []
    if lines[-1:] != [line]:
        with path.open("a") as log:
            log.write(line + "\n")


class Report:
    """The reports of a run; a context manager.

    Args:
        folder: the run folder; None on the processes that stay silent.
        last_step: the step the run goes on from; metrics of later steps, lost by a stop, are dropped.
        tensorboard: also write the numbers for TensorBoard.
        hint: what helps where training waits for data.
        processes: that train together.
    """

    def __init__(
        self,
        folder: Path | None,
        last_step: int = 0,
        tensorboard: bool = False,
        hint: str = "more --workers help",
        processes: int = 1,
    ) -> None:
        self.folder, self.hint, self.processes = folder, hint, processes
        self._bar: Progress | None = None
        self._board: Any = None
        if folder is None:
            return
        _forget_after(folder / METRICS, last_step)
        self._metrics: TextIO = (folder / METRICS).open("a", buffering=1)
        self._log: TextIO = (folder / LOG).open("a", buffering=1)
        if tensorboard:
            self._board = tensorboard_writer()(str(folder / "tensorboard"))
        console = Console()
        if console.is_terminal:
            self._bar = Progress(
                BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TextColumn("{task.description}"),
                console=console,
            )  # fmt: skip
            self._bar.add_task("", total=1.0)

    def __enter__(self) -> Report:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()
        if self.folder:
            self._metrics.close()
            self._log.close()
        if self._board:
            self._board.close()

    def say(self, line: str) -> None:
        """One line, to the log and to the person."""
        if self.folder is None:
            return
        self._log.write(line + "\n")
        if self._bar:
            self._bar.console.print(line, markup=False, highlight=False)
        else:
            print(line, flush=True)

    def train(self, step: int, seconds: float, **metrics: Any) -> None:
        """Reports the steps since the last report."""
        self._write("train", step, seconds, metrics)
        text = (
            f"step {step}  {metrics['nats_per_event']:.3f} nats/token  "
            f"{metrics['frames_per_s']:.0f} frames/s  {metrics['tokens_per_s']:.0f} tokens/s  "
            f"lr {metrics['learning_rate']:.1e}  gradient {metrics['gradient_norm']:.2f}"
        )
        if metrics["waiting_for_data"] >= WAITING:
            text += f"  waiting for data {metrics['waiting_for_data']:.0%} of the time: {self.hint}"
        if metrics["skipped_steps"]:
            text += f"  skipped {metrics['skipped_steps']} steps that were not finite"
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=metrics["progress"], description=text)
            if self.folder is not None:
                self._log.write(f"{metrics['progress']:4.0%}  {text}\n")
        else:
            self.say(f"{metrics['progress']:4.0%}  {text}")

    def validation(
        self, step: int, seconds: float, bits_per_frame: dict[str, float], likelihood: Likelihood = "exact"
    ) -> None:
        """Reports the bits that each task's held-out frames take, at most where the likelihood is a bound."""
        tasks = {name: {"bits_per_frame": bits} for name, bits in bits_per_frame.items()}
        self._write("validation", step, seconds, {"tasks": tasks})
        parts = ", ".join(f"{name} {bits:.0f}" for name, bits in bits_per_frame.items())
        most = " (at most)" if likelihood == "bound" else ""
        self.say(f"held-out bits per frame{most} at step {step}: {parts}")

    def _write(self, kind: str, step: int, seconds: float, metrics: dict[str, Any]) -> None:
        if self.folder is None:
            return
        time = {"seconds": round(seconds, 3), "processes": self.processes}
        line = {"kind": kind, "step": step, **time, **metrics}
        self._metrics.write(json.dumps(line) + "\n")
        if self._board:
            for name, value in _flat(kind, metrics):
                self._board.add_scalar(name, value, step)


def _flat(name: str, value: Any) -> list[tuple[str, float]]:
    if isinstance(value, dict):
        return [pair for key, inner in value.items() for pair in _flat(f"{name}/{key}", inner)]
    return [(name, float(value))]


def _forget_after(path: Path, step: int) -> None:
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):  # cut short by a kill
            continue
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text("".join(kept))
    os.replace(partial, path)


def tensorboard_writer() -> Any:
    """TensorBoard's class that writes its files.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            "TensorBoard is not installed",
            field="tensorboard",
            next_step="install it (pip install 'transframer[track]') or leave the option out",
        ) from error
    return SummaryWriter
