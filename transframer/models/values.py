"""The values of coefficients: their embeddings, and the head that predicts them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from transframer.codec import N_CHANNELS
from transframer.models.annotations import fourier_features

_FREQUENCIES = 8


class ValueHead(nn.Module):
    """A categorical over -max_value .. max_value without 0, and an embedding of each.

    Neighbouring values share features, so that rare ones are not learned from nothing; embeddings and head
    share their weights.

    Args:
        width: of the decoders.
        max_value: the greatest magnitude.
        draft: start from the Laplace distribution of a draft.
    """

    features: Tensor

    def __init__(self, width: int, max_value: int, draft: bool) -> None:
        super().__init__()
        self.max_value = max_value
        features = _value_features(max_value)
        self.register_buffer("features", features, persistent=False)
        self.shared = nn.Linear(features.shape[1], width)
        self.own = nn.Embedding(2 * max_value + 1, width)
        self.query = nn.Linear(width, width)
        self.bias = nn.Embedding(N_CHANNELS, 2 * max_value + 1)
        self.correction = nn.Linear(width, 2) if draft else None
        # Coefficients are small far more often than large: start from p(v) ~ 1 / |v|, not from uniform.
        magnitude = torch.arange(-max_value, max_value + 1).abs().clamp(min=1)
        with torch.no_grad():
            self.bias.weight.copy_(-magnitude.log().expand_as(self.bias.weight))
        nn.init.normal_(self.own.weight, std=0.5)
        if self.correction is not None:
            nn.init.zeros_(self.correction.weight)
            nn.init.zeros_(self.correction.bias)

    def table(self) -> Tensor:
        """Embeddings of the values -max_value .. max_value."""
        return self.shared(self.features) + self.own.weight

    def forward(self, state: Tensor, channel: Tensor, drafted: Tensor | None, table: Tensor) -> Tensor:
        """Logits b x l x (2 * max_value + 1), at least fp32; -inf for the value 0, which is never coded.

        Args:
            state: b x l x width, normalised.
            channel: b x l, below N_CHANNELS.
            drafted: b x l x 3, log-odds, centre and logarithm of the spread as drafted; the state corrects
                the last two.
            table: from `table()`.
        """
        query = self.query(state) / state.shape[-1] ** 0.5
        logits = query @ table.T
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) + self.bias(channel)
        value = torch.arange(-self.max_value, self.max_value + 1, device=logits.device)
        if drafted is not None and self.correction is not None:
            centre, log_spread = (drafted[..., 1:] + self.correction(state)).unbind(-1)
            distance = (value.to(logits.dtype).asinh() - centre[..., None]).abs()
            logits = torch.addcmul(logits, distance, (-log_spread).exp()[..., None], value=-1)
        return logits.index_fill(-1, value[self.max_value : self.max_value + 1] + self.max_value, -torch.inf)


def _value_features(max_value: int) -> Tensor:
    """Sign, log magnitude, and Fourier features of both scales of the values -max_value .. max_value."""
    value = torch.arange(-max_value, max_value + 1).float()
    log = value.sign() * torch.log1p(value.abs())
    return torch.cat(
        [
            value.sign()[:, None],
            (value / max_value)[:, None],
            log[:, None],
            fourier_features(log, 6, 16.0),
            fourier_features(value, _FREQUENCIES, 4.0 * max_value),
        ],
        dim=1,
    )
