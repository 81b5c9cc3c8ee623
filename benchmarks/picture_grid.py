"""The pictures of a benchmark as one image: a row for each task, its median sample."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageDraw
from torch import Tensor

from transframer.benchmarks.results import Picture, TaskResult

_TILE_PX, _GAP_PX, _LABEL_PX, _FONT_PX = 128, 6, 20, 13
_PAPER, _INK = (255, 255, 255), (22, 24, 29)
_ANSWERS = ("truth", "model", "specialist", "floor", "ceiling")


def picture_grid(results: Sequence[TaskResult]) -> UInt8[Tensor, "3 h w"]:
    """Context, truth and every answer to the sample whose score is the median of its task.

    Args:
        results: with pictures; a task of one sample shows that.
    """
    shown = [(result.task, _median(result.pictures)) for result in results if result.pictures]
    contexts = max((len(picture.context) for _, picture in shown), default=0)
    answers = [name for name in _ANSWERS if any(getattr(picture, name) for _, picture in shown)]
    pitch = _TILE_PX + _GAP_PX
    height = _LABEL_PX + len(shown) * (pitch + _LABEL_PX)
    grid = Image.new("RGB", (_GAP_PX + (contexts + len(answers)) * pitch, height), _PAPER)
    draw = ImageDraw.Draw(grid)
    for column, name in enumerate(["context", *[""] * (contexts - 1), *answers]):
        draw.text((_GAP_PX + column * pitch, 2), name, fill=_INK, font_size=_FONT_PX)
    for row, (task, picture) in enumerate(shown):
        top = _LABEL_PX + row * (pitch + _LABEL_PX)
        draw.text((_GAP_PX, top), task, fill=_INK, font_size=_FONT_PX)
        cells = dict(enumerate(picture.context))
        cells |= {contexts + column: getattr(picture, name) for column, name in enumerate(answers)}
        for column, uri in cells.items():
            if uri:
                grid.paste(_tile(uri), (_GAP_PX + column * pitch, top + _LABEL_PX))
    return torch.from_numpy(np.array(grid)).permute(2, 0, 1).contiguous()


def _median(pictures: Sequence[Picture]) -> Picture:
    return next((picture for picture in pictures if picture.chosen_as == "median"), pictures[0])


def _tile(uri: str) -> Image.Image:
    """The image of a data URI, its longer side as long as a tile's; enlarged pixels stay squares."""
    image = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")
    scale = _TILE_PX / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)
