"""A U-Net with a residual encoder from timm: the network behind the specialists of dense tasks."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

STEM = 64  # channels of timm's deep stem, at half the resolution
WIDTHS = (64, 112, 160, 208)  # of the encoder's stages, at 1/4, 1/8, 1/16 and 1/32
_DECODER_WIDTHS = (136, 96, 64, 48)  # on the way back, at 1/16, 1/8, 1/4 and 1/2


def residual_encoder(in_channels: int, widths: tuple[int, ...] = WIDTHS, **settings: Any) -> nn.Module:
    """A small ResNet (arXiv 1512.03385) with a deep stem, from timm, randomly initialised.

    Args:
        in_channels: of the image.
        widths: channels of its stages.
        settings: further arguments of `timm.create_model`, such as `features_only`.
    """
    import timm  # slow to import

    return timm.create_model(
        "resnet10t", pretrained=False, in_chans=in_channels, layers=(2, 2, 2, 1), channels=widths, **settings
    )


class _Up(nn.Module):
    """Twice the resolution: upsampled, joined with the encoder's features there, two convolutions."""

    def __init__(self, deep: int, skip: int, out: int) -> None:
        super().__init__()
        self.join = nn.Sequential(
            nn.Conv2d(deep + skip, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True)
        )

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        """The features at the resolution of `skip`."""
        deep = F.interpolate(deep, skip.shape[-2:], mode="bilinear", align_corners=False)
        return self.join(torch.cat([deep, skip], 1))


class EncoderDecoder(nn.Module):
    """Images to a map of their size (Ronneberger et al., arXiv 1505.04597).

    Args:
        in_channels: of the images.
        out_channels: of the map.
        quarter_channels: of what else is known at a quarter of the resolution, such as a cost volume.
    """

    def __init__(self, in_channels: int, out_channels: int, quarter_channels: int = 0) -> None:
        super().__init__()
        self.encoder = residual_encoder(in_channels, features_only=True)
        skips = (WIDTHS[2], WIDTHS[1], WIDTHS[0] + quarter_channels, STEM + 4 * in_channels)
        deeper = (WIDTHS[3], *_DECODER_WIDTHS)
        self.ups = nn.ModuleList(map(_Up, deeper, skips, _DECODER_WIDTHS))
        self.out = nn.Conv2d(_DECODER_WIDTHS[-1], 4 * out_channels, 3, padding=1)
        nn.init.zeros_(self.out.weight)  # starts at its bias: at the answer that a residual is added to
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]
        self.to(memory_format=torch.channels_last)  # a fifth faster on a CPU

    def forward(
        self, images: Float[Tensor, "b c h w"], quarter: Float[Tensor, "b q y x"] | None = None
    ) -> Float[Tensor, "b o h w"]:
        """The map.

        Args:
            quarter: further features at a quarter of the resolution, seen on the way back.
        """
        images = images.contiguous(memory_format=torch.channels_last)
        half, *stages, x = self.encoder(images)
        # Four pixels to a cell: convolutions at the full resolution would take a third of the time.
        half = torch.cat([half, F.pixel_unshuffle(images, 2)], 1)
        if quarter is not None:
            stages[0] = torch.cat([stages[0], quarter], 1)
        for up, skip in zip(self.ups, (*reversed(stages), half), strict=True):
            x = up(x, skip)
        return F.pixel_shuffle(self.out(x), 2)
