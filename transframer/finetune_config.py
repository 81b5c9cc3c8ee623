"""The settings of `transframer finetune`; imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from transframer.errors import ConfigError
from transframer.setting_checks import check_augmentation
from transframer.weights import GENERALIST


@dataclass(frozen=True)
class FinetuneConfig:
    """What is fine-tuned, on which data, and for how long.

    Attributes:
        task: the task to learn; one that the model does not know yet gets an embedding of its own.
        data: a data set's folder, or an id on the Hugging Face hub.
        from_: a run folder, a folder of weights, or the name of weights that come with the package, to start
            from.
        data_format: the format of the data (docs/data.md lists them); guessed from the folder if not given.
        data_options: further settings of the format, such as the columns of a table; of any format
            train_samples, to learn from so many samples out of all.
        out: the run folder; runs/TASK if not given. It must not exist yet.
        task_settings: fields of the task that differ from the registered ones; class names come from the
            data.
        old_tasks: the share of training that goes on with the tasks the model knows, on the procedural
            world, so that it forgets less of them, 0 to less than 1.
        old_task_samples: held-out scenes on which each old task is measured before and after; 0 for none.
        lora_rank: learn low-rank changes of the weights of this rank (extra `lora`); 0 learns all weights.
        minutes: train for this long.
        steps: train for this many steps; with `minutes`, whichever ends first. Where neither is given, ten
            epochs, but at least 4,000 samples and at most 200,000.
        size_px: height and width of the frames, a multiple of 16; that of the model if not given.
        batch_size: samples per step.
        learning_rate: the peak. If not given, that of the preset where the model knows the task with other
            classes, whose rows of the task then begin anew; else a quarter of it, and half at a low rank.
        patience: stop after so many validations in a row without a better one, and keep the best model; 0
            always trains to the end.
        validations: how many times to validate, evenly over the run.
        validation_samples: held-out samples for a validation, of the data and of each old task.
        crop: a sample of the data that comes again is cut to a random window, another each time, that keeps
            at least this share of each side, with all its labels; 1 for none. If not given, .8
            (1 for a task whose answer is a picture, or whose samples hold fields of its own).
        flip: half of the samples that come again are mirrored left to right, with all their labels.
        color: brightness, contrast and saturation of samples that come again are each multiplied by 1 - color
            to 1 + color, at random; 0 for none.
        max_bad_share: stop where more than this share of the data set cannot be read.
        seed: fixes the order of the data and all that is drawn.
        workers: processes that read data.
        precision: bf16 is mixed precision; auto takes it on CUDA, and fp32 on a CPU.
        device: auto, cpu or cuda.
    """

    task: str
    data: str
    from_: str = GENERALIST
    data_format: str | None = None
    data_options: dict[str, Any] = field(default_factory=dict)
    out: Path | None = None
    task_settings: dict[str, Any] = field(default_factory=dict)
    old_tasks: float = 0.0
    old_task_samples: int = 32
    lora_rank: int = 0
    minutes: float | None = None
    steps: int | None = None
    size_px: int | None = None
    batch_size: int = 16
    learning_rate: float | None = None
    patience: int = 5
    validations: int = 10
    validation_samples: int = 64
    crop: float | None = None
    flip: bool = False
    color: float = 0.0
    max_bad_share: float = 0.001
    seed: int = 0
    workers: int = 1
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    device: str = "auto"

    def __post_init__(self) -> None:
        if not 0 <= self.old_tasks < 1:
            raise ConfigError(f"{self.old_tasks}", field="old_tasks", expected="0 to less than 1")
        for name in ("batch_size", "validation_samples"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{getattr(self, name)}", field=name, expected="at least 1")
        check_augmentation(1.0 if self.crop is None else self.crop, self.color)
        if self.old_task_samples < 0:
            raise ConfigError(f"{self.old_task_samples}", field="old_task_samples", expected="0 or more")

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.out or Path("runs") / self.task
