"""Codebooks of vectors that follow what they code, with those that nothing uses revived."""

from __future__ import annotations

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor, nn

_LEAST_COUNT = 1e-6  # a vector that is used less stays where it is


class Codebooks(nn.Module):
    """g codebooks of k vectors; each codes its own part of a latent vector.

    The vectors are moving averages of the latents that they code (van den Oord et al., arXiv 1711.00937,
    appendix A.1); the first batch gives the first vectors. One that is used less often than `revive_below` of
    the mean is replaced by a latent of the batch (as in Jukebox, arXiv 2005.00341).

    Args:
        groups, codes, width: g, k, and the channels of a vector.
        decay: of the moving averages.
        revive_below: share of the mean use; 0 revives none.
    """

    vectors: Tensor
    counts: Tensor
    sums: Tensor
    ready: Tensor

    def __init__(self, groups: int, codes: int, width: int, decay: float, revive_below: float) -> None:
        super().__init__()
        self.groups, self.codes, self.width = groups, codes, width
        self.decay, self.revive_below = decay, revive_below
        self.register_buffer("vectors", torch.zeros(groups, codes, width))
        self.register_buffer("counts", torch.ones(groups, codes))
        self.register_buffer("sums", torch.zeros(groups, codes, width))
        self.register_buffer("ready", torch.tensor(False))

    def codes_of(self, latents: Float[Tensor, "n gd"]) -> Int[Tensor, "n g"]:
        """The nearest vector of each part."""
        parts = latents.float().view(len(latents), self.groups, self.width).transpose(0, 1)
        with torch.autocast(latents.device.type, enabled=False):  # squares that cancel need fp32
            distance = self.vectors.square().sum(-1)[:, None] - 2 * parts @ self.vectors.transpose(1, 2)
        return distance.argmin(-1).T

    def vectors_of(self, codes: Int[Tensor, "*n g"]) -> Float[Tensor, "*n gd"]:
        """The vectors that codes name, side by side."""
        group = torch.arange(self.groups, device=codes.device)
        return self.vectors[group, codes].flatten(-2)

    @torch.no_grad()
    def prepare(self, latents: Float[Tensor, "n gd"], generator: torch.Generator) -> None:
        """Takes the first vectors from the first batch; does nothing afterwards."""
        if self.ready:
            return
        first = self._drawn(latents, self.codes, generator)
        # A batch of fewer latents than vectors names some twice: apart, or the second would never be nearest.
        noise = torch.randn(first.shape, generator=generator).to(first)
        first += 0.01 * first.std().clamp(min=1e-6) * noise
        self._from_first(first)
        self.vectors.copy_(first)
        self.sums.copy_(first)
        self.counts.fill_(1.0)
        self.ready.fill_(True)

    @torch.no_grad()
    def follow(
        self, latents: Float[Tensor, "n gd"], codes: Int[Tensor, "n g"], generator: torch.Generator
    ) -> None:
        """Moves the vectors towards the latents they code, and revives the unused; one step of training."""
        parts = latents.float().view(len(latents), self.groups, self.width)
        counts, sums = torch.zeros_like(self.counts), torch.zeros_like(self.sums)
        for group in range(self.groups):
            counts[group] = torch.bincount(codes[:, group], minlength=self.codes).to(counts)
            sums[group].index_add_(0, codes[:, group], parts[:, group])
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(counts)
            dist.all_reduce(sums)
        if not sums.isfinite().all():  # the step will be left out; its codes must not stay
            return
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        mean = self.counts.mean(1, keepdim=True)
        unused = self.counts < self.revive_below * mean
        fresh = self._drawn(latents, self.codes, generator)
        self._from_first(fresh)
        # A revived vector gets the mean use, or the next step would find it unused again.
        self.counts.copy_(torch.where(unused, mean, self.counts))
        self.sums.copy_(torch.where(unused[..., None], fresh * mean[..., None], self.sums))
        counts = self.counts[..., None]
        self.vectors.copy_(torch.where(counts > _LEAST_COUNT, self.sums / counts, self.vectors))

    def _drawn(
        self, latents: Float[Tensor, "n gd"], k: int, generator: torch.Generator
    ) -> Float[Tensor, "g k d"]:
        """Parts of latents drawn at random, without repeating while there are others."""
        n = len(latents)
        order = torch.cat([torch.randperm(n, generator=generator) for _ in range(-(-k // n))])[:k]
        picked = latents.detach()[order.to(latents.device)].float()
        return picked.view(k, self.groups, self.width).transpose(0, 1).contiguous()

    @staticmethod
    def _from_first(values: Tensor) -> None:
        """Every process takes what the first one drew from its own batch."""
        if dist.is_available() and dist.is_initialized():
            dist.broadcast(values, 0)
