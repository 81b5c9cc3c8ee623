"""`transframer data show`: a sheet of records as the frames of a task, before and after coding."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from transframer.codec import round_trip, token_count
from transframer.data.augmentation import Augmentation
from transframer.data.catalog import open_dataset
from transframer.data.dataset import Dataset
from transframer.data.formats.images import resize_image, save_png
from transframer.data.source import checked_keys, read_record, resized
from transframer.data_check import with_classes
from transframer.data_config import ShowConfig
from transframer.errors import DataError, TransframerError
from transframer.seeds import seed_for
from transframer.task import Task
from transframer.task_settings import configured_task
from transframer.tasks.drawing import enlarged

_GAP_PX, _TITLE_PX, _FONT_PX = 8, 22, 14
_PAPER, _INK, _SOFT = (232, 234, 238), (22, 24, 29), (92, 99, 112)
_FAILURES_IN_A_ROW = 16


@dataclass(frozen=True)
class Row:
    """One record on the sheet.

    Attributes:
        name: the file it is read from, and its place in the split.
        figures: tokens of its frame, and the task's headline after coding.
        context: the context frames.
        others: target, target after coding and decoding, drawing of the truth, drawing of what is decoded.
    """

    name: str
    figures: str
    context: tuple[UInt8[Tensor, "3 _ _"], ...]
    others: tuple[UInt8[Tensor, "3 _ _"], ...]


OTHERS = ("target frame", "frame after the codec", "truth", "truth after the codec")


def show(config: ShowConfig) -> Path:
    """Writes the sheet, and says which records were left out because they cannot be read.

    Returns:
        The file written.

    Raises:
        TransframerError: data that cannot be opened, that lack what the task needs, or of which no record can
            be shown; a file that cannot be written.
    """
    task = configured_task(config.task, {config.task: config.task_settings})
    dataset = open_dataset(config.data, config.split, task, format=config.format, options=config.data_options)
    task = with_classes(task, dataset, config)
    rows = []
    augmentation = Augmentation(config.crop, config.flip, config.color)
    augmentation.check(task.sample_type)
    for row in _rows(dataset, task, augmentation, config.size_px, config.seed):
        rows.append(row)
        if len(rows) == config.samples:
            break
    out = Path(config.out)
    save_png(out, sheet(rows))
    print(f"{len(rows)} of {len(dataset)} records of {config.split} in {out}")
    return out


def _rows(dataset: Dataset, task: Task, augmentation: Augmentation, size_px: int, seed: int) -> Iterator[Row]:
    keys = checked_keys(dataset, task.sample_type)
    count = len(dataset)
    generator = torch.Generator().manual_seed(seed)
    order = range(count) if dataset.shuffle_window else torch.randperm(count, generator=generator).tolist()
    failed = shown = 0
    for index in order:
        try:
            record = augmentation(read_record(dataset, index, keys), seed_for(seed, "augmentation", index))
            row = row_of(resized(record, size_px), dataset, index, task)
        except TransframerError as error:
            failed += 1
            if failed == _FAILURES_IN_A_ROW or (not shown and failed == count):
                raise
            print(f"left out: record {index}: {error}", file=sys.stderr)
            continue
        failed, shown = 0, shown + 1
        yield row
    if not shown:
        raise DataError("no record can be shown", file=dataset.root)


def row_of(sample: dict[str, Any], dataset: Dataset, index: int, task: Task) -> Row:
    """A record as a row.

    Raises:
        DataError: it has no label, or one that the task does not take.
    """
    episode = task.format(sample)
    if episode.target is None:
        raise DataError("the record has no label", file=", ".join(map(str, dataset.files(index))))
    frame, truth = round_trip(episode), task.truth(sample)
    decoded = task.decode(frame, episode.without_target())
    value = task.summarise([task.score(decoded, sample)])[task.headline.name]
    tokens = int(token_count([episode]))
    headline = f"{task.headline.name} {value:.3g} {task.headline.unit}" if not math.isnan(value) else ""
    return Row(
        f"{index}: {_name(dataset, index)}",
        f"{tokens} token{'s' * (tokens != 1)}   {headline}".strip(),
        tuple(each.image for each in episode.context),
        (episode.target.image, frame.image, task.draw(sample, truth), task.draw(sample, decoded)),
    )


def _name(dataset: Dataset, index: int) -> str:
    file = Path(next(iter(dataset.files(index)), dataset.root))
    inside = file.is_relative_to(dataset.root) and file != dataset.root
    return str(file.relative_to(dataset.root) if inside else file)


def sheet(rows: Sequence[Row]) -> UInt8[Tensor, "3 h w"]:
    """The rows one below the other, columns aligned, each row under its name and figures."""
    contexts = max(len(row.context) for row in rows)
    tile = max(max(enlarged(image)[0].shape[1:]) for image in rows[0].context)
    titles = [f"context {place + 1}" if contexts > 1 else "context" for place in range(contexts)]
    titles += OTHERS
    across, down = tile + _GAP_PX, _TITLE_PX + tile + _GAP_PX
    size = _GAP_PX + len(titles) * across, _GAP_PX + _TITLE_PX + len(rows) * down
    picture = Image.new("RGB", size, _PAPER)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(_FONT_PX)
    for place, title in enumerate(titles):
        draw.text((_GAP_PX + place * across, _GAP_PX), title, fill=_INK, font=font)
    for number, row in enumerate(rows):
        top = _GAP_PX + _TITLE_PX + number * down
        right = size[0] - _GAP_PX - draw.textlength(row.figures, font=font)
        draw.text((right, top), row.figures, fill=_INK, font=font)
        name = _shortened(row.name, right - 3 * _GAP_PX, draw, font)
        draw.text((_GAP_PX, top), name, fill=_SOFT, font=font)
        # A row of fewer context frames leaves the first columns empty.
        for place, image in enumerate((*row.context, *row.others), contexts - len(row.context)):
            picture.paste(_tile(image, tile), (_GAP_PX + place * across, top + _TITLE_PX))
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def _tile(image: UInt8[Tensor, "3 h w"], side: int) -> Image.Image:
    """An image in a square, its pixels as squares where they divide it."""
    image = enlarged(image)[0]
    if tuple(image.shape[1:]) != (side, side):
        image = resize_image(image, (side, side))
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())


def _shortened(text: str, width: float, draw: ImageDraw.ImageDraw, font: Any) -> str:
    """A text without its middle part, where it is too wide."""
    kept = len(text)
    while kept > 4 and draw.textlength(text, font=font) > width:
        kept -= 4
        text = f"{text[: kept // 2]}...{text[-kept // 2 :]}"
    return text
