"""The settings of the benchmark of speed; imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from transframer.errors import ConfigError, unknown_name
from transframer.models.presets import PRESETS

PARTS = ("sampling", "training", "codec", "world", "memory")
EQUAL = "8m"  # the size at which the peers stand beside ours


@dataclass(frozen=True)
class SpeedConfig:
    """What is timed, beside whom, and how often.

    Attributes:
        parts: what to measure, out of sampling, training, codec, world and memory.
        presets: sizes of the model; 8m is one of eight million parameters.
        peer_presets: those of the sizes at which peers of equal size are timed too.
        batches: samples that are drawn at once.
        events: events that are drawn for a frame.
        training_batch: frames of a training step of ours; memory is always that of 16.
        precision: of that step; bf16 is mixed precision, as in `train`.
        sizes_px: sides of the images that are coded.
        rounds: how often all that is compared takes turns.
        threads: of PyTorch; with one, processor time counts, with more, the wall clock.
        peers: time the peers that are installed; the environment of `make bench-peers` has them all.
        compiled: also time those peers that take minutes to compile.
        out: folder of the results.
        device: "auto", "cpu", "cuda", "cuda:1", ...
    """

    parts: list[str] = field(default_factory=lambda: list(PARTS))
    presets: list[str] = field(default_factory=lambda: [EQUAL, "tiny", "small", "base"])
    peer_presets: list[str] = field(default_factory=lambda: [EQUAL])
    batches: list[int] = field(default_factory=lambda: [1, 8, 32])
    events: int = 256
    training_batch: int = 16
    precision: Literal["fp32", "bf16"] = "fp32"
    sizes_px: list[int] = field(default_factory=lambda: [64, 256, 1024])
    rounds: int = 5
    threads: int = 1
    peers: bool = True
    compiled: bool = True
    out: Path = Path("runs/speed")
    device: str = "auto"

    def __post_init__(self) -> None:
        known = (EQUAL, *PRESETS)
        for name, options, what in (
            ("parts", PARTS, "part"),
            ("presets", known, "preset"),
            ("peer_presets", known, "preset"),
        ):
            for value in getattr(self, name):
                if value not in options:
                    raise unknown_name(what, value, options)
        for name in ("parts", "presets", "batches", "sizes_px"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ConfigError(str(values), field=name, expected="at least one, and each once")
        for name in ("batches", "sizes_px"):
            if min(getattr(self, name)) < 1:
                raise ConfigError(str(min(getattr(self, name))), field=name, expected="at least 1")
        for name in ("rounds", "threads", "training_batch"):
            if getattr(self, name) < 1:
                raise ConfigError(str(getattr(self, name)), field=name, expected="at least 1")
        if self.events < 64 or self.events % 64:
            raise ConfigError(str(self.events), field="events", expected="a multiple of 64: whole channels")
        if any(size % 16 for size in self.sizes_px):
            raise ConfigError(str(self.sizes_px), field="sizes_px", expected="multiples of 16")
