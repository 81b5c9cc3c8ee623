"""A sketch of the target in pixels: what convolutions at a quarter and half of the resolution make of it.

The features of a cell stand for 8 x 8 pixels at once, and where in it an edge runs is hard to tell from
them. The sketch goes back up to the pixels as a U-Net does (arXiv 1505.04597), with the stem's features of
the target slot beside those of the cells. It learns from the pixels alone, as the target's mean; the draft
weighs its coefficients as it does those of the hints, and the decoders see them beside the cells' features.
What of the hints a task needs as they are, a weight gives: convolutions from random weights find it late.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from transframer.codec import N_CHANNELS
from transframer.models.hints import N_HINTS
from transframer.models.stem import norm_free_conv

_GREYS = 64.0  # what the network's 1 means
_MOST_GREYS = 256.0  # what bounds the sketch, smoothly
_LOSS_GREYS = 32.0  # root mean square error that counts 1


def _residual(width: int) -> nn.Module:
    return nn.Sequential(
        nn.SiLU(), norm_free_conv(width, width, 3), nn.SiLU(), norm_free_conv(width, width, 3)
    )


class PixelSketch(nn.Module):
    """From the target slot's cells and finer features to three planes of pixels.

    Args:
        widths: channels of the stem's features at 1/2 and 1/4 of the resolution.
        width: channels of the cells.
        n_tasks: rows of the table of weights of the hints.
    """

    def __init__(self, widths: Sequence[int], width: int, n_tasks: int) -> None:
        super().__init__()
        half, quarter = widths
        self.lower = nn.ModuleList(nn.Conv2d(*pair, 1) for pair in pairwise((width, quarter, half)))
        self.hints = nn.Conv2d(3 * N_HINTS * 4, half, 3, padding=1)
        # What comes from convolutions without norms may be of any size.
        self.norms = nn.ModuleList(LayerNorm2d(fine) for fine in (quarter, half))
        self.last_norm = LayerNorm2d(half)
        self.mix = nn.ModuleList(
            nn.ModuleList(_residual(fine) for _ in range(n)) for fine, n in ((quarter, 2), (half, 1))
        )
        self.out = nn.Conv2d(half, 3 * 4, 3, padding=1)
        self.to_cells = nn.Conv2d(N_CHANNELS, width, 1)
        self.hint = nn.Embedding(n_tasks, N_HINTS)
        self.hint.lr_scale = 5.0  # type: ignore[assignment]
        for parameter in (*self.out.parameters(), *self.to_cells.parameters(), *self.hint.parameters()):
            nn.init.zeros_(parameter)

    def forward(
        self,
        cells: Float[Tensor, "b c gy gx"],
        finer: Sequence[Float[Tensor, "b _ _ _"]],
        hints: Float[Tensor, "b n 3 h w"],
        task: Int[Tensor, " b"],
    ) -> Float[Tensor, "b 3 h w"]:
        """The sketch: of what the codec codes, so of the target, or of its difference from its reference.

        Args:
            finer: features of the target slot, at a quarter of the resolution and at half of it.
            hints: in grey levels, as the target is coded.

        Returns:
            RGB in grey levels from 128, and from 0 a difference; -256 to 256.
        """
        quarter, half = finer
        near = F.pixel_unshuffle(hints.flatten(1, 2).to(half.dtype) / _GREYS, 2)
        half = half + self.hints(near.contiguous(memory_format=torch.channels_last))
        x = cells
        for lower, norm, mix, skip in zip(self.lower, self.norms, self.mix, (quarter, half), strict=True):
            x = F.interpolate(lower(x), size=skip.shape[2:], mode="nearest") + norm(skip)
            for block in mix.children():
                x = x + block(x)
        pixels = F.pixel_shuffle(self.out(F.silu(self.last_norm(x))), 2)
        pixels = _GREYS * pixels + (self.hint(task)[..., None, None, None] * hints).sum(1)
        return _MOST_GREYS * (pixels / _MOST_GREYS).tanh()


def sketch_loss(sketch: Float[Tensor, "b 3 h w"], coded: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
    """Root mean square error of each frame, 1 at 32 grey levels.

    Least at the geometric median of the frames that may come, which is near their mean; unlike the squared
    error it lets frames whose pixels differ little weigh as much as others.
    """
    return ((sketch.float() - coded).square().mean((1, 2, 3)) + 1.0).sqrt() / _LOSS_GREYS
