"""A picture of videos: frames spread evenly over their time, a row for each video."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageDraw
from torch import Tensor

from transframer.data.formats.images import resize_image
from transframer.video_partial import PartialVideos
from transframer.video_prompt import Prompt

_DRAWN = 7  # columns, beside that of the latest frame given
_TILE_PX, _GAP_PX, _LABEL_PX, _FONT_PX = 160, 8, 22, 14
_PAPER, _INK = (255, 255, 255), (22, 24, 29)


def shown_numbers(count: int, most: int = _DRAWN) -> list[int]:
    """Which of the drawn frames a sheet shows: evenly spread, the first and the last among them.

    >>> shown_numbers(30), shown_numbers(2)
    ([0, 5, 10, 14, 19, 24, 29], [0, 1])
    """
    return np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()


def video_sheet(
    prompt: Prompt, partial: PartialVideos, count: int, frames_per_s: float
) -> UInt8[Tensor, "3 h w"]:
    """The latest frame given and some of the first `count` drawn, each with its time after the former.

    Args:
        partial: the frames drawn of each video.
        frames_per_s: of the videos.
    """
    scale = _TILE_PX / max(prompt.size)
    tile = max(1, round(prompt.size[0] * scale)), max(1, round(prompt.size[1] * scale))
    numbers = shown_numbers(count)
    labels = ["given", *(f"+{round((number + 1) / frames_per_s, 2):g} s" for number in numbers)]
    # A tile of a tall image is narrower than its label.
    width, height = max(tile[1], _TILE_PX // 2) + _GAP_PX, tile[0] + _GAP_PX
    videos = len(partial.files)
    size = len(labels) * width + _GAP_PX, videos * height + _GAP_PX + _LABEL_PX
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, label in enumerate(labels):
        draw.text((_GAP_PX + column * width, _GAP_PX // 2), label, fill=_INK, font_size=_FONT_PX)
    for video in range(videos):
        frames = [prompt.frames[-1], *(partial.frame(video, number) for number in numbers)]
        for column, frame in enumerate(frames):
            pixels = resize_image(frame, tile).permute(1, 2, 0).contiguous().numpy()
            sheet.paste(
                Image.fromarray(pixels), (_GAP_PX + column * width, _LABEL_PX + _GAP_PX // 2 + video * height)
            )
    return torch.from_numpy(np.array(sheet)).permute(2, 0, 1).contiguous()
