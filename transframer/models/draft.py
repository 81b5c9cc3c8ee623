"""A draft of the whole target: every coefficient's probability to be coded, and its value, independently.

The decoders see one event at a time, so that a training step teaches them a few events of each frame. The
draft predicts all coefficients of all cells at once from the encoder's features, and so every coefficient of
every frame teaches the encoder. As independent coefficients it also is a full model of the sequence: the
decoders start from its probabilities and learn what the coefficients know of each other.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from transframer.codec import N_CHANNELS, channel_zigzag
from transframer.models.segments import picked


@dataclass(frozen=True)
class Draft:
    """Independent coefficients of b targets of p cells, and the event probabilities that follow from them.

    A value is drafted on the scale asinh(v), where it follows a Laplace distribution.

    Attributes:
        coded: b x N_CHANNELS x p, log-odds that a coefficient is not zero.
        centre, spread: b x N_CHANNELS x p, of the Laplace distribution of its value then; spread > 0.
        legal: b x N_CHANNELS x p, the cells that each channel has.
    """

    coded: Float[Tensor, "b c p"]
    centre: Float[Tensor, "b c p"]
    spread: Float[Tensor, "b c p"]
    legal: Bool[Tensor, "b c p"]

    def select(self, rows: Tensor) -> Draft:
        """These rows of the batch."""
        return Draft(*(getattr(self, field.name).index_select(0, rows) for field in fields(self)))

    def loss(self, grid: Int[Tensor, "b c gy gx"], open_: Bool[Tensor, "b c p"]) -> Float[Tensor, " b"]:
        """Nats of the coefficients that are open, values on the logarithmic scale (a density)."""
        value = grid.flatten(2)
        coded = value != 0
        nats = F.binary_cross_entropy_with_logits(self.coded, coded.to(self.coded.dtype), reduction="none")
        distance = (value.to(self.centre.dtype).asinh() - self.centre).abs()
        nats = nats + coded * (distance / self.spread + (2 * self.spread).log())
        return (nats * (open_ & self.legal)).sum((1, 2))


class DraftHead(nn.Module):
    """Predicts the draft from the features of the target slot's cells.

    How often each coefficient of a task is coded, and how large it is then, are biases that learn faster than
    the rest: an optimiser of a fixed step size finds these before it bends the features towards them. So are
    the weights that each coefficient of a task gives to the same coefficient of the hints.

    Args:
        width: channels of a cell.
        n_tasks: rows of the tables of biases and weights.
        n_hints: images that hint at the target.
    """

    def __init__(self, width: int, n_tasks: int, n_hints: int) -> None:
        super().__init__()
        self.n_hints = n_hints
        self.hidden = nn.Linear(width, 2 * width)
        self.out = nn.Linear(2 * width, 3 * N_CHANNELS, bias=False)
        self.bias = nn.Embedding(n_tasks, 3 * N_CHANNELS)
        self.hint = nn.Embedding(n_tasks, 2 * n_hints * N_CHANNELS)
        nn.init.zeros_(self.hint.weight)
        self.bias.lr_scale, self.hint.lr_scale = 15.0, 5.0  # type: ignore[assignment]
        with torch.no_grad():  # starts as rare coefficients, rarer at high frequencies, of either sign
            self.out.weight.mul_(0.1)
            start = torch.zeros(3, N_CHANNELS, device=channel_zigzag.device)
            start[0] = -2 - channel_zigzag / 10
            self.bias.weight.copy_(start.flatten().expand_as(self.bias.weight))

    def forward(
        self,
        cells: Float[Tensor, "b p w"],
        task: Int[Tensor, " b"],
        hints: Float[Tensor, "b n c p"],
        legal: Bool[Tensor, "b c p"],
    ) -> Draft:
        """The draft of the targets whose cells these are.

        Args:
            hints: in quantisation steps of the target.
        """
        out = self.out(F.silu(self.hidden(cells))) + self.bias(task)[:, None]
        out = out.to(torch.promote_types(out.dtype, torch.float32))
        coded, centre, spread = out.transpose(1, 2).unflatten(1, (3, N_CHANNELS)).unbind(1)
        weight = self.hint(task).view(len(task), self.n_hints, 2, N_CHANNELS, 1)
        coded = coded + (weight[:, :, 0] * hints.asinh().abs()).sum(1)
        centre = centre + (weight[:, :, 1] * hints).sum(1).asinh()
        return Draft(coded, centre, F.softplus(spread) + 0.1, legal)


class EventPrior:
    """Probabilities of the next event under a draft: the first coefficient in order that is not zero."""

    def __init__(self, draft: Draft) -> None:
        coded, legal = draft.coded, draft.legal
        absent = F.logsigmoid(-coded).masked_fill(~legal, 0.0)
        through = absent.cumsum(-1)  # all cells of the channel up to this one are zero
        total = through[..., -1]
        # b c (p + 1): all cells of the channel after the first n are zero
        self.rest = total[..., None] - F.pad(through, (1, 0))
        self.before = F.pad(total.cumsum(-1), (1, 0))  # b (c + 1): all channels before are zero
        # b (c + 1): all channels before are zero and this one is not; for the stop, all are
        self.channel = self.before + F.pad(log1mexp(total), (0, 1))
        self.position = F.logsigmoid(coded) + through - absent  # b c p, for a start at the first cell

    def select(self, rows: Tensor) -> EventPrior:
        """These rows of the batch."""
        chosen = copy(self)
        for name, values in vars(self).items():
            setattr(chosen, name, values.index_select(0, rows))
        return chosen

    def channel_logits(
        self, row: Int[Tensor, " *n"], last_channel: Int[Tensor, " *n"], last_position: Int[Tensor, " *n"]
    ) -> Tensor:
        """Log-probabilities of the next channel up to a constant per event, ... x (N_CHANNELS + 1).

        Args:
            row: the episode of each event, of a shape that goes with theirs.
        """
        own = last_channel.clamp(max=N_CHANNELS - 1)
        rest = picked(self.rest.flatten(1), row, own * self.rest.shape[2] + last_position + 1)
        after = picked(self.before, row, own + 1)
        logits = picked(self.channel[:, None], row, torch.zeros_like(row)) + (rest - after)[..., None]
        return logits.scatter(-1, own[..., None], log1mexp(rest)[..., None])

    def position_logits(self, row: Int[Tensor, " *n"], channel: Int[Tensor, " *n"]) -> Tensor:
        """Log-probabilities of the position up to a constant per event, ... x p."""
        return picked(self.position, row, channel.clamp(max=N_CHANNELS - 1))


def log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for x <= 0, kept finite at 0.

    >>> log1mexp(torch.tensor([-0.6931])).exp().round(decimals=3)
    tensor([0.5000])
    """
    return (-torch.expm1(x.clamp(max=-1e-7))).log()
