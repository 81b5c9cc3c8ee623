"""Three stacked causal decoders over triples: p(channel | past), p(position | channel), p(value | both).

Event i is a triple (channel, position, value), or the stop, which is the channel N_CHANNELS. An event's
logits depend on the events before it and on the parts of itself already chosen. Pairs that do not come
later in the total order, or that the subsampling has no cell for, have no probability, so that a sequence
always decodes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transframer.codec import N_CHANNELS, channel_plane, channel_zigzag
from transframer.models.attention import DecoderLayer, KeyValueCache
from transframer.models.draft import Draft, EventPrior
from transframer.models.presets import TransframerConfig
from transframer.models.segments import PackedEvents, Segments, picked
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
        packed_row: T, the episode of each event, where events come packed instead of b x l.
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
    packed_row: Tensor | None = None

    @property
    def row(self) -> Tensor:
        """The episode of each event: b x 1, or T."""
        if self.packed_row is not None:
            return self.packed_row
        return torch.arange(len(self.cells), device=self.cells.device)[:, None]

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
        """Embedding of positions, with the encoder's feature there."""
        return context.positions[position] + self.cell(picked(context.cells, context.row, position))

    def neighbourhood_vector(
        self, context: Context, grid: Tensor, channel: Tensor, position: Tensor
    ) -> Tensor:
        """Embedding of what is decoded around each event before its value is chosen.

        The coefficients of the event's cell and of the four beside it, as far as their pairs come earlier in
        the total order: so `grid` may hold later ones as well.

        Args:
            grid: b x N_CHANNELS x gy x gx, quantised.
        """
        gx, weight = context.columns, self.neighbours.weight
        cells = grid.flatten(2).transpose(1, 2).to(weight.dtype).asinh()  # b p channels
        if torch.is_autocast_enabled(grid.device.type):  # what the layer would make of them later, and larger
            cells = cells.to(torch.get_autocast_dtype(grid.device.type))
        cells = F.pad(cells, (0, 0, 0, 1))  # a cell more, of zeros: what lies outside
        column, outside = position % gx, cells.shape[1] - 1
        at = [
            position,
            torch.where(column > 0, position - 1, outside),
            torch.where(position >= gx, position - gx, outside),
            torch.where(column < gx - 1, position + 1, outside),
            (position + gx).clamp(max=outside),
        ]
        near = picked(cells, context.row[..., None], torch.stack(at, -1))  # ... 5 channels
        channels, beside = (torch.arange(n, device=grid.device) for n in (N_CHANNELS, 5))
        own_channel_too = (beside == 1) | (beside == 2)  # those cells come earlier in the order
        earlier = channels < (channel[..., None] + own_channel_too)[..., None]
        return self.neighbours((near * earlier).flatten(-2))

    # -- the three steps ----------------------------------------------------------------------------------

    def run_stack(
        self,
        index: int,
        x: Tensor,
        context: Context,
        caches: list[list[KeyValueCache]] | None = None,
        segments: Segments | None = None,
    ) -> Tensor:
        """One of the three stacks over events, b x l x width, or T x width with segments."""
        for depth, layer in enumerate(self.layers(index)):
            cache = None if caches is None else caches[index][depth]
            x = layer(x, context.memory[index][depth], context.memory_mask, cache, segments)
        return x

    def channel_logits(
        self, state: Tensor, context: Context, last_channel: Tensor, last_position: Tensor
    ) -> Tensor:
        """... x (N_CHANNELS + 1), -inf where no later pair exists.

        Args:
            last_channel, last_position: the pair before each event; (0, -1) before the first.
        """
        logits = _at_least_fp32(self.channel_head(self.norms[0](state)))
        if context.prior is not None:
            logits = logits + context.prior.channel_logits(context.row, last_channel, last_position)
        channels = torch.arange(N_CHANNELS + 1, device=state.device)
        more = (
            picked(context.last_legal, context.row, last_channel) > last_position
        )  # the same channel goes on
        legal = (channels > last_channel[..., None]) | (
            (channels == last_channel[..., None]) & more[..., None]
        )
        return logits.masked_fill(~legal, -torch.inf)

    def position_logits(
        self,
        state: Tensor,
        context: Context,
        channel: Tensor,
        last_channel: Tensor,
        last_position: Tensor,
        segments: Segments | None = None,
    ) -> Tensor:
        """... x p, -inf where the pair (channel, position) is not later; for the stop all are legal."""
        keys = context.pointer_keys.mT
        query = self.pointer_query(self.norms[1](state))
        if segments is None:
            logits = query @ keys
        else:
            logits = segments.map(lambda rows, query: query @ keys.index_select(0, rows), query)
        logits = _at_least_fp32(logits) / query.shape[-1] ** 0.5
        if context.prior is not None:
            logits = logits + context.prior.position_logits(context.row, channel)
        cells = torch.arange(logits.shape[-1], device=state.device)
        after = torch.where(channel == last_channel, last_position, -1)
        legal = picked(context.legal, context.row, channel) & (cells > after[..., None])
        return logits.masked_fill(~(legal | (channel == STOP)[..., None]), -torch.inf)

    def draft_at(self, context: Context, channel: Tensor, position: Tensor) -> Tensor | None:
        """Log-odds, centre and logarithm of the spread that are drafted for pairs; ... x 3."""
        draft = context.draft
        if draft is None:
            return None
        at = channel.clamp(max=N_CHANNELS - 1) * draft.coded.shape[2] + position
        parts = [draft.coded, draft.centre, draft.spread.log()]
        return torch.stack([picked(part.flatten(1), context.row, at) for part in parts], -1)

    def place_vector(
        self, context: Context, grid: Tensor, channel: Tensor, position: Tensor, drafted: Tensor | None
    ) -> Tensor:
        """What the value decoder is told of where an event is; arguments as of the parts."""
        vector = self.position_vector(context, position)
        vector = vector + self.neighbourhood_vector(context, grid, channel, position)
        return vector if drafted is None or self.drafted is None else vector + self.drafted(drafted)

    def value_logits(self, state: Tensor, channel: Tensor, drafted: Tensor | None, table: Tensor) -> Tensor:
        """... x (2 * max_value + 1), -inf for the value 0, which is never coded.

        Args:
            drafted: ... x 3, from `draft_at`.
        """
        return self.values(self.norms[2](state), channel.clamp(max=N_CHANNELS - 1), drafted, table)

    def event_vector(
        self, context: Context, channel: Tensor, position: Tensor, value: Tensor, table: Tensor
    ) -> Tensor:
        """Embedding of past events."""
        return (
            self.channel_vector(channel)
            + self.position_vector(context, position)
            + table[value + self.max_value]
        )

    def forward(self, context: Context, events: PackedEvents, grid: Tensor) -> dict[str, Tensor]:
        """Nats of each event's parts under teacher forcing, each T; zero for parts the stop lacks.

        Args:
            context: of the b episodes whose chunks the events are.
            grid: b x N_CHANNELS x gy x gx, all of a frame's coefficients; an event sees the earlier ones.
        """
        context, segments = replace(context, packed_row=events.row), events.segments
        channel, position, value = events.channel, events.position, events.value
        before = events.before_channel, events.before_position
        table = self.values.table()
        past = self.event_vector(context, channel, position, value, table).roll(1, 0)
        past = torch.where(events.first[:, None], self.start, past)
        state = self.run_stack(0, past, context, segments=segments)
        channel_nats = _nats(self.channel_logits(state, context, *before), channel)
        state = self.run_stack(1, state + self.channel_vector(channel), context, segments=segments)
        position_nats = _nats(self.position_logits(state, context, channel, *before, segments), position)
        drafted = self.draft_at(context, channel, position)
        state = state + self.place_vector(context, grid, channel, position, drafted)
        state = self.run_stack(2, state, context, segments=segments)
        value_nats = _nats(self.value_logits(state, channel, drafted, table), value + self.max_value)
        coded = channel != STOP
        return {"channel": channel_nats, "position": position_nats * coded, "value": value_nats * coded}


def _at_least_fp32(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _nats(logits: Tensor, index: Tensor) -> Tensor:
    return F.cross_entropy(logits, index, reduction="none")
