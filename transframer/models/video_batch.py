"""Episodes of frames in time as a batch of clips: context frames by their times, then the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from transframer.errors import ConfigError, DataError
from transframer.frames import Episode


@dataclass
class VideoBatch:
    """b clips of at most m frames; places without a frame hold zeros.

    Attributes:
        times: of the frames and, after them, of the frame asked for.
        given: how many context frames each clip has.
        has_target: whether the frame asked for is there.
        names: each episode's task name.
    """

    images: UInt8[Tensor, "b m 3 h w"]
    times: Float[Tensor, "b m"]
    given: Int[Tensor, " b"]
    has_target: bool
    names: list[str]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def present(self) -> Bool[Tensor, "b m"]:
        """Which places hold a frame."""
        frames = self.given + self.has_target
        return torch.arange(self.images.shape[1], device=self.given.device) < frames[:, None]

    def to(self, device: torch.device | str) -> VideoBatch:
        """The same batch on another device."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        moved = {k: v.to(device, non_blocking=True) for k, v in values.items() if isinstance(v, Tensor)}
        return VideoBatch(**{**values, **moved})


def refusal(episode: Episode) -> str | None:
    """Why an episode is no video; None where it is one."""
    annotations = [frame.annotation for frame in episode.context] + [episode.query]
    kinds = {annotation.kind for annotation in annotations}
    if kinds != {"rgb"}:
        return f"frames of kind {', '.join(sorted(kinds - {'rgb'}))}"
    if any(annotation.time is None for annotation in annotations):
        return "frames without a time"
    if any(annotation.camera is not None for annotation in annotations):
        return "frames with cameras"
    return None


def collate_videos(episodes: Sequence[Episode], cell_px: int) -> VideoBatch:
    """Episodes of one size as a batch on the CPU.

    Raises:
        ConfigError: an episode that is no video, or a size that is not a multiple of `cell_px`.
        DataError: frames of several sizes.
    """
    for episode in episodes:
        if reason := refusal(episode):
            raise ConfigError(
                f"{episode.task}: {reason}",
                field="tasks",
                expected="tasks whose frames are all RGB at known times, for a spatial-temporal model",
            )
    sizes = {episode.size for episode in episodes}
    if len(sizes) != 1:
        raise DataError(f"episodes of sizes {sorted(sizes)} in one batch", expected="one size")
    height, width = sizes.pop()
    if height % cell_px or width % cell_px:
        raise ConfigError(f"frames of {height} x {width} pixels", expected=f"multiples of {cell_px}")
    has_target = all(episode.target is not None for episode in episodes)
    given = torch.tensor([len(episode.context) for episode in episodes])
    m = int(given.max()) + 1
    images = torch.zeros(len(episodes), m, 3, height, width, dtype=torch.uint8)
    times = torch.zeros(len(episodes), m)
    for row, episode in enumerate(episodes):
        frames = sorted(episode.context, key=lambda frame: frame.annotation.time or 0.0)
        known = [frame.annotation.time or 0.0 for frame in frames]
        if has_target and episode.target is not None:
            frames.append(episode.target)
        images[row, : len(frames)] = torch.stack([frame.image for frame in frames])
        times[row, : len(known) + 1] = torch.tensor([*known, episode.query.time or 0.0])
    return VideoBatch(images, times, given, has_target, [episode.task for episode in episodes])
