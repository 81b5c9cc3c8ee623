"""Boxes as data sets store them."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def corners_from_xywh(boxes: Float[Tensor, "k 4"]) -> Float[Tensor, "k 4"]:
    """x0 y0 x1 y1 of boxes that are stored as x0 y0 width height."""
    return torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1)


def clipped(
    corners: Float[Tensor, "k 4"], labels: Int[Tensor, " k"], size: tuple[int, int]
) -> tuple[Float[Tensor, "n 4"], Int[Tensor, " n"]]:
    """Boxes clipped to the image, and their classes; without those that this leaves empty.

    Args:
        corners: x0 y0 x1 y1 in pixels.
        size: height and width of the image.

    >>> boxes = torch.tensor([[-2.0, 1.0, 3.0, 9.0], [8.0, 0.0, 9.0, 4.0]])
    >>> clipped(boxes, torch.tensor([5, 6]), (4, 8))
    (tensor([[0., 1., 3., 4.]]), tensor([5]))
    """
    height, width = size
    corners = corners.clamp(min=0).minimum(torch.tensor([width, height] * 2))
    inside = (corners[:, 2:] > corners[:, :2]).all(dim=1)
    return corners[inside], labels[inside]
