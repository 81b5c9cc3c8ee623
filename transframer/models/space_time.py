"""Layers that attend over the cells of a frame, then over the past of each, and draw a latent variable."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from transframer.models.annotations import TIME_FEATURES, AxialPositions, time_features
from transframer.models.attention import Mlp
from transframer.models.spatial_temporal_config import SpatialTemporalConfig

_SHORTEST, _LONGEST = 2.0, 256.0  # periods in steps of the rotation of keys by their time
_LEAST_LOG_VARIANCE, _GREATEST_LOG_VARIANCE, _FIRST_LOG_VARIANCE = -8.0, 4.0, -3.0


@dataclass
class TimeCache:
    """Keys and values of the latest frames in each layer.

    Attributes:
        window: the most frames that are kept. Those of upper layers know of frames before them, as in any
            sliding window.
        keys, values: per layer, b*n x heads x t x d.
    """

    window: int
    keys: dict[int, Tensor] = field(default_factory=dict)
    values: dict[int, Tensor] = field(default_factory=dict)

    def add(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Adds frames to a layer and drops the oldest; returns all of the window."""
        if layer in self.keys:
            keys = torch.cat([self.keys[layer], keys], 2)
            values = torch.cat([self.values[layer], values], 2)
        self.keys[layer], self.values[layer] = keys[:, :, -self.window :], values[:, :, -self.window :]
        return keys, values


@dataclass
class Divergence:
    """How far the posterior of the Gaussian layers is from their prior, in nats, summed over the layers.

    Attributes:
        closed_form: the Kullback-Leibler divergence of each frame, 0 where only the prior was there.
        log_ratio: log q(z) - log p(z) of the very z that was drawn.
    """

    closed_form: Float[Tensor, "b t"]
    log_ratio: Float[Tensor, "b t"]


class Attention(nn.Module):
    """Multi-head attention, over space or over time."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)

    def _split(self, x: Float[Tensor, "b m w"]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, b x heads x m x d."""
        b, m, _ = x.shape
        q, k, v = self.query_key_value(x).view(b, m, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        return q, k, v

    def _join(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        return self.out(out.transpose(1, 2).flatten(2))

    def over_space(self, x: Float[Tensor, "b t n w"]) -> Float[Tensor, "b t n w"]:
        """Each cell attends to all cells of its own frame."""
        return self._join(*self._split(x.flatten(0, 1)), None).view_as(x)

    def over_time(
        self, x: Float[Tensor, "b t n w"], turn: Tensor, cache: TimeCache | None, layer: int
    ) -> Float[Tensor, "b t n w"]:
        """Each cell attends to itself in its own frame and in those before it.

        Args:
            turn: b x t x d/2, the angles that times turn queries and keys by (arXiv 2104.09864).
        """
        b, t, n, _ = x.shape
        q, k, v = self._split(x.transpose(1, 2).flatten(0, 1))
        angles = turn.repeat_interleave(n, 0)[:, None]
        q, k = rotated(q, angles), rotated(k, angles)
        before = 0
        if cache is not None:
            k, v = cache.add(layer, k, v)
            before = k.shape[2] - t
        mask = None
        if k.shape[2] > 1 and t > 1:
            order = torch.arange(k.shape[2], device=x.device)
            latest = before + torch.arange(t, device=x.device)[:, None]
            mask = order <= latest
            if cache is not None:
                mask &= order > latest - cache.window
        elif cache is not None:
            k, v = k[:, :, -cache.window :], v[:, :, -cache.window :]
        return self._join(q, k, v, mask).view(b, n, t, -1).transpose(1, 2)


def rotated(x: Float[Tensor, "b h t d"], angles: Float[Tensor, "b 1 t e"]) -> Float[Tensor, "b h t d"]:
    """Pairs of channels turned by angles, so that products of two depend on the difference of their times."""
    first, second = x.chunk(2, -1)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)  # angles grow with time: not in bf16
    return torch.cat([first * cos - second * sin, first * sin + second * cos], -1)


class GaussianLayer(nn.Module):
    """A convolution gives mean and log-variance of a normal in each cell; a sample of it is passed on.

    The normal of the prior sees the past. Where the next frame is known, that of the posterior sees it too,
    and the sample is of the posterior: a conditional variational autoencoder with a learned prior (Denton and
    Fergus, arXiv 1802.07687) in every layer.

    Args:
        whole: one sample for the whole frame, of the mean over its cells, instead of one in each cell. Cells
            that each draw for themselves cannot agree on what happens to all of them.
    """

    def __init__(self, width: int, latent_width: int, whole: bool) -> None:
        super().__init__()
        self.whole = whole
        self.norm = nn.LayerNorm(width)
        self.prior = nn.Conv2d(width, 2 * latent_width, 3, padding=1)
        self.posterior = nn.Conv2d(2 * width, 2 * latent_width, 3, padding=1)
        self.out = nn.Linear(latent_width, width)
        # The prior begins as the standard normal, the posterior as a narrow one that sees more. Were it
        # as wide, the layers after it would unlearn to listen before it had anything to say.
        nn.init.zeros_(self.prior.weight)
        nn.init.zeros_(self.prior.bias)  # type: ignore[arg-type]
        with torch.no_grad():
            self.posterior.bias[latent_width:] = _FIRST_LOG_VARIANCE  # type: ignore[index]

    def forward(
        self,
        x: Float[Tensor, "b t n w"],
        target: Float[Tensor, "b t n w"] | None,
        known: Bool[Tensor, "b t"],
        noise: Float[Tensor, "b t n c"],
        grid: tuple[int, int],
    ) -> tuple[Float[Tensor, "b t n w"], Divergence]:
        """What is added to x, and the divergence.

        Args:
            target: what the posterior sees of the next frame.
            known: frames whose posterior is used.
            noise: standard normal; 0 for the means.
        """
        y = self.norm(x)
        prior = self._normal(self.prior, y, grid)
        mean, log_variance = prior
        zero = mean.new_zeros(x.shape[:2])
        divergence = Divergence(zero, zero)
        if target is not None:
            posterior = self._normal(self.posterior, torch.cat([y, target], -1), grid)
            pick = known[:, :, None, None]
            mean, log_variance = (torch.where(pick, q, p) for q, p in zip(posterior, prior, strict=True))
        z = mean + (0.5 * log_variance).exp() * noise[:, :, : mean.shape[2]].to(mean)
        if target is not None:
            closed_form = kl_of_normals(*posterior, *prior).sum((2, 3))
            log_ratio = (_log_density(z, *posterior) - _log_density(z, *prior)).sum((2, 3))
            divergence = Divergence(closed_form * known, log_ratio * known)
        return self.out(z.to(x.dtype)).expand_as(x), divergence

    def _normal(self, convolution: nn.Conv2d, x: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Mean and log-variance in fp32 or better, b x t x n x c, n = 1 for the whole frame."""
        b, t, n, w = x.shape
        image = x.view(b * t, *grid, w).permute(0, 3, 1, 2)
        out = convolution(image)
        out = out.to(torch.promote_types(out.dtype, torch.float32)).permute(0, 2, 3, 1).reshape(b, t, n, -1)
        if self.whole:
            out = out.mean(2, keepdim=True)
        mean, log_variance = out.chunk(2, -1)
        return mean, log_variance.clamp(_LEAST_LOG_VARIANCE, _GREATEST_LOG_VARIANCE)


def kl_of_normals(mean: Tensor, log_variance: Tensor, mean2: Tensor, log_variance2: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(mean2, exp(log_variance2))) in nats, elementwise."""
    ratio = (log_variance - log_variance2).exp()
    apart = (mean - mean2).square() * (-log_variance2).exp()
    return 0.5 * (ratio + apart - 1 + log_variance2 - log_variance)


def _log_density(z: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Of a normal; the constant that cancels in ratios is left out."""
    return -0.5 * ((z - mean).square() * (-log_variance).exp() + log_variance)


class SpaceTimeLayer(nn.Module):
    """Attention over space, attention over time, an MLP, each on a normed branch; then the Gaussian layer."""

    def __init__(self, config: SpatialTemporalConfig, number: int) -> None:
        super().__init__()
        self.number, width = number, config.width
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.space = Attention(width, config.heads, config.dropout)
        self.time = Attention(width, config.heads, config.dropout)
        self.mlp = Mlp(width, config.mlp_ratio)
        self.dropout = nn.Dropout(config.dropout)
        whole = number < config.whole_frame_layers
        self.gaussian = GaussianLayer(width, config.latent_width, whole) if config.latent_width else None

    def forward(
        self,
        x: Float[Tensor, "b t n w"],
        turn: Tensor,
        cache: TimeCache | None,
        target: Float[Tensor, "b t n w"] | None,
        known: Bool[Tensor, "b t"],
        noise: Float[Tensor, "b t n c"],
        grid: tuple[int, int],
    ) -> tuple[Float[Tensor, "b t n w"], Divergence | None]:
        """See `SpaceTimeTransformer.forward`."""
        x = x + self.dropout(self.space.over_space(self.norms[0](x)))
        x = x + self.dropout(self.time.over_time(self.norms[1](x), turn, cache, self.number))
        x = x + self.dropout(self.mlp(self.norms[2](x)))
        if self.gaussian is None:
            return x, None
        drawn, divergence = self.gaussian(x, target, known, noise, grid)
        return x + drawn, divergence


class SpaceTimeTransformer(nn.Module):
    """For each frame, features of the frame that comes next, from the frames so far.

    "So far" is the order in which frames are given, their times are annotations: with both ends of a clip
    given first, the frame asked for may lie between them.
    """

    def __init__(self, config: SpatialTemporalConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.groups * config.code_width
        self.frame, self.target = nn.Linear(channels, config.width), nn.Linear(channels, config.width)
        self.positions = AxialPositions(config.width)
        self.ahead = nn.Linear(TIME_FEATURES, config.width)
        self.layers = nn.ModuleList(SpaceTimeLayer(config, i) for i in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        pairs = config.width // config.heads // 2
        periods = _SHORTEST * (_LONGEST / _SHORTEST) ** (torch.arange(pairs) / max(1, pairs - 1))
        self.register_buffer("frequencies", 2 * math.pi / periods, persistent=False)

    frequencies: Tensor

    def noise_shape(self, b: int, t: int, n: int) -> tuple[int, int, int, int, int]:
        """Of the noise for b videos of t frames of n cells."""
        return len(self.layers), b, t, n, self.config.latent_width

    def forward(
        self,
        vectors: Float[Tensor, "b t gy gx c"],
        times: Float[Tensor, "b t"],
        next_times: Float[Tensor, "b t"],
        noise: Float[Tensor, "l b t n z"],
        *,
        targets: Float[Tensor, "b t gy gx c"] | None = None,
        known: Bool[Tensor, "b t"] | None = None,
        cache: TimeCache | None = None,
    ) -> tuple[Float[Tensor, "b t n w"], Divergence]:
        """Features of each next frame, and how much its latents know of it.

        Args:
            vectors: the codes' vectors of the frames given.
            times: of these frames, in steps.
            next_times: of the frames that come next.
            noise: standard normal, as `noise_shape`; 0 takes the means.
            targets: the vectors of the next frames, for the posterior.
            known: which of them are; all where `targets` is given, else none.
            cache: keys and values of earlier frames, to which these are added.
        """
        b, t, gy, gx, _ = vectors.shape
        if known is None:
            known = torch.full((b, t), targets is not None, device=vectors.device)
        ahead = (next_times - times).to(self.ahead.weight.dtype)
        ahead = self.ahead(time_features(ahead))
        x = self.frame(vectors.flatten(2, 3)) + self.positions((gy, gx), vectors.device) + ahead[:, :, None]
        target = None if targets is None else self.target(targets.flatten(2, 3))
        turn = times[..., None] * self.frequencies
        zero = x.new_zeros(b, t, dtype=torch.promote_types(x.dtype, torch.float32))
        total = Divergence(zero, zero)
        for layer, own in zip(self.layers, noise, strict=True):
            x, found = layer(x, turn, cache, target, known, own, (gy, gx))
            if found is not None:
                total = Divergence(total.closed_form + found.closed_form, total.log_ratio + found.log_ratio)
        return self.norm(x), total
