"""Unit vectors at every pixel: resizing them, the angles between them, and what is reported of those."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

_BIN_DEG = 0.25  # divides the limits below, so that the shares are exact
_LIMITS_DEG = {"within_11": 11.25, "within_22": 22.5, "within_30": 30.0}


@dataclass(frozen=True)
class AngleScore:
    """Sufficient statistics of the angles of one image.

    Attributes:
        total_deg: their sum.
        counts: how many lie in each quarter of a degree from 0.
    """

    total_deg: float
    counts: Int[Tensor, " bins"]


def known(directions: Float[Tensor, "3 h w"]) -> Bool[Tensor, "h w"]:
    """Where there is a unit vector, and not 0, which says that it is unknown."""
    return directions.norm(dim=0) > 0.5


def resized(directions: Float[Tensor, "3 h w"], size: tuple[int, int]) -> Float[Tensor, "3 h2 w2"]:
    """Unit vectors resized bilinearly to `size` (height, width), and of unit length again.

    The camera's axes stay what they are where the two sides are scaled apart, so the vectors do not turn.
    """
    return F.normalize(F.interpolate(directions[None], tuple(size), mode="bilinear")[0], dim=0)


def angle_deg(a: Float[Tensor, "3 h w"], b: Float[Tensor, "3 h w"]) -> Float[Tensor, "h w"]:
    """The angle between unit vectors, exactly 0 between equal ones (which their cosine would not give).

    >>> x, y = torch.eye(3)[:2, :, None, None]
    >>> angle_deg(x, y).item(), angle_deg(x, x).item(), angle_deg(x, -x).item()
    (90.0, 0.0, 180.0)
    """
    return torch.rad2deg(2 * torch.atan2((a - b).norm(dim=0), (a + b).norm(dim=0)))


def score_angles(angles_deg: Float[Tensor, " n"]) -> AngleScore:
    """The statistics of these angles, 0 to 180 degrees; there may be none."""
    angles = angles_deg.double()
    counts = torch.bincount((angles / _BIN_DEG).long(), minlength=int(180 / _BIN_DEG) + 1)
    return AngleScore(angles.sum().item(), counts)


def angle_metrics(scores: Sequence[AngleScore]) -> dict[str, float]:
    """`mean_angle`, `median_angle` (to a quarter of a degree), `within_11`, `within_22`, `within_30`.

    Over all pixels of all images together; the last three in percent of them, within 11.25, 22.5 and 30
    degrees (Fouhey et al., Data-Driven 3D Primitives, 2013). nan where there are none.
    """
    below = sum((score.counts for score in scores), torch.zeros(1, dtype=torch.int64)).cumsum(0)
    pixels = int(below[-1])
    if pixels == 0:
        return dict.fromkeys(("mean_angle", "median_angle", *_LIMITS_DEG), math.nan)
    return {
        "mean_angle": sum(score.total_deg for score in scores) / pixels,
        "median_angle": _BIN_DEG * (int((2 * below < pixels).sum()) + 0.5),
    } | {key: 100 * int(below[int(limit / _BIN_DEG) - 1]) / pixels for key, limit in _LIMITS_DEG.items()}
