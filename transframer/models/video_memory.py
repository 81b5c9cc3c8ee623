"""What the spatial-temporal transformer keeps between the frames of a video."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from transframer.errors import ConfigError
from transframer.models.space_time import TimeCache
from transframer.models.video_batch import VideoBatch
from transframer.predictor import Memory


class VideoMemory(Memory):
    """Keys and values of the latest frames, and the codes' vectors of the frame that was drawn last.

    So each frame is read once, and as it was drawn: decoded and encoded again it would drift.

    Args:
        window: how many of the latest frames are seen.

    Attributes:
        frame: b x gy x gx x c, None before the first frame is drawn.
        time: b, of that frame, counted on from the first call.
    """

    def __init__(self, window: int) -> None:
        self.cache = TimeCache(window)
        self.frame: Float[Tensor, "b gy gx c"] | None = None
        self.time: Float[Tensor, " b"] | None = None

    def start(self, batch: VideoBatch, next_times: Float[Tensor, "b t"]) -> TimeCache:
        """The empty cache, for the first call.

        Raises:
            ConfigError: videos with different numbers of frames.
        """
        if int(batch.given.min()) != int(batch.given.max()):
            raise ConfigError(
                "videos with different numbers of frames", field="memory", expected="as many in each"
            )
        self.time = next_times[:, -1]
        return self.cache

    def next_frame(
        self, batch: VideoBatch
    ) -> tuple[Float[Tensor, "b 1 gy gx c"], Float[Tensor, "b 1"], Float[Tensor, "b 1"]]:
        """The frame drawn last as the only new one, its time and that of the next."""
        assert self.frame is not None
        assert self.time is not None
        latest = batch.times.gather(1, batch.given[:, None] - 1)[:, 0]
        asked = batch.times.gather(1, batch.given[:, None])[:, 0]
        before, self.time = self.time, self.time + (asked - latest)
        return self.frame[:, None], before[:, None], self.time[:, None]

    def state(self) -> dict[str, Tensor]:
        """See `Memory.state`."""
        if self.frame is None or self.time is None:
            return {}
        layers = {f"keys.{i}": k for i, k in self.cache.keys.items()}
        layers |= {f"values.{i}": v for i, v in self.cache.values.items()}
        return {"frame": self.frame, "time": self.time, **layers}

    def load(self, state: dict[str, Tensor]) -> None:
        """See `Memory.load`."""
        self.frame, self.time = state.get("frame"), state.get("time")
        self.cache.keys = {int(k[5:]): v for k, v in state.items() if k.startswith("keys.")}
        self.cache.values = {int(k[7:]): v for k, v in state.items() if k.startswith("values.")}
