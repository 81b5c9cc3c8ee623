"""Judges of an autoencoder's images: a patch discriminator, and the features of a pretrained network."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from transframer.errors import ConfigError


class Discriminator(nn.Module):
    """Tells true patches from coded ones (PatchGAN, arXiv 1611.07004), trained in the same step as the
    autoencoder: its own parameters get the gradient of its hinge loss, the images that of fooling it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = (3, width, 2 * width, 4 * width)
        parts: list[nn.Module] = []
        for inside, outside in pairwise(widths):
            parts += [nn.Conv2d(inside, outside, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*parts, nn.Conv2d(widths[-1], 1, 3, padding=1))

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 py px"]:
        """How true each patch looks; images in -1 to 1."""
        return self.layers(images)

    def loss(
        self,
        coded: Float[Tensor, "b 3 h w"],
        truth: Float[Tensor, "b 3 h w"],
        reconstruction: Float[Tensor, ""],
        last_weight: Tensor,
        weight: float,
    ) -> Float[Tensor, ""]:
        """The discriminator's hinge loss, and `weight` times the autoencoder's loss of being found out.

        That loss is scaled such that its gradient at the decoder's last layer is as large as that of the
        reconstruction (arXiv 2012.09841, equation 7).
        """
        own = F.relu(1 - self(truth)).mean() + F.relu(1 + self(coded.detach())).mean()
        fixed = {name: parameter.detach() for name, parameter in self.named_parameters()}
        fooling = -torch.func.functional_call(self, fixed, (coded,)).mean()
        sizes = [
            torch.autograd.grad(loss, last_weight, retain_graph=True)[0].norm()
            for loss in (reconstruction, fooling)
        ]
        scale = (sizes[0] / (sizes[1] + 1e-8)).clamp(max=1e4).detach()
        return own + weight * scale * fooling


class Perceptual(nn.Module):
    """The distance of two images in the features of a pretrained timm network, one level after the other.

    Each level's features are brought to unit length per place, and their squared differences averaged, as in
    LPIPS (arXiv 1801.03924) without its learned weights. The network is part of no checkpoint.

    Args:
        network: name of a timm model.
        weights: a file with its weights; timm downloads its own if "".

    Raises:
        ConfigError: no such network, or its weights cannot be had.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: str, weights: str = "") -> None:
        super().__init__()
        import timm

        # timm reads the file before it wraps the network for its features, which renames its parts.
        own: dict[str, Any] = {"pretrained_cfg_overlay": {"file": weights}} if weights else {}
        try:
            model = timm.create_model(network, pretrained=True, features_only=True, **own)
        except (RuntimeError, OSError, ValueError, KeyError) as error:
            raise ConfigError(
                f"{network!r}: {str(error) or type(error).__name__}",
                field="perceptual",
                expected="a timm network whose pretrained weights can be read",
                next_step="name a file of weights with perceptual_weights, or leave perceptual out",
            ) from error
        model.requires_grad_(False)
        self._hidden = (model.eval(),)  # in a tuple: neither trained nor saved
        settings = timm.data.resolve_model_data_config(model)
        self.register_buffer("mean", torch.tensor(settings["mean"]).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(settings["std"]).view(3, 1, 1), persistent=False)

    def forward(self, a: Float[Tensor, "b 3 h w"], b: Float[Tensor, "b 3 h w"]) -> Float[Tensor, ""]:
        """The mean squared distance; images in -1 to 1."""
        network = self._hidden[0].to(a.device)
        levels = [network(((image + 1) / 2 - self.mean) / self.std) for image in (a, b)]
        distances = [
            (F.normalize(x, dim=1) - F.normalize(y, dim=1)).square().sum(1).mean()
            for x, y in zip(*levels, strict=True)
        ]
        return torch.stack(distances).mean()
