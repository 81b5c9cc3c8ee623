"""RGB images to YCbCr planes and back, chroma halved or not, with libjpeg's arithmetic and padding."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

# JFIF 1.02 in 16-bit fixed point (libjpeg's jccolor.c): for 8-bit pixels every product and sum is then
# exact in fp32, and rounding agrees with libjpeg's bit for bit.
_YCC_FROM_RGB = torch.tensor([[19595, 38470, 7471], [-11059, -21709, 32768], [32768, -27439, -5329]]) / 65536
_RGB_FROM_YCC = torch.tensor([[1.0, 0.0, 1.402], [1.0, -0.344136, -0.714136], [1.0, 1.772, 0.0]])
# Added before rounding down: halves go upwards in Y, downwards in Cb and Cr.
_HALVES = torch.tensor([0.5, 0.5 - 2**-16, 0.5 - 2**-16])
_LUMA = torch.tensor([1.0, 0.0, 0.0])


def exact_dtype(device: torch.device) -> torch.dtype:
    """The type in which a matrix product on a device is good to 24 bits: fp64 where TF32 may be on."""
    return torch.float64 if device.type == "cuda" else torch.float32


def planes_from_image(
    image: Shaped[Tensor, "b 3 h w"], level: Float[Tensor, " b"], halved: bool, integer: bool
) -> tuple[Float[Tensor, "b 1 ph pw"], Float[Tensor, "b 2 ch cw"]]:
    """Luma and chroma of whole 16x16 macroblocks, edges replicated.

    Args:
        image: uint8 or float, 0-255, or the difference of two images.
        level: grey levels taken off luma; chroma is centred on 0 already.
        halved: average 2x2 pixels of chroma.
        integer: round to whole grey levels where libjpeg does, instead of staying linear.
    """
    height, width = (-(-side // 16) * 16 for side in image.shape[-2:])
    # libjpeg extends to the right before it halves chroma, and downwards after
    image = _extend(image, image.shape[-2] + image.shape[-2] % 2, width)
    dtype = exact_dtype(image.device)
    offset = -level[:, None] * _LUMA.to(level.device)
    if integer:
        offset = offset + _HALVES.to(level.device)
    planes = _colours(_YCC_FROM_RGB, image, offset.to(dtype))
    if integer:
        planes.floor_()
    luma, chroma = planes[:, :1], planes[:, 1:]
    if halved:
        chroma = chroma[..., ::2, :] + chroma[..., 1::2, :]
        chroma = (chroma[..., ::2] + chroma[..., 1::2]).div_(4)
        if integer:  # jcsample.c: the bias alternates so that not all halves go upwards
            chroma[..., ::2] += 0.25
            chroma[..., 1::2] += 0.5
            chroma.floor_()
    step = 2 if halved else 1
    return _extend(luma, height, width), _extend(chroma, height // step, width // step)


def image_from_planes(
    luma: Float[Tensor, "b 1 ph pw"], chroma: Float[Tensor, "b 2 ch cw"], size: tuple[int, int]
) -> Float[Tensor, "b 3 h w"]:
    """RGB from luma and centred chroma; halved chroma goes through libjpeg's triangle filter.

    Args:
        size: height and width to crop to, pixels.
    """
    height, width = size
    if chroma.shape[-1] < luma.shape[-1]:
        chroma = chroma[..., : -(-height // 2), : -(-width // 2)]  # what pads does not bleed into the image
        chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)
    planes = torch.cat([luma[..., :height, :width], chroma[..., :height, :width]], 1)
    return _colours(_RGB_FROM_YCC, planes, planes.new_zeros(len(planes), 3))


def _colours(matrix: Tensor, image: Tensor, offset: Tensor) -> Tensor:
    """A colour matrix applied to b 3 h w, and an offset b 3 added."""
    matrix = matrix.to(offset).expand(len(image), 3, 3)
    with torch.autocast(image.device.type, enabled=False):
        flat = torch.baddbmm(offset[..., None], matrix, image.flatten(2).to(offset.dtype))
    return flat.unflatten(2, image.shape[2:])


def _extend(image: Tensor, height: int, width: int) -> Tensor:
    """Replicates the last row and column up to a size."""
    down, right = height - image.shape[-2], width - image.shape[-1]
    if right:
        image = torch.cat([image, image[..., -1:].expand(*image.shape[:-1], right)], -1)
    if down:
        image = torch.cat([image, image[..., -1:, :].expand(*image.shape[:-2], down, width)], -2)
    return image
