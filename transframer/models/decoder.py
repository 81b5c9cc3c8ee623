"""Three stacked causal decoders over triples: p(channel | past), p(position | channel), p(value | both).

Event i is a triple (channel, position, value), or the stop, which is the channel N_CHANNELS. An event's
logits depend on the events before it and on the parts of itself already chosen. Pairs that do not come
later in the total order, or that the subsampling has no cell for, have no probability, so that a sequence
always decodes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from transframer.codec import N_CHANNELS, channel_plane, channel_zigzag
from transframer.models.annotations import fourier_features
from transframer.models.attention import DecoderLayer, KeyValueCache
from transframer.models.presets import TransframerConfig

STOP = N_CHANNELS
Memory = list[list[tuple[Tensor, Tensor]]]


@dataclass
class Context:
    """What the decoders see of the encoder, for b episodes.

    Attributes:
        cells: features of the target slot's cells, b x p x width.
        memory: keys and values of the cross-attention, per stack and layer.
        memory_mask: b x m, true where the memory is real; None where all of it is.
        positions: p x width, the position embeddings of the cells.
        pointer_keys: b x p x width, what the position head compares its query with.
        legal: b x (N_CHANNELS + 1) x p, the cells that each channel has; none for the stop.
        last_legal: b x (N_CHANNELS + 1), the last of them; all of p for the stop, which may follow itself.
        columns: cells in a row.
    """

    cells: Tensor
    memory: Memory
    memory_mask: Tensor | None
    positions: Tensor
    pointer_keys: Tensor
    legal: Tensor
    last_legal: Tensor
    columns: int

    def select(self, rows: Tensor) -> Context:
        """These rows of the batch."""
        cells, pointer_keys, legal, last_legal = (
            t.index_select(0, rows) for t in (self.cells, self.pointer_keys, self.legal, self.last_legal)
        )
        memory = [[(k.index_select(0, rows), v.index_select(0, rows)) for k, v in s] for s in self.memory]
        mask = None if self.memory_mask is None else self.memory_mask.index_select(0, rows)
        return Context(cells, memory, mask, self.positions, pointer_keys, legal, last_legal, self.columns)


class TripleDecoder(nn.Module):
    """The channel, position and value decoders with their heads."""

    value_frequencies = 8
    value_features: Tensor

    def __init__(self, config: TransframerConfig) -> None:
        super().__init__()
        width = config.width
        self.max_value = config.max_value
        self.heads = config.heads
        memory_width = config.encoder_widths[0]
        depths = (config.channel_layers, config.position_layers, config.value_layers)
        self.stacks = nn.ModuleList(
            nn.ModuleList(
                DecoderLayer(
                    width, config.heads, config.mlp_ratio, memory_width, config.gate_init, config.dropout
                )
                for _ in range(depth)
            )
            for depth in depths
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in depths)
        self.start = nn.Parameter(torch.zeros(width))
        self.channel = nn.Embedding(N_CHANNELS + 1, width)
        self.plane = nn.Embedding(3, width)
        self.frequency = nn.Embedding(64, width)
        # Neighbouring values share features, so that rare ones are not learned from nothing.
        value_features = _value_features(config.max_value)
        self.register_buffer("value_features", value_features, persistent=False)
        self.value = nn.Linear(value_features.shape[1], width)
        self.value_own = nn.Embedding(2 * config.max_value + 1, width)
        self.cell = nn.Linear(memory_width, width)
        self.neighbours = nn.Linear(5 * N_CHANNELS, width, bias=False)
        self.pointer_query = nn.Linear(width, width)
        self.pointer_key = nn.Linear(memory_width, width)
        self.channel_head = nn.Linear(width, N_CHANNELS + 1)
        self.value_query = nn.Linear(width, width)
        self.value_bias = nn.Embedding(N_CHANNELS, 2 * config.max_value + 1)
        for embedding in (self.channel, self.plane, self.frequency, self.value_own):
            nn.init.normal_(embedding.weight, std=0.5)
        # Coefficients are small far more often than large: start from p(v) ~ |v| ** -1.5, not from uniform.
        magnitude = torch.arange(-config.max_value, config.max_value + 1).abs().clamp(min=1)
        with torch.no_grad():
            self.value_bias.weight.copy_(-1.5 * magnitude.log().expand_as(self.value_bias.weight))

    def layers(self, index: int) -> list[DecoderLayer]:
        """The layers of one of the three stacks: 0 channel, 1 position, 2 value."""
        return list(self.stacks[index].children())  # type: ignore[arg-type]

    # -- embeddings ---------------------------------------------------------------------------------------

    def value_table(self) -> Tensor:
        """Embeddings of the values -max_value .. max_value, which also are the value head's weights."""
        return self.value(self.value_features) + self.value_own.weight

    def channel_vector(self, channel: Tensor) -> Tensor:
        """Embedding of channels, stop included."""
        inner = channel.clamp(max=N_CHANNELS - 1)
        plane = channel_plane.to(channel.device)[inner]
        zigzag = channel_zigzag.to(channel.device)[inner]
        return self.channel(channel) + self.plane(plane) + self.frequency(zigzag)

    def position_vector(self, context: Context, position: Tensor) -> Tensor:
        """Embedding of positions b x l, with the encoder's feature there."""
        cells = context.cells.gather(1, position[..., None].expand(-1, -1, context.cells.shape[2]))
        return context.positions[position] + self.cell(cells)

    def neighbourhood_vector(
        self, context: Context, grid: Tensor, channel: Tensor, position: Tensor
    ) -> Tensor:
        """Embedding of what is decoded around each event b x l before its value is chosen.

        The coefficients of the event's cell and of the four beside it, as far as their pairs come earlier in
        the total order: so `grid` may hold later ones as well.

        Args:
            grid: b x N_CHANNELS x gy x gx, quantised.
        """
        gx = context.columns
        cells = grid.flatten(2).transpose(1, 2)  # b p channels
        cells = cells.sign() * cells.abs().to(self.cell.weight.dtype).log1p()
        channels = torch.arange(N_CHANNELS, device=grid.device)
        column, last = position % gx, cells.shape[1] - 1
        always = torch.ones_like(column, dtype=torch.bool)
        seen = []
        for offset, inside, also_own_channel in (
            (0, always, False),
            (-1, column > 0, True),
            (-gx, position >= gx, True),
            (1, column < gx - 1, False),
            (gx, position + gx <= last, False),
        ):
            at = (position + offset).clamp(0, last)
            near = cells.gather(1, at[..., None].expand(-1, -1, N_CHANNELS))  # b l channels
            earlier = channels < channel[..., None] + also_own_channel
            seen.append(near * (earlier & inside[..., None]))
        return self.neighbours(torch.cat(seen, -1))

    # -- the three steps ----------------------------------------------------------------------------------

    def run_stack(
        self, index: int, x: Tensor, context: Context, caches: list[list[KeyValueCache]] | None
    ) -> Tensor:
        """One of the three stacks over b x l x width events."""
        for depth, layer in enumerate(self.layers(index)):
            cache = None if caches is None else caches[index][depth]
            x = layer(x, context.memory[index][depth], context.memory_mask, cache)
        return x

    def channel_logits(
        self, state: Tensor, context: Context, last_channel: Tensor, last_position: Tensor
    ) -> Tensor:
        """b x l x (N_CHANNELS + 1), -inf where no later pair exists.

        Args:
            last_channel, last_position: b x l, the pair before each event; (0, -1) before the first.
        """
        logits = _at_least_fp32(self.channel_head(self.norms[0](state)))
        channels = torch.arange(N_CHANNELS + 1, device=state.device)
        more = context.last_legal.gather(1, last_channel) > last_position  # b l: the same channel goes on
        legal = (channels > last_channel[..., None]) | (
            (channels == last_channel[..., None]) & more[..., None]
        )
        return logits.masked_fill(~legal, -torch.inf)

    def position_logits(
        self, state: Tensor, context: Context, channel: Tensor, last_channel: Tensor, last_position: Tensor
    ) -> Tensor:
        """b x l x p, -inf where the pair (channel, position) is not later; for the stop all are legal."""
        query = self.pointer_query(self.norms[1](state))
        logits = _at_least_fp32(query @ context.pointer_keys.transpose(1, 2)) / query.shape[-1] ** 0.5
        cells = torch.arange(logits.shape[-1], device=state.device)
        after = torch.where(channel == last_channel, last_position, -1)
        rows = torch.arange(len(channel), device=state.device)[:, None]
        legal = context.legal[rows, channel] & (cells > after[..., None])
        return logits.masked_fill(~(legal | (channel == STOP)[..., None]), -torch.inf)

    def value_logits(self, state: Tensor, channel: Tensor, table: Tensor) -> Tensor:
        """b x l x (2 * max_value + 1), -inf for the value 0, which is never coded."""
        logits = self.value_query(self.norms[2](state)) @ table.T / state.shape[-1] ** 0.5
        logits = _at_least_fp32(logits) + self.value_bias(channel.clamp(max=N_CHANNELS - 1))
        zero = torch.arange(logits.shape[-1], device=state.device) == self.max_value
        return logits.masked_fill(zero, -torch.inf)

    def event_vector(
        self, context: Context, channel: Tensor, position: Tensor, value: Tensor, table: Tensor
    ) -> Tensor:
        """Embedding of past events b x l."""
        return (
            self.channel_vector(channel)
            + self.position_vector(context, position)
            + table[value + self.max_value]
        )

    def forward(
        self,
        context: Context,
        channel: Tensor,
        position: Tensor,
        value: Tensor,
        last_channel: Tensor,
        last_position: Tensor,
        grid: Tensor,
    ) -> dict[str, Tensor]:
        """Nats of each event's parts under teacher forcing, each b x l; zero for parts the stop lacks.

        Args:
            channel, position, value: b x l events of a chunk; any legal value where padded.
            last_channel, last_position: b, the pair before the chunk; (0, -1) before the first.
            grid: b x N_CHANNELS x gy x gx, all of the frame's coefficients; an event sees the earlier ones.
        """
        table = self.value_table()
        past = self.event_vector(context, channel[:, :-1], position[:, :-1], value[:, :-1], table)
        start = self.start.expand(len(channel), 1, -1)
        before_channel = torch.cat([last_channel[:, None], channel[:, :-1]], 1)
        before_position = torch.cat([last_position[:, None], position[:, :-1]], 1)
        state = self.run_stack(0, torch.cat([start, past], 1), context, None)
        channel_nats = _nats(self.channel_logits(state, context, before_channel, before_position), channel)
        state = self.run_stack(1, state + self.channel_vector(channel), context, None)
        logits = self.position_logits(state, context, channel, before_channel, before_position)
        position_nats = _nats(logits, position)
        state = state + self.position_vector(context, position)
        state = state + self.neighbourhood_vector(context, grid, channel, position)
        state = self.run_stack(2, state, context, None)
        value_nats = _nats(self.value_logits(state, channel, table), value + self.max_value)
        coded = channel != STOP
        return {"channel": channel_nats, "position": position_nats * coded, "value": value_nats * coded}


def _at_least_fp32(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _nats(logits: Tensor, index: Tensor) -> Tensor:
    picked = logits.gather(-1, index[..., None])[..., 0]
    return logits.logsumexp(-1) - picked


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
            fourier_features(value, TripleDecoder.value_frequencies, 4.0 * max_value),
        ],
        dim=1,
    )
