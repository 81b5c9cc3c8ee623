"""What a drawn video goes on from: images in time order, or the frames of a video file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from transframer.data.formats.images import load_image, resize_image
from transframer.data.formats.video import VIDEO_SUFFIXES, VideoFile
from transframer.errors import ConfigError, DataError

# So many frames of a file are decoded at once: a long clip at its own size would fill the memory.
_AT_ONCE = 16
# Rates such as 29.97 pass for 30: one frame in a thousand is then shown twice.
_RATE_TOLERANCE = 1.01


@dataclass(frozen=True)
class Prompt:
    """The frames to go on from.

    Attributes:
        frames: 0-255, in time order, brought to the square that the model sees, each side scaled separately.
        size: height and width of the files they are from.
    """

    frames: UInt8[Tensor, "n 3 s s"]
    size: tuple[int, int]


def read_prompt(
    context: Sequence[str], size_px: int, frames_per_s: float, prompt_frames: int | None = None
) -> Prompt:
    """Reads images, or a video file at a frame rate.

    Args:
        context: files: an image, several of one size in time order, or one video.
        size_px: height and width of the frames.
        frames_per_s: at which a video is sampled; images are taken to be that far apart.
        prompt_frames: so many, the first ones; all if None.

    Raises:
        DataError: a file that cannot be read, images of different sizes, no known frame rate.
        ConfigError: a video beside other files, of a lower rate than asked for, or PyAV missing; fewer frames
            than asked for.
    """
    videos = [name for name in context if Path(name).suffix.lower() in VIDEO_SUFFIXES]
    if not context or (videos and len(context) > 1):
        raise ConfigError(
            f"{videos[0]} beside other files" if videos else "no file",
            field="context",
            expected="an image, several images, or one video",
        )
    if videos:
        video = VideoFile(videos[0])
        numbers = frame_numbers(video, frames_per_s)
        _require_enough(prompt_frames, len(numbers), f"in {videos[0]} at {frames_per_s:g} frames a second")
        return _of_video(video, numbers[:prompt_frames], size_px)
    _require_enough(prompt_frames, len(context), "given")
    images = [load_image(name) for name in context[:prompt_frames]]
    sizes = {(image.shape[1], image.shape[2]) for image in images}
    if len(sizes) > 1:
        listed = ", ".join(f"{width} x {height}" for height, width in sorted(sizes))
        raise DataError(f"images of different sizes: {listed}", field="context", expected="one size")
    return Prompt(torch.stack([resize_image(image, (size_px, size_px)) for image in images]), sizes.pop())


def frame_numbers(video: VideoFile, frames_per_s: float) -> list[int]:
    """The frames of a video that are nearest in time to 0, 1, 2, ... periods of a frame rate.

    Raises:
        DataError: the video cannot be read, or does not say its frame rate.
        ConfigError: its own rate is lower, so that frames would come twice and seem to stand still.
    """
    own = video.facts.frames_per_s
    if own is None:
        raise DataError(
            "the frame rate is not known", file=video.path, next_step="give its frames as image files"
        )
    if frames_per_s > own * _RATE_TOLERANCE:
        raise ConfigError(
            f"{video.path} has {own:g} frames a second",
            field="fps",
            expected=f"at most {own:g}",
            next_step=f"add --fps {own:g}",
        )
    stride = own / frames_per_s
    numbers = (math.floor(place * stride + 0.5) for place in range(math.ceil(len(video) / stride) + 1))
    return [number for number in numbers if number < len(video)]


def _require_enough(prompt_frames: int | None, known: int, where: str) -> None:
    if prompt_frames is not None and prompt_frames > known:
        raise ConfigError(
            str(prompt_frames), field="prompt_frames", expected=f"at most the {known} frames {where}"
        )


def _of_video(video: VideoFile, numbers: Sequence[int], size_px: int) -> Prompt:
    parts, size = [], (0, 0)
    for start in range(0, len(numbers), _AT_ONCE):
        images = video.frames(numbers[start : start + _AT_ONCE])
        size = (images.shape[2], images.shape[3])
        parts += [resize_image(image, (size_px, size_px)) for image in images]
    return Prompt(torch.stack(parts), size)
