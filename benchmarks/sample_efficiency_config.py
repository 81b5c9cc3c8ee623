"""The settings of the comparison of fine-tuning with training from scratch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transframer.data.subset import OPTION
from transframer.errors import ConfigError
from transframer.finetune_config import FinetuneConfig
from transframer.weights import GENERALIST

# Not what one of the models is trained by: which of them there are, what they are measured on, the machine.
_FREE = ("samples", "test_samples", "out", "workers", "device")


@dataclass(frozen=True)
class SampleEfficiencyConfig:
    """What is learned from how few samples, and on what both are measured.

    Attributes:
        data: a data set's folder, or an id on the Hugging Face hub.
        task: the task to learn.
        out: the folder for the results and the trained runs; a command that was interrupted goes on there.
        samples: numbers of training samples, each a row of the table; 0 for all there are.
        from_: a run folder, a folder of weights, or the name of weights that come with the package, to
            fine-tune.
        data_format: the format of the data (docs/data.md lists them); guessed from the folder if not given.
        data_options: further settings of the format, such as the columns of a table.
        task_settings: fields of the task that differ from the registered ones; class names come from the
            data.
        crop: the least share of each side that a random window of a sample that comes again keeps, 1 for
            whole samples; that of `transframer finetune` if not given.
        flip: half of the samples that come again are mirrored left to right.
        color: brightness, contrast and saturation of samples that come again are each multiplied by 1 - color
            to 1 + color, at random.
        minutes: train each model for this long.
        size_px: height and width of the frames, a multiple of 16; that of the model if not given.
        batch_size: samples per step.
        test_samples: of the test part, a random subset that is the same for all; 0 for all of it.
        seed: of the weights from scratch and of the order of the data.
        workers: processes that read data.
        device: auto, cpu or cuda.
    """

    data: str
    task: str
    out: Path
    samples: list[int] = field(default_factory=lambda: [100, 1000, 0])
    from_: str = GENERALIST
    data_format: str | None = None
    data_options: dict[str, Any] = field(default_factory=dict)
    task_settings: dict[str, Any] = field(default_factory=dict)
    crop: float | None = None
    flip: bool = False
    color: float = 0.0
    minutes: float = 2.0
    size_px: int | None = None
    batch_size: int = 16
    test_samples: int = 2000
    seed: int = 0
    workers: int = 1
    device: str = "auto"

    def __post_init__(self) -> None:
        def check(name: str, holds: bool, expected: str) -> None:
            if not holds:
                raise ConfigError(f"{getattr(self, name)!r}", field=name, expected=expected)

        counts = self.samples
        check("samples", bool(counts) and min(counts, default=0) >= 0, "numbers of samples, 0 for all")
        check("samples", len(set(counts)) == len(counts), "each number once")
        check("data_options", OPTION not in self.data_options, f"no {OPTION}: samples has the numbers")
        check("minutes", self.minutes > 0, "more than 0 minutes")
        check("test_samples", self.test_samples >= 0, "0 or more")

    @property
    def of_training(self) -> dict[str, Any]:
        """The settings that decide what a model learns from so many samples."""
        values = dataclasses.asdict(self)
        return {name: value for name, value in values.items() if name not in _FREE}

    def finetuning(
        self, count: int, from_: Path | str, out: Path, learning_rate: float | None = None
    ) -> FinetuneConfig:
        """The settings of one training run: of `count` samples, all for 0.

        Args:
            from_: the weights to start from; they may be random.
            out: its run folder.
            learning_rate: the peak; that of fine-tuning if not given.
        """
        return FinetuneConfig(
            task=self.task,
            data=self.data,
            from_=str(from_),
            data_format=self.data_format,
            data_options={**self.data_options, **({OPTION: count} if count else {})},
            out=out,
            task_settings=self.task_settings,
            old_task_samples=0,
            crop=self.crop,
            flip=self.flip,
            color=self.color,
            minutes=self.minutes,
            size_px=self.size_px,
            batch_size=self.batch_size,
            learning_rate=learning_rate,
            seed=self.seed,
            workers=self.workers,
            device=self.device,
        )
