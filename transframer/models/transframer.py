"""The Transframer (arXiv 2203.09494): multi-frame U-Net, three stacked decoders, chunks of triples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from transframer.codec import (
    N_CHANNELS,
    Tokens,
    dct_from_image,
    grid_from_image,
    grid_from_tokens,
    quantisation,
    tokens_from_grid,
)
from transframer.errors import DataError
from transframer.frames import Episode, Estimate, Frame
from transframer.models import scoring
from transframer.models.annotations import SPARE_NAMES, AxialPositions
from transframer.models.attention import DecoderLayer
from transframer.models.batch import Batch, collate
from transframer.models.chunks import Chunk, chunk_count, cut, draw_chunk
from transframer.models.decoder import Context, TripleDecoder
from transframer.models.draft import DraftHead
from transframer.models.hints import N_HINTS, hint_images
from transframer.models.legal import later_pairs, legal_cells
from transframer.models.presets import TransframerConfig
from transframer.models.pretrained import Pretrained, settings_of
from transframer.models.sketch import PixelSketch, sketch_loss
from transframer.models.unet import EncoderBlock, MultiFrameUNet, convolving
from transframer.predictor import FramePredictor, Loss, Memory, Samples


class Transframer(FramePredictor, Pretrained):
    """One generative model for every task: p(target frame | context frames, query annotation).

    Args:
        config: the settings, or their dictionary as `config.json` holds it; `tasks` and `kinds` name what
            the model embeds.
    """

    def __init__(self, config: TransframerConfig | dict) -> None:
        super().__init__()
        self.config = config = settings_of(TransframerConfig, config)
        self.encoder = MultiFrameUNet(config)
        self.decoder = TripleDecoder(config)
        width, n_tasks = config.encoder_widths[0], len(config.tasks) + SPARE_NAMES
        self.draft = DraftHead(width, n_tasks, N_HINTS + config.sketches) if config.draft else None
        self.sketch = PixelSketch(config.pixel_stem, width, n_tasks) if config.sketches else None
        self.cell_positions = AxialPositions(config.width)
        for module in (*self.encoder.modules(), *(self.sketch.modules() if self.sketch is not None else ())):
            if not hasattr(module, "lr_scale"):
                module.lr_scale = config.encoder_lr_scale  # type: ignore[assignment]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.decoder.start.device

    def blocks(self) -> list[nn.Module]:
        """Blocks of the encoder and layers of the decoders: as wholes both compile for many minutes."""
        return [module for module in self.modules() if isinstance(module, (EncoderBlock, DecoderLayer))]

    def task_tables(self) -> list[nn.Embedding]:
        """The tables with a row for each task."""
        draft = [self.draft.bias, self.draft.hint] if self.draft is not None else []
        sketch = [self.sketch.hint] if self.sketch is not None else []
        return [self.encoder.annotations.task, *draft, *sketch]

    def collate(self, episodes: Sequence[Episode]) -> Batch:
        """Episodes of one size, a multiple of 16, as a batch on the CPU."""
        return collate(episodes, self.config.tasks, self.config.kinds)

    # -- encoding -----------------------------------------------------------------------------------------

    def tokens(self, batch: Batch) -> Tokens:
        """The triples of the targets as the model codes them: values clipped to `max_value`.

        Raises:
            DataError: the batch has no targets.
        """
        if batch.target is None:
            raise DataError("episodes without target frames", expected="a target in every episode")
        grid = grid_from_image(batch.target, batch.codec, batch.reference)
        return tokens_from_grid(grid, self.config.max_value)

    @torch.no_grad()
    def dct_images(self, batch: Batch) -> dict[str, Tensor]:
        """DCT-images in amplitudes: of the context frames and the reference, with chroma in every cell, and
        of the hints (b x n x 192 x gy x gx) as the target is coded, so against its reference; and the hints
        in pixels (b x n x 3 x h x w), likewise."""
        every_cell = torch.zeros(len(batch.images), dtype=torch.bool)
        blank = ~batch.has_reference[:, None, None, None]
        context = dct_from_image(batch.images, every_cell)
        reference = dct_from_image(batch.reference, every_cell[:1].expand(len(batch)))
        images = {"context": context, "reference": reference.masked_fill(blank, 0.0)}
        if self.draft is not None:
            look, motion = hint_images(batch).unbind(1)
            images["hint_pixels"] = torch.stack([look - batch.level, motion - 128], 1)
            halved = batch.halves_chroma.repeat_interleave(N_HINTS)
            hints = dct_from_image(images["hint_pixels"].flatten(0, 1) + 128, halved)
            images["hints"] = hints.unflatten(0, (len(batch), N_HINTS))
        return images

    def encode(self, batch: Batch, dct: dict[str, Tensor], partial: Tensor, start_channel: Tensor) -> Context:
        """Runs the U-Net and prepares what the decoders need of it.

        Args:
            dct: from `dct_images`.
            partial: the target's grid as decoded so far, b x 192 x gy x gx, quantised.
            start_channel: b, the channel of the last event so far; 0 before the first.
        """
        quality = torch.tensor([settings.quality for settings in batch.codec], device=partial.device)
        step = quantisation(quality)[..., None, None]
        dct = {**dct, "partial": partial * step}
        pixels = dct.pop("hint_pixels", None)
        x, finer = self.encoder(batch, dct, start_channel)
        cells, sketch, hints = x[-len(batch) :], None, dct.get("hints")
        grid = (partial.shape[2], partial.shape[3])
        if self.sketch is not None and hints is not None and pixels is not None:
            with convolving(x.device):
                sketch = self.sketch(cells.mT.unflatten(2, grid), finer, pixels, batch.task)
                sketched = dct_from_image(sketch.detach().float() + 128, batch.halves_chroma)
                amplitudes = (sketched * self.encoder.dct_scale).to(cells.dtype)
                cells = cells + self.sketch.to_cells(amplitudes).flatten(2).mT
            hints = torch.cat([hints, sketched[:, None]], 1)
        memory, memory_mask = cells, None
        if self.config.memory == "all":
            m = x.shape[1]
            memory = torch.cat([x[: -len(batch)], cells, x.new_zeros(1, m, x.shape[2])])
            memory = memory.index_select(0, batch.slots.flatten()).view(len(batch), -1, x.shape[2])
            memory_mask = (batch.slots < len(x)).repeat_interleave(m, 1)
        keys_values = [
            [layer.cross_attention.project(memory) for layer in self.decoder.layers(i)] for i in range(3)
        ]
        positions = self.cell_positions(grid, x.device)
        legal, last_legal = legal_cells(batch, grid)
        pointer_keys = self.decoder.pointer_key(cells) + positions
        context = Context(
            cells, keys_values, memory_mask, positions, pointer_keys, legal, last_legal, grid[1]
        )
        if self.draft is None or hints is None:
            return context
        hints = (hints / step[:, None]).flatten(3)
        draft = self.draft(cells, batch.task, hints, legal[:, :N_CHANNELS])
        return replace(context.starting_from(draft), sketch=sketch)

    def encode_start(self, batch: Batch) -> Context:
        """Encodes with nothing of the target decoded yet."""
        blank = torch.zeros(len(batch), N_CHANNELS, *batch.grid_size, dtype=torch.int16, device=self.device)
        start = torch.zeros(len(batch), dtype=torch.long, device=self.device)
        return self.encode(batch, self.dct_images(batch), blank, start)

    def encode_chunk(self, batch: Batch, dct: dict[str, Tensor], tokens: Tokens, chunk: Chunk) -> Context:
        """Encodes with the triples before a chunk as the partial target."""
        before = Tokens(
            tokens.channel, tokens.position, tokens.value, torch.minimum(chunk.start, tokens.length)
        )
        partial = grid_from_tokens(before, batch.grid_size)
        return self.encode(batch, dct, partial, chunk.last_channel)

    # -- scoring ------------------------------------------------------------------------------------------

    def score_chunk(
        self, context: Context, chunk: Chunk, grid: Int[Tensor, "b 192 gy gx"]
    ) -> dict[str, Float[Tensor, " b"]]:
        """Nats of each chunk's scored events, by head.

        Args:
            grid: the targets' coefficients, clipped as the tokens are.
        """
        events, nothing = chunk.packed(), torch.zeros(len(chunk.start), device=chunk.start.device)
        nats = self.decoder(context, events, grid)
        return {
            name: nothing.to(part.dtype).index_add(0, events.row, part * events.scored)
            for name, part in nats.items()
        }

    def loss(self, batch: Batch, generator: torch.Generator) -> Loss:
        """Nats of one chunk of each episode, drawn with a bias to the early ones."""
        tokens = self.tokens(batch)
        events, overlap = self.config.chunk_events, self.config.chunk_overlap
        index = draw_chunk(chunk_count(tokens.length, events, overlap), generator)
        chunk = cut(tokens, index, events, overlap, self.config.max_value)
        context = self.encode_chunk(batch, self.dct_images(batch), tokens, chunk)
        grid = grid_from_tokens(tokens, batch.grid_size)
        parts = self.score_chunk(context, chunk, grid)
        nats = torch.stack(list(parts.values())).sum(0)
        scored = chunk.scored.sum(1)
        total = (nats / scored**self.config.length_power).mean()
        if context.draft is not None:
            later = later_pairs(chunk.last_channel, chunk.last_position, batch.grid_size)
            draft = context.draft.loss(grid, later)
            left = (tokens.length - chunk.start).clamp(min=0) + 1
            total = total + self.config.draft_weight * (draft / left**self.config.length_power).mean()
        if context.sketch is not None and batch.target is not None:
            error = sketch_loss(context.sketch, batch.target.float() - batch.level)
            total = total + self.config.sketch_weight * error.mean()
        return Loss(total, nats.detach(), scored, {name: part.detach() for name, part in parts.items()})

    def log_prob(self, episodes: Sequence[Episode]) -> Float[Tensor, " b"]:
        """Nats of each episode's whole target frame, chunk by chunk as sampling would draw it.

        Exact for the frame as coded: where a coefficient exceeds `max_value`, for the clipped one.
        """
        with self.evaluating():
            return scoring.log_prob(self, episodes)

    def posteriors(
        self, episodes: Sequence[Episode], candidates: Sequence[Sequence[Frame]]
    ) -> list[Float[Tensor, " k"]]:
        """As of any predictor; where all candidates fit one chunk, the episode is encoded once for them."""
        with self.evaluating():
            return scoring.posteriors(self, episodes, candidates)

    def sample(
        self,
        episodes: Sequence[Episode],
        *,
        samples_per_query: int = 1,
        temperature: float = 1.0,
        top_p: float = 1.0,
        estimate: Estimate = "mode",
        generator: torch.Generator | None = None,
        memory: Memory | None = None,
    ) -> Samples:
        """Draws frames chunk by chunk, nothing kept in a memory; see `transframer.sampling.Sampler`.

        With a sketch, the estimate "mean" is the sketch, in one pass and without any triples.
        """
        from transframer.sampling import Sampler, sketched

        if temperature == 0 and estimate == "mean" and self.sketch is not None:
            return sketched(self, [episode for episode in episodes for _ in range(samples_per_query)])
        sampler = Sampler(self, temperature=temperature, top_p=top_p, estimate=estimate, generator=generator)
        return sampler.sample(episodes, samples_per_query)
