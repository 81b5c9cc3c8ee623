"""The settings of a training run. Imports no torch, so that the command line can read it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from transframer.errors import CheckpointError, ConfigError
from transframer.given import was_given
from transframer.models.catalog import get_model
from transframer.setting_checks import check_augmentation, check_seed, check_size_px

# What a resumed run may change: none of these alters the weights a given step arrives at, except that a new
# end (minutes, steps) stretches the learning rate's decay, which is what asking for it means.
CHANGEABLE = frozenset(
    {"minutes", "steps", "resume", "workers", "render", "device", "log_every_s", "checkpoint_minutes", "keep"}
    | {"validations", "validation_episodes", "pictures", "tensorboard", "data", "max_bad_share", "patience"}
)


@dataclass(frozen=True)
class TrainConfig:
    """Settings of `transframer train`.

    Attributes:
        model: the kind of predictor: transframer, or spatial-temporal, which learns video tasks alone.
        preset: the model's size: tiny, small, base or (transframer only) paper.
        model_settings: settings of the model that differ from the preset's.
        gan: the spatial-temporal model's autoencoder also learns from a discriminator (VQGAN, not VQ-VAE).
        tasks: the tasks to learn; empty for all registered ones that the model can learn.
        weights: how often a task is drawn, relative to the others; 1 for a task not named here.
        minutes: train for this long; the learning rate reaches its end when the time is over.
        steps: train for this many steps; with `minutes`, whichever ends first.
        out: the run folder; runs/PRESET if not given. It must not exist yet.
        start_from: a run folder or a folder of weights to start from, instead of random weights; its model
            decides the preset.
        data: a data set's folder, or an id on the Hugging Face hub, for the tasks in `data_tasks`; the other
            tasks, and all where no data are given, learn from the procedural world.
        data_format: the format of the data (docs/data.md lists them); guessed from the folder if not given.
        data_options: further settings of the format, such as the columns of a table; of any format
            train_samples, to learn from so many samples out of all.
        data_tasks: the tasks that learn from the data; empty for all.
        task_settings: by task, the fields that differ from the registered ones. Class names come from the
            data where these know them.
        crop: a sample of the data that comes again is cut to a random window, another each time, that keeps
            at least this share of each side, with all its labels; 1 for none.
        flip: half of the samples that come again are mirrored left to right, with all their labels.
        color: brightness, contrast and saturation of samples that come again are each multiplied by 1 - color
            to 1 + color, at random; 0 for none.
        max_bad_share: a sample that cannot be read is replaced by another and listed in bad_samples.jsonl;
            the run stops where more than this share of the data set is bad.
        lora_rank: learn low-rank changes of the weights instead of the weights (LoRA, arXiv 2106.09685, by
            the library peft, extra `lora`); 0 learns them all.
        patience: stop after so many validations in a row without fewer bits per frame on the `data_tasks`
            (all tasks without data), and keep the best model; 0 always trains to the end.
        resume: continue the run in this folder, with its own settings; time and steps may be extended.
        seed: fixes the initial weights, the data and their order.
        size_px: height and width of the frames, a multiple of 16.
        batch_size: episodes per step, over all processes together.
        learning_rate: the peak, reached after the warm-up; it then falls linearly to zero. The preset's if
            not given.
        optimizer: adamw, or muon, with which a model from random weights learns in fewer steps
            (docs/log.md); its learning rates are those of adamw.
        warmup_steps: steps of linear warm-up (at most a fifth of `steps`).
        weight_decay: decoupled decay of matrices; norms, biases, embeddings and gains have none.
        gradient_clip: the greatest norm of the gradient.
        ema_decay: the greatest decay of the moving average of the weights, which is what is evaluated and
            saved; it starts lower, so that early weights are forgotten.
        precision: bf16 is mixed precision; auto takes it on CUDA, and on a CPU that multiplies bf16.
        compile: compile the predictor's blocks with torch.compile: minutes to start; does not win on a CPU.
        workers: processes that make data; 0 makes them in the training process, between the steps. Not used
            where scenes are rendered on the device.
        render: where the procedural world is rendered: cpu, by the workers; device, where the training runs,
            many scenes at once, in a thread beside it (all tasks must learn from the world).
        checkpoint_minutes: minutes between two checkpoints; the last step is always saved.
        keep: how many checkpoints to keep.
        log_every_s: seconds between two lines of the log.
        validations: how many times to validate, evenly over the run, the last time at its end.
        validation_episodes: held-out episodes per task for a validation.
        pictures: sample pictures per task at each validation.
        tensorboard: also write the metrics for TensorBoard (needs the extra `track`).
        device: auto, cpu or cuda; auto takes CUDA where it is available.
    """

    model: str = "transframer"
    preset: str = "tiny"
    model_settings: dict[str, Any] = field(default_factory=dict)
    gan: bool = False
    tasks: list[str] = field(default_factory=list)
    weights: dict[str, float] = field(default_factory=dict)
    minutes: float | None = None
    steps: int | None = None
    out: Path | None = None
    start_from: Path | None = None
    data: str | None = None
    data_format: str | None = None
    data_options: dict[str, Any] = field(default_factory=dict)
    data_tasks: list[str] = field(default_factory=list)
    task_settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    crop: float = 1.0
    flip: bool = False
    color: float = 0.0
    max_bad_share: float = 0.001
    lora_rank: int = 0
    patience: int = 0
    resume: Path | None = None
    seed: int = 0
    size_px: int = 64
    batch_size: int = 16
    learning_rate: float | None = None
    optimizer: Literal["adamw", "muon"] = "adamw"
    warmup_steps: int = 50
    weight_decay: float = 0.01
    gradient_clip: float = 1.0
    ema_decay: float = 0.999
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: bool = False
    workers: int = 1
    render: Literal["cpu", "device"] = "cpu"
    checkpoint_minutes: float = 5.0
    keep: int = 2
    log_every_s: float = 10.0
    validations: int = 3
    validation_episodes: int = 4
    pictures: int = 2
    tensorboard: bool = False
    device: str = "auto"

    def __post_init__(self) -> None:
        def check(name: str, holds: bool, expected: str) -> None:
            if not holds:
                raise ConfigError(f"{getattr(self, name)!r}", field=name, expected=expected)

        # What the model cannot be is told before anything heavy is imported.
        get_model(self.model).settings(self.preset, self.changes)
        check("minutes", self.minutes is None or self.minutes > 0, "more than 0 minutes")
        check("steps", self.steps is None or self.steps > 0, "at least 1 step")
        check_seed(self.seed)
        check_size_px(self.size_px)
        for name in ("batch_size", "validations", "validation_episodes"):
            check(name, getattr(self, name) >= 1, "at least 1")
        for name in ("gradient_clip", "checkpoint_minutes", "log_every_s"):
            check(name, getattr(self, name) > 0, "more than 0")
        check("learning_rate", self.learning_rate is None or self.learning_rate > 0, "more than 0")
        for name in ("warmup_steps", "weight_decay", "workers", "pictures", "lora_rank", "patience"):
            check(name, getattr(self, name) >= 0, "0 or more")
        check("pictures", self.pictures <= self.validation_episodes, "at most validation_episodes")
        check("ema_decay", 0 <= self.ema_decay < 1, "0 to less than 1")
        check("keep", self.keep >= 2, "at least 2, so that a damaged checkpoint has a predecessor")
        check_augmentation(self.crop, self.color)
        if not (self.data or self.resume) and (self.crop < 1 or self.flip or self.color > 0):
            raise ConfigError("without data", field="crop, flip, color", expected="--data beside them")
        check("max_bad_share", 0 <= self.max_bad_share <= 1, "0 to 1")
        check("data_tasks", not self.data_tasks or self.data is not None, "--data beside it")
        among = not self.tasks or set(self.data_tasks) <= set(self.tasks)
        check("data_tasks", among, f"tasks among those trained: {', '.join(self.tasks)}")
        check(
            "lora_rank", not self.lora_rank or bool(self.start_from or self.resume), "weights to start from"
        )
        check("precision", self.precision in ("auto", "fp32", "bf16"), "auto, fp32 or bf16")
        check("render", self.render in ("cpu", "device"), "cpu or device")
        check("render", not (self.render == "device" and self.data), "cpu beside --data")
        check("weights", all(weight > 0 for weight in self.weights.values()), "weights above 0")
        check("tasks", len(set(self.tasks)) == len(self.tasks), "each task once")
        if self.tasks and (strangers := set(self.weights) - set(self.tasks)):
            raise ConfigError(
                f"weights for {', '.join(sorted(strangers))}, not among the tasks trained", field="weights"
            )

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.resume or self.out or Path("runs") / self.preset

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate after the warm-up."""
        rates = get_model(self.model).learning_rates
        return rates[self.preset] if self.learning_rate is None else self.learning_rate

    @property
    def changes(self) -> dict[str, Any]:
        """The model's settings that differ from the preset's."""
        return {**self.model_settings, "gan": True} if self.gan else self.model_settings

    def share(self, task: str) -> float:
        """How much of training a task among `tasks` takes."""
        return self.weights.get(task, 1.0) / sum(self.weights.get(name, 1.0) for name in self.tasks)

    @property
    def tasks_of_data(self) -> list[str]:
        """The tasks that learn from a data set; the others learn from the world."""
        return (self.data_tasks or self.tasks) if self.data else []

    def require_end(self) -> None:
        """Raises ConfigError where neither minutes nor steps says when the run ends."""
        if self.minutes is None and self.steps is None:
            raise ConfigError(
                "neither minutes nor steps is given",
                field="minutes",
                expected="the length of the run",
                next_step="for example: --minutes 10",
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dicts, for YAML and JSON; `resume` is not part of a run."""
        values = dataclasses.asdict(self)
        del values["resume"]
        start_from = None if self.start_from is None else str(self.start_from)
        return values | {"out": str(self.folder), "start_from": start_from}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], file: object = None) -> TrainConfig:
        """The inverse of `to_dict`.

        Args:
            file: where the values were read, for the error.

        Raises:
            CheckpointError: for a setting that this version of the code does not know, or a value of
                another type.
        """
        known = {setting.name for setting in dataclasses.fields(cls)}
        if strangers := set(values) - known:
            raise CheckpointError(
                f"unknown settings {', '.join(sorted(strangers))}",
                file=file,
                expected="settings of this version of transframer",
                next_step="use the version of transframer that wrote the run",
            )
        try:
            paths = {name: Path(values[name]) for name in ("out", "start_from") if values.get(name)}
            return cls(**{**values, **paths})
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"unusable settings: {error}", file=file) from error

    def over(self, stored: TrainConfig) -> TrainConfig:
        """The settings of a resumed run: those stored, with this one's changes to them.

        A setting that was not given (see `transframer.given`) keeps the stored value.

        Raises:
            ConfigError: where a change would make it another run.
        """
        default, changes = TrainConfig(), {}
        for name in (setting.name for setting in dataclasses.fields(self)):
            given, before = getattr(self, name), getattr(stored, name)
            if name in ("out", "resume") or given == before:
                continue
            if not was_given(self, name, getattr(default, name)):
                continue
            if name not in CHANGEABLE:
                raise ConfigError(
                    f"{given!r} for a run that was started with {before!r}",
                    file=self.resume,
                    field=name,
                    expected=f"a resumed run to keep its {name}",
                    next_step="start a new run, in another folder, to change it",
                )
            changes[name] = given
        return dataclasses.replace(stored, **changes, out=self.resume, resume=self.resume)
