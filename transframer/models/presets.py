"""Settings of the Transframer and its presets; imports no torch, so that the command line can list them."""

from __future__ import annotations

from dataclasses import dataclass

from transframer.errors import ConfigError


@dataclass(frozen=True)
class TransframerConfig:
    """Every choice the paper (arXiv 2203.09494) makes or leaves silent.

    Attributes:
        tasks: names of the tasks that have an embedding.
        kinds: names of the annotation kinds that have an embedding.
        encoder_widths: channels of the U-Net per level; level 0 has one cell per 8 x 8 pixels.
        encoder_blocks: blocks per level, on the way down; level 0 gets as many again on the way up.
        pixel_stem: channels at 1/2 and 1/4 of the resolution of a convolutional stem on the pixels,
            beside the DCT-image; () for the DCT-image alone.
        width: channels of the decoders.
        channel_layers, position_layers, value_layers: depth of the three stacked decoders.
        heads: attention heads; the decoders share one key/value head (multi-query).
        mlp_ratio: hidden width of an MLP over its width.
        memory: what the decoders cross-attend to, "target" (the target slot's features) or "all" frames.
        chunk_events: events (triples, and the stop) in a chunk.
        chunk_overlap: events at the start of a later chunk that are given, not predicted.
        max_value: coefficients are clipped to this magnitude, a categorical of 2 * max_value classes.
        gate_init: initial value of the residual gates (0 is ReZero, as in the paper).
        dropout: on the residual branches.
        length_power: an episode's nats are divided by events ** length_power in the training loss; 0 sums
            (long frames rule), 1 averages (every episode weighs the same).
        draft: start from a draft of all coefficients, and give the model hints of the target (see
            `transframer.models.draft`); False is the paper's model.
        draft_weight: weight of the draft's own nats in the training loss, divided as the events' are.
        sketch: predict the target's pixels too, and give the draft and the decoders their coefficients (see
            `transframer.models.sketch`); of no effect without a draft or a stem on the pixels.
        sketch_weight: weight of the sketch's error in the training loss.
        encoder_lr_scale: learning rate of the U-Net and the sketch relative to that of the decoders, which
            a few hundred steps have to wake.
    """

    tasks: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    encoder_widths: tuple[int, ...] = (128, 192)
    encoder_blocks: tuple[int, ...] = (1, 1)
    pixel_stem: tuple[int, ...] = (32, 64)
    width: int = 128
    channel_layers: int = 1
    position_layers: int = 1
    value_layers: int = 2
    heads: int = 4
    mlp_ratio: float = 3.0
    memory: str = "target"
    chunk_events: int = 96
    chunk_overlap: int = 12
    max_value: int = 255
    gate_init: float = 0.5
    dropout: float = 0.0
    length_power: float = 1.0
    draft: bool = True
    draft_weight: float = 0.3
    sketch: bool = True
    sketch_weight: float = 4.0
    encoder_lr_scale: float = 0.25

    def __post_init__(self) -> None:
        if not 0 < self.chunk_overlap < self.chunk_events:
            raise ConfigError(
                f"chunks of {self.chunk_events} events that overlap by {self.chunk_overlap}",
                field="chunk_overlap",
                expected="1 to chunk_events - 1",
            )
        if self.memory not in ("target", "all"):
            raise ConfigError(f"memory {self.memory!r}", field="memory", expected="target or all")
        if not self.encoder_widths or len(self.encoder_widths) != len(self.encoder_blocks):
            raise ConfigError("one number of blocks per level is needed", field="encoder_blocks")
        if len(self.pixel_stem) not in (0, 2):
            stem = f"{len(self.pixel_stem)} numbers of channels"
            raise ConfigError(stem, field="pixel_stem", expected="at half and at a quarter of the resolution")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"{self.dropout}", field="dropout", expected="0 to less than 1")
        if self.heads < 1:
            raise ConfigError(f"{self.heads}", field="heads", expected="at least 1")
        for width in (self.width, *self.encoder_widths):
            if width % self.heads:
                raise ConfigError(f"{width} channels do not divide into {self.heads} heads", field="heads")

    @property
    def sketches(self) -> bool:
        """Whether there is a sketch."""
        return self.sketch and self.draft and bool(self.pixel_stem)


# Peak learning rates. That of tiny is tuned (docs/log.md), that of paper is the parent's (arXiv 2103.03841);
# those of small and base, and how much slower their encoders learn, are guesses.
LEARNING_RATES = {"tiny": 4e-3, "small": 1e-3, "base": 5e-4, "paper": 5e-4}

PRESETS: dict[str, TransframerConfig] = {
    "tiny": TransframerConfig(),
    "small": TransframerConfig(
        encoder_widths=(320, 448),
        encoder_blocks=(2, 2),
        pixel_stem=(48, 96),
        width=384,
        channel_layers=2,
        position_layers=2,
        value_layers=3,
        heads=8,
        mlp_ratio=4.0,
        chunk_events=256,
        chunk_overlap=32,
        memory="all",
        encoder_lr_scale=0.5,
    ),
    "base": TransframerConfig(
        encoder_widths=(448, 640),
        encoder_blocks=(3, 4),
        pixel_stem=(64, 128),
        width=640,
        channel_layers=2,
        position_layers=2,
        value_layers=4,
        heads=8,
        mlp_ratio=4.0,
        memory="all",
        chunk_events=512,
        chunk_overlap=64,
        dropout=0.1,
        encoder_lr_scale=0.5,
    ),
    "paper": TransframerConfig(
        encoder_widths=(640, 832, 1088),
        encoder_blocks=(3, 4, 6),
        pixel_stem=(),
        width=1024,
        channel_layers=4,
        position_layers=4,
        value_layers=8,
        heads=16,
        mlp_ratio=4.0,
        memory="all",
        chunk_events=896,
        chunk_overlap=128,
        gate_init=0.0,
        dropout=0.1,
        length_power=0.0,
        draft=False,
        sketch=False,
        encoder_lr_scale=1.0,
    ),
}
