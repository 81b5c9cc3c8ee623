"""What the features of a cell say of its codes: a categorical of each, or a regression of their vectors."""

from __future__ import annotations

import abc

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from transframer.models.attention import Mlp
from transframer.models.choosing import pick
from transframer.models.codebook import Codebooks
from transframer.models.spatial_temporal_config import SpatialTemporalConfig


class CodeHead(nn.Module, abc.ABC):
    """p(codes of a cell | its features, the vectors of the latest frame there), a code of each codebook.

    The vectors that come next are guessed as the latest ones and a change. The nearer a code's vector is to
    the guess, the likelier it is, by a scale that is learned: so the heads begin by repeating the frame.
    """

    def __init__(self, config: SpatialTemporalConfig) -> None:
        super().__init__()
        self.groups = config.groups
        self.change = nn.Linear(config.width, config.groups * config.code_width)
        nn.init.zeros_(self.change.weight)
        nn.init.zeros_(self.change.bias)
        self.log_precision = nn.Parameter(torch.zeros(config.groups))

    def guess(
        self, features: Float[Tensor, "n w"], latest: Float[Tensor, "n gd"]
    ) -> tuple[Float[Tensor, "n d"], ...]:
        """The vectors that come next, one of each group."""
        return (latest + self.change(features).float()).chunk(self.groups, -1)

    def nearness(self, guess: Float[Tensor, "n d"], group: int, codebooks: Codebooks) -> Float[Tensor, "n k"]:
        """Logits of a group's codes: squared distances of their vectors, in units of their variance."""
        vectors = codebooks.vectors[group]
        with torch.autocast(guess.device.type, enabled=False):  # squares that cancel need fp32
            distance = vectors.square().sum(-1) - 2 * guess @ vectors.T + guess.square().sum(-1, keepdim=True)
        return -0.5 * self.log_precision[group].exp() * distance / _variance(vectors)

    @abc.abstractmethod
    def logits(
        self,
        features: Float[Tensor, "n w"],
        latest: Float[Tensor, "n gd"],
        codes: Int[Tensor, "n g"],
        group: int,
        codebooks: Codebooks,
    ) -> Float[Tensor, "n k"]:
        """Of one group's code, given those of the groups before it."""

    @abc.abstractmethod
    def scored(
        self,
        features: Float[Tensor, "n w"],
        latest: Float[Tensor, "n gd"],
        codes: Int[Tensor, "n g"],
        codebooks: Codebooks,
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """What training minimises, and the nats of the codes, of each cell."""

    def drawn(
        self,
        features: Float[Tensor, "n w"],
        latest: Float[Tensor, "n gd"],
        codebooks: Codebooks,
        temperature: float,
        top_p: float,
        uniform: Float[Tensor, "n g"],
    ) -> tuple[Int[Tensor, "n g"], Float[Tensor, " n"]]:
        """Codes drawn group by group (the likeliest at temperature 0), and their nats untempered."""
        codes = torch.zeros(uniform.shape, dtype=torch.long, device=features.device)
        nats = torch.zeros(len(codes), device=features.device)
        for group in range(self.groups):
            logits = self.logits(features, latest, codes, group, codebooks).float()
            codes[:, group] = pick(logits, temperature, top_p, uniform[:, group])
            nats += F.cross_entropy(logits, codes[:, group], reduction="none")
        return codes, nats

    def expected(
        self,
        features: Float[Tensor, "n w"],
        latest: Float[Tensor, "n gd"],
        codes: Int[Tensor, "n g"],
        codebooks: Codebooks,
    ) -> Float[Tensor, "n gd"]:
        """The mean vector of each group, given the codes of the groups before it."""
        means = [
            self.logits(features, latest, codes, group, codebooks).float().softmax(-1)
            @ codebooks.vectors[group]
            for group in range(self.groups)
        ]
        return torch.cat(means, -1)


class CategoricalHead(CodeHead):
    """Codes group after group, each given those before it."""

    def __init__(self, config: SpatialTemporalConfig) -> None:
        super().__init__(config)
        self.embeds = nn.ModuleList(
            nn.Embedding(config.codes, config.width) for _ in range(config.groups - 1)
        )
        for embed in self.embeds:
            nn.init.normal_(embed.weight, std=0.02)  # type: ignore[arg-type]
        self.norm = nn.LayerNorm(config.width)
        self.mlp = Mlp(config.width, 1.0)
        self.outs = nn.ModuleList(nn.Linear(config.width, config.codes) for _ in range(config.groups))
        for out in self.outs:
            nn.init.zeros_(out.weight)  # type: ignore[arg-type]
            nn.init.zeros_(out.bias)  # type: ignore[arg-type]

    def logits(
        self, features: Tensor, latest: Tensor, codes: Tensor, group: int, codebooks: Codebooks
    ) -> Tensor:
        """See `CodeHead.logits`."""
        x = features
        for before in range(group):
            x = x + self.embeds[before](codes[:, before])
        near = self.nearness(self.guess(features, latest)[group], group, codebooks)
        return near + self.outs[group](x + self.mlp(self.norm(x))).float()

    def scored(
        self, features: Tensor, latest: Tensor, codes: Tensor, codebooks: Codebooks
    ) -> tuple[Tensor, Tensor]:
        """The nats of all groups are what training minimises."""
        x, prefixes = features, [features]
        for group, embed in enumerate(self.embeds):
            x = x + embed(codes[:, group])
            prefixes.append(x)
        each = torch.stack(prefixes)  # g n w: one product for all groups
        each = each + self.mlp(self.norm(each))
        nats = features.new_zeros(len(features), dtype=torch.float32)
        for group, guess in enumerate(self.guess(features, latest)):
            logits = self.nearness(guess, group, codebooks) + self.outs[group](each[group]).float()
            nats = nats + F.cross_entropy(logits, codes[:, group], reduction="none")
        return nats, nats


class RegressionHead(CodeHead):
    """The latent vectors by least squares, relative to the variance of the vectors.

    The scale that makes distances probabilities is learned from the codes alone and moves no guess, so that
    the regression is what it is without it.
    """

    def logits(
        self, features: Tensor, latest: Tensor, codes: Tensor, group: int, codebooks: Codebooks
    ) -> Tensor:
        """See `CodeHead.logits`; the codes of other groups do not matter."""
        return self.nearness(self.guess(features, latest)[group], group, codebooks)

    def scored(
        self, features: Tensor, latest: Tensor, codes: Tensor, codebooks: Codebooks
    ) -> tuple[Tensor, Tensor]:
        """The squared error with the nats of the scale, and the nats."""
        loss = nats = features.new_zeros(len(features), dtype=torch.float32)
        for group, guess in enumerate(self.guess(features, latest)):
            vectors = codebooks.vectors[group]
            error = (guess - vectors[codes[:, group]]).square().sum(-1)
            near = self.nearness(guess.detach(), group, codebooks)
            own = F.cross_entropy(near, codes[:, group], reduction="none")
            loss, nats = loss + 0.5 * error / _variance(vectors) + own - own.detach(), nats + own
        return loss, nats


def _variance(vectors: Float[Tensor, "k d"]) -> Float[Tensor, ""]:
    """Of a channel of the vectors, mean over the channels."""
    return vectors.var(0).mean().clamp(min=1e-8)
