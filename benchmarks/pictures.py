"""Pictures of single samples: which ones, drawn how, as PNG data URIs."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor


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

    >>> import torch
    >>> png_width(data_uri(torch.zeros(3, 4, 300, dtype=torch.uint8)))
    300
    """
    header = base64.b64decode(uri.partition(",")[2][:32])
    return int.from_bytes(header[16:20], "big")  # PNG specification, section 11.2.2: IHDR
