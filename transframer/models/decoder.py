"""Three stacked causal decoders over triples: p(channel | past), p(position | channel), p(value | both).

Event i is a triple (channel, position, value), or the stop, which is the channel N_CHANNELS. An event's
logits depend on the events before it and on the parts of itself already chosen. Pairs that do not come
later in the total order, or that the subsampling has no cell for, have no probability, so that a sequence
always decodes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from transframer.codec import N_CHANNELS, channel_plane, channel_zigzag
from transframer.models.attention import DecoderLayer, KeyValueCache
from transframer.models.draft import Draft, EventPrior
from transframer.models.presets import TransframerConfig
from transframer.models.values import ValueHead

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
        draft: the coefficients as drafted; None in a model without.
        prior: the events' probabilities that follow from the draft.
        sketch: the target's pixels as sketched, b x 3 x h x w; None in a model without.
    """

    cells: Tensor
    memory: Memory
    memory_mask: Tensor | None
    positions: Tensor
    pointer_keys: Tensor
    legal: Tensor
    last_legal: Tensor
    columns: int
    draft: Draft | None = None
    prior: EventPrior | None = None
    sketch: Tensor | None = None

    def select(self, rows: Tensor) -> Context:
        """These rows of the batch."""
        cells, pointer_keys, legal, last_legal = (
            t.index_select(0, rows) for t in (self.cells, self.pointer_keys, self.legal, self.last_legal)
        )
        memory = [[(k.index_select(0, rows), v.index_select(0, rows)) for k, v in s] for s in self.memory]
        mask = None if self.memory_mask is None else self.memory_mask.index_select(0, rows)
        context = Context(cells, memory, mask, self.positions, pointer_keys, legal, last_legal, self.columns)
        if self.draft is None or self.prior is None:
            return context
        sketch = None if self.sketch is None else self.sketch.index_select(0, rows)
        return replace(context, draft=self.draft.select(rows), prior=self.prior.select(rows), sketch=sketch)

    def starting_from(self, draft: Draft) -> Context:
        """The same context with a draft."""
        return replace(self, draft=draft, prior=EventPrior(draft))


class TripleDecoder(nn.Module):
    """The channel, position and value decoders with their heads."""

    plane_of_channel: Tensor
    zigzag_of_channel: Tensor

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
        # Buffers, as nothing may be copied to a GPU while a step is recorded (transframer.models.graphed).
        self.register_buffer("plane_of_channel", channel_plane.clone(), persistent=False)
        self.register_buffer("zigzag_of_channel", channel_zigzag.clone(), persistent=False)
        self.plane = nn.Embedding(3, width)
        self.frequency = nn.Embedding(64, width)
        self.values = ValueHead(width, config.max_value, config.draft)
        self.cell = nn.Linear(memory_width, width)
        self.neighbours = nn.Linear(5 * N_CHANNELS, width, bias=False)
        self.drafted = nn.Linear(3, width) if config.draft else None
        self.pointer_query = nn.Linear(width, width)
        self.pointer_key = nn.Linear(memory_width, width)
        self.channel_head = nn.Linear(width, N_CHANNELS + 1)
        for embedding in (self.channel, self.plane, self.frequency):
            nn.init.normal_(embedding.weight, std=0.5)

    def layers(self, index: int) -> list[DecoderLayer]:
        """The layers of one of the three stacks: 0 channel, 1 position, 2 value."""
        return list(self.stacks[index].children())  # type: ignore[arg-type]

    # -- embeddings ---------------------------------------------------------------------------------------

    def channel_vector(self, channel: Tensor) -> Tensor:
        """Embedding of channels, stop included."""
        inner = channel.clamp(max=N_CHANNELS - 1)
        return (
            self.channel(channel)
            + self.plane(self.plane_of_channel[inner])
            + self.frequency(self.zigzag_of_channel[inner])
        )

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
        cells = cells.to(self.cell.weight.dtype).asinh()
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
        if context.prior is not None:
            logits = logits + context.prior.channel_logits(last_channel, last_position)
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
        if context.prior is not None:
            logits = logits + context.prior.position_logits(channel)
        cells = torch.arange(logits.shape[-1], device=state.device)
        after = torch.where(channel == last_channel, last_position, -1)
        rows = torch.arange(len(channel), device=state.device)[:, None]
        legal = context.legal[rows, channel] & (cells > after[..., None])
        return logits.masked_fill(~(legal | (channel == STOP)[..., None]), -torch.inf)

    def draft_at(self, context: Context, channel: Tensor, position: Tensor) -> Tensor | None:
        """Log-odds, centre and logarithm of the spread that are drafted for pairs b x l; b x l x 3."""
        draft = context.draft
        if draft is None:
            return None
        at = channel.clamp(max=N_CHANNELS - 1) * draft.coded.shape[2] + position
        parts = [draft.coded, draft.centre, draft.spread.log()]
        return torch.stack([part.flatten(1).gather(1, at) for part in parts], -1)

    def place_vector(
        self, context: Context, grid: Tensor, channel: Tensor, position: Tensor, drafted: Tensor | None
    ) -> Tensor:
        """What the value decoder is told of where an event is; arguments as of the parts."""
        vector = self.position_vector(context, position)
        vector = vector + self.neighbourhood_vector(context, grid, channel, position)
        return vector if drafted is None or self.drafted is None else vector + self.drafted(drafted)

    def value_logits(self, state: Tensor, channel: Tensor, drafted: Tensor | None, table: Tensor) -> Tensor:
        """b x l x (2 * max_value + 1), -inf for the value 0, which is never coded.

        Args:
            drafted: b x l x 3, from `draft_at`.
        """
        return self.values(self.norms[2](state), channel.clamp(max=N_CHANNELS - 1), drafted, table)

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
        table = self.values.table()
        past = self.event_vector(context, channel[:, :-1], position[:, :-1], value[:, :-1], table)
        start = self.start.expand(len(channel), 1, -1)
        before_channel = torch.cat([last_channel[:, None], channel[:, :-1]], 1)
        before_position = torch.cat([last_position[:, None], position[:, :-1]], 1)
        state = self.run_stack(0, torch.cat([start, past], 1), context, None)
        channel_nats = _nats(self.channel_logits(state, context, before_channel, before_position), channel)
        state = self.run_stack(1, state + self.channel_vector(channel), context, None)
        logits = self.position_logits(state, context, channel, before_channel, before_position)
        position_nats = _nats(logits, position)
        drafted = self.draft_at(context, channel, position)
        state = state + self.place_vector(context, grid, channel, position, drafted)
        state = self.run_stack(2, state, context, None)
        value_nats = _nats(self.value_logits(state, channel, drafted, table), value + self.max_value)
        coded = channel != STOP
        return {"channel": channel_nats, "position": position_nats * coded, "value": value_nats * coded}


def _at_least_fp32(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _nats(logits: Tensor, index: Tensor) -> Tensor:
    picked = logits.gather(-1, index[..., None])[..., 0]
    return logits.logsumexp(-1) - picked
