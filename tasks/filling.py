"""Smooth values where a label map has none: hard edges around unknown pixels cost tokens and tell nothing."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


def fill_unknown(
    values: Float[Tensor, "c h w"], known: Bool[Tensor, "h w"], default: float = 0.0
) -> Float[Tensor, "c h w"]:
    """Fills unknown pixels from the known ones around them, coarse to fine (push-pull interpolation).

    The known values are averaged over ever larger cells; each unknown pixel takes the smallest cell that
    knows anything, smoothed by bilinear upsampling. From Gortler et al., The Lumigraph, 1996, section 3.4.

    Args:
        values: anything, not finite values too, where not known.
        default: what an all-unknown map is filled with.

    >>> fill_unknown(torch.tensor([[[3.0, 9.0]]]), torch.tensor([[True, False]]))
    tensor([[[3., 3.]]])
    """
    if known.all():
        return values
    if not known.any():
        return torch.full_like(values, default)
    weight = known[None, None].to(values.dtype)
    return _filled(torch.where(known, values, torch.zeros_like(values))[None], weight)[0]


def _filled(values: Tensor, weight: Tensor) -> Tensor:
    """Values 1 x c x h x w, zero where their weight 1 x 1 x h x w is zero."""
    if bool((weight > 0).all()):
        return values
    pool = {"kernel_size": 2, "ceil_mode": True}
    share = F.avg_pool2d(weight, **pool)
    cells = F.avg_pool2d(values * weight, **pool) / share.clamp(min=1e-12)
    coarse = _filled(cells, (share > 0).to(weight.dtype))
    smooth = F.interpolate(coarse, values.shape[-2:], mode="bilinear")
    return torch.where(weight > 0, values, smooth)
