"""Masks as frames: a palette that survives the codec, and reading it back through ringing and blur."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from transframer.frames import CodecSettings

_MAX_GREYS = 8
# Of class 0, 1, ...: steps of grey from the middle, where coefficients are zero and cost nothing. In most
# data sets, as in the world, the first classes are the background, so they are near the middle.
_GREY_STEPS = (1, 0, 2, -1, 3, -2, 4, -3)
_GREY_STEP = 32
_PRESENT = 0.7  # of a 3x3 window: a straight edge leaves 2/3 to a class, so more means its inside
_NEIGHBOURS = 2.0  # weight of the class shares around a pixel against its own colour
_FAR = 1e6


def palette(num_classes: int) -> UInt8[Tensor, "k 3"]:
    """A colour per class: up to 8 classes greys 32 apart, beyond that a lattice of the RGB cube.

    >>> palette(3)[:, 0].tolist()
    [160, 128, 192]
    """
    if num_classes <= _MAX_GREYS:
        steps = torch.tensor(_GREY_STEPS[:num_classes])
        return (128 + _GREY_STEP * steps).clamp(max=255).to(torch.uint8)[:, None].repeat(1, 3)
    levels = torch.linspace(0, 255, _levels(num_classes)).round().to(torch.uint8)
    return torch.cartesian_prod(levels, levels, levels)[:num_classes]


def palette_codec(num_classes: int) -> CodecSettings:
    """Codec settings at which the palette survives: coarse for greys, finer the closer the colours."""
    if num_classes <= _MAX_GREYS:
        return CodecSettings(17)
    return CodecSettings(35 if _levels(num_classes) <= 3 else 80, "4:4:4")


def _levels(num_classes: int) -> int:
    return next(levels for levels in range(2, 257) if levels**3 >= num_classes)


def colour_mask(mask: Int[Tensor, "h w"], num_classes: int) -> UInt8[Tensor, "3 h w"]:
    """The mask in the palette's colours.

    Args:
        mask: class ids, 0 to num_classes - 1.
    """
    return palette(num_classes)[mask].permute(2, 0, 1).contiguous()


def read_mask(image: UInt8[Tensor, "3 h w"], num_classes: int) -> Int[Tensor, "h w"]:
    """The class of each pixel of a coded, decoded or sampled frame.

    A pixel on the edge between two classes has a colour between theirs, which may be a third one's. So a
    pixel chooses only among classes that fill 0.7 of a 3x3 window within 2 pixels of it, by the nearest
    colour; then, a few times, by colour and by the classes around it (iterated conditional modes of a
    Potts model, Besag 1986).
    """
    colours = palette(num_classes).float()
    spacing = float(_GREY_STEP if num_classes <= _MAX_GREYS else 255 / (_levels(num_classes) - 1))
    # |x - c|^2 without |x|^2, which is the same for all classes: no tensor of k x 3 x h x w
    cost = colours.square().sum(1)[:, None, None] - 2 * torch.einsum("kc,chw->khw", colours, image.float())
    cost = cost / (3 * spacing**2 if num_classes <= _MAX_GREYS else spacing**2)
    mask = cost.argmin(0)
    for _ in range(2):
        inside = _shares(mask, num_classes, 3) > _PRESENT
        absent = F.max_pool2d(inside.float()[None], 5, 1, 2)[0] == 0
        mask = (cost + _FAR * absent).argmin(0)
    for _ in range(3):
        mask = (cost + _FAR * absent - _NEIGHBOURS * _shares(mask, num_classes, 5)).argmin(0)
    return mask


def _shares(mask: Int[Tensor, "h w"], num_classes: int, window: int) -> Float[Tensor, "k h w"]:
    """How much of the window around each pixel each class fills, 0 to 1."""
    member = (mask == torch.arange(num_classes)[:, None, None]).float()
    return F.avg_pool2d(member[None], window, 1, window // 2, count_include_pad=False)[0]


def mean_iou(confusion: Int[Tensor, "k k"]) -> tuple[float, Float[Tensor, " k"]]:
    """The mean over classes of intersection over union, and each class's.

    Classes that neither the truth nor the prediction has are nan, and not in the mean; it is nan only where
    there are no classes at all.

    Args:
        confusion: pixels by true class (rows) and predicted class (columns).

    >>> mean_iou(torch.tensor([[3, 1, 0], [0, 2, 0], [0, 0, 0]]))
    (0.7083333333333333, tensor([0.7500, 0.6667,    nan], dtype=torch.float64))
    """
    confusion = confusion.double()
    shared = confusion.diagonal()
    iou = shared / (confusion.sum(0) + confusion.sum(1) - shared)
    return (iou.nanmean().item() if len(iou) else math.nan), iou
