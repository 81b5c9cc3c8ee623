"""The multi-frame U-Net over DCT-images: convolutions per frame, attention across frames."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import pairwise

import torch
from timm.models.nfnet import NormFreeBlock
from torch import Tensor, nn

from transframer.codec import N_CHANNELS, channel_zigzag
from transframer.models.annotations import AnnotationEmbedding, AxialPositions
from transframer.models.attention import FrameAttention, Mlp, cpu_multiplies_bf16
from transframer.models.batch import Batch
from transframer.models.hints import N_HINTS
from transframer.models.presets import TransframerConfig
from transframer.models.stem import PixelStem, norm_free_conv

_norm_free_block = partial(
    NormFreeBlock, bottle_ratio=0.5, reg=False, extra_conv=True, act_layer=nn.SiLU, conv_layer=norm_free_conv
)


def convolving(device: torch.device) -> AbstractContextManager:
    """Convolutions stay in fp32 under autocast where the CPU would loop over bf16: 0.3 against 43 GFLOP/s."""
    if device.type != "cpu" or not torch.is_autocast_enabled("cpu") or cpu_multiplies_bf16():
        return nullcontext()
    return torch.autocast("cpu", enabled=False)


class EncoderBlock(nn.Module):
    """Normaliser-free convolutions per frame, then self-attention across frames, then an MLP."""

    def __init__(self, width: int, config: TransframerConfig) -> None:
        super().__init__()
        self.convolution = _norm_free_block(width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.attention = FrameAttention(width, config.heads)
        self.mlp = Mlp(width, config.mlp_ratio)
        self.gates = nn.Parameter(torch.full((2,), config.gate_init))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, groups: Sequence[Tensor], targets: int = 0) -> Tensor:
        """Mixes frames x, f x c x gy x gx; `groups` says which belong to one episode.

        Args:
            targets: where not 0, only so many frames are wanted: the last, one of each episode.
        """
        with convolving(x.device):
            x = self.convolution(x)
        cells = x.flatten(2).transpose(1, 2)  # f m c
        gates = self.gates.unbind()
        mixed = self.dropout(self.attention(self.norms[0](cells), groups, last_only=targets > 0))
        cells = cells[-targets:] + gates[0] * mixed
        cells = cells + gates[1] * self.dropout(self.mlp(self.norms[1](cells)))
        return cells.mT.unflatten(2, x.shape[2:])  # channels last, as the convolutions then give it


class MultiFrameUNet(nn.Module):
    """Encodes context frames, annotations and the partial target into features per 8 x 8 block."""

    dct_scale: Tensor

    def __init__(self, config: TransframerConfig) -> None:
        super().__init__()
        widths = config.encoder_widths
        width = widths[0]
        self.annotations = AnnotationEmbedding(width, len(config.kinds), len(config.tasks))
        self.positions = AxialPositions(width)
        self.codec = nn.Linear(3, width)
        self.progress = nn.Embedding(N_CHANNELS + 1, width)
        self.context_dct = nn.Conv2d(N_CHANNELS, width, 1)
        self.target_dct = nn.Conv2d((2 + N_HINTS * config.draft) * N_CHANNELS, width, 1)
        self.stem = PixelStem(config.pixel_stem, width, config.sketches) if config.pixel_stem else None
        # Typical amplitude of a coefficient of natural images falls with its frequency.
        self.register_buffer("dct_scale", _dct_scale()[:, None, None], persistent=False)
        self.down = nn.ModuleList(
            nn.ModuleList(EncoderBlock(w, config) for _ in range(n))
            for w, n in zip(widths, config.encoder_blocks, strict=True)
        )
        self.to_coarser = nn.ModuleList(
            _norm_free_block(fine, coarse, stride=2) for fine, coarse in pairwise(widths)
        )
        self.up = nn.ModuleList(
            nn.ModuleList(EncoderBlock(w, config) for _ in range(n))
            for w, n in zip(widths[:-1], config.encoder_blocks[:-1], strict=True)
        )
        self.to_finer = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for fine, coarse in pairwise(widths))
        self.norm = nn.LayerNorm(width)
        self.targets_only = config.memory == "target"

    def forward(
        self, batch: Batch, dct: dict[str, Tensor], start_channel: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Features of the target slots, and of the context frames where the decoders read them too.

        Args:
            dct: DCT-images in codec channel order: "context" (f), "partial" (the target as decoded
                so far) and "reference" (b each), 192 x gy x gx, "hints" (b x n); unquantised amplitudes.
            start_channel: per episode, the channel at which the next chunk starts.

        Returns:
            (f + b) x gy*gx x width, context frames first, where the memory is "all", else b x gy*gx x width;
            and the target slots' features at a quarter of the resolution and at half of it, b x c x h x w
            each, none in a model without a sketch.
        """
        with convolving(start_channel.device):
            x, finer = self._inputs(batch, dct, start_channel)
        grid = (x.shape[2], x.shape[3])
        x = x + self.positions(grid, x.device).T.view(1, -1, *grid)
        x = x.contiguous(memory_format=torch.channels_last)
        # The last block need not make what no decoder reads.
        last = list((self.up or self.down)[0].children())[-1:]
        wanted = dict.fromkeys(last, len(batch)) if self.targets_only else {}
        skips = []
        for level, blocks in enumerate(self.down):
            if level:
                skips.append(x)
                with convolving(x.device):
                    x = self.to_coarser[level - 1](x)
            for block in blocks.children():
                x = block(x, batch.groups, wanted.get(block, 0))
        for level in reversed(range(len(self.up))):
            skip = skips.pop()
            with convolving(x.device):
                x = self.to_finer[level](x)
            x = nn.functional.interpolate(x, size=skip.shape[2:], mode="nearest") + skip
            for block in self.up[level].children():
                x = block(x, batch.groups, wanted.get(block, 0))
        return self.norm(x.flatten(2).transpose(1, 2)), finer

    def _inputs(
        self, batch: Batch, dct: dict[str, Tensor], start_channel: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """What the levels start from, (f + b) x width x gy x gx, and the stem's finer features."""
        context = self.annotations.vector(batch.context, batch.task[batch.episode])
        step = torch.tensor(
            [[s.quality / 50 - 1, s.subsampling == "4:2:0", s.reference is not None] for s in batch.codec],
            dtype=context.dtype,
            device=context.device,
        )
        query = (
            self.annotations.vector(batch.query, batch.task) + self.codec(step) + self.progress(start_channel)
        )
        dct = {name: (image * self.dct_scale).to(context.dtype) for name, image in dct.items()}
        hints = [dct["hints"].flatten(1, 2)] if "hints" in dct else []
        target_dct = torch.cat([dct["partial"], dct["reference"], *hints], 1)
        maps = torch.cat(
            [
                self.context_dct(dct["context"]) + self.annotations.map(batch.context),
                self.target_dct(target_dct) + self.annotations.map(batch.query),
            ]
        )
        x = maps + torch.cat([context, query])[..., None, None]
        if self.stem is None:
            return x, ()
        cells, finer = self.stem(batch, context)
        return x + cells, finer


def _dct_scale() -> Tensor:
    frequency = channel_zigzag.float().sqrt() * 1.4  # zigzag index k lies on diagonal ~ sqrt(2 k)
    return (1 + frequency) ** 1.5 / 100
