"""What the tasks' pictures share: colours of classes and values, boxes and captions large enough to read."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image, ImageDraw
from torch import Tensor

_SHORT_SIDE = 192  # pixels; below this Pillow's built-in font hides the picture
_IGNORED = (0, 0, 0)
# Dark to light through one hue: reads in grey too, and zero stays the darkest.
_DARK, _MIDDLE, _LIGHT = (13.0, 17.0, 38.0), (214.0, 84.0, 60.0), (255.0, 236.0, 190.0)


def class_colours(num_classes: int) -> UInt8[Tensor, "k 3"]:
    """One colour per class, for people: hues a golden angle apart, so that neighbours differ.

    >>> class_colours(2).tolist()
    [[229, 57, 57], [57, 107, 229]]
    """
    colours = [
        colorsys.hsv_to_rgb(0.618034 * k % 1, (0.75, 0.45, 0.9)[k // 8 % 3], (0.9, 0.85, 0.6)[k // 5 % 3])
        for k in range(num_classes)
    ]
    return torch.tensor(colours).mul(255).to(torch.uint8).view(-1, 3)


def enlarged(image: UInt8[Tensor, "3 h w"]) -> tuple[UInt8[Tensor, "3 h2 w2"], int]:
    """An image with its pixels repeated until its short side has at least 192, and how often they were."""
    times = max(1, -(-_SHORT_SIDE // min(image.shape[1:])))
    return image.repeat_interleave(times, 1).repeat_interleave(times, 2), times


def draw_mask(
    image: UInt8[Tensor, "3 h w"], mask: Int[Tensor, "h w"], num_classes: int, opacity: float = 0.7
) -> UInt8[Tensor, "3 h w"]:
    """A mask in the colours of its classes over the grey image.

    Args:
        mask: class ids; pixels of any other value are black.
        opacity: of the colours, 0 to 1.
    """
    palette = torch.cat([class_colours(num_classes), torch.tensor([_IGNORED], dtype=torch.uint8)])
    labelled = (mask >= 0) & (mask < num_classes)
    colours = palette[mask.where(labelled, num_classes)].permute(2, 0, 1).float()
    grey = image.float().mean(0, keepdim=True)
    return (opacity * colours + (1 - opacity) * grey * labelled).round().to(torch.uint8)


def draw_boxes(
    image: UInt8[Tensor, "3 h w"],
    boxes: Float[Tensor, "n 4"],
    labels: Int[Tensor, " n"],
    captions: Sequence[str],
    num_classes: int,
) -> UInt8[Tensor, "3 h2 w2"]:
    """Boxes with captions, in the colours of their classes, on the enlarged image.

    Args:
        boxes: x0 y0 x1 y1 in pixels of `image`.
    """
    large, times = enlarged(image)
    picture = Image.fromarray(large.permute(1, 2, 0).contiguous().numpy())
    draw, colours = ImageDraw.Draw(picture), class_colours(num_classes).tolist()
    for box, label, caption in zip((boxes * times).tolist(), labels.tolist(), captions, strict=True):
        x0, x1 = sorted((box[0], max(box[0], box[2] - 1)))
        y0, y1 = sorted((box[1], max(box[1], box[3] - 1)))
        draw.rectangle((x0, y0, x1, y1), outline=tuple(colours[label]), width=2)
        _write(draw, (x0 + 2, y0 + 1), caption, tuple(colours[label]))
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def draw_lines(image: UInt8[Tensor, "3 h w"], lines: Sequence[str]) -> UInt8[Tensor, "3 h2 w2"]:
    """Lines of text in the upper left of the enlarged image."""
    large, _ = enlarged(image)
    picture = Image.fromarray(large.permute(1, 2, 0).contiguous().numpy())
    draw = ImageDraw.Draw(picture)
    for row, line in enumerate(lines):
        _write(draw, (4.0, 3.0 + 13 * row), line, (255, 255, 255))
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def heat(values: Float[Tensor, "h w"]) -> UInt8[Tensor, "3 h w"]:
    """Values from 0 (dark) to their greatest (light) as colours."""
    scaled = values / values.max().clamp(min=1e-6)
    dark, middle, light = (torch.tensor(colour)[:, None, None] for colour in (_DARK, _MIDDLE, _LIGHT))
    low, high = (2 * scaled).clamp(max=1), (2 * scaled - 1).clamp(min=0)
    colours = dark + (middle - dark) * low + (light - middle) * high
    return colours.round().clamp(0, 255).to(torch.uint8)


def _write(draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, colour: tuple[int, ...]) -> None:
    draw.text(at, text, fill=colour, stroke_width=1, stroke_fill=(0, 0, 0))
