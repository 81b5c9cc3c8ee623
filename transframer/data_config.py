"""The settings of `transframer data check` and `transframer data show`; imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from transframer.errors import ConfigError
from transframer.setting_checks import check_augmentation, check_seed, check_size_px


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which data, and how it is made into frames; see the configs below."""

    data: str
    format: str | None = None
    data_options: dict[str, Any] = field(default_factory=dict)
    task_settings: dict[str, Any] = field(default_factory=dict)
    size_px: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        check_size_px(self.size_px)
        check_seed(self.seed)


@dataclass(frozen=True, kw_only=True)
class CheckConfig(DataConfig):
    """What is checked.

    Attributes:
        data: the data set's folder or file, or an id on the Hugging Face hub.
        task: the task that is to learn from it; without one, the tasks that it serves are listed and what
            needs no task is checked.
        format: the format of the data (docs/data.md lists them); guessed from the folder if not given.
        split: which part to look at.
        data_options: further settings of the format, such as the columns of a table.
        task_settings: fields of the task that differ from the registered ones; class names come from the
            data.
        samples: records of each split that are decoded in full and made into frames; of all records only
            headers, and the labels that need no decoding, are read.
        size_px: height and width of the frames, a multiple of 16.
        seed: of the choice of the samples.
        json: a file for the findings as JSON.
    """

    task: str | None = None
    split: Literal["all", "train", "validation", "test"] = "all"
    samples: int = 256
    json: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples < 1:
            raise ConfigError(str(self.samples), field="samples", expected="at least 1")


@dataclass(frozen=True, kw_only=True)
class ShowConfig(DataConfig):
    """What is shown.

    Attributes:
        data: the data set's folder or file, or an id on the Hugging Face hub.
        task: the task whose frames are shown.
        out: the PNG file to write.
        format: the format of the data (docs/data.md lists them); guessed from the folder if not given.
        split: which part to take records from.
        data_options: further settings of the format, such as the columns of a table.
        task_settings: fields of the task that differ from the registered ones; class names come from the
            data.
        samples: how many records, each a row of the sheet.
        crop: show each record cut to a random window that keeps at least this share of each side, as training
            meets it; 1 for whole ones.
        flip: show half of the records mirrored left to right.
        color: brightness, contrast and saturation are each multiplied by 1 - color to 1 + color, at random.
        size_px: height and width of the frames, a multiple of 16.
        seed: of the choice of the records.
    """

    task: str
    out: str
    split: Literal["train", "validation", "test"] = "train"
    samples: int = 8
    crop: float = 1.0
    flip: bool = False
    color: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_augmentation(self.crop, self.color)
        if self.samples < 1:
            raise ConfigError(str(self.samples), field="samples", expected="at least 1")
