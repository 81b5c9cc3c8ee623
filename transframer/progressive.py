"""A drawn frame as it comes to be: decoded after each frequency band of its triples.

Triples come from coarse to fine (see `codec.layout`), so those drawn so far always decode to a blurred
picture of the frame, as in progressive JPEG (ITU-T T.81, annex G, spectral selection). A step is a diagonal
of the zigzag order of one plane, or the part of it that lies in one band; steps come as the model draws them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from PIL import Image, ImageDraw
from torch import Tensor

from transframer.codec import N_CHANNELS, channel_band, channel_plane, channel_zigzag, decode_frames
from transframer.codec.layout import ZIGZAG
from transframer.data.formats.images import resize_image
from transframer.frames import Episode, Frame

PLANES = ("Y", "Cb", "Cr")
_PER_ROW = 8
_TILE_PX, _GAP_PX, _LABEL_PX, _FONT_PX = 160, 8, 38, 14
_PAPER, _INK, _SOFT = (255, 255, 255), (22, 24, 29), (92, 99, 112)


@dataclass(frozen=True)
class Step:
    """The frame after some of its triples.

    Attributes:
        frame: decoded from all triples so far.
        triples: of this step alone.
        total: of this step and those before it.
        plane: "Y", "Cb" or "Cr"; None at the start, before any triple.
        zigzag: first and last zigzag index of the step; None at the start.
    """

    frame: Frame
    triples: int
    total: int
    plane: str | None = None
    zigzag: tuple[int, int] | None = None

    @property
    def label(self) -> str:
        """Plane and zigzag indices, for people."""
        if self.zigzag is None:
            return "start"
        first, last = self.zigzag
        return f"{self.plane} {first}" + (f"-{last}" if last > first else "")

    def to_json(self) -> dict[str, Any]:
        """What was added, as JSON values."""
        return {
            "plane": self.plane,
            "zigzag": self.zigzag and list(self.zigzag),
            "triples": self.triples,
            "total": self.total,
        }


def progressive_steps(grid: Int[Tensor, "192 gy gx"], episode: Episode) -> list[Step]:
    """The frame before any triple (grey, or what it is coded against), and after each step that has triples.

    Args:
        grid: the frame's quantised coefficients, as drawn.
        episode: the frame's episode; its query says how the frame is coded.
    """
    ends, added = [0], [0]
    names: list[tuple[str, tuple[int, int]] | None] = [None]
    for (_, plane, _), run in groupby(range(N_CHANNELS), _step):
        channels = list(run)
        triples = int(grid[channels[0] : channels[-1] + 1].count_nonzero())
        if triples:
            ends.append(channels[-1] + 1)
            added.append(triples)
            low, high = (int(channel_zigzag[channel]) for channel in (channels[0], channels[-1]))
            names.append((PLANES[plane], (low, high)))
    drawn = torch.arange(N_CHANNELS) < torch.tensor(ends)[:, None]
    prefixes = grid.cpu() * drawn[..., None, None].to(grid.dtype)
    frames = decode_frames(prefixes, [episode] * len(ends))
    totals = np.cumsum(added).tolist()
    return [
        Step(frame, triples, total, *(name or ()))
        for frame, triples, total, name in zip(frames, added, totals, names, strict=True)
    ]


def _step(channel: int) -> tuple[int, int, int]:
    """Band, plane and diagonal of a channel: what does not change during one step."""
    diagonal = sum(ZIGZAG[int(channel_zigzag[channel])])
    return int(channel_band[channel]), int(channel_plane[channel]), diagonal


def contact_sheet(steps: Sequence[Step], size: tuple[int, int]) -> UInt8[Tensor, "3 h w"]:
    """The frames from left to right, in rows of 8, each above its label and the number of triples so far.

    Args:
        size: height and width of the user's image; the frames are shown at its aspect.
    """
    scale = _TILE_PX / max(size)
    tile = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    across, rows = min(len(steps), _PER_ROW), -(-len(steps) // _PER_ROW)
    # A tile of a tall image is narrower than its label.
    width, height = max(tile[1], _TILE_PX // 2 + 16) + _GAP_PX, tile[0] + _LABEL_PX + _GAP_PX
    sheet = Image.new("RGB", (across * width + _GAP_PX, rows * height + _GAP_PX), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for place, step in enumerate(steps):
        x, y = _GAP_PX + place % _PER_ROW * width, _GAP_PX + place // _PER_ROW * height
        pixels = resize_image(step.frame.image, tile).permute(1, 2, 0).contiguous().numpy()
        sheet.paste(Image.fromarray(pixels), (x, y))
        draw.text((x, y + tile[0] + 2), step.label, fill=_INK, font_size=_FONT_PX)
        counted = f"{step.total} triple{'s' if step.total != 1 else ''}"
        draw.text((x, y + tile[0] + 18), counted, fill=_SOFT, font_size=_FONT_PX)
    return torch.from_numpy(np.array(sheet)).permute(2, 0, 1).contiguous()
