"""Two signed numbers at every pixel as the chroma of a grey frame: 0 is grey, and costs no tokens."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

# Greys of Cr and Cb at 1: as many as keep red, green and blue within 0 to 255 around grey.
_CR_GREYS, _CB_GREYS = 90.0, 71.0


def image_from_chroma(planes: Float[Tensor, "2 h w"]) -> UInt8[Tensor, "3 h w"]:
    """Grey, plus what the first plane adds in Cr and the second in Cb (JFIF).

    Args:
        planes: clamped to -1 to 1.

    >>> image_from_chroma(torch.zeros(2, 1, 1)).flatten().tolist()
    [128, 128, 128]
    """
    u, v = planes.clamp(-1, 1)
    cr, cb = _CR_GREYS * u, _CB_GREYS * v
    image = 128 + torch.stack([1.402 * cr, -0.714136 * cr - 0.344136 * cb, 1.772 * cb])
    return image.round().clamp(0, 255).to(torch.uint8)


def chroma_from_image(image: UInt8[Tensor, "3 h w"]) -> Float[Tensor, "2 h w"]:
    """The planes of a coded, decoded or sampled frame, -1 to 1; its luma means nothing."""
    red, _, blue = image.float()
    grey = luma(image)[0]
    planes = torch.stack([(red - grey) / 1.402 / _CR_GREYS, (blue - grey) / 1.772 / _CB_GREYS])
    return planes.clamp(-1, 1)


def luma(image: UInt8[Tensor, "3 h w"]) -> Float[Tensor, "1 h w"]:
    """JFIF's luma, 0 to 255."""
    red, green, blue = image.float()
    return (0.299 * red + 0.587 * green + 0.114 * blue)[None]
