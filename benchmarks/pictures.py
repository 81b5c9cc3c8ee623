"""Pictures of single samples: which ones, drawn how, as PNG data URIs."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

# Dark to light through one hue: reads in grey too, and zero stays the darkest.
_DARK, _MIDDLE, _LIGHT = (13.0, 17.0, 38.0), (214.0, 84.0, 60.0), (255.0, 236.0, 190.0)


def choose(scores: Sequence[float], higher_is_better: bool, random: int, seed: int) -> list[tuple[int, str]]:
    """Which samples to show: the best, the median and the worst by score, and some drawn at random.

    Args:
        scores: one per sample; samples with nan can only be drawn at random.
        random: how many random ones; fewer where there are not enough samples.

    Returns:
        Pairs of index and "best", "median", "worst" or "random"; every index once.

    >>> choose([0.1, 0.9, 0.5], True, 2, seed=0)
    [(1, 'best'), (2, 'median'), (0, 'worst')]
    """
    order = [index for index, score in enumerate(scores) if not math.isnan(score)]
    order.sort(key=lambda index: scores[index], reverse=higher_is_better)
    chosen: dict[int, str] = {}
    if order:
        for index, why in ((order[0], "best"), (order[len(order) // 2], "median"), (order[-1], "worst")):
            chosen.setdefault(index, why)
    rest = [index for index in range(len(scores)) if index not in chosen]
    drawn = np.random.default_rng(seed).permutation(len(rest))[:random]
    return [*chosen.items(), *((rest[i], "random") for i in sorted(drawn))]


def data_uri(image: UInt8[Tensor, "3 h w"]) -> str:
    """An RGB image as a PNG data URI."""
    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy()).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def png_width(uri: str) -> int:
    """The width in pixels of an image from `data_uri`, read off its header.

    >>> png_width(data_uri(torch.zeros(3, 4, 300, dtype=torch.uint8)))
    300
    """
    header = base64.b64decode(uri.partition(",")[2][:32])
    return int.from_bytes(header[16:20], "big")  # PNG specification, section 11.2.2: IHDR


def deviation(images: Sequence[UInt8[Tensor, "3 h w"]]) -> Float[Tensor, "h w"]:
    """Per-pixel standard deviation over several frames, in grey levels, root mean square over channels.

    >>> black = torch.zeros(3, 1, 1, dtype=torch.uint8)
    >>> float(deviation([black, black + 8]))
    4.0
    """
    return torch.stack([image.float() for image in images]).var(0, unbiased=False).mean(0).sqrt()


def heat(values: Float[Tensor, "h w"]) -> UInt8[Tensor, "3 h w"]:
    """Values from 0 (dark) to their greatest (light) as colours."""
    scaled = values / values.max().clamp(min=1e-6)
    dark, middle, light = (torch.tensor(colour)[:, None, None] for colour in (_DARK, _MIDDLE, _LIGHT))
    low, high = (2 * scaled).clamp(max=1), (2 * scaled - 1).clamp(min=0)
    colours = dark + (middle - dark) * low + (light - middle) * high
    return colours.round().clamp(0, 255).to(torch.uint8)
