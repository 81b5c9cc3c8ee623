"""A vector-quantised autoencoder of frames: VQ-VAE (arXiv 1711.00937), and with a discriminator VQGAN
(arXiv 2012.09841)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from transframer.models.adversary import Discriminator, Perceptual
from transframer.models.codebook import Codebooks
from transframer.models.spatial_temporal_config import SpatialTemporalConfig


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside the identity; the norms see one image at a time."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(8, width) for _ in range(2))
        self.convolutions = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        nn.init.zeros_(self.convolutions[1].weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        y = x
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            y = convolution(F.silu(norm(y)))
        return x + y


def _encoder(config: SpatialTemporalConfig) -> nn.Sequential:
    parts: list[nn.Module] = []
    channels = 3
    for level, width in enumerate(config.widths):
        parts += [nn.PixelUnshuffle(2), _convolution(4 * channels, width, 3 if level == 0 else 1)]
        parts += [ResidualBlock(width) for _ in range(config.blocks)]
        channels = width
    parts += [nn.GroupNorm(8, channels), _convolution(channels, config.groups * config.code_width, 1)]
    return nn.Sequential(*parts)


def _decoder(config: SpatialTemporalConfig) -> nn.Sequential:
    parts: list[nn.Module] = [_convolution(config.groups * config.code_width, config.widths[-1], 3)]
    below = (*config.widths[-2::-1], 3)
    for width, smaller in zip(config.widths[::-1], below, strict=True):
        parts += [ResidualBlock(width) for _ in range(config.blocks + 1)]
        parts += [_convolution(width, 4 * smaller, 3 if smaller == 3 else 1), nn.PixelShuffle(2)]
    return nn.Sequential(*parts)


def _convolution(inside: int, outside: int, size: int) -> nn.Conv2d:
    return nn.Conv2d(inside, outside, size, padding=size // 2)


@dataclass
class AutoencoderLoss:
    """Of a step of training the autoencoder.

    Attributes:
        total: the scalar to differentiate.
        squared_error: of each image, mean over its pixels in [-1, 1], detached.
    """

    total: Float[Tensor, ""]
    squared_error: Float[Tensor, " b"]


class VQAutoencoder(nn.Module):
    """Images as grids of codes and back. One model is VQ-VAE and VQGAN: `config.gan` is the switch.

    An image of h x w pixels has gy x gx cells of `config.cell_px` pixels, each with one code of each of the
    `config.groups` codebooks.
    """

    def __init__(self, config: SpatialTemporalConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.decoder = _encoder(config), _decoder(config)
        self.codebooks = Codebooks(
            config.groups, config.codes, config.code_width, config.codebook_decay, config.revive_below
        )
        self.discriminator = Discriminator(config.widths[0]) if config.gan else None
        self._judge: list[Perceptual] = []  # in a list: neither trained nor saved
        for module in self.modules():  # see `optimisation.make_optimizer`
            module.lr_scale = config.autoencoder_lr_scale  # type: ignore[assignment]
            module.lr_span = (0.0, config.autoencoder_share)  # type: ignore[assignment]

    # -- coding -------------------------------------------------------------------------------------------

    @property
    def codebook_sizes(self) -> list[int]:
        """Vectors in each codebook."""
        return [self.config.codes] * self.config.groups

    def bits_per_image(self, height: int, width: int) -> float:
        """Bits that the codes of an image take where all are equally likely."""
        cells = (height // self.config.cell_px) * (width // self.config.cell_px)
        return cells * self.config.groups * math.log2(self.config.codes)

    def latents(self, images: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b gy gx c"]:
        """What the encoder says of each cell, before it is quantised."""
        return self.encoder(_signed(images)).permute(0, 2, 3, 1)

    @torch.no_grad()
    def encode_indices(self, images: UInt8[Tensor, "b 3 h w"]) -> Int[Tensor, "b gy gx g"]:
        """The codes of images, 0-255."""
        latents = self.latents(images)
        return self.codebooks.codes_of(latents.flatten(0, 2)).view(*latents.shape[:3], -1)

    @torch.no_grad()
    def decode_indices(self, codes: Int[Tensor, "b gy gx g"]) -> UInt8[Tensor, "b 3 h w"]:
        """The images that codes stand for, 0-255."""
        return self.images_of(self.codebooks.vectors_of(codes))

    @torch.no_grad()
    def images_of(self, vectors: Float[Tensor, "b gy gx c"]) -> UInt8[Tensor, "b 3 h w"]:
        """The images that latent vectors stand for, 0-255."""
        out = self._decoded(vectors)
        return ((out.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)

    def _decoded(self, vectors: Tensor) -> Tensor:
        return self.decoder(vectors.permute(0, 3, 1, 2))

    # -- training -----------------------------------------------------------------------------------------

    def loss(
        self, images: UInt8[Tensor, "b 3 h w"], generator: torch.Generator, progress: float = 1.0
    ) -> AutoencoderLoss:
        """One step: reconstruction, commitment, and where asked for what a network and a critic say.

        Moves the codebooks. The gradient of the decoder reaches the encoder as if nothing had been quantised
        between them (straight-through).

        Args:
            generator: a CPU generator, for the vectors that are revived.
            progress: how much of the autoencoder's training is over, 0 to 1.
        """
        truth, latents = _signed(images), self.latents(images)
        flat = latents.flatten(0, 2)
        self.codebooks.prepare(flat, generator)
        codes = self.codebooks.codes_of(flat)
        vectors = self.codebooks.vectors_of(codes).view_as(latents)
        out = self._decoded(straight_through(latents, vectors))
        squared = (out - truth).float().square().mean((1, 2, 3))
        total = squared.mean() + self.config.commitment * F.mse_loss(latents.float(), vectors)
        if self.config.perceptual:
            total = total + self.config.perceptual_weight * self._perceptual(out, truth)
        if self.discriminator is not None:
            weight = self.config.gan_weight if progress >= self.config.gan_start else 0.0
            total = total + self.discriminator.loss(out, truth, squared.mean(), self._last_weight, weight)
        self.codebooks.follow(flat, codes, generator)
        return AutoencoderLoss(total, squared.detach())

    def _perceptual(self, out: Tensor, truth: Tensor) -> Tensor:
        if not self._judge:  # not before training needs it: to predict, nobody needs the network
            self._judge.append(Perceptual(self.config.perceptual, self.config.perceptual_weights))
        return self._judge[0].to(out.device)(out, truth)

    @property
    def _last_weight(self) -> Tensor:
        last = self.decoder[-2]
        assert isinstance(last, nn.Conv2d)
        return last.weight


def straight_through(latents: Tensor, vectors: Tensor) -> Tensor:
    """The vectors, with the gradient of the latents (Bengio et al., arXiv 1308.3432)."""
    return latents + (vectors - latents).detach()


def _signed(images: Tensor) -> Float[Tensor, "b 3 h w"]:
    """0 to 255 as -1 to 1."""
    return images.float() / 127.5 - 1
