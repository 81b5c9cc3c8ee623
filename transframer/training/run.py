"""One process's part in a training run: its state, its steps, and what it saves and reports."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import cast

import torch
from torch import nn

from transframer.errors import ConfigError, TransframerError
from transframer.models.transfer import merged
from transframer.predictor import FramePredictor, Loss
from transframer.seeds import seed_for
from transframer.task import Task
from transframer.training import checkpoint
from transframer.training.bad_samples import BadSamples
from transframer.training.config import TrainConfig
from transframer.training.distributed import LossOf, Ranks
from transframer.training.early_stop import Best
from transframer.training.mixture import (
    Mixture,
    SampleSource,
    StepBatch,
    StepBatches,
    sources_by_task,
)
from transframer.training.optimisation import (
    learning_rate,
    make_optimizer,
    moving_average,
    progress,
    set_learning_rate,
    size_line,
)
from transframer.training.precision import trains_in_bf16
from transframer.training.rendering import rendered, training_batches
from transframer.training.report import Report, end_log, tensorboard_writer
from transframer.training.stopping import StopRequests
from transframer.training.tally import Tally
from transframer.training.validation import Validation

NOT_FINITE_IN_A_ROW = 8


class Run:
    """A training run in one process: its state, and how it goes on."""

    def __init__(
        self,
        config: TrainConfig,
        predictor: FramePredictor,
        tasks: Mapping[str, Task],
        source: SampleSource | Mapping[str, SampleSource],
        held_out: SampleSource | Mapping[str, SampleSource],
        group: Ranks,
    ) -> None:
        self.config, self.tasks, self.group, self.folder = config, tasks, group, config.folder
        weights = {name: config.weights.get(name, 1.0) for name in tasks}
        self.mixture = Mixture(weights, config.batch_size, config.seed)
        self.mixture.slice(0, group.rank, group.world_size)  # raises where the batch does not divide
        self.sources = rendered(sources_by_task(tasks, source), config.render, group.device)
        self.held_out = held_out
        self.predictor = predictor.to(group.device)
        self.optimizer = make_optimizer(self.predictor, config)
        self.average = moving_average(self.predictor, config.ema_decay)
        if config.compile:
            # Blocks, and not the loss around them: cutting chunks out of sequences whose lengths are data
            # breaks a graph at every turn. The average is a copy, made before, and stays as it is.
            for block in self.predictor.blocks():
                block.compile(dynamic=True)
        self.loss = group.wrap(LossOf(self.predictor))
        self.bf16 = trains_in_bf16(config.precision, group.device)
        self.step, self.trained_s, self.validated, self.not_finite = 0, 0.0, 0, 0
        self.best = Best(config.data_tasks or list(tasks), config.patience)
        self.bad = BadSamples(self.folder, group.rank, config.max_bad_share, self.sources)

    def go(self, requests: StopRequests) -> Path:
        """Trains to the end of the run, or to a request to stop."""
        notes: list[str] = []
        if self.config.resume:
            self._load(notes)
        if progress(self.config, self.step, self.trained_s) >= 1:
            if self.group.is_first:
                end_log(self.folder, self._ending())  # it may have been killed before that was written
            raise ConfigError(
                f"the run is complete at step {self.step}",
                file=self.folder,
                next_step="train on with a greater --steps or --minutes",
            )
        first, validation = self.group.is_first, None
        if first:
            validation = Validation(
                self.tasks, self.held_out, self.config.validation_episodes, self.config.pictures
            )
            if self.config.tensorboard:
                tensorboard_writer()  # said before there is a folder
            self.folder.mkdir(parents=True, exist_ok=True)
            checkpoint.save_config(self.folder, self.config)
        dataset = StepBatches(
            self.mixture, self.tasks, self.sources, self.predictor,
            first_step=self.step, rank=self.group.rank, world_size=self.group.world_size,
        )  # fmt: skip
        hint = "more --workers help" if self.config.render == "cpu" else "--render cpu --workers N may help"
        report = Report(
            self.folder if first else None, self.step, self.config.tensorboard, hint, self.group.world_size
        )
        with report, contextlib.closing(training_batches(dataset, self.config.workers)) as stream:
            for note in notes:
                report.say(note)
            report.say(self._opening())
            stop = self._train(stream, report, validation, requests)
            self._save()
            if stop and progress(self.config, self.step, self.trained_s) < 1:
                name = signal.Signals(stop).name
                report.say(
                    f"stopped by {name} and saved at step {self.step}; continue with: "
                    f"transframer train --resume {self.folder}"
                )
            else:
                report.say(self._ending())
            if stop:
                raise SystemExit(128 + stop)
        return self.folder

    def _ending(self) -> str:
        return f"trained {self.step} steps; the model is in {self.folder / checkpoint.MODEL}"

    def _train(
        self,
        stream: Generator[StepBatch, None, None],
        report: Report,
        validation: Validation | None,
        requests: StopRequests,
    ) -> int:
        """Steps until the run is over (returns 0) or asked to stop (returns the signal)."""
        config, tally = self.config, Tally(list(self.tasks))
        began = time.monotonic() - self.trained_s
        logged = saved = self.trained_s
        norm = 0.0
        while True:
            # One clock and one decision for all processes: who stops alone leaves the others waiting.
            self.trained_s, stop, over = self.group.greatest(
                time.monotonic() - began, float(requests.signal_number), float(self.best.over)
            )
            part = progress(config, self.step, self.trained_s)
            if tally.steps and (stop or part >= 1 or self.trained_s - logged >= config.log_every_s):
                rate = learning_rate(config, self.step, self.trained_s)
                report.train(
                    self.step, self.trained_s, progress=part, learning_rate=rate, gradient_norm=norm,
                    **tally.summary(self.group),
                )  # fmt: skip
                logged = self.trained_s
                tally.clear()
            if stop or over:
                return int(stop)
            if int(part * config.validations) > self.validated:
                self.validated = int(part * config.validations)
                self.predictor.progress = part
                self._validate(validation, report)
                continue  # to hear whether it was the last
            if part >= 1:
                return 0
            if self.trained_s - saved >= 60 * config.checkpoint_minutes:
                self._save()
                saved = self.trained_s
            started = time.monotonic()
            batch = next(stream)
            waited = time.monotonic() - started
            self.bad.note(batch.bad)
            loss, norm, skipped = self.take_step(batch)
            tally.add(loss, batch.tasks, time.monotonic() - started, waited, skipped)

    def take_step(self, batch: StepBatch) -> tuple[Loss, float, bool]:
        """One step of training.

        Returns:
            The loss, the norm of the gradient before clipping, and whether the update was left out because
            either was not finite.
        """
        set_learning_rate(self.optimizer, self.config, self.step, self.trained_s)
        self.predictor.progress = progress(self.config, self.step, self.trained_s)
        seed = seed_for(self.config.seed, self.step, self.group.rank)
        torch.manual_seed(seed)  # for dropout: what is random in a step depends on nothing before it
        generator = torch.Generator().manual_seed(seed)
        self.predictor.train()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.group.device.type, torch.bfloat16, enabled=self.bf16):
            loss = self.loss(batch.batch.to(self.group.device), generator)
        loss.total.backward()
        norm = nn.utils.clip_grad_norm_(self.predictor.parameters(), self.config.gradient_clip)
        finite = torch.isfinite(norm) & torch.isfinite(loss.total)
        skipped = bool(self.group.greatest(float(not finite))[0])
        if not skipped:
            self.optimizer.step()
            self.average.update_parameters(self.predictor)
        self.step += 1
        self.not_finite = self.not_finite + 1 if skipped else 0
        if self.not_finite >= NOT_FINITE_IN_A_ROW:
            raise TransframerError(
                f"the loss or its gradient was not finite in {self.not_finite} steps in a row",
                file=self.folder,
                next_step="start anew with a lower --learning-rate, or --precision fp32",
            )
        return loss, float(norm), skipped

    def _validate(self, validation: Validation | None, report: Report) -> None:
        if validation is None:
            return
        averaged = merged(cast(FramePredictor, self.average.module))
        bits = validation.bits_per_frame(averaged)
        report.validation(self.step, self.trained_s, bits, averaged.likelihood)
        if self.config.patience and self.predictor.settled and self.best.note(self.step, bits):
            checkpoint.save_model(self.folder, averaged, self.config, self.step)
        if self.best.over:
            report.say(f"stopping: {self.best}")
        validation.draw(averaged, self.folder / "samples" / f"step-{self.step:06d}")

    def _save(self) -> None:
        problem: TransframerError | None = None
        if self.group.is_first:
            state = {
                "step": self.step,
                "trained_s": self.trained_s,
                "validated": self.validated,
                "best": self.best.state(),
                "progress": self.predictor.progress,
                "predictor": self.predictor.state_dict(),
                "average": self.average.state_dict(),
                "optimizer": self.optimizer.state_dict(),
            }
            try:
                checkpoint.save_checkpoint(self.folder, self.step, state, self.config)
                if not self.config.patience or self.best.step is None:
                    averaged = merged(cast(FramePredictor, self.average.module))
                    checkpoint.save_model(self.folder, averaged, self.config, self.step)
            except TransframerError as error:
                problem = error
        self.group.from_first(problem)

    def _load(self, notes: list[str]) -> None:
        found: Path | TransframerError | None = None
        if self.group.is_first:
            try:
                found = checkpoint.last_good(self.folder, notes.append)
            except TransframerError as error:
                found = error
        folder = self.group.from_first(found)
        state = checkpoint.load_state(folder, self.group.device)
        self.step, self.trained_s, self.validated = (state[key] for key in ("step", "trained_s", "validated"))
        self.best.load(state.get("best", {}))
        self.bad.resume()
        self.predictor.progress = state.get("progress", 0.0)
        settled = self.predictor.settled
        self.predictor.progress = progress(self.config, self.step, self.trained_s)
        # A run that was made longer has validations before it again.
        self.validated = min(self.validated, int(self.predictor.progress * self.config.validations))
        if settled and not self.predictor.settled:
            raise ConfigError(
                "so much longer a run would begin its first phase again",
                file=self.folder,
                field="minutes" if self.config.minutes else "steps",
                expected="an end by which that phase is still over",
                next_step=f"start another run from it: --start-from {self.folder}",
            )
        with checkpoint.fitting(folder):
            self.predictor.load_state_dict(state["predictor"])
            self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
        notes.append(f"resumed at step {self.step}")

    def _opening(self) -> str:
        processes = f" x {self.group.world_size}" if self.group.world_size > 1 else ""
        return (
            f"{size_line(self.predictor)}, {len(self.tasks)} tasks, "
            f"{'bf16' if self.bf16 else 'fp32'} on {self.group.device}{processes}, run folder {self.folder}"
        )
