"""The settings of `transframer video`; imports nothing heavy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from transframer.errors import ConfigError
from transframer.sampling_settings import temperature_in_force
from transframer.setting_checks import check_seed, check_size_px
from transframer.weights import GENERALIST

DEFAULT_SECONDS = 3.0


@dataclass(frozen=True)
class VideoConfig:
    """What a video goes on from, how long it gets, and how its frames are drawn.

    Attributes:
        context: what the video goes on from: an image, several images of one size in time order, or one
            video file (mp4, avi, webm, mov, mkv, gif).
        out: the MP4 to write, replaced if it exists; of several variants NAME-1.mp4, NAME-2.mp4 and so on.
            Frames spread over the time are shown in NAME.png.
        run: a run folder, a folder of weights, or the name of weights that come with the package.
        seconds: how much is drawn, 3 if neither this nor frames is given.
        frames: how many frames are drawn, instead of seconds.
        fps: frames per second of the MP4; a video file given as context is sampled at this rate.
        prompt_frames: use so many frames of the context, the first ones; all if not given.
        variants: videos drawn from the same context, side by side.
        seed: of sampling.
        temperature: of sampling, 0 gives the task's point estimate; by default 0 for one variant, else 1.
        top_p: nucleus of each categorical distribution that is sampled from, in (0, 1].
        window: how many of the latest frames the model sees; the task's own number if not given.
        task: the registered name of a task that predicts the next frame.
        size_px: height and width of the frames the model sees, a multiple of 16; by default the run's own.
        scale: the longer side of the MP4, in multiples of size_px.
        no_context: leave the frames given out of the MP4.
        restart: draw anew where a stopped command would be continued.
        device: "auto", "cpu", "cuda", "cuda:1", ...
    """

    context: tuple[str, ...]
    out: str
    run: str = GENERALIST
    seconds: float | None = None
    frames: int | None = None
    fps: float = 10.0
    prompt_frames: int | None = None
    variants: int = 1
    seed: int = 0
    temperature: float | None = None
    top_p: float = 1.0
    window: int | None = None
    task: str = "video_prediction"
    size_px: int | None = None
    scale: int = 4
    no_context: bool = False
    restart: bool = False
    device: str = "auto"

    def __post_init__(self) -> None:
        for name in ("seconds", "fps"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(str(value), field=name, expected="above 0")
        for name in ("frames", "prompt_frames", "variants", "window", "scale"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(str(value), field=name, expected="at least 1")
        if self.seconds is not None and self.frames is not None:
            raise ConfigError("given beside seconds", field="frames", expected="one of the two")
        if self.drawn_frames < 1:
            seconds = self.seconds or DEFAULT_SECONDS
            raise ConfigError(f"{seconds:g} s at {self.fps:g} frames a second are no frame", field="seconds")
        check_size_px(self.size_px)
        check_seed(self.seed)
        if Path(self.out).suffix.lower() != ".mp4":
            raise ConfigError(self.out, field="out", expected="a name that ends in .mp4")
        temperature_in_force(self.temperature, self.top_p, 1)
        if self.temperature == 0 and self.variants > 1:
            raise ConfigError(
                f"{self.variants} variants at temperature 0 are all the same video",
                field="temperature",
                expected="above 0",
                next_step="leave --temperature out, or leave --variants out",
            )

    @property
    def temperature_used(self) -> float:
        """As given, else 0 for one video and 1 for several."""
        return temperature_in_force(self.temperature, self.top_p, self.variants)

    @property
    def drawn_frames(self) -> int:
        """How many frames of each video are drawn."""
        if self.frames is not None:
            return self.frames
        return round((self.seconds or DEFAULT_SECONDS) * self.fps)

    @property
    def videos(self) -> list[Path]:
        """The MP4 of each variant."""
        out = Path(self.out)
        if self.variants == 1:
            return [out]
        return [out.with_stem(f"{out.stem}-{place + 1}") for place in range(self.variants)]

    @property
    def sheet(self) -> Path:
        """The picture of frames of all variants."""
        return Path(self.out).with_suffix(".png")

    @property
    def partial(self) -> Path:
        """The folder that holds what is drawn until the MP4 is written."""
        return Path(f"{self.out}.partial")
